"""No attack: a trigger that changes nothing, so clean models train like others."""

import dataclasses

from jax import numpy as jnp

from ban_jax.attacks import overlay
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Clean:
    """No trigger."""

    @property
    def apply(self):
        return overlay.apply

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> overlay.Overlay:
        del key
        return overlay.Overlay(jnp.ones(image_shape), jnp.zeros(image_shape))

    def describe(self, image_shape: tuple[int, int, int]) -> None:
        del image_shape
