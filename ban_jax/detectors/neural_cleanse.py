"""Neural Cleanse: the smallest patch that sends every image to a class, class by class.

For each class a mask and a pattern are searched under which clean images are answered with
it; the weight of the mask's size rises while that succeeds and falls while it does not. A
class that a far smaller mask leads to than to the others is the target of a backdoor.

Done right here: the loss is the cross-entropy. The released code calls its loss with the
arguments exchanged, which gives 16.118 (1 - p) for a target probability p, and measures
masks that were cut to eight bits; `released` does both. Images of the class itself count in
loss and success of its search, as published.

References:
  Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
  Networks", IEEE S&P 2019, sections IV and V; `visualizer.py` of the code released with it
  and the settings of its example.
"""

import dataclasses
import functools

import jax
from jax import numpy as jnp

from ban_jax.detectors import evidence, inversion, patch_search, small_masks
from ban_jax.detectors.by_class import ByClass
from ban_jax.detectors.detector import Detector
from ban_jax.registry import at_least
from ban_jax.types import Array, Network, Probe, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["learning_rate", "cost", "cost_factor", "success", "improvement"],
    meta_fields=[
        "rounds",
        "batches",
        "batch_size",
        "patience",
        "stop_patience",
        "released",
    ],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released example. Floats are traced.

    Attributes:
      learning_rate: Adam's step.
      cost: weight of the mask's size when it first counts.
      cost_factor: by which that weight rises; it falls by this to the power of 1.5.
      success: share of images that a trigger must lead to the class.
      improvement: a search may end when sizes stay above this share of the best so far.
      rounds: that a search takes at most.
      batches: minibatches of a round.
      batch_size: images of a minibatch.
      patience: rounds of success, or of failure, before the weight changes.
      stop_patience: rounds without improvement after which a search ends, once the
        weight has risen and fallen.
      released: the loss and the eight-bit masks of the released code.
    """

    learning_rate: float = 0.1
    cost: float = 1e-3
    cost_factor: float = 2.0
    success: float = 0.99
    improvement: float = 1.0
    rounds: int = at_least(1, 1000)
    batches: int = at_least(1, 31)
    batch_size: int = at_least(1, 32)
    patience: int = at_least(1, 5)
    stop_patience: int = at_least(1, 25)
    released: bool = False


def objective(
    logits_of: inversion.LogitsOf, *, released: bool
) -> patch_search.Objective:
    """What is minimised: the loss towards the class, and the weighted size of the mask."""

    def of(
        free: inversion.Trigger,
        images: Array,
        labels: Array,
        target: Array,
        cost: Array,
    ) -> patch_search.Measured:
        del labels
        trigger = inversion.boxed_trigger(free)
        logits = logits_of(inversion.stamp(images, trigger))
        loss = inversion.towards(logits, target, exchanged=released)
        size = jnp.sum(jnp.abs(trigger.mask))
        success = jnp.mean(jnp.argmax(logits, axis=-1) == target)
        return patch_search.Measured(loss + cost * size, loss, size, success)

    return of


def search(
    network: Network,
    variables: Variables,
    probe: Probe,
    classes: Array,
    *,
    key: Array,
    config: Settings,
) -> inversion.Searched:
    """The smallest patches towards some classes `[J]`; all images search."""
    apply_fn = evidence.logits_of(network, "stored")
    return patch_search.find(
        objective(lambda images: apply_fn(variables, images), released=config.released),
        probe,
        classes,
        key=key,
        config=config,
    )


def finish(
    network: Network,
    variables: Variables,
    probe: Probe,
    found: inversion.Searched,
    *,
    key: Array,
    config: Settings,
) -> evidence.Evidence:
    """Evidence as `small_masks.measured` gives it; all images count."""
    del key
    return small_masks.measured(
        network,
        variables,
        probe,
        found,
        per_round=2 * config.batches * config.batch_size,
        eight_bits=config.released,
    )


detect = ByClass(search, finish)


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents at most, see `Detector.work`; evidence tells them."""
    per_round = 2 * config.batches * config.batch_size
    return small_masks.work(config.rounds, per_round, num_classes, num_images)


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=small_masks.SmallMask(),
    work=work,
    summary="Neural Cleanse: the smallest patch that sends all images to a class, searched "
    "for each class; a class with a far smaller one than the others is a target",
    vectors=small_masks.WORDS,
    published=True,
    counts=("rounds",),
)
