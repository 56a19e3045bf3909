"""Blocks shared by the architectures: convolution, normalisation, features and head.

Module names follow the field's PyTorch names, with every `.3` written `_3`, so that a
checkpoint converts by renaming alone (`ban_jax.checkpoints.convert`). Parameters start
as PyTorch's do.
"""

import functools
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution, types
from ban_jax.types import Array, NormMode, Precision, Variables

EPSILON = 1e-5
MOMENTUM = 0.1
"""PyTorch's convention: the weight of the new statistic, not of the old one."""


class Norm(nn.Module):
    """Batch normalisation over `[B, H, W, C]` with an explicit source of statistics.

    Linen's own layer keeps the biased variance and computes it in one pass, which loses
    all digits for large means; PyTorch stores the unbiased one. See `types.NormMode`.

    Attributes:
      momentum: PyTorch's, the weight of the new statistic.
      epsilon: added to the variance.
    """

    momentum: float = MOMENTUM
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self, x: Array, mode: NormMode, statistics: tuple[Array, Array] | None = None
    ) -> Array:
        """Normalises `x [B, H, W, C]`, keeping its dtype.

        Args:
          x: activations.
          mode: where mean and variance come from.
          statistics: `batch_statistics(x)` where the caller has them already.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        stored_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if mode == "stored":
            mean, var = stored_mean.value, stored_var.value
        elif mode in ("batch", "update"):
            mean, var = statistics or batch_statistics(x)
        else:
            modes = typing.get_args(types.NormMode)
            raise ValueError(f"mode must be one of {modes}, got {mode!r}")
        if mode == "update" and not self.is_initializing():
            count = x.size // channels
            unbiased = var * (count / max(count - 1, 1))
            stored_mean.value += self.momentum * (mean - stored_mean.value)
            stored_var.value += self.momentum * (unbiased - stored_var.value)
        return _affine(x, mean, scale * jax.lax.rsqrt(var + self.epsilon), bias)


@jax.custom_vjp
def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance `[C]` of `x [..., C]`, in two passes.

    At least float32, whatever the dtype of `x`.
    """
    x = widened(x)
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=axes)
    return mean, jnp.mean(jnp.square(x - along_channels(mean, x)), axis=axes)


def _batch_statistics_forward(x):
    mean, var = batch_statistics(x)
    return (mean, var), (x, mean)


def _batch_statistics_backward(residuals, cotangents):
    """Autodiff would also sum the deviations from the mean, which cancel."""
    x, mean = residuals
    mean_gradient, var_gradient = cotangents
    count = x.size // x.shape[-1]
    slope = var_gradient * (2 / count)
    level = mean_gradient / count - mean * slope
    gradient = widened(x) * along_channels(slope, x) + along_channels(level, x)
    return (gradient.astype(x.dtype),)


batch_statistics.defvjp(_batch_statistics_forward, _batch_statistics_backward)


