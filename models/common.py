"""Blocks shared by the architectures: convolution, normalisation, the features/head cut.

Module names follow the field's PyTorch names, with every `.3` written `_3`, so that a
checkpoint converts by renaming alone (`ban_jax.checkpoints.convert`).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution, types
from ban_jax.types import Array, NormMode, Variables

EPSILON = 1e-5
MOMENTUM = 0.1
"""PyTorch's convention: the weight of the new statistic, not of the old one."""


class Norm(nn.Module):
    """Batch normalisation over `[B, H, W, C]` with an explicit source of statistics.

    Linen's own layer keeps the biased variance and computes it in one pass, which loses
    all digits for large means; PyTorch stores the unbiased one. See `types.NormMode`.
    """

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        stored_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if mode == "stored":
            mean, var = stored_mean.value, stored_var.value
        else:
            mean = jnp.mean(x, axis=(0, 1, 2))
            var = jnp.mean(jnp.square(x - mean), axis=(0, 1, 2))
            if mode == "update" and not self.is_initializing():
                count = x.size // channels
                unbiased = var * (count / max(count - 1, 1))
                stored_mean.value += MOMENTUM * (mean - stored_mean.value)
                stored_var.value += MOMENTUM * (unbiased - stored_var.value)
        factor = scale * jax.lax.rsqrt(var + EPSILON)
        return x * factor + (bias - mean * factor)


class Conv(nn.Module):
    """A square convolution with PyTorch's symmetric padding and default initialiser."""

    filters: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = False
    lowering: convolution.Lowering = "native"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", torch_uniform, shape)
        y = convolution.conv2d(
            x, kernel, stride=self.stride, padding=self.padding, lowering=self.lowering
        )
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.filters,))
        return y


def torch_uniform(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """PyTorch's default for convolutions and linear layers: U(-1, 1) / sqrt(fan in)."""
    bound = (shape[-1] / float(functools.reduce(lambda a, b: a * b, shape))) ** 0.5
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


class Classifier(nn.Module):
    """What every architecture offers: `head(features(images))`.

    Attributes:
      num_classes: K.
      width: channels of the first convolution; 64 in the paper.
      in_channels: C of the images.
      lowering: how convolutions are computed, see `ban_jax.convolution`.

    The pixel normalisation is a collection of its own, `normalisation/{mean,std}` `[C]`,
    identity until a checkpoint's own constants are put there: models trained with
    different constants then share one compiled program.
    """

    num_classes: int
    width: int = 64
    in_channels: int = 3
    lowering: convolution.Lowering = "native"

    minimum_size = 8
    """Smallest image side at which every stage keeps at least one pixel."""

    def setup(self) -> None:
        shape = (self.in_channels,)
        self.pixel_mean = self.variable("normalisation", "mean", jnp.zeros, shape)
        self.pixel_std = self.variable("normalisation", "std", jnp.ones, shape)

    def normalise(self, images: Array) -> Array:
        """`[B, H, W, C]` in [0, 1] to the scale the model was trained on."""
        height, width, channels = images.shape[1:]
        if channels != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} takes images of {self.in_channels} channels, "
                f"got {channels}"
            )
        if min(height, width) < self.minimum_size:
            raise ValueError(
                f"{type(self).__name__} needs images of at least {self.minimum_size}x"
                f"{self.minimum_size} pixels, got {height}x{width}: below that a stage "
                "has no pixel left"
            )
        return (images - self.pixel_mean.value) / self.pixel_std.value

    def features(self, images: Array, mode: NormMode) -> Array:
        """`[B, H, W, C]` -> `[B, h, w, c]`, the activations a feature mask acts on."""
        raise NotImplementedError

    def head(self, features: Array, mode: NormMode) -> Array:
        """`[B, h, w, c]` -> logits `[B, K]`."""
        raise NotImplementedError

    def __call__(self, images: Array, mode: NormMode = "stored") -> Array:
        """`[B, H, W, C]` -> logits `[B, K]`."""
        return self.head(self.features(images, mode), mode)


def global_average(x: Array) -> Array:
    """`[B, h, w, c]` -> `[B, c]`."""
    return jnp.mean(x, axis=(1, 2))


def pool(x: Array, size: int, stride: int | None = None, padding: int = 0) -> Array:
    """Max pooling, padded with -inf as in PyTorch."""
    stride = stride or size
    return nn.max_pool(x, (size, size), (stride, stride), [(padding, padding)] * 2)


@functools.cache
def network(module: Classifier) -> types.Network:
    """The two functions kernels work with; one object per module, so jit can key on it."""

    def call(method: str, variables: Variables, x: Array, mode: NormMode):
        if mode != "update":
            return module.apply(variables, x, mode, method=method), variables
        y, updated = module.apply(
            variables, x, mode, method=method, mutable=["batch_stats"]
        )
        return y, {**variables, **updated}

    return types.Network(
        features=functools.partial(call, "features"),
        head=functools.partial(call, "head"),
        num_classes=module.num_classes,
    )


def abstract_variables(module: Classifier, image_size: int | None = None) -> Variables:
    """Shapes and dtypes of the module's variables, computed without allocating any."""
    size = image_size or max(module.minimum_size, 32)
    images = jax.ShapeDtypeStruct((1, size, size, module.in_channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)
