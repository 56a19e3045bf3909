"""A tensor inside a file: bytes, dtype, shape and strides; copied only on demand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ban_jax.checkpoints import errors, limits

BFLOAT16 = "bfloat16"
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "?",
    # NumPy has no bfloat16: its bits are the upper half of a float32.
    BFLOAT16: "u2",
}
"""The dtypes that are read, and how NumPy sees their bytes."""

FLOATS = ("float64", "float32", "float16", BFLOAT16)


class Storage:
    """A run of elements of one dtype, `count` of them from byte `start` of `buffer`.

    `buffer` may be filled in after tensors refer to the storage: legacy PyTorch files
    hold their storages behind the pickle.
    """

    __slots__ = ("buffer", "count", "dtype", "key", "order", "start")

    def __init__(self, dtype: str, count: int, key: str = "", buffer: Any = None):
        self.dtype = dtype
        self.count = count
        self.key = key
        self.buffer = buffer
        self.start = 0
        self.order = "<"

    @property
    def itemsize(self) -> int:
        return np.dtype(DTYPES[self.dtype]).itemsize


class Tensor:
    """A strided view of a `Storage`, with offset and strides in elements.

    Every element lies within the storage: this is checked when the tensor is made, from
    `Storage.count`, and again by NumPy against the bytes that are there.

    Raises:
      CheckpointError: for a view that is not made of numbers or leaves its storage.
    """

    __slots__ = ("offset", "shape", "size", "storage", "strides")

    def __init__(
        self,
        storage: Storage,
        shape: Sequence[int],
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ):
        for numbers in (shape, strides or (), (offset,)):
            for number in numbers:
                if type(number) is not int or not 0 <= number < 2**48:
                    raise errors.CheckpointError(
                        "a tensor's shape, strides and offset must be non-negative "
                        f"integers, found {errors.show(number)}"
                    )
        if len(shape) > limits.MAX_RANK:
            raise errors.CheckpointError(f"a tensor of {len(shape)} dimensions")
        self.shape = tuple(shape)
        self.size = math.prod(self.shape)
        if strides is None:
            strides = tuple(math.prod(self.shape[i + 1 :]) for i in range(len(shape)))
        if len(strides) != len(self.shape):
            raise errors.CheckpointError(
                f"a tensor with {len(self.shape)} sizes but {len(strides)} strides"
            )
        self.strides = tuple(strides)
        self.storage = storage
        self.offset = offset
        last = offset + sum(
            (size - 1) * stride
            for size, stride in zip(self.shape, self.strides, strict=True)
        )
        if self.size and last >= storage.count:
            raise errors.CheckpointError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset "
                f"{offset} reaches element {last} of storage "
                f"{errors.show(storage.key)}, which holds {storage.count}"
            )

    def view(self) -> np.ndarray:
        """The elements where they lie; bfloat16 as uint16. Read only, no copy."""
        if not self.size:
            return np.zeros(self.shape, DTYPES[self.storage.dtype])
        if self.storage.buffer is None:
            raise errors.CheckpointError(
                f"storage {errors.show(self.storage.key)} is not in the file"
            )
        itemsize = self.storage.itemsize
        view = np.ndarray(
            self.shape,
            self.storage.order + DTYPES[self.storage.dtype],
            self.storage.buffer,
            self.storage.start + self.offset * itemsize,
            tuple(stride * itemsize for stride in self.strides),
        )
        view.flags.writeable = False
        return view

    def float32(
        self, budget: limits.Budget, axes: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """A contiguous float32 copy, its axes permuted by `axes`."""
        budget.spend(4 * self.size)
        view = self.view()
        if axes is not None:
            view = view.transpose(axes)
        if self.storage.dtype == BFLOAT16:
            wide = np.empty(view.shape, np.uint32)
            np.left_shift(view, np.uint32(16), out=wide, dtype=np.uint32)
            return wide.view(np.float32)
        if self.storage.dtype == "float32":
            return np.array(view, np.float32, order="C")
        # Too large for float32 becomes infinite, which the verdict reports by name.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(view, np.float32, order="C")


def from_array(array: np.ndarray) -> Tensor:
    """A tensor over a NumPy array of a known dtype.

    Raises:
      CheckpointError: for a dtype that is not in `DTYPES`.
    """
    if array.dtype.name not in DTYPES:
        raise errors.CheckpointError(
            f"an array of dtype {errors.show(array.dtype.name)}, expected one of "
            + ", ".join(sorted(DTYPES))
        )
    array = np.ascontiguousarray(array)
    view = array.reshape(-1).view(np.uint8).data if array.size else None
    storage = Storage(
        "uint16" if array.dtype.name == BFLOAT16 else array.dtype.name,
        array.size,
        buffer=view,
    )
    storage.dtype = array.dtype.name
    storage.order = ">" if array.dtype.str.startswith(">") else "<"
    return Tensor(storage, array.shape)