@jax.custom_vjp
def _affine(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    """`(x - mean) * factor + bias`, channel by channel: `[..., C]` in the dtype of x."""
    scaled = widened(x) * along_channels(factor, x)
    return (scaled + along_channels(bias - mean * factor, x)).astype(x.dtype)


def _affine_forward(x, mean, factor, bias):
    return _affine(x, mean, factor, bias), (x, mean, factor, bias)


def _affine_backward(residuals, cotangent):
    """The factor's gradient is summed about the mean: about zero it would cancel."""
    x, mean, factor, bias = residuals
    cotangent = widened(cotangent)
    axes = tuple(range(x.ndim - 1))
    total = jnp.sum(cotangent, axis=axes)
    # Hidden from XLA, which would keep the variance's `x - mean` in memory for this: a
    # tenth of the step's time on CPU.
    center = along_channels(jax.lax.optimization_barrier(mean), x)
    moment = jnp.sum(cotangent * (widened(x) - center), axis=axes)
    return (
        (cotangent * along_channels(factor, x)).astype(x.dtype),
        (-factor * total).astype(mean.dtype),
        moment.astype(factor.dtype),
        total.astype(bias.dtype),
    )


_affine.defvjp(_affine_forward, _affine_backward)


def widened(x: Array) -> Array:
    """The same values in float32 where the dtype is a narrower one."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def along_channels(vector: Array, x: Array) -> Array:
    """`[C]` -> `[1, ..., 1, C]` of the rank of `x`: no implicit rank promotion."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


class Conv(nn.Module):
    """A square convolution with PyTorch's symmetric padding and default initialiser.

    Computes in the dtype of its input, to which the kernel is rounded.
    """

    filters: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = False
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1] // self.groups
        shape = (self.size, self.size, inputs, self.filters)
        kernel = self.param("kernel", torch_uniform, shape, math.prod(shape[:-1]))
        y = convolution.conv2d(
            x,
            kernel.astype(x.dtype),
            stride=self.stride,
            padding=self.padding,
            lowering=self.lowering,
            precision=self.precision,
            groups=self.groups,
        )
        if self.use_bias:
            bias = self.param(
                "bias", torch_uniform, (self.filters,), math.prod(shape[:-1])
            )
            # Widened for the bias's gradient, a sum over all pixels.
            y = (widened(y) + along_channels(bias, y)).astype(x.dtype)
        return y


MakeConv = Callable[..., Conv]
"""`Conv` with lowering and precision filled in."""


class Linear(nn.Module):
    """`[..., F]` -> `[..., O]`, with PyTorch's default initialiser.

    As a last layer in whole float32 numbers, whatever the convolutions' precision: it
    costs next to nothing. Computes in the dtype of its input.
    """

    outputs: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        kernel = self.param("kernel", torch_uniform, (inputs, self.outputs), inputs)
        bias = self.param("bias", torch_uniform, (self.outputs,), inputs)
        products = convolution.products_of(self.precision, x.dtype)
        y = jnp.matmul(x, kernel.astype(x.dtype), precision=products)
        return (widened(y) + along_channels(bias, y)).astype(x.dtype)


def torch_uniform(
    key: Array, shape: Sequence[int], fan_in: int, dtype: Any = jnp.float32
) -> Array:
    """PyTorch's default for kernels and biases alike: U(-1, 1) / sqrt(fan in)."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


class Classifier(nn.Module):
    """What every architecture offers: `head(features(images))`.

    Attributes:
      num_classes: K.
      width: channels of the first convolution; 64 in the paper.
      in_channels: C of the images.
      stem: first layers, one of the family's `stems`.
      lowering: how convolutions are computed, see `ban_jax.convolution`.
      precision: of the convolutions, see `types.Precision`. Parameters, statistics,
        features and logits are those of `float32` all the same.

    The pixel normalisation is a collection of its own, `normalisation/{mean,std}`
    `[C]`, identity until a checkpoint's own constants are put there: models trained
    with different constants then share one compiled program.
    """

    num_classes: int
    width: int = 64
    in_channels: int = 3
    stem: str = "cifar"
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    stems: ClassVar[tuple[str, ...]] = ("cifar",)
    wide_stems: ClassVar[tuple[str, ...]] = ()
    """Those whose weights have the same shapes, the likeliest first."""
    stem_noun: ClassVar[str] = "7x7 stem"  # what they are called in notes
    minimum_width: ClassVar[int] = 1
    minimum_size: ClassVar[int] = 1
    """Smallest image side at which every stage keeps at least one pixel."""
    exact_size: ClassVar[int] = 0
    """The only image side that it takes; 0: any from the smallest on."""
    classifier_name: ClassVar[str] = "linear"
    """The last linear layer's name."""

    def __post_init__(self) -> None:
        for field, least in (
            ("num_classes", 1),
            ("width", self.minimum_width),
            ("in_channels", 1),
        ):
            if getattr(self, field) < least:
                raise ValueError(
                    f"{type(self).__name__} needs {field} of at least {least}, got "
                    f"{getattr(self, field)}"
                )
        if self.stem not in self.stems:
            raise ValueError(
                f"{type(self).__name__} has the stems {self.stems}, got {self.stem!r}"
            )
        precisions = typing.get_args(Precision)
        if self.precision not in precisions:
            raise ValueError(
                f"precision must be one of {precisions}, got {self.precision!r}"
            )
        super().__post_init__()

    @property
    def alike(self) -> tuple[str, ...]:
        """Stems that a checkpoint's shapes do not tell from this one; none: it is told."""
        return self.wide_stems if self.stem in self.wide_stems else ()

    def stem_layers(self, stem: str) -> str:
        """What a stem does besides its convolution, in words."""
        return stem

    def setup(self) -> None:
        shape = (self.in_channels,)
        self.pixel_mean = self.variable("normalisation", "mean", jnp.zeros, shape)
        self.pixel_std = self.variable("normalisation", "std", jnp.ones, shape)

    @property
    def make_conv(self) -> MakeConv:
        """Makes the network's convolutions."""
        return functools.partial(Conv, lowering=self.lowering, precision=self.precision)

    def normalise(self, images: Array) -> Array:
        """`[B, H, W, C]` in [0, 1] to the scale the model was trained on.

        The result has the dtype that the convolutions are to compute in.
        """
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
        mean = along_channels(self.pixel_mean.value, images)
        pixels = (images - mean) / along_channels(self.pixel_std.value, images)
        # The others are no cast: float64 images stay what they are.
        return pixels.astype(jnp.bfloat16) if self.precision == "bfloat16" else pixels

    def features(self, images: Array, mode: NormMode) -> Array:
        """`[B, H, W, C]` -> `[B, h, w, c]`, the activations a feature mask acts on.

        At least float32: masks are searched for in the features' dtype.
        """
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


