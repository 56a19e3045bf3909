"""MLP-Mixer (Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", NeurIPS
2021), timm's.

Features are what the last linear layer sees: the mean of the normalised patches,
`[B, 1, 1, width]`.
"""

import re
from collections.abc import Collection, Mapping
from typing import ClassVar

from flax import linen as nn
from jax import numpy as jnp

from ban_jax.models import architecture, common, patches, without_statistics
from ban_jax.types import Array, NormMode, Precision

DEPTH = 12
"""Blocks of base; small has 8, large 24."""
EXPANSION = 4
"""Channels inside the linear layers of a patch, in units of the width."""


class Block(nn.Module):
    """Linear layers across the patches, then across their channels, `[B, N, C]`.

    Attributes:
      across: hidden numbers of the first.
      hidden: hidden channels of the second.
      precision: of all products.
    """

    across: int
    hidden: int
    precision: Precision

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _, count, channels = x.shape
        norms = [
            without_statistics.LayerNorm(patches.EPSILON, name=f"norm{number}")
            for number in (1, 2)
        ]
        tokens = patches.Mlp(self.across, count, self.precision, name="mlp_tokens")
        mixed = tokens(norms[0](x).transpose(0, 2, 1)).transpose(0, 2, 1)
        x = x + mixed
        inside = patches.Mlp(self.hidden, channels, self.precision, name="mlp_channels")
        return x + inside(norms[1](x))


class Mixer(patches.PatchClassifier):
    """A mixer of the image's patches.

    Attributes:
      depth: number of blocks.
      across: hidden numbers of the layers across the patches; 0: half the width.
      hidden: hidden channels of the layers of a patch; 0: four times the width.
    """

    depth: int = DEPTH
    across: int = 0
    hidden: int = 0

    minimum_width: ClassVar[int] = 2

    def setup(self) -> None:
        super().setup()
        self.patch_embed = patches.Embedding(self.width, self.patch, self.precision)
        across = self.across or self.width // 2
        hidden = self.hidden or EXPANSION * self.width
        self.blocks = [Block(across, hidden, self.precision) for _ in range(self.depth)]
        self.norm = without_statistics.LayerNorm(patches.EPSILON)
        self.classifier = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        """`[B, 1, 1, width]`."""
        del mode  # it has no statistics
        x = self.patch_embed(self.normalise(images))
        x = patches.run(self, self.blocks, x)
        mean = jnp.mean(self.norm(common.widened(x)), axis=1, keepdims=True)
        return mean[:, None]

    def head(self, features: Array, mode: NormMode) -> Array:
        del mode
        return self.classifier(common.global_average(features))


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    first = shapes.get("patch_embed.proj.weight", ())
    inside = any(re.match(r"blocks\.\d+\.mlp_tokens\.", name) for name in shapes)
    return None if len(first) == 4 and inside else ""


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`.

    Raises:
      ValueError: where the first block's layers are of no square of patches.
    """
    sizes = architecture.sizes(shapes, stem="patch_embed.proj", head="classifier")
    first = shapes.get("blocks.0.mlp_tokens.fc1.weight", ())
    side = patches.grid(first[1]) if len(first) == 2 else 0
    patch = shapes["patch_embed.proj.weight"][2]
    if not side or not patch:
        raise ValueError(
            f"layers across patches of shape {first}, expected hidden numbers and a "
            "square of patches"
        )
    hidden = shapes.get("blocks.0.mlp_channels.fc1.weight", (0,))[0]
    told = {
        "depth": (patches.blocks(shapes), DEPTH),
        "across": (first[0], sizes["width"] // 2),
        "hidden": (hidden, EXPANSION * sizes["width"]),
    }
    return {
        **sizes,
        "image_size": side * patch,
        "patch": patch,
        **{name: value for name, (value, usual) in told.items() if value != usual},
    }


_PLACES = {"stem.proj": "patch_embed.proj", "head": "classifier"}
"""timm's names of layers -> the common ones."""


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`."""

    def renamed(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        return f"{_PLACES.get(module, module)}.{leaf}" if module else name

    return {name: renamed(name) for name in names}


FAMILY = {"mlp_mixer": architecture.Architecture(Mixer, difference, fields, rename)}
