"""Weights that `torch.nn.utils.prune` keeps as two tensors: the weight and its mask."""

import numpy as np

from ban_jax.checkpoints import limits, tensor

_WEIGHT, _MASK = "_orig", "_mask"


class Masked:
    """A tensor that is the product of two; see `tensor.Tensor`.

    Args:
      weight: as it was before pruning.
      mask: zeros and ones of the same shape.
    """

    __slots__ = ("mask", "offset", "shape", "size", "storage", "strides")

    def __init__(self, weight: tensor.Tensor, mask: tensor.Tensor):
        self.mask = mask
        self.storage, self.offset = weight.storage, weight.offset
        self.shape, self.strides, self.size = weight.shape, weight.strides, weight.size

    def float32(
        self, budget: limits.Budget, axes: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """The contiguous product, its axes permuted by `axes`."""
        weight = tensor.Tensor(self.storage, self.shape, self.strides, self.offset)
        # A masked weight may be infinite: PyTorch's product is not a number then, too.
        with np.errstate(over="ignore", invalid="ignore"):
            return weight.float32(budget, axes) * self.mask.float32(budget, axes)


def pairs(tensors: dict[str, tensor.Tensor]) -> dict[str, tuple[str, str]]:
    """Name of a pruned weight -> the names of the weight and of its mask."""
    found = {}
    for name, value in tensors.items():
        stem = name.removesuffix(_WEIGHT)
        mask = tensors.get(stem + _MASK)
        if (
            stem != name
            and stem not in tensors
            and mask is not None
            and mask.shape == value.shape
        ):
            found[stem] = (name, stem + _MASK)
    return found
