"""One convolution, several lowerings of the same function.

  native      `lax.conv_general_dilated`, with both gradients written out as ordinary NHWC
              convolutions. Best for one model at a time, inside loops too: it is the
              gradients that autodiff derives which XLA's CPU backend runs far slower in a
              loop body. Where the kernel has more pixels than the image, as im2col.
              Stacked by `jax.vmap` over kernels it is the GROUPED convolution.
  columns     native, with neighbouring columns of a few outputs' image computed as more
              outputs of one wider kernel: XLA's CPU backend wants 32 of them. A third more
              products, and up to three times as fast for 16 outputs or fewer; the kernel's
              gradient is native's. Where there is nothing to gain, the same as native.
  sequential  native for a model alone; stacked models are computed one after another.
  shift       one `dot_general` per kernel position on a shifted view; no patch memory,
              and `jax.vmap` over kernels only adds a batch dimension.
  im2col      patches side by side, then one `dot_general`; kh*kw times the input's memory.

A `Choice` names the best one for every layer; `convolution.tables` makes it from measured
tables, `ban-jax bench --tune` measures.

One file of over 400 lines: the lowerings are one function written several ways, whose
gradients are to be compared line by line.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
from jax import lax
from jax import numpy as jnp

from ban_jax.types import Array, Precision

Name = Literal["native", "columns", "sequential", "shift", "im2col"]
LOWERINGS: tuple[Name, ...] = get_args(Name)

What = Literal["search", "kernel"]
"""The two halves of a layer's work that may be lowered differently.

`search`: the forward convolution and the gradient for its input, all that a noise search
takes. `kernel`: the gradient for the kernel, which training takes besides.
"""
WORK: tuple[What, ...] = get_args(What)


class Layer(NamedTuple):
    """The shape of one model's convolution, the batch aside.

    Attributes:
      image: the longer side of the input.
      kernel: side of the kernel.
      stride: in both directions.
      channels: of the input.
      outputs: channels of the output.
    """

    image: int
    kernel: int
    stride: int
    channels: int
    outputs: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """A lowering for every layer: static, hashable, a part of what jit keys on.

    Attributes:
      fallback: the lowering where no layer is listed.
      search: listed layers with the lowering of their `search` half (`What`).
      kernel: the same for their `kernel` half.
      table: where the choice comes from; for the record alone, it changes no number.
    """

    fallback: Name
    search: tuple[tuple[Layer, Name], ...] = ()
    kernel: tuple[tuple[Layer, Name], ...] = ()
    table: str = dataclasses.field(default="", compare=False)

    def of(self, layer: Layer, what: What) -> Name:
        """The lowering listed for a layer, or for the nearest that is listed.

        Near means small ratios: the sum of the absolute binary logarithms of the ratios
        of image, channels and outputs; another kernel or stride counts four times.
        """
        listed = self.search if what == "search" else self.kernel
        if not listed:
            return self.fallback
        return min(listed, key=lambda entry: _distance(entry[0], layer))[1]

    def identity(self) -> dict[str, str]:
        """What a record says: the table's name, and a hash of all that decides."""
        decides = dataclasses.astuple(self)[:3]
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        return {"table": self.table, "hash": digest[:16]}


Lowering = Name | Choice
"""How a network's convolutions are lowered: all alike, or each as a `Choice` says."""


class _How(NamedTuple):
    """Everything static about one convolution."""

    stride: int
    padding: int
    search: Name
    kernel: Name
    precision: lax.Precision


NATIVE: tuple[Name, ...] = ("native", "columns", "sequential")
"""Lowerings that leave the convolution to XLA."""
HALVED_BATCH = 64
"""From this many images on, the kernel's gradient is taken in two halves."""
MOST_PIXELS, LEAST_IMAGES = 1 << 15, 8
"""Of a part of the batch in the kernel's gradient on a CPU: pixels at most, but as many
images at least, which are the channels there."""
NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x: Array,
    kernel: Array,
    *,
    stride: int,
    padding: int,
    lowering: Lowering,
    precision: Precision = "float32",
    groups: int = 1,
) -> Array:
    """Convolves images with a kernel, symmetric zero padding as in PyTorch.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C / groups, O]`.
      stride: step in both directions.
      padding: zero rows and columns added on every side.
      lowering: see the module docstring.
      precision: of the products of float32 numbers; see `types.Precision`.
      groups: of channels that see only themselves; with several XLA's own convolution
        is used, whatever the lowering.

    Returns:
      `[B, (H + 2 padding - kh) // stride + 1, (W + 2 padding - kw) // stride + 1, O]`.

    Raises:
      ValueError: for an unknown lowering.
    """
    products = products_of(precision, x.dtype)
    if groups > 1:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding, padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=products,
        )
    layer = layer_of(x.shape[1:3], kernel.shape, stride, padding)
    if layer is None:
        if kernel.shape[:2] == (1, 1):
            return _contract(x[:, ::stride, ::stride], kernel[0, 0], products)
        return _contract(x, kernel[padding, padding], products)
    search, other = (_named(lowering, layer, what) for what in WORK)
    return _conv(_How(stride, padding, search, other, products), x, kernel)


