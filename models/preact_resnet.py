"""PreActResNet18 (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016).

Layout of BackdoorBench and the WaNet authors: stem and last stage without normalisation,
so features (4x4x512 at 32x32 and width 64) may be negative.
"""

import functools

import jax
from flax import linen as nn

from ban_jax.models import architecture, common, pytorch_names
from ban_jax.types import Array, NormMode


class PreActBlock(nn.Module):
    """Normalisation and ReLU before each convolution; a projection follows the first."""

    filters: int
    stride: int
    project: bool
    make_conv: common.MakeConv

    def setup(self) -> None:
        self.bn1 = common.Norm()
        self.conv1 = self.make_conv(self.filters, 3, self.stride, 1)
        self.bn2 = common.Norm()
        self.conv2 = self.make_conv(self.filters, 3, 1, 1)
        if self.project:
            self.shortcut = [self.make_conv(self.filters, 1, self.stride, 0)]

    def __call__(self, x: Array, mode: NormMode) -> Array:
        active = jax.nn.relu(self.bn1(x, mode))
        y = self.conv2(jax.nn.relu(self.bn2(self.conv1(active), mode)))
        return y + (self.shortcut[0](active) if self.project else x)


class PreActResNet(common.Classifier):
    """Stages of two blocks of width, 2, 4 and 8 times width channels."""

    def setup(self) -> None:
        super().setup()
        self.conv1 = self.make_conv(self.width)
        self.layer1 = self._stage(0)
        self.layer2 = self._stage(1)
        self.layer3 = self._stage(2)
        self.layer4 = self._stage(3)
        self.linear = common.Linear(self.num_classes)

    def _stage(self, index: int) -> list[PreActBlock]:
        filters = self.width * 2**index
        stride = 1 if index == 0 else 2
        return [
            PreActBlock(filters, stride, index > 0, self.make_conv),
            PreActBlock(filters, 1, False, self.make_conv),
        ]

    def features(self, images: Array, mode: NormMode) -> Array:
        x = self.conv1(self.normalise(images))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, mode)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        return self.linear(common.global_average(features))


BLOCKS = (2, 2, 2, 2)
"""Blocks per stage."""


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    found = pytorch_names.blocks(shapes, "layer")
    if not found or any(
        name.startswith(("bn1.", "dense")) or name.endswith(".conv3.weight")
        for name in shapes
    ):
        return ""
    return None if found == BLOCKS else f"pre-activation residual blocks {found}"


FAMILY = {
    "preact_resnet18": architecture.Architecture(
        PreActResNet,
        difference,
        functools.partial(architecture.sizes, stem="conv1", head="linear"),
        pytorch_names.of_the_field,
    )
}
