"""Random crops and mirroring, pure."""

import jax
from jax import numpy as jnp

from ban_jax.types import Array


def augment(key: Array, images: Array, *, crop: int, flip: bool) -> Array:
    """Random crop from the zero-padded image, random mirroring. Consumes `key`.

    Args:
      key: PRNG key.
      images: `[B, H, W, C]`.
      crop: padding on every side, 0 for none; static.
      flip: whether half of the images are mirrored; static.

    Returns:
      `[B, H, W, C]`.
    """
    shift, mirrored = draw_augmentation(key, len(images), crop=crop, flip=flip)
    return crop_and_mirror(images, shift, mirrored, crop=crop)


def draw_augmentation(
    key: Array, count: int, *, crop: int, flip: bool
) -> tuple[Array, Array]:
    """What `augment` draws: `[count, 2]` first row and column, `[count]` mirrored."""
    crop_key, flip_key = jax.random.split(key)
    shift = jax.random.randint(crop_key, (2, count), 0, 2 * crop + 1)
    mirrored = jnp.zeros(count, bool)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count,))
    return shift.T, mirrored


def crop_and_mirror(
    images: Array, shift: Array, mirrored: Array, *, crop: int
) -> Array:
    """Cuts images out of themselves padded with zeros, and mirrors some.

    Args:
      images: `[B, H, W, C]`.
      shift: `[B, 2]` first row and column in the padded image; `crop` changes nothing.
      mirrored: `[B]` bool.
      crop: padding on every side; static.
    """
    count, height, width, _ = images.shape
    columns = jnp.broadcast_to(jnp.arange(width), (count, width))
    columns = jnp.where(mirrored[:, None], width - 1 - columns, columns)
    rows = jnp.arange(height)[None] + shift[:, :1]
    columns += shift[:, 1:]
    images = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
    which = jnp.arange(count)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]
