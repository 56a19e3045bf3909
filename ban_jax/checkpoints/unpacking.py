"""The content of a gzip, bzip2 or xz file as far as it is looked at, a piece at a time."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from ban_jax.checkpoints import file_bytes, limits, pickle_walk, watchdog

_PIECE = 2**16
DAMAGE = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError)
"""What a damaged file can raise."""
_OPENERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(memlimit=2**26),
}


def raw_deflate() -> Any:
    """What unpacks an entry of a zip archive."""
    return zlib.decompressobj(-zlib.MAX_WBITS)


def is_known(start: bytes) -> bool:
    """Whether a file with this start can be looked into."""
    return any(start.startswith(magic) for magic in _OPENERS)


def _opener(start: bytes) -> Callable[[], Any]:
    (found,) = (made for magic, made in _OPENERS.items() if start.startswith(magic))
    return found


class Inner:
    """What is packed, read forwards; the last two pieces are kept.

    Args:
      data: the packed file, or its start, or what reads it.
      most: bytes of the content; what lies beyond raises `pickle_walk.Beyond`.
      opener: makes what unpacks it; by default as its first bytes say.
    """

    def __init__(
        self,
        data: file_bytes.Data | bytes | pickle_walk.Read,
        most: int = limits.MAX_PICKLE,
        opener: Callable[[], Any] | None = None,
    ):
        self.packed = data if callable(data) else pickle_walk.reading(data)
        self.most = most
        self.opener = opener or _opener(bytes(self.packed(0, 8)))
        self.stream = self.opener()
        self.given = 0  # of the packed bytes
        self.start, self.kept = 0, b""

    def read(self, start: int, count: int) -> bytes:
        """Bytes of the content, fewer at its end; `start` never goes back far."""
        if start < self.start:
            raise pickle_walk.Beyond
        while start + count > self.start + len(self.kept):
            if self.start + len(self.kept) > self.most:
                raise pickle_walk.Beyond
            piece = self._next()
            if not piece:
                break
            drop = max(0, min(start - self.start, len(self.kept) - _PIECE))
            self.kept = self.kept[drop:] + piece
            self.start += drop
        at = start - self.start
        return self.kept[at : at + count]

    def _next(self) -> bytes:
        watchdog.check()
        while True:
            if self.stream.eof:
                if self._rest():  # a file of several streams is their contents joined
                    self.stream = self.opener()
                else:
                    return b""
            tail = getattr(self.stream, "unconsumed_tail", b"")
            packed = tail
            if not packed and getattr(self.stream, "needs_input", True):
                packed = bytes(self.packed(self.given, _PIECE))
                self.given += len(packed)
                if not packed:
                    raise EOFError("the packed content is cut off")
            piece: bytes = self.stream.decompress(packed, _PIECE)
            if piece:
                return piece

    def _rest(self) -> bool:
        """Whether another stream follows; bytes that are none are left."""
        unused = len(self.stream.unused_data)
        self.given -= unused
        start = bytes(self.packed(self.given, 6))
        return is_known(start)
