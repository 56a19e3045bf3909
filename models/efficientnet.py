"""EfficientNet B0 to B3 (Tan and Le, ICML 2019): torchvision's, timm's, Hugging Face's.

They differ in depth and width; the number of pixels is no part of a file. B1 and B2 have
one depth and, at full width, one first convolution: the ratio of the last convolution to
the first tells them apart.
"""

import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import jax

from ban_jax.models import architecture, inverted_residual, mobile_names
from ban_jax.models.inverted_residual import Block, Stem

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, the first block's stride, channels, blocks of B0."""
SCALES = {
    "efficientnet_b0": (1.0, 1.0, 32),
    "efficientnet_b1": (1.0, 1.1, 32),
    "efficientnet_b2": (1.1, 1.2, 32),
    "efficientnet_b3": (1.2, 1.4, 40),
}
"""Factors of channels and of depth, channels of the first convolution."""


class EfficientNet(inverted_residual.InvertedResidualNet):
    """Blocks with squeeze and excitation and SiLU.

    Attributes:
      scale: one of `SCALES`.
    """

    width: int = 32
    scale: tuple[float, float, int] = SCALES["efficientnet_b0"]

    table: ClassVar[Mapping[str, Stem]] = {
        "cifar": Stem(1, words="stride 1"),
        "imagenet": Stem(2, words="stride 2, epsilon 0.00001"),
        "tf": Stem(2, -1, True, 1e-3, 0.01, "stride 2, TensorFlow's padding"),
    }
    stems: ClassVar[tuple[str, ...]] = tuple(table)
    wide_stems: ClassVar[tuple[str, ...]] = ("imagenet", "tf", "cifar")
    outer: ClassVar[str] = "silu"
    gate: ClassVar = (jax.nn.silu, jax.nn.sigmoid)

    def sizes(self) -> tuple[tuple[Block, ...], int, int]:
        channels_factor, depth, usual = self.scale
        factor = channels_factor * self.width / usual
        blocks: list[Block] = []
        inputs = self.width
        for expansion, kernel, first, channels, repeats in STAGES:
            outputs = inverted_residual.divisible(channels * factor)
            for repeat in range(math.ceil(repeats * depth)):
                expands = expansion > 1
                expanded = (
                    inverted_residual.divisible(inputs * expansion)
                    if expands
                    else inputs
                )
                squeezed, stride = max(1, inputs // 4), first if repeat == 0 else 1
                blocks.append(
                    Block(
                        kernel,
                        expanded,
                        outputs,
                        squeezed,
                        stride,
                        expands,
                        False,
                        "silu",
                    )
                )
                inputs = outputs
        return tuple(blocks), 4 * inputs, 0


CONSTRUCTORS = {
    name: functools.partial(EfficientNet, scale=scale, width=scale[2])
    for name, scale in SCALES.items()
}


def depth(name: str) -> int:
    """Number of blocks of one of `SCALES`."""
    return sum(math.ceil(stage[4] * SCALES[name][1]) for stage in STAGES)


def difference(name: str, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `SCALES`."""
    squeezes = any(".squeeze." in tensor for tensor in shapes)
    if not squeezes or "penultimate.weight" in shapes:
        return ""
    found = inverted_residual.count(shapes)
    fitting = [other for other in SCALES if depth(other) == found]
    if not fitting:
        known = ", ".join(f"{depth(other)} ({other})" for other in SCALES)
        return f"{found} inverted residual blocks, known are {known}"
    return None if name == _nearest(fitting, shapes) else ""


def _nearest(names: list[str], shapes: architecture.Shapes) -> str:
    """Of scales with one depth that whose channels fit the first and last convolution."""
    first = shapes.get("stem_conv.weight", (0,))[0]
    last = shapes.get("last_conv.weight", (0,))[0]

    def distance(name: str) -> float:
        factor, _, usual = SCALES[name]
        return abs(last - first * 1280 * factor / usual)

    return min(names, key=distance)


def fields(
    constructor: functools.partial[EfficientNet], shapes: architecture.Shapes
) -> architecture.Fields:
    """See `Architecture.fields`."""
    return {**inverted_residual.read(constructor, shapes), "stem": "imagenet"}


FAMILY = {
    name: architecture.Architecture(
        constructor,
        functools.partial(difference, name),
        functools.partial(fields, constructor),
        mobile_names.rename,
    )
    for name, constructor in CONSTRUCTORS.items()
}
