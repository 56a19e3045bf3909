"""VGG16 with batch normalisation (Simonyan and Zisserman, "Very Deep Convolutional
Networks for Large-Scale Image Recognition", ICLR 2015), CIFAR style.

Layout of methods in this field: one linear layer behind the convolutions; features are
the whole convolutional stack (1x1x512 at 32x32 and width 64).
"""

import functools
import re
from typing import ClassVar

import jax

from ban_jax.models import architecture, common, pytorch_names
from ban_jax.types import Array, NormMode

POOL = 0
VGG16 = (1, 1, POOL, 2, 2, POOL, 4, 4, 4, POOL, 8, 8, 8, POOL, 8, 8, 8, POOL)
"""Channels of the convolutions in units of the width, and where pooling halves the map."""


class VGG(common.Classifier):
    """Plain stack of 3x3 convolutions with bias, five times halved by max pooling."""

    minimum_size: ClassVar[int] = 32
    classifier_name: ClassVar[str] = "classifier"

    def setup(self) -> None:
        super().setup()
        # The list has a place for every layer PyTorch numbers, so that names agree.
        layers: list[common.Conv | common.Norm | str] = []
        for factor in VGG16:
            if factor == POOL:
                layers.append("pool")
                continue
            conv = common.Conv(self.width * factor, use_bias=True)
            layers += [conv, common.Norm(), "relu"]
        self.layers = layers
        self.classifier = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        x = self.normalise(images)
        for layer in self.layers:
            if layer == "pool":
                x = common.max_pool(x, 2, 2)
            elif layer == "relu":
                x = jax.nn.relu(x)
            elif isinstance(layer, common.Norm):
                x = layer(x, mode)
            elif isinstance(layer, common.Conv):
                x = layer(x)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        return self.classifier(common.global_average(features))


CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
"""PyTorch's numbers of the convolutions."""


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    found = {
        int(name.split(".")[1])
        for name, shape in shapes.items()
        if re.fullmatch(r"features\.\d{1,3}\.weight", name) and len(shape) == 4
    }
    if not found or any(
        pytorch_names.blocks(shapes, kind) for kind in ("layer", "dense")
    ):
        return ""
    # A few may be missing: the error then says which.
    if found <= set(CONVOLUTIONS) and len(found) > len(CONVOLUTIONS) - 4:
        return None
    numbers = tuple(sorted(found))
    return f"convolutions at features.{numbers}, VGG16-BN has {CONVOLUTIONS}"


FAMILY = {
    "vgg16": architecture.Architecture(
        VGG,
        difference,
        functools.partial(architecture.sizes, stem="features.0", head="classifier"),
        pytorch_names.with_vgg_head,
    )
}
