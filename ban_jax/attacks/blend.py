"""Blend: one picture of noise mixed into every pixel.

References:
  Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data
  Poisoning", arXiv 1712.05526, 2017.
"""

import dataclasses

import jax
from jax import numpy as jnp

from ban_jax.attacks import overlay
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Blend:
    """Settings of the mixture.

    Attributes:
      alpha: share of the pattern, in training and testing alike.
    """

    alpha: float = 0.2

    @property
    def apply(self):
        return overlay.apply

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> overlay.Overlay:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"Blend's alpha must be in (0, 1], got {self.alpha:g}")
        pattern = jax.random.uniform(key, image_shape)
        return overlay.blend(jnp.full(image_shape, self.alpha, jnp.float32), pattern)

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"full-image uniform noise, alpha {self.alpha:g}"