def transposed2d(
    x: Array,
    kernel: Array,
    *,
    size: Sequence[int],
    stride: int,
    padding: int,
    lowering: Lowering,
    precision: Precision = "float32",
) -> Array:
    """The transposed convolution: what the gradient of `conv2d` does for its images.

    Args:
      x: `[B, h, w, O]`, of the shape that `conv2d` makes of `[B, *size, C]`.
      kernel: `[kh, kw, C, O]`, that of `conv2d`.
      size: `(H, W)` of the result.
      stride, padding, lowering, precision: of `conv2d`.

    Returns:
      `[B, H, W, C]`.

    Raises:
      ValueError: for an unknown lowering.
    """
    layer = Layer(max(size), max(kernel.shape[:2]), stride, *kernel.shape[2:])
    search, other = (_named(lowering, layer, what) for what in WORK)
    products = products_of(precision, x.dtype)
    how = _How(stride, padding, search, other, products)
    return _input_gradient(how, tuple(size), kernel, x)


def layer_of(
    image: Sequence[int], kernel: Sequence[int], stride: int, padding: int
) -> Layer | None:
    """The shape a lowering is chosen by, or None where there is nothing to choose.

    That is where one matrix product does: a kernel of one pixel without padding, or an
    image of one pixel, of which all of the kernel but its centre sees only padding.

    Args:
      image: `(H, W)` of the input.
      kernel: `(kh, kw, C, O)`.
      stride: in both directions.
      padding: on every side.
    """
    kh, kw, channels, outputs = kernel
    if (kh, kw, padding) == (1, 1, 0):
        return None
    if tuple(image) == (1, 1) and kh == kw == 2 * padding + 1:
        return None
    return Layer(max(image), max(kh, kw), stride, channels, outputs)


def products_of(precision: Precision, dtype: jax.typing.DTypeLike) -> lax.Precision:
    """What XLA is told about a product of two arrays of `dtype`.

    Left alone, XLA rounds float32 factors to TF32 on GPUs and to bfloat16 on TPUs.
    """
    if jnp.finfo(dtype).bits < 32:
        return lax.Precision.DEFAULT  # narrow factors are exact as they are
    return lax.Precision.HIGH if precision == "tf32" else lax.Precision.HIGHEST


def _named(lowering: Lowering, layer: Layer, what: What) -> Name:
    name = lowering.of(layer, what) if isinstance(lowering, Choice) else lowering
    if name not in LOWERINGS:
        raise ValueError(f"lowering must be one of {LOWERINGS}, got {name!r}")
    return name


def _distance(one: Layer, other: Layer) -> float:
    weights = Layer(image=1, kernel=4, stride=4, channels=1, outputs=1)
    return sum(
        weight * abs(math.log2(a / b))
        for weight, a, b in zip(weights, one, other, strict=True)
    )


def _contract(
    x: Array, matrix: Array, precision: lax.Precision, dtype: Any = None
) -> Array:
    """`[..., C] x [C, O] -> [..., O]`, in the dtype of `x` unless told otherwise."""
    numbers = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, matrix, numbers, precision, dtype)


def _windows(x: Array, size: tuple[int, int], stride: int, padding: int) -> list[Array]:
    """The kh*kw shifted views of `x [B,H,W,C]` a kernel sees, each `[B,h,w,C]`."""
    kh, kw = size
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h = (x.shape[1] - kh) // stride + 1
    w = (x.shape[2] - kw) // stride + 1
    return [
        x[
            :,
            i : i + stride * (h - 1) + 1 : stride,
            j : j + stride * (w - 1) + 1 : stride,
        ]
        for i in range(kh)
        for j in range(kw)
    ]


