"""PyTorch files from before 2017 (0.1), which are tar archives, without PyTorch.

Facts used, from `torch.serialization._legacy_load`: the archive holds the files `storages`,
`tensors` and `pickle`. `storages` is a pickled count, then for each storage a pickle
`(key, location, class)`, a 64-bit element count and the elements, then a pickled list of
views `(key, key of the whole, offset, elements)`. `tensors` is a pickled count, then for
each tensor a pickle `(key, key of the storage, class)`, the rank and four unused bytes,
sizes, strides and offset. In `pickle` the persistent id of a tensor or storage is its key.
"""

import struct
import tarfile
from typing import Any

from ban_jax.checkpoints import (
    errors,
    file_bytes,
    limits,
    pickle_objects,
    pickle_reader,
    tensor,
    torch_reader,
)

MEMBERS = ("storages", "tensors", "pickle")
_SYSTEM = {"sys_info": 4096}
"""A member that nothing reads, and the bytes that it may have."""
_BLOCK = 512
_MOST = 2**16
"""Bytes of a pickle beside the elements; they hold three words."""


def begins(head: bytes) -> bool:
    """Whether the first 512 bytes are the header of a tar archive."""
    if head[257:262] == b"ustar":
        return True
    try:  # old ones have a checksum and no name
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Headers that change those behind them."""


def members(data: file_bytes.Data) -> dict[str, tuple[int, int]]:
    """Name -> first byte and end of each file of a tar archive.

    Raises:
      CheckpointError: for an archive that is damaged, or that could be read in two ways.
    """
    found: dict[str, tuple[int, int]] = {}
    position = 0
    while position < len(data) and len(found) < limits.MAX_ENTRIES:
        header = bytes(data[position : position + _BLOCK])
        if not any(header):
            break
        try:
            entry = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise errors.CheckpointError(
                f"a tar archive that is damaged: {error}"
            ) from error
        start = position + _BLOCK
        if entry.size < 0 or start + entry.size > len(data):
            raise errors.CheckpointError(
                f"tar member {errors.show(entry.name)} of {entry.size:,} bytes is cut off"
            )
        if entry.type in _EXTENDED:
            raise errors.CheckpointError(
                "a tar archive with extended headers, which no PyTorch file has: unpack it "
                "first"
            )
        if entry.name in found or entry.type not in (*tarfile.REGULAR_TYPES, b"5"):
            raise errors.CheckpointError(
                f"a tar archive in which {errors.show(entry.name)} is there twice or no "
                "plain file: unpack it first"
            )
        found[entry.name] = start, start + entry.size
        position = start + -(-entry.size // _BLOCK) * _BLOCK
    return found


def check_alone(data: file_bytes.Data, found: dict[str, tuple[int, int]]) -> None:
    """Refuses such a file that is an archive of other things, too.

    Raises:
      CheckpointError: for more members, and for what follows the archive.
    """
    odd = [
        name
        for name, (start, end) in found.items()
        if name not in MEMBERS and end > start + _SYSTEM.get(name, 0)
    ]
    if odd:
        shown = errors.listing([errors.show(name) for name in odd], 20)
        raise errors.CheckpointError(
            f"a PyTorch file from before 2017 with other members, which are not judged: "
            f"{shown}"
        )
    last = max(end for _, end in found.values())
    torch_reader.check_end(data, -(-last // _BLOCK) * _BLOCK, "the tar archive")


def read(
    data: file_bytes.Data, found: dict[str, tuple[int, int]]
) -> torch_reader.Pickled:
    """The object in such a file.

    Args:
      found: of `members`, with all of `MEMBERS` among them.

    Raises:
      CheckpointError: for a damaged file.
    """
    reader = _Reader(data)
    reader.storages(*found["storages"])
    reader.tensors(*found["tensors"])
    start, end = found["pickle"]
    machine = pickle_reader.PickleMachine(
        data[start : min(end, start + limits.MAX_PICKLE)], reader.budget, reader.object
    )
    with errors.telling(tuple(reader.asked)):
        root = machine.load()
        reader.asked.update(dict.fromkeys(machine.calls.told))
        torch_reader.check_end(data, start + machine.position, "its pickle", end)
    return torch_reader.Pickled(
        root, tuple(reader.asked), tuple({**reader.unread, **machine.calls.unread})
    )


class _Reader:
    def __init__(self, data: file_bytes.Data):
        self.data = data
        self.budget = limits.objects(len(data))
        self.found: dict[str, Any] = {}
        self.asked: dict[str, None] = {}
        self.unread: dict[str, None] = {}
        self.position = self.end = 0

    def object(self, key: Any) -> Any:
        """A persistent id: `(class, file, source)`, or the key of what was read."""
        if type(key) is tuple:
            return key[0] if key else None
        return self.known(key)

    def known(self, key: Any) -> Any:
        name = str(key) if type(key) in (str, int) else ""
        if name not in self.found:
            raise errors.CheckpointError(
                f"{errors.show(key)} is the key of no tensor or storage"
            )
        return self.found[name]

    def keep(self, key: Any, value: Any) -> None:
        if type(key) not in (str, int) or str(key) in self.found:
            raise errors.CheckpointError(
                f"key {errors.show(key)} is there twice or odd"
            )
        self.budget.spend(400)
        self.found[str(key)] = value

    def pickled(self) -> Any:
        window = self.data[self.position : min(self.position + _MOST, self.end)]
        machine = pickle_reader.PickleMachine(window, self.budget)
        with errors.telling(tuple(self.asked)):
            made = machine.load()
        self.asked.update(dict.fromkeys(machine.calls.told))
        self.unread.update(machine.calls.unread)
        self.position += machine.position
        return made

    def check_whole(self, name: str) -> None:
        """Refuses a member that goes on behind what is read of it."""
        with errors.telling(tuple(self.asked)):
            torch_reader.check_end(self.data, self.position, f"its {name}", self.end)

    def parts(self, count: int) -> tuple[Any, ...]:
        made = self.pickled()
        if type(made) is not tuple or len(made) != count:
            raise errors.CheckpointError("a storage or tensor is described otherwise")
        return made

    def count(self) -> int:
        return pickle_objects.count(self.pickled())

    def integers(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        if self.position + size > self.end:
            raise errors.CheckpointError("a tensor or storage is cut off")
        raw = self.data[self.position : self.position + size]
        self.position += size
        return struct.unpack(form, raw)

    def storages(self, start: int, end: int) -> None:
        self.position, self.end = start, end
        for _ in range(self.count()):
            key, _, kind = self.parts(3)
            text = kind.text if isinstance(kind, pickle_objects.Symbol) else ""
            dtype = torch_reader.DTYPES.get(text)
            if dtype is None:
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} is {errors.show(text)}, whose size is "
                    "not known"
                )
            (count,) = self.integers("<q")
            made = tensor.Storage(
                dtype, count, str(key), self.data, start=self.position
            )
            self.position += count * made.itemsize
            if count < 0 or self.position > end:
                raise errors.CheckpointError(f"storage {errors.show(key)} is cut off")
            self.keep(key, made)
        views = self.pickled()
        for view in views if type(views) is list else ():
            key, whole, offset, count = view
            base = self.known(whole)
            pickle_objects.count(offset)
            if pickle_objects.count(count) + offset > base.count:
                raise errors.CheckpointError(
                    f"the view {errors.show(key)} leaves storage {errors.show(whole)}"
                )
            start = offset * base.itemsize
            self.keep(
                key, tensor.Storage(base.dtype, count, str(key), start=start, base=base)
            )
        self.check_whole("storages")

    def tensors(self, start: int, end: int) -> None:
        self.position, self.end = start, end
        for _ in range(self.count()):
            key, storage, _ = self.parts(3)
            rank, _ = self.integers("<2i")
            if not 0 <= rank <= limits.MAX_RANK:
                raise errors.CheckpointError(f"a tensor of {rank} dimensions")
            sizes = self.integers(f"<{rank}q")
            strides = self.integers(f"<{rank}q")
            (offset,) = self.integers("<q")
            base = self.known(storage)
            if not isinstance(base, tensor.Storage):
                raise errors.CheckpointError(f"{errors.show(storage)} is no storage")
            self.keep(key, tensor.Tensor(base, sizes, strides, offset))
        self.check_whole("tensors")
