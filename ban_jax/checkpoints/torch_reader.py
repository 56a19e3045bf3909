"""PyTorch files, zip (1.6 and later, TorchScript too) and legacy, without PyTorch.

Facts used: the zip holds one folder with `data.pkl`, storages as raw entries
`data/<key>` and perhaps `byteorder`. A legacy file is a sequence: five pickles (magic
number, protocol, system, the object, the list of storage keys), then for each key a
64-bit element count and the raw elements, little-endian whatever the system pickle says.
In both, a storage is a persistent id `("storage", class, key, device, elements)`.

PyTorch keeps the first storage of a key and does not look at later descriptions, so a
key described in two ways is refused in both layouts; torch.save never writes one.
"""

import struct
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    errors,
    file_bytes,
    limits,
    pickle_objects,
    pickle_reader,
    pickle_walk,
    tensor,
    watchdog,
    zip_container,
)

_MAGIC = 0x1950A86A20F9469CFC6C
EXPORTED = "/archive_format"
"""Ends the name of an entry that programs of `torch.export` have, and no others."""
_PICKLED_MAGIC = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
LEGACY_PROTOCOL = 1001
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": tensor.BFLOAT16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
DTYPES = {
    f"{module}.{name}": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in _STORAGES.items()
}


class Pickled(NamedTuple):
    """What the pickles of a file say.

    Attributes:
      root: the object, its tensors views of the file's bytes.
      calls: names the pickle asks to call, apart from known and harmless ones.
      unread: names of what was given tensors and is not read.
      used: entries of a zip file that were read.
    """

    root: Any
    calls: tuple[str, ...]
    unread: tuple[str, ...]
    used: frozenset[str] = frozenset()


def is_legacy(data: file_bytes.Data) -> bool:
    """Whether the first object is the magic number, however it is written."""
    start = bytes(data[:32])
    if _PICKLED_MAGIC in start:
        return True
    if not pickle_walk.may_begin(start):
        return False
    return pickle_walk.walk(pickle_walk.reading(data)).first == _MAGIC


def script(archive: zip_container.Archive) -> str:
    """What to say of a TorchScript archive; empty for others.

    PyTorch goes by the same entry.
    """
    if not any(name.endswith("/constants.pkl") for name in archive.entries):
        return ""
    if not any("/constants/" in name for name in archive.entries):
        return "a TorchScript archive"
    return (
        "a TorchScript archive that is frozen or has constants: weights folded into its "
        "code have no names, so save the model's state dict instead"
    )


def zip_pickle(archive: zip_container.Archive) -> Pickled:
    """The object in a zip file.

    Raises:
      CheckpointError: for a damaged file, or one that is not PyTorch's.
    """
    archive.fold()
    pickles = [
        name
        for name in archive.entries
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if not pickles and any(name.endswith(EXPORTED) for name in archive.entries):
        raise errors.CheckpointError(
            "a program of torch.export (.pt2), whose weights have no names: save the "
            "module's state dict instead"
        )
    if len(pickles) != 1:
        raise errors.CheckpointError(
            "a zip archive that is not a PyTorch file: expected one <folder>/data.pkl, "
            f"found {len(pickles)} among {len(archive.entries)} entries"
        )
    folder = pickles[0].removesuffix("data.pkl")
    order = _byte_order(archive, folder)
    storages: dict[str, tuple[_Storage, Any]] = {}

    def persistent(pid: Any) -> Any:
        described = _storage_id(pid)
        if described is None:
            return pickle_objects.Placeholder("in a storage of an unknown kind")
        key = described.key
        if key in storages:
            _same(described, storages[key][0])
            return storages[key][1]
        made: Any
        if described.dtype is None:
            made = pickle_objects.Placeholder(f"in {described.kind}")
        else:
            entry = archive.find(f"{folder}data/{key}")
            made = tensor.Storage(
                described.dtype,
                described.elements,
                key,
                archive.data,
                start=entry.start,
            )
            made.order = order
            made.crc = entry.crc, entry.size
            if made.count * made.itemsize > entry.size:
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} announces {made.count:,} elements of "
                    f"{made.dtype}, but its entry holds {entry.size:,} bytes"
                )
        storages[key] = described, made
        return made

    pickle = archive.stored(pickles[0])
    archive.budget.spend(len(pickle))
    machine = pickle_reader.PickleMachine(bytes(pickle), archive.budget, persistent)
    root = machine.load()
    with errors.telling(machine.calls.told):
        check_end(machine.view, machine.position, "the pickle of its object")
    used = frozenset((pickles[0], *(f"{folder}data/{key}" for key in storages)))
    return Pickled(root, machine.calls.told, tuple(machine.calls.unread), used)


def _byte_order(archive: zip_container.Archive, folder: str) -> str:
    if not archive.has(f"{folder}byteorder"):
        return "<"
    order = bytes(archive.stored(f"{folder}byteorder"))
    if order not in (b"little", b"big"):
        raise errors.CheckpointError(
            f"byteorder is {errors.show(order)}, expected little or big"
        )
    return "<" if order == b"little" else ">"


class _Storage(NamedTuple):
    """A persistent id; `dtype` is None for classes whose elements are not read."""

    dtype: str | None
    kind: str
    key: str
    elements: int


def _storage_id(pid: Any) -> _Storage | None:
    """None for what names no storage.

    Raises:
      CheckpointError: for a storage without a usable key and size.
    """
    if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
        return None
    _, symbol, key, _, count = pid[:5]
    if not isinstance(symbol, pickle_objects.Symbol):
        return None
    if type(key) is not str or type(count) is not int or not 0 <= count < 2**48:
        raise errors.CheckpointError(
            f"a storage with key {errors.show(key)} and {errors.show(count)} elements"
        )
    dtype = DTYPES.get(symbol.text)
    kind = symbol.text.rpartition(".")[2] if dtype is None else dtype
    return _Storage(dtype, kind, key, count)