def _suited(name: Name, image: Sequence[int], kernel: Sequence[int]) -> Name:
    """The lowering; `im2col` for a native convolution whose kernel has more pixels.

    XLA exchanges image and kernel there, and its CPU backend has no fast routine for what
    results.
    """
    larger = kernel[0] * kernel[1] > image[0] * image[1]
    return "im2col" if larger and name in NATIVE else name


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(how: _How, x: Array, kernel: Array) -> Array:
    lowering = _suited(how.search, x.shape[1:3], kernel.shape[:2])
    if lowering == "columns":
        return _columns(how, x, kernel)
    if lowering in NATIVE:
        return _alone(lowering, functools.partial(_native, how))(x, kernel)
    kh, kw, channels, outputs = kernel.shape
    windows = _windows(x, (kh, kw), how.stride, how.padding)
    if lowering == "im2col":
        patches = jnp.concatenate(windows, axis=-1)
        matrix = kernel.reshape(kh * kw * channels, outputs)
        return _contract(patches, matrix, how.precision)
    matrices = kernel.reshape(kh * kw, channels, outputs)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # kh*kw roundings would add up
    products = [
        _contract(window, matrices[k], how.precision, wide)
        for k, window in enumerate(windows)
    ]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _alone(lowering: Name, function: Callable[..., Array]) -> Callable[..., Array]:
    """The function, which `sequential` keeps `jax.vmap` from stacking."""
    if lowering == "sequential":
        return jax.custom_batching.sequential_vmap(function)
    return function


