"""DenseNets (Huang et al., "Densely Connected Convolutional Networks", CVPR 2017).

Layout of methods in this field: 3x3 stem without normalisation or pooling, new channels
in front of the old ones; features (4x4x1024 at 32x32 and width 64) lie before the last
normalisation, which belongs to the head. torchvision's have a 7x7 stem with both, and new
channels behind the old ones.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax.models import architecture, common, pytorch_names
from ban_jax.types import Array, NormMode

Statistics = tuple[Array, Array]
"""Mean and variance `[C]` of the minibatch at hand."""


class DenseLayer(nn.Module):
    """Makes `growth` new channels `[B, H, W, growth]` from all earlier ones."""

    growth: int
    make_conv: common.MakeConv

    def setup(self) -> None:
        self.bn1 = common.Norm()
        self.conv1 = self.make_conv(4 * self.growth, 1, 1, 0)
        self.bn2 = common.Norm()
        self.conv2 = self.make_conv(self.growth, 3, 1, 1)

    def __call__(self, x: Array, mode: NormMode, statistics: Statistics) -> Array:
        y = self.conv1(jax.nn.relu(self.bn1(x, mode, statistics)))
        return self.conv2(jax.nn.relu(self.bn2(y, mode)))


class Transition(nn.Module):
    """Halves the map and, rounding down, the channels."""

    filters: int
    make_conv: common.MakeConv

    def setup(self) -> None:
        self.bn = common.Norm()
        self.conv = self.make_conv(self.filters, 1, 1, 0)

    def __call__(self, x: Array, mode: NormMode, statistics: Statistics) -> Array:
        y = self.conv(jax.nn.relu(self.bn(x, mode, statistics)))
        return common.average_pool(y, 2)


class DenseNet(common.Classifier):
    """Dense blocks of growing channel count; each layer adds half the width.

    Attributes:
      blocks: layers per dense block; (6, 12, 24, 16) is DenseNet121.
    """

    blocks: tuple[int, int, int, int] = (6, 12, 24, 16)

    stems: ClassVar[tuple[str, ...]] = ("cifar", "imagenet")
    minimum_width: ClassVar[int] = 2

    @property
    def minimum_size(self) -> int:  # type: ignore[override]
        """Three stages are halved, and the wide stem halves twice."""
        return 32 if self.stem == "imagenet" else 8

    def setup(self) -> None:
        super().setup()
        growth = self.width // 2
        if self.stem == "imagenet":
            self.conv1 = self.make_conv(self.width, 7, 2, 3)
            self.bn1 = common.Norm()
        else:
            self.conv1 = self.make_conv(self.width)
        channels = self.width
        for index, count in enumerate(self.blocks, 1):
            layers = [DenseLayer(growth, self.make_conv) for _ in range(count)]
            setattr(self, f"dense{index}", layers)
            channels += count * growth
            if index < len(self.blocks):
                channels //= 2
                setattr(self, f"trans{index}", Transition(channels, self.make_conv))
        self.bn = common.Norm()
        self.linear = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        x = self.conv1(self.normalise(images))
        if self.stem == "imagenet":
            x = common.max_pool(jax.nn.relu(self.bn1(x, mode)), 3, 2, 1)
        for index in range(1, len(self.blocks) + 1):
            # Concatenation moves channels without changing them: each one's statistics
            # are taken when it is made and serve every later layer of the block.
            statistics = common.batch_statistics(x)
            for layer in getattr(self, f"dense{index}"):
                new = layer(x, mode, statistics)
                x = self._joined(x, new)
                mean, var = common.batch_statistics(new)
                statistics = (
                    self._joined(statistics[0], mean),
                    self._joined(statistics[1], var),
                )
            if index < len(self.blocks):
                x = getattr(self, f"trans{index}")(x, mode, statistics)
        return common.widened(x)

    def _joined(self, old: Array, new: Array) -> Array:
        """Channels of all layers so far, `[..., C]`."""
        parts = [old, new] if self.stem == "imagenet" else [new, old]
        return jnp.concatenate(parts, axis=-1)

    def head(self, features: Array, mode: NormMode) -> Array:
        x = jax.nn.relu(self.bn(features, mode))
        return self.linear(common.global_average(x))


BLOCKS = {
    "densenet121": (6, 12, 24, 16),
    "densenet161": (6, 12, 36, 24),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Layers per dense block; DenseNet161 has a width of 96, the others 64."""
_TORCHVISION = (
    # Old files of torchvision's have a dot before the number.
    (r"\.(norm|conv)\.([12])\.", r".\1\2."),
    (r"^features\.denseblock(\d)\.denselayer(\d+)\.", r"dense\1.#\2."),
    (r"^features\.transition(\d)\.norm\.", r"trans\1.bn."),
    (r"^features\.transition(\d)\.", r"trans\1."),
    (r"^features\.conv0\.", "conv1."),
    (r"^features\.norm0\.", "bn1."),
    (r"^features\.norm5\.", "bn."),
    (r"\.norm([12])\.", r".bn\1."),
    (r"^(classifier|fc|head)\.(?=\w+$)", "linear."),
)
"""Parts of names, and what they are called here, one after the other."""


def difference(name: str, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `BLOCKS`."""
    found = pytorch_names.blocks(shapes, "dense")
    if not found:
        return ""
    if found in BLOCKS.values():
        return None if found == BLOCKS[name] else ""
    known = ", ".join(f"{blocks} ({one})" for one, blocks in BLOCKS.items())
    return f"dense blocks {found} per stage, known are {known}"


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="conv1", head="linear")
    return {**sizes, "stem": "imagenet" if "bn1.weight" in shapes else "cifar"}


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`."""
    if not any(name.startswith("features.denseblock1.") for name in names):
        return pytorch_names.of_the_field(names)

    def renamed(name: str) -> str:
        for theirs, ours in _TORCHVISION:
            name = re.sub(theirs, ours, name)
        # torchvision counts layers from one.
        return re.sub(r"#(\d+)", lambda match: str(int(match[1]) - 1), name)

    return {name: renamed(name) for name in names}


FAMILY = {
    name: architecture.Architecture(
        functools.partial(DenseNet, blocks=blocks),
        functools.partial(difference, name),
        fields,
        rename,
    )
    for name, blocks in BLOCKS.items()
}
