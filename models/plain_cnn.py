"""Networks of tutorials: a few convolutions with ReLU and pooling, then one to three linear
layers, in `nn.Sequential` or named conv1, bn1, fc1.

Weights tell the layers; the first linear layer tells the map it takes, s x s. Padding and
pooling no weight tells: of the `LAYOUTS`, those that turn the clean images into such a map
are tried on them (`scanning.stems`). Normalisation is taken to stand before the ReLU.
Features are the map.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax

from ban_jax.models import architecture, common, plain_names
from ban_jax.models.plain_names import Part
from ban_jax.types import Array, NormMode

LARGEST_IMAGE = 1024
_USUAL = (32, 28, 64, 224, 16)
"""Sides of images."""


class Layout(NamedTuple):
    """What stands between convolutions.

    Attributes:
      padded: how many convolutions, from the first, keep the size; the others shrink it.
      pooled: behind which a 2x2 pooling follows: `each`, every `second`, all `but` the
        last, or `none`.
      stride: of the convolutions.
      mean: whether pooling takes means instead of maxima.
    """

    padded: int
    pooled: str = "each"
    stride: int = 1
    mean: bool = False


LAYOUTS = {
    "padded": Layout(plain_names.MOST),
    "bare": Layout(0),
    "padded_second": Layout(plain_names.MOST, "second"),
    "bare_second": Layout(0, "second"),
    "padded_but": Layout(plain_names.MOST, "but"),
    "bare_but": Layout(0, "but"),
    "padded_stride": Layout(plain_names.MOST, "none", 2),
    "padded_none": Layout(plain_names.MOST, "none"),
    "bare_none": Layout(0, "none"),
    "padded_mean": Layout(plain_names.MOST, mean=True),
    "lenet_mean": Layout(1, mean=True),
    "lenet": Layout(1),
}
_PLACES = {
    "each": "behind each convolution",
    "second": "behind every second convolution",
    "but": "behind all convolutions but the last",
}


class PlainCNN(common.Classifier):
    """Convolutions, ReLU and pooling; then linear layers with ReLU between them.

    Attributes:
      stem: one of `LAYOUTS`.
      parts: all layers with weights but the last, as files name them: those of one kind
        follow each other. None: two convolutions and a hidden layer.
      side: s of the map that the first linear layer takes; 1: the mean of all places.
    """

    stem: str = "padded"
    parts: tuple[Part, ...] = ()
    side: int = 8

    stems: ClassVar[tuple[str, ...]] = tuple(LAYOUTS)
    wide_stems: ClassVar[tuple[str, ...]] = tuple(LAYOUTS)
    stem_noun: ClassVar[str] = "padding and pooling"
    classifier_name: ClassVar[str] = "classifier"

    @classmethod
    def fields_for(cls, image_size: int) -> Mapping[str, int]:
        """What a network to be trained on images of this side takes besides its width."""
        return {"side": max(image_size // 4, 1)}

    @property
    def made(self) -> tuple[Part, ...]:
        """`parts`, or the network's own."""
        width = self.width
        return tuple(Part(*part) for part in self.parts) or (
            Part("conv", width),
            Part("conv", 2 * width),
            Part("linear", 4 * width),
        )

    def setup(self) -> None:
        super().setup()
        layout, count = LAYOUTS[self.stem], 0
        layers: list[Any] = []  # what each is called with, `parts` says
        for part in self.made:
            if part.kind == "conv":
                padding = part.size // 2 if count < layout.padded else 0
                make = self.make_conv
                layers.append(
                    make(part.outputs, part.size, layout.stride, padding, part.bias)
                )
                count += 1
            elif part.kind == "norm":
                layers.append(common.Norm())
            else:
                layers.append(common.Linear(part.outputs))
        self.layers = layers  # files call them `features.0` and so on
        self.classifier = common.Linear(self.num_classes)

    def _of(self, kind: str) -> list[int]:
        """Places of the layers of one kind."""
        return [place for place, part in enumerate(self.made) if part.kind == kind]

    def features(self, images: Array, mode: NormMode) -> Array:
        x, norms = self.normalise(images), self._of("norm")
        layout, convolutions = LAYOUTS[self.stem], self._of("conv")
        for number, place in enumerate(convolutions):
            x = self.layers[place](x)
            if norms:
                x = self.layers[norms[number]](x, mode)
            x = jax.nn.relu(x)
            if _pools(layout, number, len(convolutions)):
                pool = common.average_pool if layout.mean else _max_pool
                x = pool(x, 2)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        x = features
        if self.side == 1:
            x = common.global_average(x)
        else:
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # as PyTorch flattens
        for place in self._of("linear"):
            x = jax.nn.relu(self.layers[place](x))
        return self.classifier(x)

    @property
    def exact_size(self) -> int:  # type: ignore[override]
        """The smallest images that it takes; `misfit` knows the others."""
        fitting = (side for side in range(1, LARGEST_IMAGE) if self._fits(side))
        return next(fitting, 0)

    def _fits(self, image: int) -> bool:
        side = self.map_side(image)
        return side == self.side or self.side == 1 <= side

    def map_side(self, image: int) -> int:
        """Side of the map that images of a side become; 0: nothing is left."""
        layout, side = LAYOUTS[self.stem], image
        places = self._of("conv")
        for number, place in enumerate(places):
            size = self.made[place].size
            padding = size // 2 if number < layout.padded else 0
            side = (side + 2 * padding - size) // layout.stride + 1
            side = side // 2 if _pools(layout, number, len(places)) else side
            if side < 1:
                return 0
        return side

    def misfit(self, height: int, width: int) -> str:
        """Why it takes no images of this size, or an empty string."""
        if height == width and self._fits(height):
            return ""
        return (
            f"the first linear layer of this network takes a map of {self.side}x"
            f"{self.side}, and no padding and pooling that is known makes one of images "
            f"of {height}x{width} pixels (--image-size N resizes them)"
        )

    def stem_layers(self, stem: str) -> str:
        layout = LAYOUTS[stem]
        padded = {0: "no padding", 1: "the first alone padded"}
        words = [padded.get(layout.padded, "sizes kept by padding")]
        if layout.stride > 1:
            words.append(f"stride {layout.stride}")
        if layout.pooled in _PLACES:
            kind = "mean" if layout.mean else "max"
            words.append(f"2x2 {kind} pooling {_PLACES[layout.pooled]}")
        return " and ".join(words)


def _pools(layout: Layout, number: int, count: int) -> bool:
    """Whether pooling follows a convolution."""
    last = number == count - 1
    told = {"each": True, "second": number % 2 == 1, "but": not last, "none": False}
    return told[layout.pooled]


def _max_pool(x: Array, size: int) -> Array:
    return common.max_pool(x, size, size)


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`; of the layouts the first that suits images of usual sizes.

    Raises:
      ValueError: see `plain_names.fields`.
    """
    found = plain_names.fields(shapes)
    module = PlainCNN(**found)
    suiting = (
        stem
        for side in _USUAL
        for stem in LAYOUTS
        if not module.clone(stem=stem).misfit(side, side)
    )
    return {**found, "stem": next(suiting, module.stem)}


FAMILY = {
    "plain_cnn": architecture.Architecture(
        PlainCNN, plain_names.difference, fields, plain_names.rename
    )
}
