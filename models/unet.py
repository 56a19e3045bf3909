"""The U-Net that FeatureRE, UNICORN and BTI-DBF change images with; no classifier.

Blocks of two 3x3 convolutions, each followed by an instance normalisation and a leaky
ReLU; between the blocks of the way down a maximum of 2x2 pixels, on the way up a
transposed convolution whose result lies beside the block of the same size. Nothing bounds
the output: it is an image on the normalised scale. The released module owns a bilinear
branch besides, which it never uses; it is left out here, and 10,987,011 parameters remain
at width 32.

References:
  Xu et al., "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling
  Benign Features", ICLR 2024, `models/` of the code released with it (the same network
  in the code of FeatureRE, NeurIPS 2022, and UNICORN, ICLR 2023).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution
from ban_jax.models import common
from ban_jax.types import Array, Precision

WIDTH = 32
"""Channels of the first block in the released code."""

LEVELS = 4
"""Halvings of the image in the released code, whose images have 32x32 pixels."""

SLOPE = 0.01
"""Of the leaky ReLU below zero."""

EPSILON = 1e-5


def levels_of(size: Sequence[int], most: int = LEVELS) -> int:
    """Halvings that leave at least 2 pixels of the shorter side, at most `most`.

    An instance normalisation of a single pixel gives zero whatever the pixel was.
    """
    shorter, levels = min(size), 0
    while levels < most and math.ceil(shorter / 2) >= 2:
        shorter, levels = math.ceil(shorter / 2), levels + 1
    return levels


class InstanceNorm(nn.Module):
    """Each channel of each image by its own mean and biased variance, then affine."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, h, w, c]` -> the same, in the dtype of `x`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = common.widened(x)
        centred = wide - jnp.mean(wide, axis=(1, 2), keepdims=True)
        var = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
        unit = centred * jax.lax.rsqrt(var + EPSILON)
        shaped = (common.along_channels(vector, x) for vector in (scale, bias))
        factor, shift = shaped
        return (unit * factor + shift).astype(x.dtype)


class Block(nn.Module):
    """Twice: convolution, instance normalisation, leaky ReLU."""

    filters: int
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for number in range(2):
            x = common.Conv(
                self.filters,
                use_bias=True,
                lowering=self.lowering,
                precision=self.precision,
                name=f"conv_{number}",
            )(x)
            x = InstanceNorm(name=f"norm_{number}")(x)
            x = nn.leaky_relu(x, SLOPE)
        return x


class Doubled(nn.Module):
    """A transposed 3x3 convolution of stride 2 that keeps the channels.

    The kernel `[3, 3, c, c]` is PyTorch's turned by half a circle, its input and output
    channels in Linen's order.
    """

    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array, size: Sequence[int]) -> Array:
        """`[B, h, w, c]` -> `[B, *size, c]`, each of them `2 h` or `2 h - 1`."""
        channels = x.shape[-1]
        fan_in = 9 * channels
        kernel = self.param(
            "kernel", common.torch_uniform, (3, 3, channels, channels), fan_in
        )
        bias = self.param("bias", common.torch_uniform, (channels,), fan_in)
        y = convolution.transposed2d(
            x,
            kernel[::-1, ::-1].swapaxes(2, 3).astype(x.dtype),
            size=size,
            stride=2,
            padding=1,
            lowering=self.lowering,
            precision=self.precision,
        )
        return (common.widened(y) + common.along_channels(bias, y)).astype(x.dtype)


class UNet(nn.Module):
    """`[B, H, W, C]` on the normalised scale -> `[B, H, W, C]`.

    Attributes:
      channels: C.
      width: channels of the first block.
      levels: halvings; see `levels_of`.
      lowering: of the convolutions, see `ban_jax.convolution`.
      precision: see `types.Precision`; parameters and output are float32 all the same.
    """

    channels: int = 3
    width: int = WIDTH
    levels: int = LEVELS
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        how: dict[str, Any] = {"lowering": self.lowering, "precision": self.precision}
        narrow = self.precision == "bfloat16"
        x = images.astype(jnp.bfloat16) if narrow else images
        seen = []
        for level in range(self.levels):
            x = Block(self.width * 2**level, **how, name=f"down_{level}")(x)
            seen.append(x)
            x = halved(x)
        x = Block(self.width * 2**self.levels, **how, name="middle")(x)
        for level in reversed(range(self.levels)):
            x = Doubled(**how, name=f"double_{level}")(x, seen[level].shape[1:3])
            x = nn.leaky_relu(x, SLOPE)
            x = jnp.concatenate([x, seen[level]], axis=-1)
            x = Block(self.width * 2**level, **how, name=f"up_{level}")(x)
        last = common.Conv(
            self.channels, size=1, padding=0, use_bias=True, **how, name="last"
        )
        return last(x).astype(images.dtype)


def halved(x: Array) -> Array:
    """Maximum of each 2x2 pixels; of fewer at the border of an odd size."""
    odd = [(0, x.shape[axis] % 2 if axis in (1, 2) else 0) for axis in range(4)]
    return common.max_pool(jnp.pad(x, odd, constant_values=-jnp.inf), 2, 2)
