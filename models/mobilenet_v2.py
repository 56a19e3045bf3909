"""MobileNetV2 (Sandler et al., CVPR 2018): torchvision's, timm's, Hugging Face's and the
CIFAR one.

kuangliu's pytorch-cifar, which BackdoorBench took over, has no stride in the first
convolution and the second stage, ReLU for ReLU6, and a convolution in the shortcut
wherever channels change without a stride.
"""

from collections.abc import Mapping
from typing import ClassVar

from ban_jax.models import architecture, inverted_residual, mobile_names
from ban_jax.models.inverted_residual import Block, Stem

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and the first block's stride."""
_WIDTH = 32


class MobileNetV2(inverted_residual.InvertedResidualNet):
    """17 blocks; `width` is 32 in the paper. The `cifar` stem is kuangliu's network."""

    width: int = _WIDTH

    table: ClassVar[Mapping[str, Stem]] = {
        "cifar": Stem(1, 1, words="kuangliu's network"),
        "imagenet": Stem(2, words="stride 2, epsilon 0.00001"),
        "tf": Stem(2, -1, True, 1e-3, 0.003, "stride 2, TensorFlow's padding"),
        "imagenet-stride1": Stem(1, 1, words="stride 1 there and in the second stage"),
    }
    stems: ClassVar[tuple[str, ...]] = tuple(table)
    wide_stems: ClassVar[tuple[str, ...]] = ("imagenet", "tf", "imagenet-stride1")

    def sizes(self) -> tuple[tuple[Block, ...], int, int]:
        factor = self.width / _WIDTH
        blocks: list[Block] = []
        inputs = self.width
        cifar = self.stem == "cifar"
        for expansion, channels, repeats, first in STAGES:
            outputs = inverted_residual.divisible(channels * factor)
            for repeat in range(repeats):
                stride = first if repeat == 0 else 1
                expanded = inputs * expansion
                expands = cifar or expansion > 1
                unstrided = stride == 1 or len(blocks) == 1
                projected = cifar and unstrided and inputs != outputs
                blocks.append(
                    Block(3, expanded, outputs, 0, stride, expands, projected, "relu6")
                )
                inputs = outputs
        last = inverted_residual.divisible(1280 * max(factor, 1.0))
        return tuple(blocks), last, 0

    def _activated(self, block: Block) -> Block:
        return block._replace(activation=self._activation())

    def _activation(self) -> str:
        return "relu" if self.stem == "cifar" else "relu6"

    def _outer(self):
        return inverted_residual.ACTIVATIONS[self._activation()]


_COUNT = sum(stage[2] for stage in STAGES)


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    found = inverted_residual.count(shapes)
    if not found or any(".squeeze." in name for name in shapes):
        return ""
    if found != _COUNT:
        return f"{found} inverted residual blocks, MobileNetV2 has {_COUNT}"
    return None


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    stem = "cifar" if "layers_list.0.expand.weight" in shapes else "imagenet"

    def network(**sizes) -> MobileNetV2:
        return MobileNetV2(stem=stem, **sizes)

    return {**inverted_residual.read(network, shapes), "stem": stem}


FAMILY = {
    "mobilenet_v2": architecture.Architecture(
        MobileNetV2, difference, fields, mobile_names.rename
    )
}
