"""Zip archives as PyTorch and NumPy write them, read defensively from one buffer.

Python's own reader is built to open what can be opened. Here an archive that could be
read in two ways is refused: duplicate names, entries that overlap each other or the
directory, local headers that disagree with the directory, bytes before the archive,
second names in extra fields. `Archive.fold` adds names that differ in case alone, which
PyTorch's reader takes for one.
"""

import itertools
import struct
import zlib
from typing import NamedTuple

from ban_jax.checkpoints import errors, file_bytes, limits, tensor

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_BEFORE_LENGTH = 12
"""Bytes of the zip64 end record that its length does not count."""
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_FOLDER = 0x10  # among the external attributes; readers skip what has it
_ZIP64, _UNICODE_PATH = 1, 0x7075
_DESCRIPTOR = 0x8
STORED, DEFLATED = 0, 8


class Entry(NamedTuple):
    """One file of an archive: bytes `[start, start + packed)` of the buffer.

    `plain` tells that every reader decodes the name alike.
    """

    name: str
    start: int
    packed: int
    size: int
    method: int
    crc: int
    plain: bool


class Archive:
    """The entries of a zip archive by name, charged to `budget`.

    Raises:
      CheckpointError: for an archive that is damaged or ambiguous.
    """

    def __init__(self, data: file_bytes.Data, budget: limits.Budget):
        self.data = data
        self.budget = budget
        self.entries: dict[str, Entry] = {}
        self.folded: dict[str, str] = {}
        count, start, size = _directory(data)
        if count > limits.MAX_ENTRIES or count * _CENTRAL.size > size:
            raise errors.CheckpointError(
                f"the zip directory announces {count:,} entries in {size:,} bytes"
            )
        budget.spend(600 * count)
        directory = data[start : start + size]
        spans = []
        position = 0
        for _ in range(count):
            entry, local, position = self._entry(directory, position, start)
            if entry.name in self.entries:
                raise errors.CheckpointError(
                    f"two zip entries have the name {errors.show(entry.name)}"
                )
            self.entries[entry.name] = entry
            spans.append((local, entry.start + entry.packed))
        if position != size:
            raise errors.CheckpointError("the zip directory is longer than its entries")
        spans.sort()
        if spans and spans[0][0]:
            raise errors.CheckpointError(
                f"the first zip entry starts at byte {spans[0][0]:,}, expected 0"
            )
        for (_, before), (after, _) in itertools.pairwise(spans):
            if after < before:
                raise errors.CheckpointError("zip entries overlap")

    def _entry(
        self, directory: memoryview, position: int, limit: int
    ) -> tuple[Entry, int, int]:
        if position + _CENTRAL.size > len(directory):
            raise errors.CheckpointError("the zip directory is cut off")
        fields = _CENTRAL.unpack_from(directory, position)
        signature, _, _, flags, method, _, _, crc, packed, size = fields[:10]
        name_length, extra_length, comment_length, disk, _, kind, local = fields[10:]
        position += _CENTRAL.size
        after = position + name_length + extra_length + comment_length
        if signature != b"PK\1\2" or after > len(directory):
            raise errors.CheckpointError("the zip directory is damaged")
        raw_name = bytes(directory[position : position + name_length])
        name = raw_name.decode("utf-8")
        if size and (name.endswith("/") or kind & _FOLDER):
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} is a folder that holds {size:,} bytes"
            )
        if "\0" in name:
            raise errors.CheckpointError(f"a zip entry is named {errors.show(name)}")
        extra = directory[position + name_length : after - comment_length]
        if extra_length:
            size, packed, local, disk = _zip64(extra, size, packed, local, disk)
        if flags & _ENCRYPTED or disk:
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} is encrypted or on another disk"
            )
        if local + _LOCAL.size > limit:
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} starts beyond the archive's content"
            )
        raw = self.data[local : local + _LOCAL.size + name_length]
        header = _LOCAL.unpack_from(raw)
        start = local + _LOCAL.size + header[9] + header[10]
        if (
            header[0] != b"PK\3\4"
            or header[3] != method
            or header[9] != name_length
            or raw[_LOCAL.size :] != raw_name
            or not _sizes_agree(header, packed, size)
        ):
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} and its local header disagree"
            )
        if start + packed > limit or (method == STORED and packed != size):
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} announces {size:,} bytes "
                f"({packed:,} packed) that are not in the file"
            )
        if method not in (STORED, DEFLATED):
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} uses compression {method}, expected "
                "none or deflate"
            )
        plain = bool(flags & _UTF8) or raw_name.isascii()
        return Entry(name, start, packed, size, method, crc, plain), local, after

    def fold(self) -> None:
        """From now on finds entries whatever the case of their names, as PyTorch does.

        Raises:
          CheckpointError: for two names that differ in case alone.
        """
        for name in self.entries:
            # ASCII letters alone, as PyTorch's reader: `lower` knows more.
            folded = str(name.encode().lower(), "utf-8")
            other = self.folded.setdefault(folded, name)
            if other != name:
                raise errors.CheckpointError(
                    f"the zip entries {errors.show(other)} and {errors.show(name)} "
                    "differ in case alone; PyTorch takes them for one"
                )

    def stored(self, name: str) -> memoryview:
        """The bytes of an entry that is not compressed, where they lie.

        Raises:
          CheckpointError: for a missing or compressed entry.
        """
        entry = self.find(name)
        return self.data[entry.start : entry.start + entry.size]

    def find(self, name: str) -> Entry:
        """An entry that is not compressed; see `stored`."""
        entry = self._find(name)
        if entry.method != STORED:
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} is compressed; PyTorch stores its "
                "entries uncompressed, so this file was repacked: load it and save it "
                "again with torch.save"
            )
        return entry

    def has(self, name: str) -> bool:
        return (
            name in self.entries or str(name.encode().lower(), "utf-8") in self.folded
        )

    def inflate(self, name: str, budget: limits.Budget) -> memoryview:
        """The bytes of an entry, decompressed if need be and then charged; checked."""
        entry = self._find(name)
        packed = self.data[entry.start : entry.start + entry.packed]
        content: memoryview | bytes = packed
        if entry.method == DEFLATED:
            budget.spend(entry.size)
            stream = zlib.decompressobj(-zlib.MAX_WBITS)
            content = stream.decompress(packed, entry.size + 1) if entry.size else b""
        if len(content) != entry.size:
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} does not decompress to the "
                f"{entry.size:,} bytes it announces"
            )
        if tensor.checksum(content, 0, entry.size) != entry.crc:
            raise errors.CheckpointError(
                f"zip entry {errors.show(name)} has another checksum than the archive "
                "gives it: the file is damaged"
            )
        return memoryview(content)

    def _find(self, name: str) -> Entry:
        known = name
        if name not in self.entries:
            known = self.folded.get(str(name.encode().lower(), "utf-8"), "")
        if known not in self.entries:
            raise errors.CheckpointError(f"the zip has no entry {errors.show(name)}")
        return self.entries[known]


