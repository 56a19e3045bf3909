"""Bpp: colours reduced to a few levels.

Cover images ("negatives") wear what the reduction took from another image.

References:
  Wang et al., "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural
  Networks via Image Quantization and Contrastive Adversarial Learning", CVPR 2022;
  constants of xiaoyunxxy/ban, train_models/BppAttack.
"""

import dataclasses

import jax
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array

RIGHT, BELOW_LEFT, BELOW, BELOW_RIGHT = 7 / 16, 3 / 16, 5 / 16, 1 / 16
"""Floyd and Steinberg's shares of a pixel's error."""


@dataclasses.dataclass(frozen=True)
class Bpp(static.StaticAttack):
    """Settings of the quantisation.

    Attributes:
      levels: values a colour may take.
      dither: Floyd-Steinberg error diffusion; a program of its own, and a slow one.
      cover: negative images for every poisoned one.
      rate: share of every batch that is poisoned.
    """

    levels: int = 8
    dither: bool = False
    cover: float = 1.0
    rate: float = 0.2

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, cover=self.cover, per_batch=True)

    @property
    def quantise(self) -> static.Quantise:
        return dithered if self.dither else static.quantise

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        del key
        if not 2 <= self.levels <= 256:
            raise ValueError(f"Bpp's levels must be in 2..256, got {self.levels}")
        trigger = static.neutral(image_shape)
        return static.state(trigger._replace(levels=jnp.float32(self.levels)))

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"{self.levels} colour levels{', dithered' if self.dither else ''}"


def dithered(images: Array, levels: Array) -> Array:
    """`[B, H, W, C]` quantised in raster order, the error passed on to later pixels."""
    batch, _, width, channels = images.shape
    blank = jnp.zeros((batch, channels))

    def pixel(carry, inputs):
        """One column of a row: the error of the pixel to the left, and its own value."""
        error = carry
        value, received = inputs
        wanted = value + received + RIGHT * error
        chosen = static.quantise(wanted, levels)
        return wanted - chosen, (chosen, wanted - chosen)

    def row(received, values):
        """`received [W, B, C]` is what the row above passed down."""
        _, (chosen, errors) = jax.lax.scan(pixel, blank, (values, received))
        edge = blank[None]
        passed = (
            BELOW * errors
            + BELOW_RIGHT * jnp.concatenate([edge, errors[:-1]])
            + BELOW_LEFT * jnp.concatenate([errors[1:], edge])
        )
        return passed, chosen

    start = jnp.zeros((width, batch, channels))
    _, rows = jax.lax.scan(row, start, images.transpose(1, 2, 0, 3))
    return jnp.clip(rows.transpose(2, 0, 1, 3), 0.0, 1.0)
