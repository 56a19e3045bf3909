"""DenseNet121 (Huang et al., "Densely Connected Convolutional Networks", CVPR 2017),
CIFAR style.

Layout of methods in this field: 3x3 stem without normalisation or pooling, new channels
in front of the old ones; features (4x4x1024 at 32x32 and width 64) lie before the last
normalisation, which belongs to the head.
"""

import functools
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

    minimum_width: ClassVar[int] = 2
    minimum_size: ClassVar[int] = 8

    def setup(self) -> None:
        super().setup()
        growth = self.width // 2
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
        for index in range(1, len(self.blocks) + 1):
            # Concatenation moves channels without changing them: each one's statistics
            # are taken when it is made and serve every later layer of the block.
            statistics = common.batch_statistics(x)
            for layer in getattr(self, f"dense{index}"):
                new = layer(x, mode, statistics)
                x = jnp.concatenate([new, x], axis=-1)
                mean, var = common.batch_statistics(new)
                statistics = (
                    jnp.concatenate([mean, statistics[0]]),
                    jnp.concatenate([var, statistics[1]]),
                )
            if index < len(self.blocks):
                x = getattr(self, f"trans{index}")(x, mode, statistics)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        x = jax.nn.relu(self.bn(features, mode))
        return self.linear(common.global_average(x))


BLOCKS = (6, 12, 24, 16)
"""Layers per dense block."""


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    found = pytorch_names.blocks(shapes, "dense")
    if not found:
        return ""
    known = f"known are {BLOCKS} (densenet121)"
    return None if found == BLOCKS else f"dense blocks {found} per stage, {known}"


FAMILY = {
    "densenet121": architecture.Architecture(
        DenseNet,
        difference,
        functools.partial(architecture.sizes, stem="conv1", head="linear"),
        pytorch_names.of_the_field,
    )
}
