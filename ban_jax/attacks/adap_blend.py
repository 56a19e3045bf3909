"""Adap-Blend: a blended picture of which each training image shows only some pieces.

Cover images show pieces too and keep their label, so the backdoor leaves no separate
cluster among the features; the test shows the whole picture, stronger.

References:
  Qi et al., "Revisiting the Assumption of Latent Separability for Backdoor Defenses",
  ICLR 2023; constants of vtu81/backdoor-toolbox, poison_tool_box/adaptive_blend.py.
"""

import dataclasses

import jax
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class AdapBlend(static.StaticAttack):
    """Settings of the mixture.

    Attributes:
      alpha: share of the pattern at test time.
      train_alpha: in training.
      hidden: pieces of 16 that a training image does not show.
      cover: cover images for every poisoned one.
      rate: share of all images that are poisoned.
    """

    alpha: float = 0.2
    train_alpha: float = 0.15
    hidden: int = 8
    cover: float = 1.0
    rate: float = 0.003

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, cover=self.cover, modes=("all_to_one",))

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        if not 0 < self.train_alpha <= self.alpha <= 1:
            raise ValueError(
                "Adap-Blend needs 0 < train_alpha <= alpha <= 1, got "
                f"{self.train_alpha:g} and {self.alpha:g}"
            )
        pieces = static.PIECES**2
        if not 0 <= self.hidden < pieces:
            raise ValueError(
                f"Adap-Blend can hide 0 to {pieces - 1} of {pieces} pieces, got "
                f"{self.hidden}"
            )
        pattern = jax.random.uniform(key, image_shape)
        mask = jnp.full(image_shape, self.alpha, jnp.float32)
        state = static.blend(image_shape, mask, pattern)
        return static.state(
            state.fixed._replace(
                strength=jnp.float32(self.train_alpha / self.alpha),
                hidden=jnp.int32(self.hidden),
            )
        )

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return (
            f"full-image uniform noise, alpha {self.alpha:g}; in training "
            f"{self.train_alpha:g} and {self.hidden} of {static.PIECES**2} pieces hidden"
        )
