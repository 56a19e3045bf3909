"""Triggers that are laid over an image: `x' = clip(scale * x + offset)`, per pixel.

A patch, a blended picture and an added signal are all of this form, so models with
triggers of different kinds train in one program.
"""

from typing import NamedTuple

import chex
from jax import numpy as jnp

from ban_jax.types import Array


class Overlay(NamedTuple):
    """A static trigger.

    Attributes:
      scale: `[H, W, C]` what is left of the image, 1 where the trigger is transparent.
      offset: `[H, W, C]` what is added, in pixel units.
    """

    scale: Array
    offset: Array


def apply(state: Overlay, images: Array) -> Array:
    """`[B, H, W, C]` in [0, 1] -> the same with the trigger on every image."""
    chex.assert_equal_shape([state.scale, state.offset])
    chex.assert_shape(images, (None, *state.scale.shape))
    return jnp.clip(state.scale[None] * images + state.offset[None], 0.0, 1.0)


def blend(mask: Array, pattern: Array) -> Overlay:
    """`(1 - mask) x + mask * pattern`, both `[H, W, C]` in [0, 1]."""
    return Overlay(scale=1.0 - mask, offset=mask * pattern)
