"""`hf://`, `gs://`, `s3://` and `https://`: what they name, and what is shown of them."""

import re
import urllib.parse
from typing import NamedTuple

from ban_jax.remote import errors

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that `http://` may name: what goes to them leaves no machine."""
KNOWN = "hf://owner/name[@revision], gs://, s3:// or https://"


class Address(NamedTuple):
    """Where models are.

    Attributes:
      scheme: `hf`, `gs`, `s3`, `https`, or `http` of this machine.
      name: what follows it, without query and without revision.
      revision: of a repository of the hub; empty: its main branch.
      query: of a web address, which may be a signature: sent, never shown.
    """

    scheme: str
    name: str
    revision: str = ""
    query: str = ""

    @property
    def shown(self) -> str:
        """The address as it is printed and recorded."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.scheme}://{self.name}{revision}"

    @property
    def url(self) -> str:
        """The address as it is asked for."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.name}{query}"


def is_remote(path: str) -> bool:
    """Whether a path is an address, and none of this machine's files."""
    return _SCHEME.match(path) is not None


def parse(text: str) -> Address:
    """What an address names.

    Raises:
      FetchError: for one that is not understood, or holds a password; it is not repeated
        where it could hold one.
    """
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    rest = text[found.end() :] if found else text
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host and scheme != "hf":
        raise errors.FetchError(
            f"{scheme}://...: an address with a user or a password in it; expected one "
            "without: they would stay in the history of the shell"
        )
    if not rest.isprintable() or re.search(r"[\s\\#]", rest):
        raise errors.FetchError(
            f"{scheme}://...: an address with a space, a backslash, a # or a character "
            "that is not printable; expected it with %20 and the like"
        )
    if scheme == "hf":
        return _of_the_hub(rest)
    name, _, query = rest.partition("?")
    if scheme in ("gs", "s3"):
        if not host or query:
            raise errors.FetchError(
                f"{scheme}://{name}: expected {scheme}://bucket/path"
            )
        return Address(scheme, name.rstrip("/"))
    if scheme not in ("http", "https"):
        raise errors.FetchError(f"{scheme}://{name}: expected {KNOWN}")
    try:
        hostname = urllib.parse.urlsplit(f"{scheme}://{name}").hostname
    except ValueError as error:
        raise errors.FetchError(f"{scheme}://{name}: {error}") from error
    if not hostname:
        raise errors.FetchError(f"{scheme}://{name}: expected the name of a host")
    if scheme == "http" and hostname not in LOOPBACK:
        raise errors.FetchError(
            f"http://{name}: expected https://: who carries an answer without encryption "
            "can change it. http:// is for servers on this machine alone"
        )
    return Address(scheme, name, query=query)


def _of_the_hub(rest: str) -> Address:
    name, at, revision = rest.partition("@")
    parts = name.rstrip("/").split("/")
    good = len(parts) == 2 and all(map(_HUB_NAME.fullmatch, parts))
    if not good or (at and not _REVISION.fullmatch(revision)) or ".." in revision:
        raise errors.FetchError(
            f"hf://{name}: expected hf://owner/name or hf://owner/name@revision; single "
            "files of it are chosen with --include"
        )
    return Address("hf", "/".join(parts), revision)
