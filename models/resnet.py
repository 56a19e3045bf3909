"""ResNets (He et al., "Deep Residual Learning", CVPR 2016) and their wide and grouped kin.

Layout of methods in this field: 3x3 stem without pooling, features are the last stage after
its ReLU (4x4x512 at 32x32 and width 64). torchvision's and timm's networks have the same
blocks behind a 7x7 stem, and the same names but for `downsample` and `fc`; from 50 layers
on blocks are bottlenecks. ResNet20 to 110 are those of section 4.2, of three stages, whose
shortcuts may pad channels in place of projecting them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax.models import architecture, common, pytorch_names, without_statistics
from ban_jax.types import Array, NormMode

MakeNorm = Callable[[], Any]
"""Makes a layer that is called with activations and a `types.NormMode`."""
NORMALISED_GROUPS = 32
"""Of channels, in timm's networks with GroupNorm (`resnet50_gn`)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    filters: int
    stride: int
    project: bool
    make_conv: common.MakeConv
    make_norm: MakeNorm = common.Norm

    def setup(self) -> None:
        self.conv1 = self.make_conv(self.filters, 3, self.stride, 1)
        self.bn1 = self.make_norm()
        self.conv2 = self.make_conv(self.filters, 3, 1, 1)
        self.bn2 = self.make_norm()
        if self.project:
            self.shortcut = [
                self.make_conv(self.filters, 1, self.stride, 0),
                self.make_norm(),
            ]

    def __call__(self, x: Array, mode: NormMode) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x), mode))
        y = self.bn2(self.conv2(y), mode)
        if self.project:
            conv, norm = self.shortcut
            x = norm(conv(x), mode)
        elif x.shape != y.shape:
            x = padded(x, self.stride, self.filters)
        return jax.nn.relu(x + y)


