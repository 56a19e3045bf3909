"""Vision Transformers (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021) and
DeiT (Touvron et al., ICML 2021): torchvision's, timm's and Hugging Face's.

Tiny, small and base are widths: 192, 384 and 768 channels, 12 blocks deep. Features are
what the last linear layer sees, `[B, 1, 1, width]`: the class token behind the last
normalisation, or the mean of the patches. Shapes do not tell the number of attention
heads. Published sizes have heads of 64 channels, the largest of 80; in networks of other
sizes several are tried on clean images (`scanning.stems`).
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution
from ban_jax.models import architecture, common, patches, without_statistics
from ban_jax.types import Array, NormMode, Precision

HEADS = {"heads64": 64, "heads32": 32, "heads16": 16, "heads8": 8, "heads4": 4}
"""Stem -> channels per attention head; a narrower network has a single one."""
PUBLISHED = {
    (192, 12): 3,
    (384, 12): 6,
    (768, 8): 8,
    (768, 12): 12,
    (1024, 24): 16,
    (1280, 32): 16,
}
"""Width and depth -> attention heads."""
MOST = 16
"""Heads of a network of another size: no more are tried."""
DEPTH = 12
EXPANSION = 4
"""Channels inside a block's linear layers, in units of the width."""


class Attention(nn.Module):
    """Self-attention, `[B, N, C]` -> `[B, N, C]`.

    Attributes:
      heads: which divide C.
      apart: whether queries, keys and values come from layers of their own.
      precision: of all products.
    """

    heads: int
    apart: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, count, channels = x.shape
        linear = functools.partial(common.Linear, precision=self.precision)
        if self.apart:
            three = [linear(channels, name=n)(x) for n in ("query", "key", "value")]
        else:
            three = jnp.split(linear(3 * channels, name="qkv")(x), 3, axis=-1)
        q, k, v = (one.reshape(batch, count, self.heads, -1) for one in three)
        products = convolution.products_of(self.precision, x.dtype)
        product = functools.partial(jnp.einsum, precision=products)
        scores = common.widened(product("bqhd,bkhd->bhqk", q, k))
        weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5).astype(x.dtype)
        y = product("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        return linear(channels, name="proj")(y)


class Block(nn.Module):
    """Attention and two linear layers, each behind a normalisation and with a shortcut.

    Attributes:
      heads, apart, precision: see `Attention`.
      hidden: channels between the linear layers.
      epsilon: of the normalisations.
      scaled: whether layer scales follow (DeiT III).
    """

    heads: int
    apart: bool
    precision: Precision
    hidden: int
    epsilon: float
    scaled: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = functools.partial(without_statistics.LayerNorm, self.epsilon)
        mlp = patches.Mlp(self.hidden, x.shape[-1], self.precision, name="mlp")
        layers = Attention(self.heads, self.apart, self.precision, name="attn"), mlp
        for number, layer in enumerate(layers, 1):
            y = layer(norm(name=f"norm{number}")(x))
            if self.scaled:
                y = without_statistics.LayerScale(name=f"ls{number}")(y)
            x = x + y
        return x


class ViT(patches.PatchClassifier):
    """A transformer of patches of the image.

    Attributes:
      stem: channels per attention head, see `HEADS`.
      depth: number of blocks.
      hidden: channels inside a block's linear layers; 0: four times the width.
      class_token: whether a token that is no patch leads; it is what is classified.
      distilled: whether a second one does, with a last layer of its own; logits are the
        mean of both (DeiT).
      averaged: whether the mean of the patches is normalised and classified instead.
      placed: whether positions are learned for the leading tokens too.
      apart: whether queries, keys and values come from layers of their own: Hugging
        Face's program, whose normalisations add 1e-12 to the variance.
      scaled: whether blocks have layer scales.
    """

    stem: str = "heads64"
    depth: int = DEPTH
    hidden: int = 0
    class_token: bool = True
    distilled: bool = False
    averaged: bool = False
    placed: bool = True
    apart: bool = False
    scaled: bool = False

    stems: ClassVar[tuple[str, ...]] = tuple(HEADS)
    stem_noun: ClassVar[str] = "attention heads"

    @property
    def alike(self) -> tuple[str, ...]:
        if (self.width, self.depth) in PUBLISHED:
            return ()
        by_count = {self.heads(stem): stem for stem in reversed(HEADS)}
        by_count[self.heads(self.stem)] = self.stem
        found = {stem for count, stem in by_count.items() if count <= MOST}
        found.add(self.stem)
        return tuple(sorted(found, key=self.heads)) if len(found) > 1 else ()

    def heads(self, stem: str) -> int:
        """The number of attention heads under a stem."""
        published = PUBLISHED.get((self.width, self.depth))
        if published and stem == "heads64":
            return published
        most = max(self.width // HEADS[stem], 1)
        return max(count for count in range(1, most + 1) if self.width % count == 0)

    def stem_layers(self, stem: str) -> str:
        count = self.heads(stem)
        return f"{count} of {self.width // count} channels"

    def setup(self) -> None:
        super().setup()
        width, draw = self.width, nn.initializers.normal(0.02)
        lead = self.class_token + self.distilled
        count = self.count + lead * self.placed
        if self.class_token:
            self.cls_token = self.param("cls_token", draw, (1, 1, width))
        if self.distilled:
            self.dist_token = self.param("dist_token", draw, (1, 1, width))
        self.pos_embed = self.param("pos_embed", draw, (1, count, width))
        self.patch_embed = patches.Embedding(width, self.patch, self.precision)
        block = functools.partial(
            Block,
            heads=self.heads(self.stem),
            apart=self.apart,
            precision=self.precision,
            hidden=self.hidden or EXPANSION * width,
            epsilon=1e-12 if self.apart else patches.EPSILON,
            scaled=self.scaled,
        )
        self.blocks = [block() for _ in range(self.depth)]
        norm = without_statistics.LayerNorm(1e-12 if self.apart else patches.EPSILON)
        if self.averaged:
            self.fc_norm = norm
        else:
            self.norm = norm
        self.classifier = common.Linear(self.num_classes)
        if self.distilled:
            self.classifier_dist = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        """`[B, 1, 1, width]`; `[B, 1, 2, width]` where distilled."""
        del mode  # it has no statistics
        x = self.patch_embed(self.normalise(images))
        lead = [self.cls_token] if self.class_token else []
        lead += [self.dist_token] if self.distilled else []
        tokens = [
            jnp.broadcast_to(one, (len(x), 1, self.width)).astype(x.dtype)
            for one in lead
        ]
        if not self.placed:
            x = self._moved(x)
        x = jnp.concatenate([*tokens, x], axis=1)
        if self.placed:
            x = self._moved(x)
        x = common.widened(patches.run(self, self.blocks, x))
        if self.averaged:
            mean = jnp.mean(x[:, len(lead) :], axis=1, keepdims=True)
            return self.fc_norm(mean)[:, None]
        x = self.norm(x)
        if not lead:
            x = jnp.mean(x, axis=1, keepdims=True)
        return x[:, None, : max(len(lead), 1)]

    def _moved(self, x: Array) -> Array:
        """Patches with what is learned of their places, in the dtype of x."""
        return (common.widened(x) + self.pos_embed).astype(x.dtype)

    def head(self, features: Array, mode: NormMode) -> Array:
        del mode
        logits = self.classifier(features[:, 0, 0])
        if not self.distilled:
            return logits
        return (logits + self.classifier_dist(features[:, 0, 1])) / 2


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    first = shapes.get("patch_embed.proj.weight", ())
    inside = any(re.match(r"blocks\.\d+\.attn\.", name) for name in shapes)
    return None if len(first) == 4 and inside else ""


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`.

    Raises:
      ValueError: where positions are of no square of patches.
    """
    sizes = architecture.sizes(shapes, stem="patch_embed.proj", head="classifier")
    class_token, distilled = "cls_token" in shapes, "dist_token" in shapes
    positions = shapes.get("pos_embed", ())
    count = positions[1] if len(positions) == 3 else 0
    lead = class_token + distilled
    side = patches.grid(max(count - lead, 0))
    placed = bool(side)
    side = side or patches.grid(count)
    patch = shapes["patch_embed.proj.weight"][2]
    if not side or not patch:
        raise ValueError(
            f"position embeddings of shape {positions}, expected one for each of a "
            f"square of patches, and for {lead} leading tokens or for none"
        )
    found = {**sizes, "image_size": side * patch, "patch": patch}
    depth = patches.blocks(shapes)
    hidden = shapes.get("blocks.0.mlp.fc1.weight", (0,))[0]
    told = {
        "depth": (depth, DEPTH),
        "hidden": (hidden, EXPANSION * sizes["width"]),
        "class_token": (class_token, True),
        "distilled": (distilled, False),
        "averaged": ("fc_norm.weight" in shapes, False),
        "placed": (placed or not lead, True),
        "apart": ("blocks.0.attn.query.weight" in shapes, False),
        "scaled": ("blocks.0.ls1.weight" in shapes, False),
    }
    return found | {
        name: value for name, (value, usual) in told.items() if value != usual
    }


_NAMES = (
    # torchvision
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads(\.head)?\.", "classifier."),
    # Hugging Face
    (r"^(vit|deit)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    # Hugging Face from version 5 on, in memory
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"^cls_classifier\.", "classifier."),
    (r"^distillation_classifier\.", "classifier_dist."),
    # timm
    (r"\.ls([12])\.gamma$", r".ls\1.weight"),
    (r"^head\.", "classifier."),
    (r"^head_dist\.", "classifier_dist."),
)
"""What programs call the layers, and the common names, which are timm's but for the last
layer's."""


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`."""

    def renamed(name: str) -> str:
        for theirs, common_name in _NAMES:
            name = re.sub(theirs, common_name, name)
        return name

    return {name: renamed(name) for name in names}


FAMILY = {"vit": architecture.Architecture(ViT, difference, fields, rename)}
