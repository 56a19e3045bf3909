"""Bytes of a file's storages that none of its tensors reaches.

`torch.save` writes a tensor's whole storage: of a slice all that it was cut from, which
loading brings back, though nothing that is named shows it.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.lib import stride_tricks

from ban_jax.checkpoints import tensor, watchdog


def count(tensors: Iterable[tensor.Tensor]) -> int:
    """Bytes of the storages of these tensors that none of them reaches."""
    views: dict[int, list[tuple[int, tensor.Tensor]]] = {}
    roots: dict[int, tensor.Storage] = {}
    for one in tensors:
        root, first = one.storage, one.storage.start
        while root.base is not None:
            root = root.base
            first += root.start
        roots[id(root)] = root
        views.setdefault(id(root), []).append((first - root.start, one))
    return sum(_of_one(root, views[name]) for name, root in roots.items())


def _of_one(root: tensor.Storage, views: list[tuple[int, tensor.Tensor]]) -> int:
    """Bytes of a storage that views, each counted from a byte of it on, do not reach."""
    whole = root.count * root.itemsize
    if any(_is_whole(one, whole) for _, one in views):
        return 0
    unit = math.gcd(whole, *(n for at, v in views for n in (at, v.storage.itemsize)))
    reached = np.zeros(whole // max(unit, 1), bool)
    for at, one in views:
        watchdog.check()
        if not one.size:
            continue
        size = one.storage.itemsize // unit
        # What is repeated by a stride of zero is marked once.
        axes = [
            (length, stride * size)
            for length, stride in zip(one.shape, one.strides, strict=True)
            if stride and length > 1
        ]
        shape, strides = zip(*axes, (size, 1), strict=True)
        start = at // unit + one.offset * size
        end = start + sum((n - 1) * step for n, step in (*axes, (size, 1))) + 1
        if end > reached.size:  # not in the file, which who reads the tensor is told
            continue
        stride_tricks.as_strided(reached[start:], shape, strides)[...] = True
    return int(np.count_nonzero(~reached)) * unit


def _is_whole(value: tensor.Tensor, whole: int) -> bool:
    """Whether a tensor is all of so many bytes, each once, its axes in any order."""
    count = value.storage.itemsize
    for stride, length in sorted(zip(value.strides, value.shape, strict=True)):
        if length != 1 and stride * value.storage.itemsize != count:
            return False
        count *= length
    return count == whole
