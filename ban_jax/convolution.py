"""One convolution, several lowerings of the same function.

  native   `lax.conv_general_dilated`, with both gradients written out as ordinary NHWC
           convolutions. Best for one model at a time, inside loops too: it is the
           gradients that autodiff derives which XLA's CPU backend runs far slower in a
           loop body. Where the kernel has more pixels than the image, as
           im2col. Under `jax.vmap` over kernels it becomes a grouped convolution.
  shift    one `dot_general` per kernel position on a shifted view; no patch memory, and
           `jax.vmap` over kernels only adds a batch dimension.
  im2col   patches side by side, then one `dot_general`; kh*kw times the input's memory.

`default_lowering` says which one a backend gets; `benchmarks/convolution.py` measures.
"""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ban_jax.types import Array

Lowering = Literal["native", "shift", "im2col"]
LOWERINGS: tuple[str, ...] = get_args(Lowering)

HALVED_BATCH = 64
"""From this many images on, the kernel's gradient is taken in two halves."""
NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x: Array, kernel: Array, *, stride: int, padding: int, lowering: Lowering
) -> Array:
    """Convolves images with a kernel, symmetric zero padding as in PyTorch.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C, O]`.
      stride: step in both directions.
      padding: zero rows and columns added on every side.
      lowering: see the module docstring.

    Returns:
      `[B, (H + 2 padding - kh) // stride + 1, (W + 2 padding - kw) // stride + 1, O]`.

    Raises:
      ValueError: for an unknown lowering.
    """
    if lowering not in LOWERINGS:
        raise ValueError(f"lowering must be one of {LOWERINGS}, got {lowering!r}")
    if kernel.shape[:2] == (1, 1) and padding == 0:
        return _contract(x[:, ::stride, ::stride], kernel[0, 0])
    if x.shape[1:3] == (1, 1) and kernel.shape[:2] == (2 * padding + 1,) * 2:
        # All positions but the central one see only padding.
        return _contract(x, kernel[padding, padding])
    return _conv(stride, padding, lowering, x, kernel)


def default_lowering(backend: str) -> Lowering:
    """The lowering for a `jax.default_backend()` name.

    CPUs judge one model after another (`population`), where the native convolution is
    fastest. Accelerators stack models, and a grouped convolution's gradient is slow there
    (jax issue 13800).
    """
    return "native" if backend == "cpu" else "shift"


def _contract(x: Array, matrix: Array) -> Array:
    """`[..., C] x [C, O] -> [..., O]`."""
    return lax.dot_general(x, matrix, (((x.ndim - 1,), (0,)), ((), ())))


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


def _suited(lowering: str, image: Sequence[int], kernel: Sequence[int]) -> str:
    """The lowering, or `im2col` for `native` where the kernel has more pixels.

    XLA exchanges image and kernel there, and its CPU backend has no fast routine for what
    results.
    """
    larger = kernel[0] * kernel[1] > image[0] * image[1]
    return "im2col" if lowering == "native" and larger else lowering


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv(stride: int, padding: int, lowering: str, x: Array, kernel: Array) -> Array:
    lowering = _suited(lowering, x.shape[1:3], kernel.shape[:2])
    if lowering == "native":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=NHWC,
        )
    kh, kw, channels, outputs = kernel.shape
    windows = _windows(x, (kh, kw), stride, padding)
    if lowering == "im2col":
        patches = jnp.concatenate(windows, axis=-1)
        return _contract(patches, kernel.reshape(kh * kw * channels, outputs))
    matrices = kernel.reshape(kh * kw, channels, outputs)
    return sum(
        (_contract(window, matrices[k]) for k, window in enumerate(windows[1:], 1)),
        start=_contract(windows[0], matrices[0]),
    )


def _conv_forward(stride, padding, lowering, x, kernel):
    return _conv(stride, padding, lowering, x, kernel), (x, kernel)


def _conv_backward(stride, padding, lowering, residuals, cotangent):
    """The kernel's gradient costs nothing where nobody asks for it: XLA drops it."""
    x, kernel = residuals
    x_gradient = _input_gradient(
        stride, padding, lowering, x.shape[1:3], kernel, cotangent
    )
    kernel_gradient = _kernel_gradient(
        stride, padding, lowering, kernel.shape[:2], x, cotangent
    )
    return x_gradient, kernel_gradient


