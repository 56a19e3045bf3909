"""What transformers and mixers of image patches are made of.

References:
  Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import convolution
from ban_jax.models import architecture, common
from ban_jax.types import Array, Precision, Variables

SIDES = (16, 8, 4, 2, 1)
"""Patch sides, in pixels, that a network to be trained may get."""
MAX_BLOCKS = 96
"""A file of more blocks is refused: each is traced by itself."""

EPSILON = 1e-6
"""Of the normalisations of torchvision and timm."""


class Patches(common.Conv):
    """A convolution whose stride is its kernel's side: one product of matrices.

    As a convolution its gradient for the image would be one over an image with zeros
    between all pixels.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` -> `[B, H/size, W/size, filters]`."""
        side, (batch, height, width, channels) = self.size, x.shape
        shape = (side, side, channels, self.filters)
        fan = math.prod(shape[:-1])
        kernel = self.param("kernel", common.torch_uniform, shape, fan)
        bias = self.param("bias", common.torch_uniform, (self.filters,), fan)
        pieces = x.reshape(batch, height // side, side, width // side, side, channels)
        pieces = pieces.transpose(0, 1, 3, 2, 4, 5).reshape(
            batch, height // side, width // side, fan
        )
        products = convolution.products_of(self.precision, x.dtype)
        flat = kernel.astype(x.dtype).reshape(fan, self.filters)
        y = jnp.matmul(pieces, flat, precision=products)
        return (common.widened(y) + common.along_channels(bias, y)).astype(x.dtype)


class Embedding(nn.Module):
    """Images as a row of patches, `[B, H, W, C]` -> `[B, N, width]`.

    Attributes:
      width: channels of a patch.
      side: of a patch, in pixels.
      precision: of the product.
    """

    width: int
    side: int
    precision: Precision

    def setup(self) -> None:
        self.proj = Patches(
            self.width, self.side, self.side, 0, True, precision=self.precision
        )

    def __call__(self, images: Array) -> Array:
        x = self.proj(images)
        return x.reshape(len(x), -1, self.width)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them, `[..., F]` -> `[..., F]`.

    Attributes:
      hidden, outputs: channels between and behind them.
      precision: of both.
    """

    hidden: int
    outputs: int
    precision: Precision

    def setup(self) -> None:
        self.fc1 = common.Linear(self.hidden, self.precision)
        self.fc2 = common.Linear(self.outputs, self.precision)

    def __call__(self, x: Array) -> Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class PatchClassifier(common.Classifier):
    """A network of the patches of images of one size; `width` is the channels of each.

    Attributes:
      image_size: side of the images, in pixels, the only one it takes.
      patch: side of the patches, which divides it.
    """

    width: int = 768
    image_size: int = 224
    patch: int = 16

    classifier_name: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 1 or self.patch < 1 or self.image_size % self.patch:
            raise ValueError(
                f"patches must fill the image, got patches of {self.patch} and images "
                f"of {self.image_size} pixels a side"
            )

    @classmethod
    def fields_for(cls, image_size: int) -> Mapping[str, int]:
        """What a network to be trained on images of this side takes besides its width.

        Patches of 16 pixels for 224, as published; of 4 for 32 and 28, of 2 for 8.
        """
        fitting = [
            side
            for side in SIDES
            if image_size % side == 0 and 4 * side**2 <= 5 * image_size
        ]
        return {"image_size": image_size, "patch": fitting[0]}

    @property
    def exact_size(self) -> int:  # type: ignore[override]
        return self.image_size

    @property
    def count(self) -> int:
        """Number of patches."""
        return (self.image_size // self.patch) ** 2

    def normalise(self, images: Array) -> Array:
        size = images.shape[1:3]
        if size != (self.image_size, self.image_size):
            raise ValueError(
                f"this {type(self).__name__} takes images of {self.image_size}x"
                f"{self.image_size} pixels alone, got {size[0]}x{size[1]}"
            )
        return super().normalise(images)


def run(network: nn.Module, equal: Sequence[nn.Module], x: Array) -> Array:
    """`x [B, N, C]` through blocks of equal shapes, one after the other.

    Their weights are stacked, so that one block is compiled and not each by itself.
    """
    if network.is_initializing():
        for block in equal:
            x = block(x)
        return x
    weights = [dict(block.variables["params"]) for block in equal]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
    one = equal[0].clone(parent=None)

    def step(x: Array, params: Variables):
        return one.apply({"params": params}, x), None

    return jax.lax.scan(step, x, stacked)[0]


def grid(count: int) -> int:
    """Patches per side of an image of so many; 0 where they are no square."""
    side = math.isqrt(count)
    return side if side * side == count else 0


def blocks(shapes: architecture.Shapes) -> int:
    """Number of blocks, from the common names.

    Raises:
      ValueError: for more than `MAX_BLOCKS`.
    """
    numbers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    if len(numbers) > MAX_BLOCKS:
        raise ValueError(f"{len(numbers)} blocks; at most {MAX_BLOCKS} are read")
    return len(numbers)