def max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """Max pooling, padded with -inf as in PyTorch.

    The maximum of shifted views, one axis after the other: XLA's own pooling has a
    gradient (select-and-scatter) that is many times slower on CPU. Where several pixels
    share a maximum they share its gradient; behind a ReLU that is the shared zero.
    """
    for axis in (1, 2):
        pads = [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = jnp.pad(x, pads, constant_values=-jnp.inf) if padding else x
        last = (padded.shape[axis] - size) // stride * stride
        views = [
            jax.lax.slice_in_dim(padded, start, start + last + 1, stride, axis)
            for start in range(size)
        ]
        x = functools.reduce(jnp.maximum, views)
    return x


def average_pool(x: Array, size: int) -> Array:
    """The mean of each `size` x `size` block; incomplete rows and columns drop."""
    batch, height, width, channels = x.shape
    h, w = height // size, width // size
    blocks = x[:, : h * size, : w * size].reshape(batch, h, size, w, size, channels)
    return jnp.mean(blocks, axis=(2, 4))


def adaptive_average(x: Array, size: int) -> Array:
    """`[B, h, w, c]` -> `[B, size, size, c]`, PyTorch's adaptive average pooling."""
    for axis in (1, 2):
        length = x.shape[axis]
        ends = [(k * length // size, -(-(k + 1) * length // size)) for k in range(size)]
        means = [jax.lax.slice_in_dim(x, *two, axis=axis).mean(axis) for two in ends]
        x = jnp.stack(means, axis=axis)
    return x


@functools.lru_cache(maxsize=256)
def network(module: Classifier) -> types.Network:
    """What kernels work with; one object per module, so jit can key on it."""

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
        classifier=lambda variables: variables["params"][module.classifier_name][
            "kernel"
        ],
        num_classes=module.num_classes,
        lowering=module.lowering,
        precision=module.precision,
        images_apart=True,
    )


def abstract_variables(module: Classifier, image_size: int | None = None) -> Variables:
    """Shapes and dtypes of the module's variables, computed without allocating any."""
    size = image_size or module.exact_size or max(module.minimum_size, 32)
    images = jax.ShapeDtypeStruct((1, size, size, module.in_channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)