def _kernel_gradient(stride, padding, lowering, size, x, cotangent):
    """The images in convolution with the cotangent, summed over the batch.

    Args:
      stride: of the forward convolution.
      padding: of the forward convolution.
      lowering: see the module docstring.
      size: `(kh, kw)`.
      x: `[B, H, W, C]`.
      cotangent: `[B, h, w, O]`.

    Returns:
      `[kh, kw, C, O]`.
    """
    # Here the cotangent is the kernel.
    lowering = _suited(lowering, x.shape[1:3], cotangent.shape[1:3])
    if lowering == "native":
        correlate = functools.partial(_correlate, stride, padding, size)
        batch = x.shape[0]
        if batch < HALVED_BATCH or batch % 2:
            return correlate(x, cotangent)
        # For the loop's sake: XLA would fuse whatever made `x`, back to the last
        # convolutions, into the transposition and compute it again, but does not fuse
        # into a loop. A fifth of a training step on CPU.
        halves = [
            array.reshape(2, batch // 2, *array.shape[1:]) for array in (x, cotangent)
        ]
        zeros = jnp.zeros((*size, x.shape[-1], cotangent.shape[-1]), x.dtype)
        return lax.scan(
            lambda total, half: (total + correlate(*half), None), zeros, halves
        )[0]
    windows = _windows(x, size, stride, padding)
    over_pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    shape = (*size, x.shape[-1], cotangent.shape[-1])
    if lowering == "im2col":
        patches = jnp.concatenate(windows, axis=-1)
        return lax.dot_general(patches, cotangent, over_pixels).reshape(shape)
    return jnp.stack(
        [lax.dot_general(window, cotangent, over_pixels) for window in windows]
    ).reshape(shape)


def _correlate(stride, padding, size, x, cotangent):
    """`_kernel_gradient` as one convolution: channels as images, images as channels.

    The transpositions are explicit because dimension numbers that imply them miss the
    fast convolution in the body of a loop.
    """
    pads = [
        (padding, stride * (extent - 1) + taps - length - padding)
        for extent, taps, length in zip(
            cotangent.shape[1:3], size, x.shape[1:3], strict=True
        )
    ]
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=(stride, stride),
        dimension_numbers=NHWC,
    )
    return gradient.transpose(1, 2, 0, 3)


def _input_gradient(stride, padding, lowering, size, kernel, cotangent):
    """The input's gradient is a convolution of the cotangent, too.

    Input row `stride * q + r` meets output row `q + d` at the kernel's row
    `r + padding - stride * d`. So each of the stride's phases r is an ordinary
    convolution with every stride-th row of the kernel; all phases are computed at once,
    as channels, and dealt out to their pixels. (A cotangent spread out with zeros would
    do the same with stride squared times the work.)

    Args:
      stride: of the forward convolution.
      padding: of the forward convolution.
      lowering: see the module docstring.
      size: `(H, W)` of the input.
      kernel: `[kh, kw, C, O]`.
      cotangent: `[B, h, w, O]`.

    Returns:
      `[B, H, W, C]`.
    """
    channels, outputs = kernel.shape[2:]
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    pads, counts = [], []
    for axis, length in enumerate(size):
        taps = kernel.shape[axis * 2] - 1
        first = -((taps - 1 - padding) // stride)
        last = (stride - 1 + padding) // stride
        offsets = np.arange(first, last + 1)
        rows = np.arange(stride) + padding - stride * offsets[:, None]
        # What lies beyond the kernel is the row of zeros just appended.
        rows = np.where((rows < 0) | (rows >= taps), taps, rows)
        kernel = jnp.take(kernel, rows, axis=axis * 2)
        counts.append(-(-length // stride))
        pads.append((-first, counts[-1] + last - cotangent.shape[axis + 1], 0))
    # [offset, phase, offset, phase, C, O] -> one kernel with phases among its outputs
    kernel = kernel.transpose(0, 2, 5, 1, 3, 4)
    kernel = kernel.reshape(*kernel.shape[:2], outputs, stride * stride * channels)
    # Decided before padding, which XLA makes part of the convolution again.
    lowering = _suited(lowering, cotangent.shape[1:3], kernel.shape[:2])
    padded = lax.pad(
        cotangent, jnp.zeros((), cotangent.dtype), ((0, 0, 0), *pads, (0, 0, 0))
    )
    phases = _conv(1, 0, lowering, padded, kernel)
    pixels = phases.reshape(-1, *counts, stride, stride, channels)
    pixels = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, counts[0] * stride, counts[1] * stride, channels
    )
    return pixels[:, : size[0], : size[1]]


_conv.defvjp(_conv_forward, _conv_backward)
