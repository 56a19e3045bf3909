"""Buckets (`gs://`, `s3://`) through fsspec, with the user's own configuration.

s3fs asks for each piece of a file under the ETag of the listing. gcsfs asks for it under
the name alone, so that of an object that is replaced meanwhile pieces of both would come:
the whole is held to the sum that the listing has.
"""

import base64
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from ban_jax.remote import address, errors, source, web

# What goes wrong is told of once, and by what is raised: without a handler of somebody's
# each attempt would be printed with its traceback.
for _name in ("fsspec", "gcsfs"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


_GRPC = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
"""gcsfs's variable: whether it asks over gRPC; zonal buckets are read by that alone."""


class _Body:
    """The bytes of an open file of fsspec's.

    Args:
      file: open.
      about: what the listing says of it.
    """

    def __init__(self, file: Any, about: Any):
        self._file, self.expected = file, about.get("size")
        self._kind, self._promised, self._sum = _sum(about)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with _translated():
                piece = self._file.read(web.PIECE)
            if not piece:
                break
            if self._sum is not None:
                self._sum.update(piece)
            yield piece
        came = b"" if self._sum is None else self._sum.digest()
        if base64.b64encode(came).decode() != self._promised:
            raise errors.FetchError(
                f"its {self._kind} is not the one that the bucket lists: it was changed "
                "since, or did not come as it is"
            )


def _sum(about: Any) -> tuple[str, str, Any]:
    """Name, Base64 and computer of the sum that Google lists; empty and None without one.

    Objects that were composed of others have no MD5.
    """
    if promised := about.get("md5Hash"):
        return "MD5", promised, hashlib.md5(usedforsecurity=False)
    if promised := about.get("crc32c"):
        with contextlib.suppress(ImportError):  # gcsfs brings it since 2025
            import google_crc32c

            return "CRC32C", promised, google_crc32c.Checksum()
    return "", "", None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what botocore and others raise is no OSError
        raise errors.FetchError(
            f"the bucket does not give it: {_said(error)}"
        ) from None


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def folder(place: address.Address) -> source.Source:
    """The files below an address, or the one that it names.

    Raises:
      FetchError: without the packages for it, and whatever the bucket answers.
    """
    try:
        files = _opened(place.scheme)
    except ImportError as error:
        raise errors.FetchError(
            f"{place.shown}: fsspec cannot open it ({error}): "
            "install this package with its extra `remote`"
        ) from error
    except Exception as error:
        raise _told(place, error) from None
    root = str(files._strip_protocol(place.name)).rstrip("/")
    try:
        found = files.find(place.name, detail=True)
    except Exception as error:  # what botocore and others raise is no OSError
        if not (found := _alone(files, root)):
            raise _told(place, error) from None
    # Consoles make an empty object "folder/" for a folder: it is none of the files.
    found = {
        path: about
        for path, about in found.items()
        if about.get("size") != 0 or not path.endswith("/")
    }
    listed = []
    for path, about in sorted(found.items())[: source.MOST_FILES + 1]:
        single = path.rstrip("/") == root
        name = path.rpartition("/")[2] if single else path.removeprefix(f"{root}/")
        listed.append(_file(files, path, name, about))
        if single and len(found) == 1:
            return source.Source(place.shown, place.shown, listed, single=True)
    if not listed:
        raise errors.FetchError(
            f"{place.shown}: no file there, or none that you may list"
        )
    return source.Source(place.shown, place.shown, listed)


def _opened(scheme: str) -> Any:
    """fsspec's client of such a store.

    Of the two that gcsfs has, the one that asks over HTTPS alone, unless the user names the
    other: that asks over gRPC for each file which kind its bucket is, and waits for minutes
    where gRPC is not let through.
    """
    import fsspec

    if scheme == "gs" and _GRPC not in os.environ:
        from gcsfs import core

        return core.GCSFileSystem()
    return fsspec.filesystem(scheme)


def _alone(files: Any, path: str) -> dict[str, Any]:
    """The object of this name, for who may read it and may not list its bucket."""
    try:
        about = files.info(path)
    except Exception:  # the first error is the one that is told of
        return {}
    return {path: about} if about.get("type") == "file" else {}


def _file(files: Any, path: str, name: str, about: Any) -> source.File:
    # Whatever the store says of the content; a bucket without either is fetched anew.
    tags = [
        str(about.get(one, "")) for one in ("ETag", "etag", "md5Hash", "generation")
    ]
    version = "-".join(filter(None, tags))

    @contextlib.contextmanager
    def opened() -> Iterator[_Body]:
        if packed := about.get("contentEncoding"):
            raise errors.FetchError(
                f"the bucket keeps it packed ({str(packed)[:40]!r}); expected it as it is"
            )
        with _translated():
            file = files.open(path, "rb")
        with contextlib.closing(file):
            yield _Body(file, about)

    return source.File(name, about.get("size"), version, None, opened)


def _told(place: address.Address, error: Exception) -> errors.FetchError:
    return errors.FetchError(f"{place.shown}: it cannot be listed: {_said(error)}")
