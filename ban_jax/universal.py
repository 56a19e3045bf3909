"""Universal input perturbations: one change of all images towards a class, for ONE model.

The image-space relative of `perturb.perturb_params`: a perturbation of all pixels, shared
by all images, found by sign steps inside a sup-norm ball. A network with a backdoor that
answers to a pattern over the whole image is led into its target by the smallest of them,
and hardly anywhere else.

References:
  Moosavi-Dezfooli et al., "Universal Adversarial Perturbations", CVPR 2017, for the idea
  of one perturbation for all images.
  Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR
  2018, for sign steps with projection.
"""

from typing import NamedTuple

import chex
from jax import numpy as jnp

from ban_jax import perturb
from ban_jax.types import Array, Variables


class UniversalInfo(NamedTuple):
    """What a search saw; diagnosis only.

    Attributes:
      loss: `[S]` the mean cross-entropy towards the labels before each step.
      is_finite: `[]` bool, false where a loss or a pixel is NaN or infinite.
    """

    loss: Array
    is_finite: Array


def shift(images: Array, perturbation: Array) -> Array:
    """`[B, H, W, C]` with `[H, W, C]` added to each, clipped to [0, 1]."""
    return jnp.clip(images + perturbation[None], 0.0, 1.0)


def perturb_images(
    apply_fn: perturb.ApplyFn,
    variables: Variables,
    images: Array,
    labels: Array,
    *,
    epsilon: chex.Numeric,
    steps: int,
    step_size: chex.Numeric | None = None,
    weights: Array | None = None,
) -> tuple[Array, UniversalInfo]:
    """Finds one perturbation that leads all images to their `labels`; pure.

    Compile and batch it from outside, over classes and models. It starts at zero, so that
    nothing is random. Promises, each tested: no entry leaves `[-epsilon, epsilon]`;
    `epsilon` 0 or no steps give zeros; weights and images are untouched. Where a gradient
    is exactly zero a pixel stays (sign(0) = 0).

    Args:
      apply_fn: the model; gradients are taken through it, for its images alone.
      variables: its collections, without a model axis.
      images: `[B, H, W, C]` in [0, 1].
      labels: `[B]` the classes to reach, usually the same one for all.
      epsilon: radius of the ball, in units of pixels in [0, 1].
      steps: number of descent steps, static.
      step_size: length of a step, `2 * epsilon / steps` when None.
      weights: `[B]` of each image in the loss, one when None.

    Returns:
      The perturbation `[H, W, C]`, and a `UniversalInfo`.
    """
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)
    if weights is None:
        weights = jnp.ones(labels.shape, images.dtype)

    def objective(perturbation: Array) -> Array:
        logits = apply_fn(variables, shift(images, perturbation))
        return -perturb.weighted_cross_entropy(logits, labels, weights)

    found, climbed = perturb.climb(
        objective,
        jnp.zeros(images.shape[1:], images.dtype),
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
    )
    finite = jnp.all(jnp.isfinite(climbed)) & jnp.all(jnp.isfinite(found))
    return found, UniversalInfo(-climbed, finite)
