"""The network that draws a picture for each image: patterns and masks of IAD and SSDT.

A U without its shortcuts: halved to a few pixels and enlarged again. Parameter names are
those of the released code.

References:
  Nguyen and Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020; constants of
  xiaoyunxxy/ban, train_models/IAD.
"""

import functools
from collections.abc import Sequence

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution
from ban_jax.models import common
from ban_jax.types import Array, NormMode

MOMENTUM = 0.05
"""PyTorch's, of the network's normalisation layers."""


class Block(nn.Module):
    """Convolution, normalisation and, but for the last block, a ReLU."""

    filters: int
    lowering: convolution.Lowering
    relu: bool = True

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        x = common.Conv(
            self.filters, use_bias=True, lowering=self.lowering, name="conv2d"
        )(x)
        x = common.Norm(momentum=MOMENTUM, name="batch_norm")(x, mode)
        return nn.relu(x) if self.relu else x


class Generator(nn.Module):
    """`[B, H, W, C]` in [0, 1] -> `[B, H, W, out]` in (0, 1).

    Attributes:
      out: channels drawn, C for the pattern and 1 for the mask.
      width: channels of the first level; 32 in the paper, 16 for its small images.
      levels: halvings of the image; 3 in the paper, 2 for its small images.
      lowering: see `ban_jax.convolution`.
    """

    out: int
    width: int
    levels: int
    lowering: convolution.Lowering

    @nn.compact
    def __call__(self, images: Array, mode: NormMode) -> Array:
        widths = [self.width * 2**level for level in range(self.levels)]
        block = functools.partial(Block, lowering=self.lowering)
        x, sizes = standardise(images), []
        for level, width in enumerate(widths):
            x = block(width, name=f"convblock_down_{2 * level}")(x, mode)
            x = block(width, name=f"convblock_down_{2 * level + 1}")(x, mode)
            sizes.append(x.shape[1:3])
            x = common.max_pool(x, 2, 2)
        x = block(widths[-1], name="convblock_middle")(x, mode)
        for level, size in enumerate(reversed(sizes)):
            width = widths[-1 - level]
            last = level == self.levels - 1
            after = self.out if last else widths[-2 - level]
            x = upsample(x, size)
            x = block(width, name=f"convblock_up_{2 * level}")(x, mode)
            x = block(after, relu=not last, name=f"convblock_up_{2 * level + 1}")(
                x, mode
            )
        return box(x)


def standardise(images: Array) -> Array:
    """Pixels in [0, 1] to about the scale that the data sets' constants give them."""
    return (images - 0.5) * 4.0


def upsample(x: Array, size: Sequence[int]) -> Array:
    """`[B, h, w, c]` -> `[B, *size, c]`, bilinear without aligned corners."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")


def box(z: Array) -> Array:
    """The reals to (0, 1), as nearly all trigger code does it."""
    return jnp.tanh(z) / (2 + 1e-7) + 0.5
