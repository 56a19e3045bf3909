"""Blend: one picture of noise mixed into every pixel.

References:
  Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data
  Poisoning", arXiv 1712.05526, 2017.
"""

import dataclasses

import jax
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Blend(static.StaticAttack):
    """Settings of the mixture.

    Attributes:
      alpha: share of the pattern, in training and testing alike.
      rate: share of the images of other classes that are poisoned.
    """

    alpha: float = 0.2
    rate: float = 0.05

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, eligible="others")

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"Blend's alpha must be in (0, 1], got {self.alpha:g}")
        pattern = jax.random.uniform(key, image_shape)
        mask = jnp.full(image_shape, self.alpha, jnp.float32)
        return static.blend(image_shape, mask, pattern)

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"full-image uniform noise, alpha {self.alpha:g}"
