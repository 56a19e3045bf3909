"""Small patches: one square of pixels on all images that leads to a class, for ONE model.

The patch-shaped relative of `universal.perturb_images`. Where it lies is found first, by a
few small sign steps on all pixels: the square at which the gradients towards the class are
largest, measured by those towards the other classes, for all classes hang on what stands in
the middle of an image. Then sign steps inside that square alone, as far as pixels go. A
network with a backdoor that answers to a patch is led into its target by a hundredth of
the image, and fine-tuning on clean images, which hides it from neuron noise, does not take
that away.

References:
  Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
  Networks", IEEE S&P 2019, for reading a backdoor from the smallness of what leads to it.
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from ban_jax import perturb, universal
from ban_jax.types import Array, Variables

SIDE = 0.1
"""Of the image's shorter side: a patch covers a hundredth of the image at most."""
SALIENT = 48 / 255
"""Radius of the steps that find the place: triggers that only large changes of pixels wake
have no gradient at smaller ones."""
STEP = 0.5
"""Length of a step inside the square: two steps cross the range of a pixel."""
DIM = 0.1
"""Share of the usual gradient that every pixel is taken to have towards any class."""


class Patches(NamedTuple):
    """One patch per class.

    Attributes:
      changes: `[J, H, W, C]` in [-1, 1] that `universal.shift` adds to images; 0 outside
        the square.
      corners: `[J, 2]` row and column of the square's first pixel.
      is_finite: `[]` bool, false where a loss is not.
    """

    changes: Array
    corners: Array
    is_finite: Array


def side(shape: tuple[int, ...]) -> int:
    """Pixels of a patch's side on images `(H, W, C)`; 0 where not even one is so small."""
    return int(SIDE * min(shape[:2]))


def salient_corner(seen: Array, size: int) -> Array:
    """Row and column `[2]` of the square whose sum of `seen` `[H, W]` is the largest.

    Its side are `size` pixels; of several such squares it is the first one.
    """
    sums = jax.lax.reduce_window(seen, 0.0, jax.lax.add, (size, size), (1, 1), "VALID")
    return jnp.stack(jnp.unravel_index(jnp.argmax(sums), sums.shape))


def window(corner: Array, size: int, shape: tuple[int, ...]) -> Array:
    """`[H, W, 1]` 1.0 inside the square at a corner `[2]`, else 0."""
    return jax.lax.dynamic_update_slice(
        jnp.zeros((*shape, 1)), jnp.ones((size, size, 1)), (*corner, 0)
    )


def square_at(change: Array, corner: Array) -> Array:
    """The square `[S, S, C]` at a corner `[2]` of a change `[H, W, C]`."""
    size = side(change.shape)
    return jax.lax.dynamic_slice(change, (*corner, 0), (size, size, change.shape[-1]))


def relative(seen: Array) -> Array:
    """Gradients `[J, H, W]` of J classes as multiples of what all have at that pixel.

    Of a single class: as they are.
    """
    if len(seen) == 1:
        return seen
    share = seen / jnp.maximum(jnp.mean(seen, (1, 2), keepdims=True), 1e-30)
    return share / (jnp.mean(share, 0, keepdims=True) + DIM)


def find_patches(
    apply_fn: perturb.ApplyFn,
    variables: Variables,
    images: Array,
    labels: Array,
    classes: Array,
    *,
    salient_steps: int,
    steps: int,
) -> Patches:
    """Finds a patch per class that leads the images of other classes to it; pure.

    Compile and batch it from outside, over models. Promises, each tested: entries outside
    one square of `side(shape)` pixels are 0; none leaves [-1, 1]; weights and images are
    untouched; nothing is random.

    Args:
      apply_fn: the model; gradients are taken through it, for its images alone.
      variables: its collections, without a model axis.
      images: `[B, H, W, C]` in [0, 1].
      labels: `[B]` their classes.
      classes: `[J]` those to reach.
      salient_steps, steps: on all pixels, and inside the square; static, at least 1.

    Returns:
      See `Patches`.

    Raises:
      ValueError: for images of which a hundredth is less than a pixel.
    """
    shape = images.shape[1:]
    if not side(shape):
        raise ValueError(f"images of {shape[:2]} pixels have no patch of a hundredth")

    def objective(change: Array, target: Array) -> Array:
        logits = apply_fn(variables, universal.shift(images, change))
        wanted = jnp.full(labels.shape, target)
        weights = (labels != target).astype(images.dtype)
        return -perturb.weighted_cross_entropy(logits, wanted, weights)

    def corners(seen: Array) -> Array:
        return jax.lax.map(lambda one: salient_corner(one, side(shape)), relative(seen))

    def windows(at: Array) -> Array:
        return jax.lax.map(lambda one: window(one, side(shape), shape[:2]), at)

    # One loop for both parts: the network and its gradient are compiled once.
    def step(state: tuple[Array, Array], placing: Array) -> tuple[Any, Array]:
        changes, seen = state
        inside = jnp.where(placing, 1.0, windows(corners(seen)))
        values, gradients = jax.lax.map(
            lambda pair: jax.value_and_grad(objective)(*pair),
            (changes * inside, classes),
        )
        length = jnp.where(placing, SALIENT / salient_steps, STEP)
        changes = perturb.project(changes + length * jnp.sign(gradients), 1.0)
        seen += jnp.where(placing, jnp.abs(gradients).sum(-1), 0.0)
        return (changes, seen), values

    count = len(classes)
    start = (
        jnp.zeros((count, *shape), images.dtype),
        jnp.zeros((count, *shape[:2]), images.dtype),
    )
    placing = jnp.arange(salient_steps + steps) < salient_steps
    (changes, seen), values = jax.lax.scan(step, start, placing)
    at = corners(seen)
    return Patches(changes * windows(at), at, jnp.all(jnp.isfinite(values)))
