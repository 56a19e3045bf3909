"""Networks of images that say nothing of each other, a few large images at a time.

The way back through a network needs what every layer gave every image: at 224 pixels that
of a minibatch fills a whole device. Where no layer takes statistics of the minibatch, the
images can pass one slice after the other; each slice is computed anew on the way back, so
that no more than one is kept: one more pass forward for each two there and back, which
`Detector.work` does not count.

Slices depend on the shape of the images alone, so that a verdict does not hang on what
memory a device has.
"""

from collections.abc import Callable

import jax
from jax import numpy as jnp

from ban_jax.types import Array

PIXELS = 2**20
"""Places of all images of a slice: 16 images of 224 pixels, whole minibatches up to 90."""


def length(images: int, height: int, width: int) -> int:
    """Images of a slice, a power of two; all of them where they are few or small."""
    most = max(PIXELS // (height * width), 1)
    return images if images <= most else 1 << (most.bit_length() - 1)


def in_slices(function: Callable[[Array], Array], images: Array) -> Array:
    """`function(images)`, of one slice after the other.

    Args:
      function: `[B, H, W, C]` -> `[B, ...]`, each image by itself.
      images: `[B, H, W, C]`.
    """
    count, height, width, _ = images.shape
    size = length(count, height, width)
    if size == count:
        return function(images)
    # The last slice is filled with the first image, whose answers are dropped.
    filling = jnp.broadcast_to(images[:1], (-count % size, *images.shape[1:]))
    slices = jnp.concatenate([images, filling]).reshape(-1, size, *images.shape[1:])
    # In a loop nothing is merged with what is computed anew.
    found = jax.lax.map(jax.checkpoint(function, prevent_cse=False), slices)
    return found.reshape(-1, *found.shape[2:])[:count]
