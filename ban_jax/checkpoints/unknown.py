"""Files of which the first bytes say nothing, or not all: what else may lie in them.

Small ones have no room for a network. Of large ones the usual companions of models are
known by their first bytes; any other is for the reader, whose error says that it was not
judged. Formats that are found from the end of a file (zip) or behind a block of anything
(HDF5) are looked for where they lie.
"""

import struct
import zlib
from collections.abc import Callable, Iterator

from ban_jax.checkpoints import file_end, media, pickle_walk, unpacking

SMALL = file_end.SMALL
"""Bytes; a file of no known format that has fewer holds no network."""
NOTHING = "of no known format"
"""What `sniffing.no_model` says of such a file, perhaps behind how it is packed."""
_END = struct.Struct("<4s4H2LH")
_FULL = 0xFFFFFFFF
_LOCATOR = 20
_WIDE = 56 + _LOCATOR
_COMMENT = 0xFFFF
_HDF = b"\x89HDF\r\n\x1a\n"
_FIRST_BLOCK = 512
_KNOWN = (
    (b"PACK", "objects of a git repository", media.saying(b"PACK\0\0\0\2")),
    (b"DIRC", "the index of a git repository", media.saying(b"DIRC\0\0\0")),
    (b"\xfftOc", "the index of a git pack", media.git_index),
    (b"RIDX", "the index of a git pack", media.saying(b"RIDX\0\0\0\1\0\0\0")),
    (
        b"\0\0\0\1Bud1",
        "settings of the macOS Finder",
        media.saying(b"\0\0\0\1Bud1\0\0"),
    ),
    (b":W&B", "a log of Weights & Biases", media.saying(b":W&B\xe1\xbe\0")),
    (b"\0\1\0\0\0", "a font", media.font),
    (b"OTTO", "a font", media.font),
    (b"MZ", "a program", media.windows_program),
)
_GIT = (b"blob ", b"tree ", b"commit ", b"tag ")


def companion(head: bytes, whole: Callable[[], pickle_walk.Read]) -> str:
    """What a file of another known kind is; empty where it is none.

    Args:
      head: its first bytes.
      whole: gives a way to read all of it, each time from its start.
    """
    for told, end in _likely(head):
        if media.is_whole(end, whole):
            return told
    return ""


def _likely(head: bytes) -> Iterator[tuple[str, media.End]]:
    """What a file may be by its first bytes, and where it would end then."""
    for magic, told, end in _KNOWN:
        if head.startswith(magic):
            yield told, end
    if head[2:4] == b"\r\n" and not any(head[5:8]):
        yield "compiled Python", media.python
    if b"brain.Event:" in head[:64]:
        yield "a log of TensorBoard", media.records
    if head[:3] == b"\0\0\x08" and head[3:4] in (b"\1", b"\2", b"\3", b"\4"):
        yield "a data set of bytes (IDX)", media.bytes_of_idx


def told(reason: str, head: bytes, whole: Callable[[], pickle_walk.Read]) -> str:
    """What `sniffing.no_model` said, unless there may be a network: then nothing.

    Args:
      reason: that.
      head: the first bytes of the file.
      whole: gives a way to read all of it, each time from its start.
    """
    if not reason.endswith(NOTHING) or file_end.is_small(whole()):
        return reason
    try:
        inner = zlib.decompressobj(47).decompress(head, len(head))
    except zlib.error:
        inner = b""
    if inner.startswith(_GIT):
        return "an object of a git repository"
    if inner and unpacking.is_known(head):
        return companion(inner, lambda: unpacking.Inner(whole()).read)
    return companion(head, whole)


def behind(read: Callable[[int, int], bytes], size: int) -> str:
    """What lies behind other bytes of a file; empty where nothing is found.

    Args:
      read: gives bytes of the file from a place on, so many.
      size: bytes of the file.
    """
    begins = _archive(read, size)
    if begins is not None:
        if begins < 0:
            return (
                "the end of a zip archive that was split or cut: put it together first"
            )
        return "a zip archive with something else in front of it: unpack it first"
    place = _FIRST_BLOCK
    while place + len(_HDF) <= size:
        if read(place, len(_HDF)) == _HDF:
            return f"an HDF5 (Keras) file that starts at byte {place:,}"
        place *= 2
    return ""


def _archive(read: Callable[[int, int], bytes], size: int) -> int | None:
    """Where a zip archive begins whose directory is at the end, and not at the start.

    Below zero where the file does not hold its beginning; None where there is none.
    """
    if read(0, 2) == b"PK":
        return None
    start = max(0, size - _END.size - _COMMENT)
    tail = read(start, size - start)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:
        if place + _END.size <= len(tail):
            fields = _END.unpack_from(tail, place)
            directory, comment = fields[5], fields[7]
            ends = start + place + _END.size + comment <= size
            # PyTorch writes a second end record and where it lies before the usual one.
            wide = tail.endswith(b"PK\6\7", 0, place - _LOCATOR + 4)
            first = start + place - directory - (_WIDE if wide else 0)
            if ends and fields[4] and (wide or first >= 0):
                if wide or read(first, 4) == b"PK\1\2":
                    return 0 if fields[6] == _FULL else int(first - fields[6])
        place = tail.rfind(b"PK\5\6", 0, place)
    return None
