"""The feature mask: which features carry the benign classes, for ONE model.

With the mask the head still classifies; with its complement it cannot. What a backdoor
uses is left in the complement.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024, section 3; Xu et al., "Towards Reliable and Efficient Backdoor Trigger
  Inversion via Decoupling Benign Features" (BTI-DBF), ICLR 2024, for the decoupling.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import optax
from jax import numpy as jnp

from ban_jax.types import Array, Variables

HeadApplyFn = Callable[[Variables, Array], Array]
"""`(variables, features [N,h,w,c]) -> logits [N,K]`, the statistics mode baked in."""


class MaskInfo(NamedTuple):
    """What the optimisation saw; diagnosis only.

    Attributes:
      loss_kept: `[S]` cross-entropy through the mask, before each step.
      loss_dropped: `[S]` cross-entropy through the complement, before each step.
      mean: `[]` the mask's mean.
      is_finite: `[]` bool.
    """

    loss_kept: Array
    loss_dropped: Array
    mean: Array
    is_finite: Array


def optimize_mask(
    head_fn: HeadApplyFn,
    head_variables: Variables,
    features: Array,
    labels: Array,
    *,
    key: Array,
    l1_weight: chex.Numeric,
    learning_rate: chex.Numeric,
    steps: int,
) -> tuple[Array, MaskInfo]:
    """Learns a mask `m` by Adam: low loss through `m`, high loss through `1 - m`, small.

    `CE(head(m f), y) - CE(head((1 - m) f), y) + l1_weight * mean(m)`. The released code
    divides the L1 norm by itself instead of by the number of entries, which makes the
    weight mean another thing for every mask, and clamps before the step, so that its mask
    may leave [0, 1] (`detectors.reference` does it that way).

    Pure; only the head is differentiated, and only for the mask. Promises, each tested:
    every entry lies in [0, 1]; inputs are unchanged; the same key gives the same mask;
    zero steps return the start.

    Args:
      head_fn: features to logits.
      head_variables: the model's collections, without a model axis.
      features: `[N, h, w, c]`, computed once.
      labels: `[N]` true classes.
      key: typed key for the start U(0, 1), consumed.
      l1_weight: weight of the mask's mean.
      learning_rate: Adam's; 0.01 in the paper.
      steps: static.

    Returns:
      The mask `[h, w, c]`, shared by all images, and a `MaskInfo`.
    """
    chex.assert_rank([features, labels], [4, 1])
    chex.assert_equal_shape_prefix([features, labels], 1)

    def cross_entropy(masked: Array) -> Array:
        logits = head_fn(head_variables, masked)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    def objective(mask: Array) -> tuple[Array, tuple[Array, Array]]:
        kept = cross_entropy(features * mask[None])
        dropped = cross_entropy(features * (1 - mask)[None])
        return kept - dropped + l1_weight * jnp.mean(mask), (kept, dropped)

    optimiser = optax.adam(learning_rate)

    def step(carry, _):
        mask, state = carry
        (_, losses), gradient = jax.value_and_grad(objective, has_aux=True)(mask)
        updates, state = optimiser.update(gradient, state, mask)
        mask = optax.projections.projection_box(
            optax.apply_updates(mask, updates), 0.0, 1.0
        )
        return (mask, state), losses

    mask = jax.random.uniform(key, features.shape[1:], features.dtype)
    (mask, _), (kept, dropped) = jax.lax.scan(
        step, (mask, optimiser.init(mask)), length=steps
    )
    mean = jnp.mean(mask)
    finite = jnp.isfinite(mean) & jnp.all(jnp.isfinite(kept) & jnp.isfinite(dropped))
    return mask, MaskInfo(kept, dropped, mean, finite)
