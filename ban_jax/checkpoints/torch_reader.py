"""PyTorch files, zip (1.6 and later, TorchScript too) and legacy, without PyTorch.

Facts used: the zip holds one folder with `data.pkl`, storages as raw entries
`data/<key>` and perhaps `byteorder`. A legacy file is a sequence: five pickles (magic
number, protocol, system, the object, the list of storage keys), then for each key a
64-bit element count and the raw elements. In both, a storage is a persistent id
`("storage", class, key, device, elements)`.
"""

import struct
from typing import Any

from ban_jax.checkpoints import (
    errors,
    limits,
    pickle_objects,
    pickle_reader,
    tensor,
    zip_container,
)

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
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
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")


def is_legacy(data: memoryview) -> bool:
    return _LEGACY_MAGIC in bytes(data[:32])


def read_zip(archive: zip_container.Archive) -> tuple[Any, tuple[str, ...]]:
    """The object in a zip file, its tensors views of the archive's bytes.

    Returns:
      The object, and the names its pickle asks to call.

    Raises:
      CheckpointError: for a damaged file, or one that is not PyTorch's.
    """
    pickles = [
        name
        for name in archive.entries
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
        raise errors.CheckpointError(
            "a zip archive that is not a PyTorch file: expected one <folder>/data.pkl, "
            f"found {len(pickles)} among {len(archive.entries)} entries"
        )
    folder = pickles[0].removesuffix("data.pkl")
    order = _byte_order(archive, folder)
    storages: dict[tuple[str, str], tensor.Storage] = {}

    def persistent(pid: Any) -> Any:
        dtype, key, count = _storage_id(pid)
        if dtype is None:
            return pickle_objects.Placeholder("storage of an unknown type")
        if (key, dtype) not in storages:
            storage = tensor.Storage(
                dtype, count, key, archive.stored(f"{folder}data/{key}")
            )
            storage.order = order
            if count * storage.itemsize > len(storage.buffer):
                raise errors.CheckpointError(
                    f"storage {errors.show(key)} announces {count:,} elements of "
                    f"{dtype}, but its entry holds {len(storage.buffer):,} bytes"
                )
            storages[key, dtype] = storage
        storage = storages[key, dtype]
        if storage.count != count:
            raise errors.CheckpointError(
                f"storage {errors.show(key)} has {storage.count:,} elements at one "
                f"place of the file and {count:,} at another"
            )
        return storage

    pickle = archive.stored(pickles[0])
    machine = pickle_reader.PickleMachine(pickle, archive.budget, persistent)
    return machine.load(), tuple(machine.calls)


def _byte_order(archive: zip_container.Archive, folder: str) -> str:
    if f"{folder}byteorder" not in archive.entries:
        return "<"
    order = bytes(archive.stored(f"{folder}byteorder"))
    if order not in (b"little", b"big"):
        raise errors.CheckpointError(
            f"byteorder is {errors.show(order)}, expected little or big"
        )
    return "<" if order == b"little" else ">"


def _storage_id(pid: Any) -> tuple[str | None, str, int]:
    """dtype (None where unknown), key and element count of a persistent id."""
    if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
        return None, "", 0
    _, symbol, key, _, count = pid[:5]
    if not isinstance(symbol, pickle_objects.Symbol):
        return None, "", 0
    module, _, name = symbol.text.rpartition(".")
    if module not in _STORAGE_MODULES or name not in _STORAGES:
        return None, "", 0
    if type(key) is not str or type(count) is not int or not 0 <= count < 2**48:
        raise errors.CheckpointError(
            f"a storage with key {errors.show(key)} and {errors.show(count)} elements"
        )
    return _STORAGES[name], key, count


def read_legacy(data: memoryview) -> tuple[Any, tuple[str, ...]]:
    """The object in a legacy file, its tensors views of `data`.

    Returns:
      The object, and the names its pickles ask to call.

    Raises:
      CheckpointError: for a damaged file.
    """
    budget = limits.objects(len(data))
    storages: dict[str, tensor.Storage] = {}
    views: list[tuple[tensor.Storage, tensor.Storage, int]] = []

    def persistent(pid: Any) -> Any:
        # ("module", class, source file, source): the class, whose source is ignored.
        if type(pid) is tuple and len(pid) > 1 and pid[0] == "module":
            return pid[1]
        dtype, key, count = _storage_id(pid)
        if dtype is None:
            return pickle_objects.Placeholder("storage of an unknown type")
        storage = storages.setdefault(key, tensor.Storage(dtype, count, key))
        if (storage.dtype, storage.count) != (dtype, count):
            raise errors.CheckpointError(
                f"storage {errors.show(key)} is described in two ways"
            )
        if len(pid) > 5 and type(pid[5]) is tuple:
            return _storage_view(storage, pid[5], views)
        return storage

    calls: dict[str, None] = {}
    position, parts = 0, []
    for _ in range(5):
        machine = pickle_reader.PickleMachine(data, budget, persistent, position)
        parts.append(machine.load())
        position = machine.position
        calls.update(machine.calls)
    _, protocol, system, root, keys = parts
    if protocol != LEGACY_PROTOCOL:
        raise errors.CheckpointError(
            f"protocol {errors.show(protocol)}, expected {LEGACY_PROTOCOL}"
        )
    order = "<"
    if type(system) is dict and system.get("little_endian") is False:
        order = ">"
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise errors.CheckpointError("the list of storage keys is damaged")
    for key in keys:
        if key not in storages or storages[key].buffer is not None:
            raise errors.CheckpointError(
                f"storage {errors.show(key)} is listed twice or used nowhere"
            )
        storage = storages[key]
        if position + 8 > len(data):
            raise errors.CheckpointError(
                f"the file is cut off before storage {errors.show(key)}"
            )
        (count,) = struct.unpack_from(f"{order}q", data, position)
        position += 8
        if count != storage.count or count * storage.itemsize > len(data) - position:
            raise errors.CheckpointError(
                f"storage {errors.show(key)} should hold {storage.count:,} elements of "
                f"{storage.dtype}, its header says {count:,}, and "
                f"{len(data) - position:,} bytes of the file remain"
            )
        storage.buffer, storage.start, storage.order = data, position, order
        position += count * storage.itemsize
    for view, base, offset in views:
        view.buffer, view.order = base.buffer, base.order
        view.start = base.start + offset * base.itemsize
    return root, tuple(calls)


def _storage_view(
    base: tensor.Storage,
    metadata: tuple,
    views: list[tuple[tensor.Storage, tensor.Storage, int]],
) -> tensor.Storage:
    """A storage that is a part of another one: `(key, offset, elements)`."""
    key, offset, count = metadata if len(metadata) == 3 else (None, None, None)
    if type(key) is not str or type(offset) is not int or type(count) is not int:
        raise errors.CheckpointError("the view of a storage is damaged")
    if offset < 0 or count < 0 or offset + count > base.count:
        raise errors.CheckpointError(
            f"the view of storage {errors.show(base.key)} from {offset} to "
            f"{offset + count} leaves its {base.count} elements"
        )
    view = tensor.Storage(base.dtype, count, key)
    views.append((view, base, offset))
    return view