def padded(x: Array, stride: int, filters: int) -> Array:
    """Every `stride`-th pixel, with zeros as further channels on both sides (option A)."""
    x = x[:, ::stride, ::stride]
    missing = filters - x.shape[-1]
    return jnp.pad(x, ((0, 0),) * 3 + ((missing // 2, missing - missing // 2),))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions to four times `filters` channels, and a shortcut.

    Attributes:
      filters: a quarter of the channels it returns.
      inner: channels of the 3x3 convolution, in units of `filters`.
      groups: of the 3x3 convolution.
    """

    filters: int
    stride: int
    project: bool
    make_conv: common.MakeConv
    inner: int = 1
    groups: int = 1
    make_norm: MakeNorm = common.Norm

    def setup(self) -> None:
        inner, outputs = self.filters * self.inner, EXPANSION * self.filters
        self.conv1 = self.make_conv(inner, 1, 1, 0)
        self.bn1 = self.make_norm()
        self.conv2 = self.make_conv(inner, 3, self.stride, 1, groups=self.groups)
        self.bn2 = self.make_norm()
        self.conv3 = self.make_conv(outputs, 1, 1, 0)
        self.bn3 = self.make_norm()
        if self.project:
            self.shortcut = [
                self.make_conv(outputs, 1, self.stride, 0),
                self.make_norm(),
            ]

    def __call__(self, x: Array, mode: NormMode) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x), mode))
        y = jax.nn.relu(self.bn2(self.conv2(y), mode))
        y = self.bn3(self.conv3(y), mode)
        if self.project:
            conv, norm = self.shortcut
            x = norm(conv(x), mode)
        return jax.nn.relu(x + y)


EXPANSION = 4
"""Channels that a bottleneck returns, in units of its `filters`."""


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
    """Stages of blocks of width, 2, 4 and 8 times width channels.

    Attributes:
      blocks: number of blocks per stage; (2, 2, 2, 2) is ResNet18.
      bottleneck: whether blocks are bottlenecks, of four times as many channels.
      inner, groups: of bottlenecks, see there.
      normalised_groups: channels are normalised in so many groups, without statistics;
        0: by batch normalisation.
      projects: whether basic blocks project shortcuts that change shape; else they pad.
      stem: `cifar` (3x3, stride 1), `imagenet` (7x7, stride 2, then 3x3 max pooling), or
        another of `STEMS`: the kernel of 7x7 as programs for small images have it.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    inner: int = 1
    groups: int = 1
    projects: bool = True
    normalised_groups: int = 0

    stems: ClassVar[tuple[str, ...]] = tuple(STEMS)
    wide_stems: ClassVar[tuple[str, ...]] = tuple(STEMS)[1:]

    def __post_init__(self) -> None:
        if self.width * self.inner % self.groups:
            raise ValueError(
                f"a ResNet of {self.groups} groups needs a width of which {self.inner} "
                f"times is a multiple of them, got {self.width}"
            )
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        size, stride, _ = STEMS[self.stem]
        self.conv1 = self.make_conv(self.width, size, stride, size // 2)
        self.bn1 = self.make_norm()
        for index in range(len(self.blocks)):
            setattr(self, f"layer{index + 1}", self._stage(index))
        self.linear = common.Linear(self.num_classes)

    @property
    def make_norm(self) -> MakeNorm:
        """Makes the network's normalisation layers."""
        if not self.normalised_groups:
            return common.Norm
        return functools.partial(without_statistics.GroupNorm, self.normalised_groups)

    @property
    def assumption(self) -> str:
        """What no shape tells and nothing tries, for the candidate's notes."""
        if not self.normalised_groups:
            return ""
        return (
            f"GroupNorm: {self.normalised_groups} groups are assumed, which shapes do not "
            "tell; with another number, or if it is batch normalisation whose statistics "
            "the file lacks, the network is another function"
        )

    def stem_layers(self, stem: str) -> str:
        pooling = "3x3 max pooling" if STEMS[stem].pools else "no pooling"
        return f"stride {STEMS[stem].stride} and {pooling}"

    def _stage(self, index: int) -> list[BasicBlock | Bottleneck]:
        stride = 1 if index == 0 else 2
        changes = index > 0 or self.bottleneck
        first = self._block(index, stride, changes and self.projects)
        rest = [self._block(index, 1, False) for _ in range(self.blocks[index] - 1)]
        return [first, *rest]

    def _block(self, index: int, stride: int, project: bool) -> BasicBlock | Bottleneck:
        filters = self.width * 2**index
        if self.bottleneck:
            return Bottleneck(
                filters,
                stride,
                project,
                self.make_conv,
                self.inner,
                self.groups,
                self.make_norm,
            )
        return BasicBlock(filters, stride, project, self.make_conv, self.make_norm)

    def features(self, images: Array, mode: NormMode) -> Array:
        x = jax.nn.relu(self.bn1(self.conv1(self.normalise(images)), mode))
        if STEMS[self.stem].pools:
            x = common.max_pool(x, 3, 2, 1)
        for index in range(len(self.blocks)):
            for block in getattr(self, f"layer{index + 1}"):
                x = block(x, mode)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        return self.linear(common.global_average(features))


class Kind(NamedTuple):
    """One network by what its weights tell.

    Attributes:
      blocks: per stage.
      bottleneck, inner, groups: see `ResNet`.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False
    inner: int = 1
    groups: int = 1


KINDS = {
    "resnet18": Kind((2, 2, 2, 2)),
    "resnet34": Kind((3, 4, 6, 3)),
    "resnet50": Kind((3, 4, 6, 3), True),
    "resnet101": Kind((3, 4, 23, 3), True),
    "resnet152": Kind((3, 8, 36, 3), True),
    "wide_resnet50_2": Kind((3, 4, 6, 3), True, 2),
    "wide_resnet101_2": Kind((3, 4, 23, 3), True, 2),
    "resnext50_32x4d": Kind((3, 4, 6, 3), True, 2, 32),
    "resnext101_32x8d": Kind((3, 4, 23, 3), True, 4, 32),
    "resnext101_64x4d": Kind((3, 4, 23, 3), True, 4, 64),
    **{f"resnet{6 * count + 2}": Kind((count,) * 3) for count in (3, 5, 7, 9, 18)},
}
"""By torchvision's names, and those of section 4.2 of the paper."""


def difference(name: str, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `KINDS`."""
    blocks = pytorch_names.blocks(shapes, "layer")
    if not blocks or pytorch_names.blocks(shapes, "dense"):
        return ""
    if not blocks[3] and all(blocks[:3]):
        blocks = blocks[:3]
    found = _kind(blocks, shapes)
    if found is None:
        return f"bottleneck residual blocks {blocks} without their first one"
    if found in KINDS.values():
        return None if found == KINDS[name] and _has_stem(blocks, shapes) else ""
    known = [f"{k.blocks} ({n})" for n, k in KINDS.items() if k[1:] == found[1:]]
    words = "bottleneck residual blocks" if found.bottleneck else "residual blocks"
    if found[2:] != (1, 1):
        words += f" {found.inner} times as wide inside, in {found.groups} groups,"
    told = ", ".join(known) or "none of this width"
    return f"{words} {blocks} per stage, known are {told}"


def _kind(blocks: tuple[int, ...], shapes: architecture.Shapes) -> Kind | None:
    """What the first block's convolutions tell; None where a bottleneck lacks them."""
    if not any(tensor.endswith(".conv3.weight") for tensor in shapes):
        return Kind(blocks)
    wide, last = (shapes.get(f"layer1.0.conv{k}.weight", ()) for k in (2, 3))
    if len(wide) != 4 or len(last) != 4 or 0 in (*wide, *last):
        return None
    inner = max(EXPANSION * wide[0] // last[0], 1)
    return Kind(blocks, True, inner, wide[0] // wide[1])


def _has_stem(blocks: tuple[int, ...], shapes: architecture.Shapes) -> bool:
    """Whether a norm stands behind the stem, which pre-activation networks do not have.

    In those of three stages it stands behind the last one, of more channels, by this name.
    """
    stem, norm = shapes.get("conv1.weight", ()), shapes.get("bn1.weight", ())
    if len(blocks) == 3 and stem and norm and norm != stem[:1]:
        return False
    return any(tensor.startswith("bn1.") for tensor in shapes)


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="conv1", head="linear")
    wide = shapes["conv1.weight"][2:] == (7, 7)
    found = {**sizes, "stem": "imagenet" if wide else "cifar"}
    # Only networks of three stages are known to do without; in others they are missing.
    if not any(name.startswith("layer4.") or ".shortcut." in name for name in shapes):
        found["projects"] = False
    if not any(name.endswith(".running_mean") for name in shapes):
        found["normalised_groups"] = normalised_groups(sizes["width"])
    return found


def normalised_groups(width: int) -> int:
    """How many groups GroupNorm has, which no shape tells: 32 where that divides.

    Of narrower networks the largest power of two that divides the width.
    """
    return math.gcd(width, NORMALISED_GROUPS)


def in_groups(name: str, width: int = 64, **more: Any) -> ResNet:
    """One of `KINDS` with GroupNorm, to be trained; its files are read as the plain name's
    with so many groups."""
    groups = {"normalised_groups": normalised_groups(width)}
    return ResNet(**{**KINDS[name]._asdict(), "width": width, **groups, **more})


FAMILY = {
    name: architecture.Architecture(
        functools.partial(ResNet, **kind._asdict()),
        functools.partial(difference, name),
        fields,
        pytorch_names.of_the_field,
    )
    for name, kind in KINDS.items()
} | {
    f"{name}_gn": architecture.Architecture(
        functools.partial(in_groups, name), lambda shapes: "", fields
    )
    for name in ("resnet18", "resnet50")
}
