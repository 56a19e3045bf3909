"""Triggers that are not learned, all in one form so that they train in one program.

A poisoned image is `overlay(quantise(warp(x)))`: BadNets, Blend, SIG and Adap-Blend are
overlays, WaNet a warp, Bpp a quantisation, and each leaves the other parts neutral. What
differs between two models is data.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import optax
from jax import numpy as jnp

from ban_jax.attacks import poison
from ban_jax.attacks.types import AttackState, Batch, Kernel, Schedule, TaughtBatch
from ban_jax.types import Array

PIECES = 4
"""Rows and columns of pieces that parts of an overlay are left out by."""


class Trigger(NamedTuple):
    """A static trigger. `neutral` changes nothing.

    Attributes:
      scale: `[H, W, C]` what is left of the image, 1 where the overlay is transparent.
      offset: `[H, W, C]` what is added, in pixel units.
      strength: `[]` of the overlay in training; 1 is that of the test.
      hidden: `[]` int32 how many of the `PIECES * PIECES` pieces of the overlay are left
        out in training, others for each image.
      places: `[H, W, 2]` row and column each pixel is taken from.
      jitter: `[]` largest random displacement of a cover image's pixels, in pixels.
      levels: `[]` number of values a colour may take; 0 keeps all.
    """

    scale: Array
    offset: Array
    strength: Array
    hidden: Array
    places: Array
    jitter: Array
    levels: Array


def neutral(image_shape: tuple[int, int, int]) -> Trigger:
    """The trigger that changes no image of `(H, W, C)`."""
    height, width, _ = image_shape
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    return Trigger(
        scale=jnp.ones(image_shape),
        offset=jnp.zeros(image_shape),
        strength=jnp.ones(()),
        hidden=jnp.zeros((), jnp.int32),
        places=jnp.stack([rows, columns], axis=-1).astype(jnp.float32),
        jitter=jnp.zeros(()),
        levels=jnp.zeros(()),
    )


def blend(
    image_shape: tuple[int, int, int], mask: Array, pattern: Array
) -> AttackState:
    """`(1 - mask) x + mask * pattern`, both `[H, W, C]` in [0, 1]."""
    trigger = neutral(image_shape)
    return state(trigger._replace(scale=1.0 - mask, offset=mask * pattern))


def state(trigger: Trigger) -> AttackState:
    """A static trigger learns nothing."""
    return AttackState(learned=(), fixed=trigger)


Quantise = Callable[[Array, Array], Array]
"""`(images [B, H, W, C] in [0, 1], levels []) -> images` of that many values."""


def quantise(images: Array, levels: Array) -> Array:
    """The nearest of `levels` equally spaced values; halves go to the even one."""
    steps = jnp.maximum(levels - 1.0, 1.0)
    return jnp.round(images * steps) / steps


@functools.lru_cache(maxsize=64)
def kernel(quantise: Quantise) -> Kernel:
    """The program of all static triggers whose colours are reduced by `quantise`.

    Equal arguments give the same object.
    """

    def reduce_colours(trigger: Trigger, images: Array) -> Array:
        return jnp.where(trigger.levels > 0, quantise(images, trigger.levels), images)

    def apply(state: AttackState, images: Array) -> Array:
        trigger: Trigger = state.fixed
        warped = warp(images, trigger.places[None])
        return overlay(reduce_colours(trigger, warped), trigger.scale, trigger.offset)

    def changed(trigger: Trigger, key: Array, images: Array, roles: Array) -> Array:
        """What poisoned and cover images become in training."""
        piece_key, jitter_key, other_key = jax.random.split(key, 3)
        cover = (roles == poison.COVER)[:, None, None, None]
        count, height, width, _ = images.shape
        noise = jax.random.uniform(
            jitter_key, (count, height, width, 2), minval=-1.0, maxval=1.0
        )
        places = jnp.where(
            cover, trigger.places[None] + trigger.jitter * noise, trigger.places[None]
        )
        warped = warp(images, places)
        # A cover image wears what quantisation took from another image (Bpp's negatives).
        further = jax.random.randint(other_key, (count,), 1, max(count, 2))
        others = images[(jnp.arange(count) + further) % count]
        foreign = warped + (reduce_colours(trigger, others) - others)
        reduced = reduce_colours(trigger, warped)
        reduced = jnp.where(cover, foreign, reduced)
        kept = trigger.strength * shown_pieces(
            piece_key, count, (height, width), trigger.hidden
        )
        return overlay(
            reduced,
            1.0 - kept * (1.0 - trigger.scale[None]),
            kept * trigger.offset[None],
        )

    def teach(state: AttackState, key: Array, batch: Batch) -> TaughtBatch:
        with_trigger = changed(state.fixed, key, batch.images, batch.roles)
        touched = (batch.roles != poison.CLEAN)[:, None, None, None]
        images = jnp.where(touched, with_trigger, batch.images)
        poisoned = batch.roles == poison.POISONED
        labels = jnp.where(poisoned, batch.mapping[batch.labels], batch.labels)
        return TaughtBatch(images, labels, jnp.zeros(()), state.fixed)

    def cross(state: AttackState, key: Array, images: Array) -> Array:
        roles = jnp.full(len(images), poison.COVER, jnp.int8)
        return changed(state.fixed, key, images, roles)

    return Kernel(teach, apply, cross, False, optax.set_to_zero())


class StaticAttack:
    """An attack whose trigger is a `Trigger`."""

    @property
    def quantise(self) -> Quantise:
        """What reduces the colours, where a trigger does."""
        return quantise

    def kernel(self, schedule: Schedule, rate: float, num_classes: int) -> Kernel:
        """One program for all."""
        del schedule, rate, num_classes
        return kernel(self.quantise)


def overlay(images: Array, scale: Array, offset: Array) -> Array:
    """`clip(scale * x + offset)`: `[B, H, W, C]`; scale and offset with or without B."""
    if scale.ndim == 3:
        scale, offset = scale[None], offset[None]
    chex.assert_equal_shape_suffix([images, scale, offset], 3)
    return jnp.clip(scale * images + offset, 0.0, 1.0)


def warp(images: Array, places: Array) -> Array:
    """Takes each pixel from elsewhere, bilinearly; outside lies the nearest border.

    Args:
      images: `[B, H, W, C]`.
      places: `[B, H, W, 2]` rows and columns, or `[1, H, W, 2]` for all.
    """
    count, height, width, channels = images.shape
    last = jnp.array([height - 1, width - 1], places.dtype)
    places = jnp.clip(places, 0.0, last.reshape(1, 1, 1, 2))
    places = jnp.broadcast_to(places, (count, height, width, 2))
    low = jnp.floor(places).astype(jnp.int32)
    share = places - low
    row, column = low[..., 0], low[..., 1]
    below, right = jnp.minimum(row + 1, height - 1), jnp.minimum(column + 1, width - 1)
    down, across = share[..., :1], share[..., 1:]
    flat = images.reshape(count, height * width, channels)

    def take(row: Array, column: Array) -> Array:
        index = (row * width + column).reshape(count, height * width, 1)
        return jnp.take_along_axis(flat, index, axis=1).reshape(images.shape)

    upper = take(row, column) * (1.0 - across) + take(row, right) * across
    lower = take(below, column) * (1.0 - across) + take(below, right) * across
    return upper * (1.0 - down) + lower * down


def shown_pieces(key: Array, count: int, size: tuple[int, int], hidden: Array) -> Array:
    """`[count, H, W, 1]` of 1 and 0: `hidden` pieces drawn for each image are 0."""
    height, width = size
    draw = jax.random.uniform(key, (count, PIECES * PIECES))
    rank = jnp.argsort(jnp.argsort(draw, axis=1), axis=1)
    shown = (rank >= hidden).astype(jnp.float32).reshape(count, PIECES, PIECES)
    rows = jnp.arange(height) * PIECES // height
    columns = jnp.arange(width) * PIECES // width
    return shown[:, rows][:, :, columns][..., None]
