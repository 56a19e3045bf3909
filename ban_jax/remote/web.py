"""Files of web servers: redirects are followed to encrypted places alone.

The standard library's client is enough, and says where it is led: of fsspec's a redirect
from https to http cannot be refused.
"""

import contextlib
import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from ban_jax.remote import address, errors, source, waiting

SECONDS = 60.0
"""That a server may be silent, or keep us waiting for the next piece of a file."""
_MOST_DIGITS = 18
"""Of a length: of thousands Python makes no number."""
PIECE = 1 << 20
_SECRET = ("Authorization", "Cookie", "X-amz-security-token")


class Body:
    """The bytes of an answer."""

    def __init__(self, answer: Any, watch: waiting.Watch):
        self._answer, self._watch = answer, watch
        length = _one_length(answer.headers)
        is_number = length.isdecimal() and len(length) <= _MOST_DIGITS
        self.expected = int(length) if is_number else None

    def __iter__(self) -> Iterator[bytes]:
        # `read1` returns what has come, so that a slow server can be given up.
        while piece := self._next():
            yield piece

    def _next(self) -> bytes:
        with self._watch.waiting():
            return bytes(self._answer.read1(PIECE))


@contextlib.contextmanager
def opened(url: str, headers: Mapping[str, str] = {}) -> Iterator[Body]:
    """The answer of a server to a request for one file.

    Args:
      url: `https`, or `http` of this machine.
      headers: of the request; credentials among them go to this host alone.

    Raises:
      FetchError: whatever is wrong; the URL is not repeated.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in address.LOOPBACK:
        raise errors.FetchError(f"{parts.scheme}://{parts.hostname}: expected https://")
    request = urllib.request.Request(
        url, headers={**headers, "Accept-Encoding": "identity"}
    )
    with translated(), waiting.Watch(SECONDS) as watch:
        opener = urllib.request.build_opener(_Redirects(), *watch.handlers())
        with watch.waiting():
            opened = opener.open(request, timeout=SECONDS)
        with contextlib.closing(opened) as answer:
            if answer.status != http.client.OK:  # 206 is a part, which nobody asked for
                raise errors.FetchError(
                    f"the server says {_named(answer.status)}; expected 200 OK and the "
                    "whole file"
                )
            packed = answer.headers.get("Content-Encoding") or "identity"
            if packed.lower() != "identity":
                raise errors.FetchError(
                    f"the server packs its answer ({packed[:40]!r}); expected it as it is"
                )
            body = Body(answer, watch)
            coding = ", ".join(answer.headers.get_all("Transfer-Encoding", ()))
            chunked = coding.lower() == "chunked"
            if coding and (not chunked or body.expected is not None):
                raise errors.FetchError(
                    f"the server sends the file as {coding[:40]!r}; expected it with its "
                    "length, or chunked and without one"
                )
            if body.expected is None and not chunked:
                raise errors.FetchError(
                    "the server does not say how long the file is, so that a cut one "
                    "could not be told from a whole one"
                )
            yield body


def _one_length(headers: Any) -> str:
    """What the server says the length is; empty where it does not.

    Raises:
      FetchError: for lengths that disagree: each reader would believe another one.
    """
    told = ",".join(headers.get_all("Content-Length", ())).split(",")
    lengths = {one.strip() for one in told}
    if len(lengths) > 1:
        found = " and ".join(sorted(lengths))[:80]
        raise errors.FetchError(
            f"the server says several lengths ({found!r}); expected one"
        )
    return lengths.pop()


def _named(status: int) -> str:
    """`404 Not Found`: never the server's own words."""
    return f"{status} {http.client.responses.get(status, '')}".strip()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what the client raises into a FetchError without addresses."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:  # the reason would repeat the address
            raise errors.FetchError(
                "the server redirects to no https://, or too often"
            ) from None
        raise errors.FetchError(f"the server says {_named(error.code)}") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or str(error.reason)[:200]
        raise errors.FetchError(f"the server cannot be reached: {reason}") from None
    except http.client.IncompleteRead:
        raise errors.FetchError("the server broke off before the end") from None
    except TimeoutError:
        raise errors.FetchError(
            f"the server was silent, or sent no content, for {SECONDS:g} s"
        ) from None
    except http.client.HTTPException as error:
        kind = type(error).__name__
        raise errors.FetchError(f"the server's answer is no HTTP: {kind}") from None
    except (ConnectionError, ssl.SSLError) as error:
        raise errors.FetchError(f"the server broke off: {error.strerror}") from None
    except errors.FetchError:
        raise
    except (ValueError, OverflowError):  # hosts, ports and letters that cannot be
        raise errors.FetchError(
            "its address, or the one that the server leads to, is none that can be "
            "asked for; expected letters other than English ones as %C3%A9 and the like"
        ) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https, and on this machine to http; takes no secrets along."""

    max_redirections = 5

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        old, new = (urllib.parse.urlsplit(one) for one in (req.full_url, newurl))
        local = old.hostname in address.LOOPBACK and new.hostname in address.LOOPBACK
        if not (new.scheme == "https" or (new.scheme == "http" and local)):
            raise errors.FetchError(
                f"the server redirects to {new.scheme}://{new.hostname or ''}; expected "
                "https://"
            )
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and old.netloc != new.netloc:
            for name in _SECRET:
                made.remove_header(name)
        return made


def file_of(place: address.Address) -> source.Source:
    """The one file that a web address names.

    Raises:
      FetchError: for an address that names none.
    """
    path = urllib.parse.urlsplit(place.url).path
    name = urllib.parse.unquote(path.rpartition("/")[2])
    if not name or source.unsafe(name):
        raise errors.FetchError(
            f"{place.shown}: expected the address of one file; web servers do not list "
            "their folders"
        )
    url = place.url
    one = source.File(name, None, "", None, lambda: opened(url))
    return source.Source(place.shown, url, [one], single=True)
