"""MobileNetV3 small and large (Howard et al., ICCV 2019), torchvision's and timm's.

The layers behind the mean are two: a linear one with hard swish, and the classifier. timm
keeps the first as a 1x1 convolution, by which its files are known; its batch normalisation
has another epsilon, and the weights taken over from TensorFlow are padded in its way.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar

import jax

from ban_jax.models import architecture, inverted_residual, mobile_names
from ban_jax.models.inverted_residual import Block, Stem

_WIDTH = 16
_R, _H = "relu", "hard_swish"
SMALL = (
    (3, 16, 16, True, _R, 2),
    (3, 72, 24, False, _R, 2),
    (3, 88, 24, False, _R, 1),
    (5, 96, 40, True, _H, 2),
    (5, 240, 40, True, _H, 1),
    (5, 240, 40, True, _H, 1),
    (5, 120, 48, True, _H, 1),
    (5, 144, 48, True, _H, 1),
    (5, 288, 96, True, _H, 2),
    (5, 576, 96, True, _H, 1),
    (5, 576, 96, True, _H, 1),
)
LARGE = (
    (3, 16, 16, False, _R, 1),
    (3, 64, 24, False, _R, 2),
    (3, 72, 24, False, _R, 1),
    (5, 72, 40, True, _R, 2),
    (5, 120, 40, True, _R, 1),
    (5, 120, 40, True, _R, 1),
    (3, 240, 80, False, _H, 2),
    (3, 200, 80, False, _H, 1),
    (3, 184, 80, False, _H, 1),
    (3, 184, 80, False, _H, 1),
    (3, 480, 112, True, _H, 1),
    (3, 672, 112, True, _H, 1),
    (5, 672, 160, True, _H, 2),
    (5, 960, 160, True, _H, 1),
    (5, 960, 160, True, _H, 1),
)
"""Kernel, expanded channels, outputs, squeeze and excitation, activation, stride."""


class MobileNetV3(inverted_residual.InvertedResidualNet):
    """`width` is 16 in the paper.

    Attributes:
      rows: `SMALL` or `LARGE`.
      units: of the layer before the last at that width.
    """

    width: int = _WIDTH
    rows: tuple[tuple[int, int, int, bool, str, int], ...] = SMALL
    units: int = 1024

    table: ClassVar[Mapping[str, Stem]] = {
        "cifar": Stem(1, -1, False, 1e-3, 0.01, "stride 1, epsilon 0.001"),
        "imagenet": Stem(2, -1, False, 1e-3, 0.01, "stride 2, epsilon 0.001"),
        "timm": Stem(2, words="stride 2, epsilon 0.00001"),
        "tf": Stem(2, -1, True, 1e-3, 0.01, "stride 2, TensorFlow's padding"),
    }
    stems: ClassVar[tuple[str, ...]] = tuple(table)
    outer: ClassVar[str] = "hard_swish"
    gate: ClassVar = (jax.nn.relu, jax.nn.hard_sigmoid)

    @property
    def alike(self) -> tuple[str, ...]:
        return ("timm", "tf") if self.hidden_conv else ("imagenet", "cifar")

    def sizes(self) -> tuple[tuple[Block, ...], int, int]:
        def scaled(channels: int) -> int:
            return inverted_residual.divisible(channels * self.width / _WIDTH)

        blocks: list[Block] = []
        inputs = self.width
        for kernel, wide, channels, squeezes, activation, stride in self.rows:
            expanded, outputs = scaled(wide), scaled(channels)
            squeezed = inverted_residual.divisible(expanded // 4) if squeezes else 0
            expands = expanded != inputs
            blocks.append(
                Block(
                    kernel,
                    expanded,
                    outputs,
                    squeezed,
                    stride,
                    expands,
                    False,
                    activation,
                )
            )
            inputs = outputs
        return tuple(blocks), 6 * inputs, scaled(self.units)


CONSTRUCTORS = {
    "mobilenet_v3_small": functools.partial(MobileNetV3, rows=SMALL, units=1024),
    "mobilenet_v3_large": functools.partial(MobileNetV3, rows=LARGE, units=1280),
}


def difference(rows: int, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `rows` is the number of blocks."""
    squeezes = any(".squeeze." in name for name in shapes)
    if not squeezes or "penultimate.weight" not in shapes:
        return ""
    found = inverted_residual.count(shapes)
    if found == rows:
        return None
    if found in (len(SMALL), len(LARGE)):
        return ""
    return (
        f"{found} blocks, MobileNetV3 has {len(SMALL)} (small) or {len(LARGE)} (large)"
    )


def fields(
    constructor: functools.partial[MobileNetV3], shapes: architecture.Shapes
) -> architecture.Fields:
    """See `Architecture.fields`."""
    found = inverted_residual.read(constructor, shapes)
    return {**found, "stem": "timm" if found.get("hidden_conv") else "imagenet"}


FAMILY = {
    name: architecture.Architecture(
        constructor,
        functools.partial(difference, len(constructor.keywords["rows"])),
        functools.partial(fields, constructor),
        mobile_names.rename,
    )
    for name, constructor in CONSTRUCTORS.items()
}