def _same(one: _Storage, other: _Storage) -> None:
    if one != other:
        raise errors.CheckpointError(
            f"storage {errors.show(one.key)} is described in two ways: {one.elements:,} "
            f"elements of {errors.show(one.kind)} and {other.elements:,} of "
            f"{errors.show(other.kind)}"
        )


def legacy_pickle(data: file_bytes.Data) -> Pickled:
    """The object in a legacy file.

    Raises:
      CheckpointError: for a damaged file.
    """
    storages = _LegacyStorages()
    budget = limits.objects(len(data))
    head = data[: limits.MAX_PICKLE]
    calls: dict[str, None] = {}
    unread: dict[str, None] = {}
    position, parts = 0, []
    for index in range(5):
        machine = pickle_reader.PickleMachine(
            head, budget, storages.persistent if index == 3 else None, position
        )
        parts.append(machine.load())
        position = machine.position
        calls.update(dict.fromkeys(machine.calls.told))
        unread.update(machine.calls.unread)
    magic, protocol, _, root, keys = parts
    if (magic, protocol) != (_MAGIC, LEGACY_PROTOCOL):
        raise errors.CheckpointError(
            f"magic number and protocol are {errors.show((magic, protocol))}, expected "
            f"{(_MAGIC, LEGACY_PROTOCOL)}"
        )
    with errors.telling(calls):
        end = storages.locate(data, position, keys)
        check_end(data, end, "the file's storages")
    return Pickled(root, tuple(calls), tuple(unread))


class _LegacyStorages:
    """The storages of a legacy file, and the views of them, by their keys."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[_Storage, Any]] = {}
        self.views: dict[str, tuple[tuple[str, int, int], Any]] = {}

    def persistent(self, pid: Any) -> Any:
        # ("module", class, source file, source): the class, whose source is ignored.
        if type(pid) is tuple and len(pid) > 1 and pid[0] == "module":
            return pid[1]
        described = _storage_id(pid)
        if described is None:
            return pickle_objects.Placeholder("in a storage of an unknown kind")
        key = described.key
        if key in self.views:
            raise _two_things(key)
        if key not in self.known:
            made: Any = pickle_objects.Placeholder(f"in {described.kind}")
            if described.dtype is not None:
                made = tensor.Storage(described.dtype, described.elements, key)
            self.known[key] = described, made
        _same(described, self.known[key][0])
        storage = self.known[key][1]
        if len(pid) > 5 and pid[5] is not None:
            return self.view(storage, key, pid[5])
        return storage

    def view(self, base: Any, base_key: str, metadata: Any) -> Any:
        """A storage that is a part of another one: `(key, offset, elements)`."""
        parts = (
            metadata if type(metadata) is tuple and len(metadata) == 3 else [None] * 3
        )
        key, offset, count = parts
        if type(key) is not str or type(offset) is not int or type(count) is not int:
            raise errors.CheckpointError("the view of a storage is damaged")
        if key in self.known:
            raise _two_things(key)
        described = base_key, offset, count
        if key in self.views:
            if self.views[key][0] != described:
                raise _two_things(key)
            return self.views[key][1]
        view = base
        if isinstance(base, tensor.Storage):
            if offset < 0 or count < 0 or offset + count > base.count:
                raise errors.CheckpointError(
                    f"the view of storage {errors.show(base.key)} from {offset} to "
                    f"{offset + count} leaves its {base.count} elements"
                )
            view = tensor.Storage(
                base.dtype, count, key, start=offset * base.itemsize, base=base
            )
        self.views[key] = described, view
        return view

    def locate(self, data: file_bytes.Data, position: int, keys: Any) -> int:
        """Finds the elements behind the pickles, from byte `position` on.

        Returns:
          The end of the last one's.

        Raises:
          CheckpointError: unless each listed storage is there once, as described.
        """
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise errors.CheckpointError("the list of storage keys is damaged")
        seen: set[str] = set()
        for key in keys:
            if key not in self.known or key in seen:
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} is listed twice or used nowhere"
                )
            seen.add(key)
            described, storage = self.known[key]
            if not isinstance(storage, tensor.Storage):
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} is {errors.show(described.kind)}, "
                    "whose size is not known"
                )
            if position + 8 > len(data):
                raise errors.CheckpointError(
                    f"the file is cut off before storage {errors.show(key)}"
                )
            (count,) = struct.unpack("<q", data[position : position + 8])
            position += 8
            size = count * storage.itemsize
            if count != storage.count or size > len(data) - position:
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} should hold {storage.count:,} elements "
                    f"of {storage.dtype}, its header says {count:,}, and "
                    f"{len(data) - position:,} bytes of the file remain"
                )
            storage.buffer, storage.start = data, position
            position += size
        return position


def check_end(
    data: file_bytes.Data, position: int, what: str, end: int | None = None
) -> None:
    """Refuses a file that goes on behind what is read, unless it is padded with zeros.

    Args:
      data: of the file.
      position: where reading ended.
      what: was read.
      end: of the part that is looked at; by default the file's.

    Raises:
      CheckpointError: then.
    """
    end = len(data) if end is None else end
    for start in range(position, end, limits.MIB):
        watchdog.check()
        if bytes(data[start : min(end, start + limits.MIB)]).strip(b"\0"):
            raise errors.CheckpointError(
                f"{end - position:,} bytes follow {what}; torch.load stops there, "
                "and they are not judged"
            )


def _two_things(key: str) -> errors.CheckpointError:
    return errors.CheckpointError(
        f"storage {errors.show(key)} is described in two ways: as itself and as a part of "
        "another, or as two parts"
    )