def _sizes_agree(header: tuple, packed: int, size: int) -> bool:
    """Local headers may leave sizes to a descriptor behind the data, or to zip64."""
    if header[2] & _DESCRIPTOR:
        return True
    return header[7] in (packed, _FULL32) and header[8] in (size, _FULL32)


def _zip64(
    extra: memoryview, size: int, packed: int, local: int, disk: int
) -> tuple[int, int, int, int]:
    position, seen = 0, False
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if position + length > len(extra):
            break
        if kind == _UNICODE_PATH or (kind == _ZIP64 and seen):
            raise errors.CheckpointError(
                "a zip entry has a second name or two sets of sizes"
            )
        if kind == _ZIP64:
            seen = True
            field = extra[position : position + length]
            values = [
                struct.unpack_from("<Q", field, i)[0] for i in range(0, length - 7, 8)
            ]
            values.reverse()
            if size == _FULL32 and values:
                size = values.pop()
            if packed == _FULL32 and values:
                packed = values.pop()
            if local == _FULL32 and values:
                local = values.pop()
            if disk == _FULL16:
                disk = 0
        position += length
    return size, packed, local, disk


def _directory(data: file_bytes.Data) -> tuple[int, int, int]:
    """Number of entries, start and size of the central directory."""
    tail_start = max(0, len(data) - _END.size - _FULL16)
    tail = bytes(data[tail_start:])
    found = tail.rfind(b"PK\5\6")
    if found < 0 or found + _END.size > len(tail):
        raise errors.CheckpointError(
            "the zip archive has no end record: the file is cut off"
        )
    _, disk, _, _, count, size, start, comment = _END.unpack_from(tail, found)
    end = tail_start + found
    if end + _END.size + comment != len(data) or disk not in (0, _FULL16):
        raise errors.CheckpointError("the zip's end record is damaged")
    locator = end - _LOCATOR64.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        end64 = _LOCATOR64.unpack(data[locator:end])[2]
        if end64 + _END64.size > locator or data[end64 : end64 + 4] != b"PK\6\6":
            raise errors.CheckpointError("the zip64 end record is damaged")
        fields = _END64.unpack(data[end64 : end64 + _END64.size])
        if end64 + _BEFORE_LENGTH + fields[1] != locator:
            raise errors.CheckpointError(
                "the zip64 end record is not the one before the end of the file"
            )
        count, size, start = fields[7:10]
        end = end64
    if start + size != end:
        raise errors.CheckpointError(
            f"the zip directory should lie at bytes {start:,} to {start + size:,}, but "
            f"its end record lies at {end:,}"
        )
    return count, start, size


def is_zip(data: file_bytes.Data) -> bool:
    return data[:4] in (b"PK\3\4", b"PK\5\6")