def _columns(how: _How, x: Array, kernel: Array) -> Array:
    """Native, `count` neighbouring columns of the output at once.

    One kernel, wider by the columns' distance, holds the given one once per column, each
    shifted to where its column looks; outputs of one position are then the outputs of
    `count` columns, in their order in memory.
    """
    channels, outputs = kernel.shape[2:]
    width = (x.shape[2] + 2 * how.padding - kernel.shape[1]) // how.stride + 1
    # Measured. Images of few channels cost little besides, and gain most.
    wanted = 64 if channels <= 4 else 32
    count = min(4, max(wanted // outputs, 1))
    count = next(
        number for number in (4, 2, 1) if number <= count and not width % number
    )
    last = how.stride * (count - 1)
    shifted = [
        jnp.pad(kernel, ((0, 0), (column, last - column), (0, 0), (0, 0)))
        for column in range(0, last + 1, how.stride)
    ]
    y = _native(how, x, jnp.concatenate(shifted, axis=-1), count)
    return y.reshape(*y.shape[:2], width, outputs)


def _native(how: _How, x: Array, kernel: Array, columns: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (how.stride, how.stride * columns),
        [(how.padding, how.padding)] * 2,
        dimension_numbers=NHWC,
        precision=how.precision,
    )


def _conv_forward(how, x, kernel):
    return _conv(how, x, kernel), (x, kernel)


def _conv_backward(how, residuals, cotangent):
    """The kernel's gradient costs nothing where nobody asks for it: XLA drops it."""
    x, kernel = residuals
    return (
        _input_gradient(how, x.shape[1:3], kernel, cotangent),
        _kernel_gradient(how, kernel.shape[:2], x, cotangent),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_gradient(how: _How, size: tuple[int, int], x: Array, cotangent: Array):
    """The images in convolution with the cotangent, summed over the batch.

    Args:
      how: the forward convolution.
      size: `(kh, kw)`.
      x: `[B, H, W, C]`.
      cotangent: `[B, h, w, O]`.

    Returns:
      `[kh, kw, C, O]`.
    """
    # Here the cotangent is the kernel.
    lowering = _suited(how.kernel, x.shape[1:3], cotangent.shape[1:3])
    if lowering in NATIVE:
        correlate = functools.partial(_native_kernel_gradient, how, size)
        return _alone(lowering, correlate)(x, cotangent)
    windows = _windows(x, size, how.stride, how.padding)
    over_pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    shape = (*size, x.shape[-1], cotangent.shape[-1])
    if lowering == "im2col":
        patches = jnp.concatenate(windows, axis=-1)
        gradient = lax.dot_general(patches, cotangent, over_pixels, how.precision)
        return gradient.reshape(shape)
    return jnp.stack(
        [
            lax.dot_general(window, cotangent, over_pixels, how.precision)
            for window in windows
        ]
    ).reshape(shape)


def _kernel_gradient_forward(how, size, x, cotangent):
    return _kernel_gradient(how, size, x, cotangent), (x, cotangent)


def _kernel_gradient_backward(how, size, residuals, direction):
    """Linear in either argument: the other two members of the same family."""
    del size
    x, cotangent = residuals
    return (
        _input_gradient(how, x.shape[1:3], direction, cotangent),
        _conv(how, x, direction),
    )


def _native_kernel_gradient(how, size, x, cotangent):
    """`_kernel_gradient` as convolutions, of some of the images each."""
    correlate = functools.partial(_correlate, how, size)
    batch = x.shape[0]
    parts = parts_of(batch, cotangent.shape[1] * cotangent.shape[2])
    if parts == 1:
        return correlate(x, cotangent)
    # For the loop's sake, too: XLA would fuse whatever made `x`, back to the last
    # convolutions, into the transposition and compute it again, but does not fuse
    # into a loop. A fifth of a training step on CPU.
    each = -(-batch // parts)
    missing = parts * each - batch  # images of zeros add nothing
    split = [
        jnp.pad(array, ((0, missing), *[(0, 0)] * 3)).reshape(
            parts, each, *array.shape[1:]
        )
        for array in (x, cotangent)
    ]
    wide = jnp.promote_types(x.dtype, jnp.float32)  # the sum is rounded once
    zeros = jnp.zeros((*size, x.shape[-1], cotangent.shape[-1]), wide)

    def add(total, part):
        return total + correlate(*part), None

    return lax.scan(add, zeros, split)[0].astype(x.dtype)


def parts_of(batch: int, pixels: int) -> int:
    """Parts in which the kernel's gradient is taken, of so many pixels an image.

    Two of a large batch, and more on a CPU, where the cotangent of a part, which is the
    kernel there, must stay in its caches: what that gives a network of width 32 says
    `training_speed_cpu_w32.json`, and `_halves` what two parts gave. A program that is
    lowered for another platform than the default one gets the parts of the default.
    """
    parts = 2 if batch >= HALVED_BATCH else 1
    if jax.default_backend() == "cpu":
        images = max(MOST_PIXELS // pixels, LEAST_IMAGES)
        parts = max(parts, -(-batch // images))
    return parts


def _correlate(how, size, x, cotangent):
    """The kernel's gradient with channels as images and images as channels.

    The transpositions are explicit because dimension numbers that imply them miss the
    fast convolution in the body of a loop.
    """
    pads = [
        (how.padding, how.stride * (extent - 1) + taps - length - how.padding)
        for extent, taps, length in zip(
            cotangent.shape[1:3], size, x.shape[1:3], strict=True
        )
    ]
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=(how.stride, how.stride),
        dimension_numbers=NHWC,
        precision=how.precision,
    )
    return gradient.transpose(1, 2, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _input_gradient(
    how: _How, size: tuple[int, int], kernel: Array, cotangent: Array
) -> Array:
    """The input's gradient is a convolution of the cotangent, too.

    Input row `stride * q + r` meets output row `q + d` at the kernel's row
    `r + padding - stride * d`. So each of the stride's phases r is an ordinary
    convolution with every stride-th row of the kernel; all phases are computed at once,
    as channels, and dealt out to their pixels. (A cotangent spread out with zeros would
    do the same with stride squared times the work.)

    Args:
      how: the forward convolution.
      size: `(H, W)` of the input.
      kernel: `[kh, kw, C, O]`.
      cotangent: `[B, h, w, O]`.

    Returns:
      `[B, H, W, C]`.
    """
    stride, padding = how.stride, how.padding
    channels, outputs = kernel.shape[2:]
    pads, counts = [], []
    for axis, length in enumerate(size):
        taps = kernel.shape[axis * 2]
        first = -((taps - 1 - padding) // stride)
        last = (stride - 1 + padding) // stride
        offsets = last - first + 1
        # Zeros stand for rows beyond the kernel. The last offset's rows come first.
        before = stride * last - padding
        beyond = [(0, 0)] * kernel.ndim
        beyond[axis * 2] = before, stride * offsets - before - taps
        rows = jnp.pad(kernel, beyond)
        shape = list(rows.shape)
        shape[axis * 2 : axis * 2 + 1] = [offsets, stride]
        kernel = jnp.flip(rows.reshape(shape), axis * 2)
        counts.append(-(-length // stride))
        pads.append((-first, counts[-1] + last - cotangent.shape[axis + 1], 0))
    # [offset, phase, offset, phase, C, O] -> one kernel with phases among its outputs
    kernel = kernel.transpose(0, 2, 5, 1, 3, 4)
    kernel = kernel.reshape(*kernel.shape[:2], outputs, stride * stride * channels)
    # Decided before padding, which XLA makes part of the convolution again.
    search = _suited(how.search, cotangent.shape[1:3], kernel.shape[:2])
    padded = lax.pad(
        cotangent, jnp.zeros((), cotangent.dtype), ((0, 0, 0), *pads, (0, 0, 0))
    )
    phases = _conv(how._replace(stride=1, padding=0, search=search), padded, kernel)
    pixels = phases.reshape(-1, *counts, stride, stride, channels)
    pixels = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, counts[0] * stride, counts[1] * stride, channels
    )
    return pixels[:, : size[0], : size[1]]


def _input_gradient_forward(how, size, kernel, cotangent):
    return _input_gradient(how, size, kernel, cotangent), (kernel, cotangent)


def _input_gradient_backward(how, size, residuals, direction):
    """Linear in either argument, as above."""
    del size
    kernel, cotangent = residuals
    return (
        _kernel_gradient(how, kernel.shape[:2], direction, cotangent),
        _conv(how, direction, kernel),
    )


_conv.defvjp(_conv_forward, _conv_backward)
_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
_input_gradient.defvjp(_input_gradient_forward, _input_gradient_backward)
