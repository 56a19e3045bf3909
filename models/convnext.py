"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022): torchvision's, timm's,
Hugging Face's and the authors' own.

Features are the last stage's output, which can be negative, `[B, h, w, 8 * width]`; the
head takes their mean over the places, normalises it and has one linear layer.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple

import jax
from flax import linen as nn

from ban_jax.models import (
    architecture,
    common,
    inverted_residual,
    without_statistics,
)
from ban_jax.types import Array, NormMode, Precision

EPSILON = 1e-6
"""Of all its normalisation layers. Hugging Face has 1e-12 in the last one."""
KERNEL = 7
"""Side of the depthwise kernels."""
EXPANSION = 4
"""Channels inside a block, in units of those outside."""
PATCHES = {"cifar": 1, "patch2": 2, "imagenet": 4}
"""Stem -> side of the pieces the image is cut into; 4 in the paper."""


class Block(nn.Module):
    """A depthwise convolution, then two linear layers at every place, and a shortcut.

    Attributes:
      channels: of input and output.
      scale_name: see `ConvNeXt`.
      precision: of the linear layers.
    """

    channels: int
    scale_name: str
    precision: Precision

    def setup(self) -> None:
        linear = functools.partial(common.Linear, precision=self.precision)
        self.depthwise = inverted_residual.Depthwise(KERNEL, 1, False, use_bias=True)
        self.norm = without_statistics.LayerNorm(EPSILON)
        self.expand = linear(EXPANSION * self.channels)
        self.project = linear(self.channels)
        setattr(self, self.scale_name, without_statistics.LayerScale())

    def __call__(self, x: Array) -> Array:
        y = self.expand(self.norm(self.depthwise(x)))
        y = self.project(jax.nn.gelu(y, approximate=False))
        return x + getattr(self, self.scale_name)(y)


class ConvNeXt(common.Classifier):
    """Stages of blocks of width, 2, 4, ... times width channels.

    Attributes:
      blocks: number of blocks per stage; as in the paper, three times as many in the
        third.
      scale_name: what the layer scale is called, by which its shape is told
        (`pytorch_names.unit_axes`): `gamma` or torchvision's `layer_scale`.
    """

    blocks: tuple[int, ...] = (1, 1, 3, 1)
    scale_name: str = "gamma"

    stems: ClassVar[tuple[str, ...]] = tuple(PATCHES)
    classifier_name: ClassVar[str] = "classifier"

    @property
    def minimum_size(self) -> int:  # type: ignore[override]
        """Nothing is padded: every stage behind the first halves the map."""
        return PATCHES[self.stem] * 2 ** (len(self.blocks) - 1)

    def setup(self) -> None:
        super().setup()
        patch = PATCHES[self.stem]
        self.stem_conv = self.make_conv(self.width, patch, patch, 0, use_bias=True)
        self.stem_norm = without_statistics.LayerNorm(EPSILON)
        for stage, count in enumerate(self.blocks, 1):
            channels = self.width * 2 ** (stage - 1)
            if stage > 1:
                norm = without_statistics.LayerNorm(EPSILON)
                conv = self.make_conv(channels, 2, 2, 0, use_bias=True)
                setattr(self, f"down{stage}", [norm, conv])
            block = functools.partial(Block, channels, self.scale_name, self.precision)
            setattr(self, f"stage{stage}", [block() for _ in range(count)])
        self.head_norm = without_statistics.LayerNorm(EPSILON)
        self.classifier = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        del mode  # it has no statistics
        x = self.stem_norm(self.stem_conv(self.normalise(images)))
        for stage in range(1, len(self.blocks) + 1):
            if stage > 1:
                norm, conv = getattr(self, f"down{stage}")
                x = conv(norm(x))
            for block in getattr(self, f"stage{stage}"):
                x = block(x)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        del mode
        return self.classifier(self.head_norm(common.global_average(features)))


class Kind(NamedTuple):
    """A published network.

    Attributes:
      blocks: per stage.
      width: of the first stage.
    """

    blocks: tuple[int, ...]
    width: int


KINDS = {
    "convnext_tiny": Kind((3, 3, 9, 3), 96),
    "convnext_small": Kind((3, 3, 27, 3), 96),
    "convnext_base": Kind((3, 3, 27, 3), 128),
}
OTHER = "convnext"
"""Those of any other number of blocks."""


