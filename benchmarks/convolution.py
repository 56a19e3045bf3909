"""Every lowering of a convolution at the layer shapes of ResNet18, forward and backward.

    python -m benchmarks.convolution

Per model and call, in milliseconds: `forward`; `input`, forward and the gradient for the
activations, all that a noise search takes; `kernel`, forward and the gradient for the
kernel, what training takes besides. The first two for one model and for four stacked by
`jax.vmap`; for one model, both gradients also as the body of a loop.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable

import jax
import tyro
from jax import lax
from jax import numpy as jnp

from ban_jax import convolution
from benchmarks import _timing

SHAPES = (
    (32, 3, 16, 1),
    (32, 16, 16, 1),
    (32, 16, 32, 2),
    (16, 32, 32, 1),
    (8, 64, 64, 1),
    (4, 128, 128, 1),
    (2, 128, 128, 1),
)
"""Side of the image, input and output channels, stride: ResNet18 of width 16.

The last one is its last stage where images have 16x16 pixels."""
LOOP = 8


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    batch: images per model.
    models: models stacked.
    n: timed calls.
    """

    batch: int = 128
    models: int = 4
    n: int = 5


def measure(flags: Flags, shape: tuple[int, int, int, int], lowering: str) -> dict:
    """Milliseconds per model of one layer shape under one lowering."""
    side, channels, outputs, stride = shape
    conv = functools.partial(
        convolution.conv2d, stride=stride, padding=1, lowering=lowering
    )

    def loss(x, kernel):
        return jnp.sum(jnp.square(conv(x, kernel)))

    with_input = jax.value_and_grad(loss)
    with_kernel = jax.value_and_grad(loss, argnums=1)

    def input_loop(x, kernel):
        def body(_, x):
            return x - 1e-3 * with_input(x, kernel)[1]

        return lax.fori_loop(0, LOOP, body, x)

    def kernel_loop(x, kernel):
        def body(_, kernel):
            return kernel - 1e-6 * with_kernel(x, kernel)[1]

        return lax.fori_loop(0, LOOP, body, kernel)

    def milliseconds(function: Callable, models: int, calls: int = 1) -> float:
        keys = jax.random.split(jax.random.key(0))
        x = jax.random.normal(keys[0], (models, flags.batch, side, side, channels))
        kernel = 0.05 * jax.random.normal(keys[1], (models, 3, 3, channels, outputs))
        if models == 1:
            compiled, arguments = jax.jit(function), (x[0], kernel[0])
        else:
            compiled, arguments = jax.jit(jax.vmap(function)), (x, kernel)
        seconds = _timing.repeat(
            lambda: jax.block_until_ready(compiled(*arguments)), flags.n
        )
        return round(min(seconds) / models / calls * 1e3, 2)

    return {
        "forward": milliseconds(conv, 1),
        "input": milliseconds(with_input, 1),
        "input_in_a_loop": milliseconds(input_loop, 1, LOOP),
        "kernel": milliseconds(with_kernel, 1),
        "kernel_in_a_loop": milliseconds(kernel_loop, 1, LOOP),
        "forward_stacked": milliseconds(conv, flags.models),
        "input_stacked": milliseconds(with_input, flags.models),
    }


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    machine = _timing.hardware()
    table = []
    for shape in SHAPES:
        for lowering in convolution.LOWERINGS:
            side, channels, outputs, stride = shape
            layer = f"{side}x{side} {channels}->{outputs} stride {stride}"
            figures = measure(flags, shape, lowering)
            table.append({"layer": layer, "lowering": lowering, **figures})
            print(table[-1], flush=True)
    backend = jax.default_backend()
    _timing.write_result(
        f"convolution_{backend}",
        {**dataclasses.asdict(flags), "statistic": "min", "milliseconds": table},
        machine=machine,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
