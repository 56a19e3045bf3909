"""Buckets (`gs://`, `s3://`) through fsspec, with the user's own configuration."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ban_jax.remote import address, errors, source, web


class _Body:
    """The bytes of an open file of fsspec's."""

    def __init__(self, file: Any, expected: int | None):
        self._file, self.expected = file, expected

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with _translated():
                piece = self._file.read(web.PIECE)
            if not piece:
                return
            yield piece


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what botocore and others raise is no OSError
        told = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise errors.FetchError(f"the bucket does not give it: {told}") from None


def folder(place: address.Address) -> source.Source:
    """The files below an address, or the one that it names.

    Raises:
      FetchError: without the packages for it, and whatever the bucket answers.
    """
    try:
        import fsspec

        files = fsspec.filesystem(place.scheme)
    except ImportError as error:
        raise errors.FetchError(
            f"{place.shown}: fsspec cannot open it ({error}): "
            "pip install 'ban_jax[remote]'"
        ) from error
    except Exception as error:
        raise _told(place, error) from None
    try:
        found = files.find(place.name, detail=True)
    except Exception as error:  # what botocore and others raise is no OSError
        raise _told(place, error) from None
    root = str(files._strip_protocol(place.name)).rstrip("/")
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


def _file(files: Any, path: str, name: str, about: Any) -> source.File:
    size = about.get("size")
    # Whatever the store says of the content; a bucket without either is fetched anew.
    tags = [
        str(about.get(one, "")) for one in ("ETag", "etag", "md5Hash", "generation")
    ]
    version = "-".join(filter(None, tags))

    @contextlib.contextmanager
    def opened() -> Iterator[_Body]:
        with _translated():
            file = files.open(path, "rb")
        with contextlib.closing(file):
            yield _Body(file, size)

    return source.File(name, size, version, None, opened)


def _told(place: address.Address, error: Exception) -> errors.FetchError:
    told = str(error).strip().partition("\n")[0][:200]
    kind = type(error).__name__
    return errors.FetchError(f"{place.shown}: it cannot be listed: {kind}: {told}")
