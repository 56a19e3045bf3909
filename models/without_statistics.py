"""Normalisation that keeps no statistics: LayerNorm, GroupNorm and layer scale.

Each owns a `scale` `[C]`, by which neuron noise knows a normalisation layer
(`ban_jax.perturb.neurons`).

References:
  Ba et al., "Layer Normalization", 2016. Wu and He, "Group Normalization", ECCV 2018.
  Touvron et al., "Going deeper with Image Transformers" (layer scale), ICCV 2021.
"""

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax.models import common
from ban_jax.types import Array, NormMode


class LayerNorm(nn.Module):
    """Normalises each place's channels, `[..., C]` -> `[..., C]` in the dtype of `x`.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = common.EPSILON

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _scaled(self, _normalised(x, (-1,), self.epsilon), x)


class GroupNorm(nn.Module):
    """Normalises groups of channels over all places, `[B, H, W, C]`, in x's dtype.

    Attributes:
      groups: of neighbouring channels, which must divide C.
      epsilon: added to the variance.
    """

    groups: int
    epsilon: float = common.EPSILON

    @nn.compact
    def __call__(self, x: Array, mode: NormMode | None = None) -> Array:
        """`mode` is for layers with statistics, in whose place it stands."""
        del mode
        batch, height, width, channels = x.shape
        if channels % self.groups:
            raise ValueError(f"{channels} channels are not {self.groups} equal groups")
        parts = x.reshape(batch, height, width, self.groups, -1)
        normalised = _normalised(parts, (1, 2, 4), self.epsilon)
        return _scaled(self, normalised.reshape(x.shape), x)


class LayerScale(nn.Module):
    """Multiplies channel by channel, `[..., C]`, what a block adds to its input.

    Attributes:
      initial: what every channel starts with.
    """

    initial: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        start = nn.initializers.constant(self.initial)
        scale = self.param("scale", start, x.shape[-1:])
        return (common.widened(x) * common.along_channels(scale, x)).astype(x.dtype)


def _normalised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """`x` less its mean over `axes`, over its deviation; at least float32."""
    x = common.widened(x)
    x = x - jnp.mean(x, axis=axes, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + epsilon)


def _scaled(module: nn.Module, normalised: Array, x: Array) -> Array:
    """A layer's own `scale` and `bias` on normalised `x`."""
    shape = x.shape[-1:]
    scale = module.param("scale", nn.initializers.ones, shape)
    bias = module.param("bias", nn.initializers.zeros, shape)
    scaled = normalised * common.along_channels(scale, x)
    return (scaled + common.along_channels(bias, x)).astype(x.dtype)
