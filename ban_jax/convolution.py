"""One convolution, several lowerings of the same function.

  native   `lax.conv_general_dilated`, with the input's gradient written out as an
           ordinary convolution. Best for one model at a time, inside loops too: it is the
           gradient that autodiff derives which XLA's CPU backend runs ten times slower in
           a loop body. Under `jax.vmap` over kernels it becomes a grouped convolution.
  shift    one `dot_general` per kernel position on a shifted view; no patch memory, and
           `jax.vmap` over kernels only adds a batch dimension.
  im2col   patches side by side, then one `dot_general`; kh*kw times the input's memory.

`default_lowering` says which one a backend gets; `benchmarks/convolution.py` measures.
"""

import functools
from typing import Literal, get_args

import jax
from jax import lax
from jax import numpy as jnp

from ban_jax.types import Array

Lowering = Literal["native", "shift", "im2col"]
LOWERINGS: tuple[str, ...] = get_args(Lowering)


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
        x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
        for i in range(kh)
        for j in range(kw)
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv(stride: int, padding: int, lowering: str, x: Array, kernel: Array) -> Array:
    if lowering == "native":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
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
    """The input's gradient is a convolution too: dilated cotangent, flipped kernel.

    The kernel's gradient costs nothing where nobody asks for it: XLA drops it.
    """
    x, kernel = residuals
    kh, kw, channels, outputs = kernel.shape
    h, w = cotangent.shape[1:3]
    low = (kh - 1 - padding, kw - 1 - padding)
    high = tuple(
        x.shape[axis + 1] - 1 + padding - stride * (size - 1)
        for axis, size in enumerate((h, w))
    )
    zero = jnp.zeros((), cotangent.dtype)
    spread = lax.pad(
        cotangent,
        zero,
        (
            (0, 0, 0),
            (low[0], high[0], stride - 1),
            (low[1], high[1], stride - 1),
            (0, 0, 0),
        ),
    )
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    x_gradient = _conv(1, 0, lowering, spread, flipped)

    if lowering == "native":
        # The kernel's gradient is a convolution of x with the cotangent, over the batch.
        kernel_gradient = lax.conv_general_dilated(
            x,
            cotangent,
            (1, 1),
            [
                (padding, stride * (size - 1) + extent - length - padding)
                for size, extent, length in zip((h, w), (kh, kw), x.shape[1:3])
            ],
            rhs_dilation=(stride, stride),
            dimension_numbers=("CHWN", "IHWO", "HWNC"),
        )
        return x_gradient, kernel_gradient
    windows = _windows(x, (kh, kw), stride, padding)
    over_pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    if lowering == "im2col":
        kernel_gradient = lax.dot_general(
            jnp.concatenate(windows, axis=-1), cotangent, over_pixels
        ).reshape(kernel.shape)
    else:
        kernel_gradient = jnp.stack(
            [lax.dot_general(window, cotangent, over_pixels) for window in windows]
        ).reshape(kernel.shape)
    return x_gradient, kernel_gradient


_conv.defvjp(_conv_forward, _conv_backward)