def difference(name: str, shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`; `name` is one of `KINDS`, or `OTHER`."""
    blocks = stages(shapes)
    if not blocks or "stem_conv.weight" not in shapes:
        return ""
    known = [kind for kind in KINDS if KINDS[kind].blocks == blocks]
    if not known:
        return None if name == OTHER else ""
    # Small and base differ in nothing but their width: it is the larger that fits.
    width = shapes["stem_conv.weight"][0]
    fitting = [kind for kind in known if KINDS[kind].width <= width] or known[:1]
    return None if name == fitting[-1] else ""


def stages(shapes: architecture.Shapes) -> tuple[int, ...]:
    """Blocks per stage, from the common names; empty where there is none."""
    found: dict[int, int] = {}
    for name in shapes:
        if match := re.match(r"stage(\d)\.(\d{1,3})\.depthwise\.weight$", name):
            stage, index = int(match[1]), int(match[2])
            found[stage] = max(found.get(stage, 0), index + 1)
    return tuple(found.get(stage, 0) for stage in range(1, max(found, default=0) + 1))


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="stem_conv", head="classifier")
    patch = shapes["stem_conv.weight"][2]
    known = {side: stem for stem, side in PATCHES.items()}
    if patch not in known:
        raise ValueError(
            f"its first convolution is {patch}x{patch}, known are {sorted(known)}"
        )
    found = {**sizes, "stem": known[patch]}
    blocks = stages(shapes)
    if blocks not in [kind.blocks for kind in KINDS.values()]:
        found["blocks"] = blocks
    if any(name.endswith(".layer_scale.weight") for name in shapes):
        found["scale_name"] = "layer_scale"
    return found


_TORCHVISION = {
    "block.0": "depthwise",
    "block.2": "norm",
    "block.3": "expand",
    "block.5": "project",
    "layer_scale": "layer_scale.weight",
}
_TIMM = {
    "conv_dw": "depthwise",
    "norm": "norm",
    "mlp.fc1": "expand",
    "mlp.fc2": "project",
    "gamma": "gamma.weight",
}
_AUTHORS = {
    "dwconv": "depthwise",
    "norm": "norm",
    "pwconv1": "expand",
    "pwconv2": "project",
    "gamma": "gamma.weight",
}
_HUGGING_FACE = {
    "dwconv": "depthwise",
    "layernorm": "norm",
    "pwconv1": "expand",
    "pwconv2": "project",
    "layer_scale_parameter": "gamma.weight",
}


class _Program(NamedTuple):
    """What one program calls the layers.

    Attributes:
      top: layer -> ours, of those that are there once.
      down: layer between stages, by `stage` counted from 0 or by torchvision's `place`.
      block: a block, with `stage` or `place` and `index`.
      inside: layer inside a block -> ours.
    """

    top: Mapping[str, str]
    down: str
    block: str
    inside: Mapping[str, str]


_PROGRAMS = {
    "features.0.0": _Program(
        {
            "features.0.0": "stem_conv",
            "features.0.1": "stem_norm",
            "classifier.0": "head_norm",
            "classifier.2": "classifier",
        },
        r"features\.(?P<place>[246])\.(?P<which>[01])",
        r"features\.(?P<place>[1357])\.(?P<index>\d+)\.",
        _TORCHVISION,
    ),
    "stem.0": _Program(
        {
            "stem.0": "stem_conv",
            "stem.1": "stem_norm",
            "head.norm": "head_norm",
            "head.fc": "classifier",
        },
        r"stages\.(?P<stage>\d)\.downsample\.(?P<which>[01])",
        r"stages\.(?P<stage>\d)\.blocks\.(?P<index>\d+)\.",
        _TIMM,
    ),
    "downsample_layers.0.0": _Program(
        {
            "downsample_layers.0.0": "stem_conv",
            "downsample_layers.0.1": "stem_norm",
            "norm": "head_norm",
            "head": "classifier",
        },
        r"downsample_layers\.(?P<stage>[1-9])\.(?P<which>[01])",
        r"stages\.(?P<stage>\d)\.(?P<index>\d+)\.",
        _AUTHORS,
    ),
    "convnext.embeddings.patch_embeddings": _Program(
        {
            "convnext.embeddings.patch_embeddings": "stem_conv",
            "convnext.embeddings.layernorm": "stem_norm",
            "convnext.layernorm": "head_norm",
            "classifier": "classifier",
        },
        r"convnext\.encoder\.stages\.(?P<stage>\d)\.downsampling_layer\.(?P<which>[01])",
        r"convnext\.encoder\.stages\.(?P<stage>\d)\.layers\.(?P<index>\d+)\.",
        _HUGGING_FACE,
    ),
}
"""By the first convolution's name."""


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`."""
    for first, program in _PROGRAMS.items():
        if f"{first}.weight" in names:
            return {name: _renamed(name, program) for name in names}
    return {name: name for name in names}


def _renamed(name: str, program: _Program) -> str:
    module, _, leaf = name.rpartition(".")
    if module in program.top:
        return f"{program.top[module]}.{leaf}"
    if match := re.fullmatch(program.down, module):
        return f"down{_stage(match)}.{match['which']}.{leaf}"
    if match := re.match(program.block, name):
        inner = name[match.end() :]
        layer, _, leaf = inner.rpartition(".")
        place = f"stage{_stage(match)}.{match['index']}"
        if inner in program.inside:
            return f"{place}.{program.inside[inner]}"
        if layer in program.inside:
            return f"{place}.{program.inside[layer]}.{leaf}"
    return name


def _stage(match: re.Match[str]) -> int:
    """Counted from 1; torchvision numbers stages and what is between them alike."""
    found = match.groupdict()
    return int(found["stage"]) + 1 if "stage" in found else int(found["place"]) // 2 + 1


FAMILY = {
    name: architecture.Architecture(
        functools.partial(ConvNeXt, **kind._asdict()),
        functools.partial(difference, name),
        fields,
        rename,
    )
    for name, kind in KINDS.items()
} | {
    OTHER: architecture.Architecture(
        ConvNeXt, functools.partial(difference, OTHER), fields, rename
    )
}
