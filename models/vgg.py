"""VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015) of 11 to 19 layers, with batch normalisation and without.

Layout of methods in this field: one linear layer behind the convolutions; features are
the whole convolutional stack (1x1x512 at 32x32 and width 64). torchvision has three linear
layers behind 7x7 means of it, which belong to the head.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import jax

from ban_jax.models import architecture, common, pytorch_names
from ban_jax.types import Array, NormMode

STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Convolutions of each stage, behind which pooling halves the map."""
CHANNELS = (1, 2, 4, 8, 8)
"""Of each stage, in units of the width."""
PLAIN = "_plain"
"""What ends the name of a network without normalisation: torchvision's `vgg16` is our
`vgg16_plain`, its `vgg16_bn` our `vgg16`."""
GRID = 7
"""Means per side of the map that the first of three linear layers sees."""
_LARGE = {
    "classifier.0": "hidden1",
    "classifier.3": "hidden2",
    "classifier.6": "classifier",
}
_TIMM = {
    "pre_logits.fc1": "hidden1",
    "pre_logits.fc2": "hidden2",
    "head.fc": "classifier",
}
_MISSING = 4
"""Convolutions of which so many are missing are of another network."""


class VGG(common.Classifier):
    """Plain stack of 3x3 convolutions with bias, five times halved by max pooling.

    Attributes:
      stages: see `STAGES`.
      normalised: whether each convolution is followed by a normalisation.
      hidden: outputs of the first two of three linear layers; 0: one layer alone.
      hidden_conv: whether these two are kept as convolutions, as timm does, over all
        places of a map that has more than `GRID` a side.
    """

    stages: tuple[int, ...] = STAGES["vgg16"]
    normalised: bool = True
    hidden: int = 0
    hidden_conv: bool = False

    minimum_size: ClassVar[int] = 32
    classifier_name: ClassVar[str] = "classifier"

    def setup(self) -> None:
        super().setup()
        # The list has a place for every layer PyTorch numbers, so that names agree.
        layers: list[common.Conv | common.Norm | str] = []
        for count, factor in zip(self.stages, CHANNELS, strict=True):
            for _ in range(count):
                layers.append(self.make_conv(self.width * factor, use_bias=True))
                if self.normalised:
                    layers.append(common.Norm())
                layers.append("relu")
            layers.append("pool")
        self.layers = layers
        self.hidden1: common.Conv | common.Linear
        self.hidden2: common.Conv | common.Linear
        if self.hidden and self.hidden_conv:
            self.hidden1 = self.make_conv(self.hidden, GRID, 1, 0, use_bias=True)
            self.hidden2 = self.make_conv(self.hidden, 1, 1, 0, use_bias=True)
        elif self.hidden:
            self.hidden1 = common.Linear(self.hidden)
            self.hidden2 = common.Linear(self.hidden)
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
        if not self.hidden:
            return self.classifier(common.global_average(features))
        x = features
        if not self.hidden_conv or min(x.shape[1:3]) < GRID:
            x = common.adaptive_average(x, GRID)
        if self.hidden_conv:
            x = jax.nn.relu(self.hidden2(jax.nn.relu(self.hidden1(x))))
            return self.classifier(common.global_average(x))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # as PyTorch flattens
        x = jax.nn.relu(self.hidden1(x))
        return self.classifier(jax.nn.relu(self.hidden2(x)))


@functools.cache
def convolutions(name: str, normalised: bool) -> tuple[int, ...]:
    """PyTorch's numbers of the convolutions of one of `STAGES`."""
    numbers: list[int] = []
    place = 0
    for count in STAGES[name]:
        step = 3 if normalised else 2  # of a convolution, its normalisation, its ReLU
        numbers += range(place, place + count * step, step)
        place += count * step + 1
    return tuple(numbers)


def difference(name: str, normalised: bool, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `STAGES`."""
    ranks = {
        int(tensor.split(".")[1]): len(shape)
        for tensor, shape in shapes.items()
        if re.fullmatch(r"features\.\d{1,3}\.weight", tensor)
    }
    found = {number for number, rank in ranks.items() if rank == 4}
    others = (pytorch_names.blocks(shapes, kind) for kind in ("layer", "dense"))
    if not found or any(others) or normalised != (1 in ranks.values()):
        return ""
    # A few may be missing: the error then says which.
    missing = {
        one: len(set(convolutions(one, normalised)) - found)
        for one in STAGES
        if found <= set(convolutions(one, normalised))
    }
    nearest = min(missing, key=lambda one: missing[one], default="vgg16")
    if missing.get(nearest, _MISSING) < _MISSING:
        return None if nearest == name else ""
    if name != "vgg16":
        return ""
    kind = "VGG16-BN" if normalised else "VGG16"
    numbers, known = tuple(sorted(found)), convolutions(name, normalised)
    return f"convolutions at features.{numbers}, {kind} has {known}"


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="features.0", head="classifier")
    hidden = shapes.get("hidden1.weight", ())
    if not hidden:
        return sizes
    found = {**sizes, "hidden": hidden[0]}
    return {**found, "hidden_conv": True} if len(hidden) == 4 else found


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`."""
    modules = {name.rpartition(".")[0] for name in names}
    for table in (_LARGE, _TIMM):
        if modules.issuperset(table):
            return {name: _renamed(name, table) for name in names}
    return pytorch_names.with_vgg_head(names)


def _renamed(name: str, table: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{table.get(module, module)}.{leaf}"


FAMILY = {
    name + (not normalised) * PLAIN: architecture.Architecture(
        functools.partial(VGG, stages=stages, normalised=normalised),
        functools.partial(difference, name, normalised),
        fields,
        rename,
    )
    for normalised in (True, False)
    for name, stages in STAGES.items()
}
