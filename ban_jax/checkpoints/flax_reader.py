"""Flax variables in msgpack (flax.serialization's layout) and NumPy's .npz."""

import ast
import struct
from typing import Any

from ban_jax.checkpoints import (
    bare_pickle,
    errors,
    file_bytes,
    limits,
    npy_header,
    reconstructions,
    tensor,
    watchdog,
    zip_container,
)

MAX_DEPTH = 64
_MAX_NPY_HEADER = 4096
_ARRAY_EXTENSIONS = (1, 3)
"""Of Flax: arrays, and NumPy's scalars, which may hold whole arrays too."""
_CHUNKED = "__msgpack_chunked_array__"


class MsgpackReader:
    """Reads one msgpack value; arrays are views of `data`.

    Written here because the usual unpackers allocate what a list header announces
    before seeing its items, at every level of nesting. Only maps with text keys, lists,
    numbers, text, bytes and Flax's array extension are known; other extensions become
    None.
    """

    def __init__(self, data: file_bytes.Data, budget: limits.Budget):
        self.data = data
        self.position = 0
        self.budget = budget

    def read(self, depth: int = 0) -> Any:
        """The value at the current position.

        Raises:
          CheckpointError: for damaged data, and nesting beyond `MAX_DEPTH`.
        """
        if depth > MAX_DEPTH:
            raise errors.CheckpointError(f"msgpack nested deeper than {MAX_DEPTH}")
        self.budget.spend(40)
        code = self.number(1)
        if code < 0x80:
            return code
        if code < 0x90:
            return self.map(code & 0x0F, depth)
        if code < 0xA0:
            return self.list(code & 0x0F, depth)
        if code < 0xC0:
            return self.text(code & 0x1F)
        if code >= 0xE0:
            return code - 0x100
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if 0xC4 <= code <= 0xC6:
            return self.take(self.number(1 << (code - 0xC4)))
        if 0xC7 <= code <= 0xC9:
            return self.extension(self.number(1 << (code - 0xC7)))
        if code in (0xCA, 0xCB):
            return struct.unpack(
                *((">f", self.take(4)) if code == 0xCA else (">d", self.take(8)))
            )[0]
        if 0xCC <= code <= 0xCF:
            return self.number(1 << (code - 0xCC))
        if 0xD0 <= code <= 0xD3:
            return int.from_bytes(self.take(1 << (code - 0xD0)), "big", signed=True)
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << (code - 0xD4))
        if 0xD9 <= code <= 0xDB:
            return self.text(self.number(1 << (code - 0xD9)))
        if code in (0xDC, 0xDD):
            return self.list(self.number(2 << (code - 0xDC)), depth)
        if code in (0xDE, 0xDF):
            return self.map(self.number(2 << (code - 0xDE)), depth)
        raise errors.CheckpointError(f"no msgpack code {code:#04x}")

    def take(self, count: int) -> memoryview:
        start = self.position
        if count > len(self.data) - start:
            raise errors.CheckpointError(
                f"the msgpack announces {count:,} bytes where "
                f"{len(self.data) - start:,} remain: the file is cut off"
            )
        self.position = start + count
        return self.data[start : start + count]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self, size: int) -> str:
        self.budget.spend(64 + 4 * size)
        return str(self.take(size), "utf-8")

    def list(self, count: int, depth: int) -> list[Any]:
        self.budget.spend(60)
        watchdog.check()
        return [self.read(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> dict[str, Any]:
        self.budget.spend(240)
        watchdog.check()
        made: dict[str, Any] = {}
        for _ in range(count):
            self.budget.spend(60)
            key = self.read(MAX_DEPTH)
            value = self.read(depth + 1)
            if type(key) is not str or key in made:
                raise errors.CheckpointError(
                    f"msgpack key {errors.show(key)} is no text or occurs twice"
                )
            made[key] = value
        if _CHUNKED in made:
            raise errors.CheckpointError(
                "a msgpack array in chunks, as Flax writes those of over a gigabyte"
            )
        return made

    def extension(self, size: int) -> Any:
        kind = self.number(1)
        content = self.take(size)
        if kind not in _ARRAY_EXTENSIONS:
            return None
        self.budget.spend(600)
        described = MsgpackReader(content, self.budget).read(MAX_DEPTH - 2)
        if type(described) is not list or len(described) != 3:
            raise errors.CheckpointError("a msgpack array is damaged")
        shape, name, data = described
        if type(shape) is not list or not isinstance(data, memoryview):
            raise errors.CheckpointError("a msgpack array is damaged")
        return _array(name, shape, data)


def _array(name: Any, shape: Any, data: memoryview) -> tensor.Tensor:
    if type(name) is not str or name not in tensor.DTYPES:
        raise errors.CheckpointError(
            f"an array of dtype {errors.show(name)}, expected one of "
            + ", ".join(sorted(tensor.DTYPES))
        )
    storage = tensor.Storage(name, 0, "array", data)
    storage.count = len(data) // storage.itemsize
    made = tensor.Tensor(storage, shape)
    if made.size * storage.itemsize != len(data):
        raise errors.CheckpointError(
            f"an array of shape {made.shape} and dtype {name} with {len(data):,} bytes"
        )
    return made


def looks_like_msgpack(data: file_bytes.Data) -> bool:
    """A map with few or many entries whose first key is text."""
    if len(data) < 4:
        return False
    skip = {0xDE: 3, 0xDF: 5}.get(data[0], 1 if 0x81 <= data[0] <= 0x8F else 0)
    return 0 < skip < len(data) and (
        0xA0 <= data[skip] <= 0xBF or data[skip] in (0xD9, 0xDA, 0xDB)
    )


def read_msgpack(data: file_bytes.Data) -> Any:
    """The tree of a `flax.serialization` file.

    Raises:
      CheckpointError: for damaged data, or anything behind the tree.
    """
    reader = MsgpackReader(data, limits.objects(len(data)))
    root = reader.read()
    if reader.position != len(data):
        raise errors.CheckpointError(
            f"{len(data) - reader.position:,} bytes behind the msgpack's end"
        )
    return root


def is_npz(archive: zip_container.Archive) -> bool:
    return bool(archive.entries) and all(
        name.endswith(".npy") for name in archive.entries
    )


def read_npz(archive: zip_container.Archive) -> dict[str, tensor.Tensor]:
    """Arrays by name; compressed ones are inflated within `limits.inflated`.

    Raises:
      CheckpointError: for object arrays, which only unpickling could read, and for
        damaged or implausibly compressible ones.
    """
    budget = limits.inflated(len(archive.data))
    arrays = {}
    for name, entry in archive.entries.items():
        short = name.removesuffix(".npy")
        if not entry.plain or short in archive.entries:
            raise errors.CheckpointError(
                f"array {errors.show(name)} has a name that NumPy reads in two ways"
            )
        watchdog.check()
        arrays[short] = _npy(name, archive.inflate(name, budget))
    return arrays


def object_calls(data: file_bytes.Data) -> tuple[str, ...]:
    """What a single array asks to have called, if it is one of Python objects."""
    if data[:6] != b"\x93NUMPY":
        return ()
    header = npy_header.read(data[: npy_header.MOST])
    if npy_header.holds_numbers(header.descr):
        return ()
    return bare_pickle.calls(data[header.start :][: limits.MAX_PICKLE])


def _npy(name: str, data: memoryview) -> tensor.Tensor:
    label = f"array {errors.show(name)}"
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise errors.CheckpointError(f"{label} is not in NumPy's format")
    if data[6] not in (1, 2, 3) or data[7]:
        raise errors.CheckpointError(f"{label} is of version {data[6]}.{data[7]}")
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_NPY_HEADER or start > len(data):
        raise errors.CheckpointError(f"{label} has a header of {length:,} bytes")
    try:
        header = ast.literal_eval(str(data[8 + width : start], "utf-8").strip())
    except (SyntaxError, MemoryError, RecursionError, ValueError) as error:
        raise errors.CheckpointError(f"{label} has a damaged header") from error
    if type(header) is not dict or set(header) != {"descr", "fortran_order", "shape"}:
        raise errors.CheckpointError(f"{label} has a damaged header")
    descr, shape = header["descr"], header["shape"]
    if type(descr) is str and "O" in descr:
        raise errors.CheckpointError(
            f"{label} holds Python objects; only arrays of numbers are read",
            calls=bare_pickle.calls(data[start:]),
        )
    if (
        type(descr) is not str
        or descr[:1] not in ("<", ">", "|", "=")
        or descr[1:] not in reconstructions.NUMPY_CODES
        or type(shape) is not tuple
    ):
        raise errors.CheckpointError(
            f"{label} has dtype {errors.show(descr)}, expected numbers"
        )
    storage = tensor.Storage(reconstructions.NUMPY_CODES[descr[1:]], 0, name, data)
    storage.start = start
    storage.count = (len(data) - start) // storage.itemsize
    storage.order = ">" if descr[0] == ">" else "<"
    strides = None
    if type(header["fortran_order"]) is not bool:
        raise errors.CheckpointError(f"{label} has a damaged header")
    if header["fortran_order"]:
        made = tensor.Tensor(storage, shape)
        strides = [1]
        for size in made.shape[:-1]:
            strides.append(strides[-1] * size)
        strides = strides[: len(shape)]
    made = tensor.Tensor(storage, shape, strides)
    if made.size != storage.count:
        raise errors.CheckpointError(
            f"{label} of shape {shape} has room for {storage.count:,} elements"
        )
    return made
