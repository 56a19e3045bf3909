"""ResNet18 and ResNet34 (He et al., "Deep Residual Learning", CVPR 2016), CIFAR style.

Layout of methods in this field: 3x3 stem without pooling, basic blocks, features are the
last stage after its ReLU (4x4x512 at 32x32 and width 64).
"""

import functools
from typing import ClassVar, NamedTuple

import jax
from flax import linen as nn

from ban_jax.models import architecture, common, pytorch_names
from ban_jax.types import Array, NormMode


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    filters: int
    stride: int
    project: bool
    make_conv: common.MakeConv

    def setup(self) -> None:
        self.conv1 = self.make_conv(self.filters, 3, self.stride, 1)
        self.bn1 = common.Norm()
        self.conv2 = self.make_conv(self.filters, 3, 1, 1)
        self.bn2 = common.Norm()
        if self.project:
            self.shortcut = [
                self.make_conv(self.filters, 1, self.stride, 0),
                common.Norm(),
            ]

    def __call__(self, x: Array, mode: NormMode) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x), mode))
        y = self.bn2(self.conv2(y), mode)
        if self.project:
            conv, norm = self.shortcut
            x = norm(conv(x), mode)
        return jax.nn.relu(x + y)


class Stem(NamedTuple):
    """The first convolution, and whether 3x3 max pooling with stride 2 follows."""

    size: int
    stride: int
    pools: bool


STEMS = {
    "cifar": Stem(3, 1, False),
    "imagenet": Stem(7, 2, True),
    "7x7-unpooled": Stem(7, 2, False),
    "7x7-stride1-pooled": Stem(7, 1, True),
    "7x7-stride1": Stem(7, 1, False),
}
"""By name."""


class ResNet(common.Classifier):
    """Stages of basic blocks of width, 2, 4 and 8 times width channels.

    Attributes:
      blocks: number of blocks per stage; (2, 2, 2, 2) is ResNet18.
      stem: `cifar` (3x3, stride 1), `imagenet` (7x7, stride 2, then 3x3 max pooling), or
        another of `STEMS`: the kernel of 7x7 as programs for small images have it.
    """

    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)

    stems: ClassVar[tuple[str, ...]] = tuple(STEMS)
    wide_stems: ClassVar[tuple[str, ...]] = tuple(STEMS)[1:]

    def setup(self) -> None:
        super().setup()
        size, stride, _ = STEMS[self.stem]
        self.conv1 = self.make_conv(self.width, size, stride, size // 2)
        self.bn1 = common.Norm()
        self.layer1 = self._stage(0)
        self.layer2 = self._stage(1)
        self.layer3 = self._stage(2)
        self.layer4 = self._stage(3)
        self.linear = common.Linear(self.num_classes)

    def stem_layers(self, stem: str) -> str:
        pooling = "3x3 max pooling" if STEMS[stem].pools else "no pooling"
        return f"stride {STEMS[stem].stride} and {pooling}"

    def _stage(self, index: int) -> list[BasicBlock]:
        filters = self.width * 2**index
        stride = 1 if index == 0 else 2
        first = BasicBlock(filters, stride, index > 0, self.make_conv)
        rest = [
            BasicBlock(filters, 1, False, self.make_conv)
            for _ in range(self.blocks[index] - 1)
        ]
        return [first, *rest]

    def features(self, images: Array, mode: NormMode) -> Array:
        x = jax.nn.relu(self.bn1(self.conv1(self.normalise(images)), mode))
        if STEMS[self.stem].pools:
            x = common.max_pool(x, 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, mode)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        return self.linear(common.global_average(features))


BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
"""Blocks per stage."""


def difference(name: str, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `BLOCKS`."""
    found = pytorch_names.blocks(shapes, "layer")
    if not found or pytorch_names.blocks(shapes, "dense"):
        return ""
    if any(tensor.endswith(".conv3.weight") for tensor in shapes):
        return f"bottleneck residual blocks {found} (ResNet50 kind)"
    if found not in BLOCKS.values():
        known = ", ".join(f"{blocks} ({name})" for name, blocks in BLOCKS.items())
        return f"residual blocks {found} per stage, known are {known}"
    # A norm behind the stem is what a pre-activation network does not have.
    stem = any(tensor.startswith("bn1.") for tensor in shapes)
    return None if stem and found == BLOCKS[name] else ""


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="conv1", head="linear")
    wide = shapes["conv1.weight"][2:] == (7, 7)
    return {**sizes, "stem": "imagenet" if wide else "cifar"}


FAMILY = {
    name: architecture.Architecture(
        functools.partial(ResNet, blocks=blocks),
        functools.partial(difference, name),
        fields,
        pytorch_names.of_the_field,
    )
    for name, blocks in BLOCKS.items()
}
