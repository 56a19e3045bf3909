"""TABOR: Neural Cleanse with penalties on patches that are no triggers.

To the loss of Neural Cleanse come six terms, for a mask m and a pattern p in [0, 1]: the
size of m, |m| + m^2, and of the pattern it hides, |(1-m)p| + ((1-m)p)^2; the squared
differences of neighbours in m and in (1-m)p, which a scattered patch has many of; the
cross-entropy of images whose masked part is blank, (1-m)x, towards their own classes, so
that a patch that merely covers what matters does not count; and that of the patch alone,
m p, towards the target. Search, best and verdict are Neural Cleanse's, the weight of the
mask's size that rises and falls included: by themselves the published weights of the
penalties, chosen for pixels up to 255, hardly press on a mask.

The terms of (1-m)p are taken of pixels in [0, 1], up to 65,025 times weaker than in the
code that states the weights. The blocking term has weight 0 in all public code; it is
computed only where it has another. The paper's quality score of triggers before the verdict
is in no public code and is left out.

`released` is what that code does: the losses have their arguments exchanged (see
`neural_cleanse`); pixels of the pattern go up to 255; the mask counts once per channel; of
the neighbours only those above one another; the blocking term leads all images of a
minibatch to the first one's class; Adam steps by 0.001; the mask's size has no further
weight, the best patch is that of the smallest mean loss of a round, and nothing ends early.
It has one target and no verdict: here every class, and Neural Cleanse's rule.

References:
  Guo et al., "TABOR: A Highly Accurate Approach to Inspecting and Restoring Trojan
  Backdoors in AI Systems", arXiv 1908.01763; UsmannK/TABOR, `snooper.py`, and trojanzoo,
  `tabor.py`, which agree on the weights.
"""

import dataclasses
import functools

import jax
from jax import numpy as jnp

from ban_jax.detectors import (
    evidence,
    inversion,
    neural_cleanse,
    patch_search,
    small_masks,
)
from ban_jax.detectors.by_class import ByClass
from ban_jax.detectors.detector import Detector
from ban_jax.types import Array, Network, Probe, Variables

RELEASED_LEARNING_RATE = 1e-3
WEIGHTS = ("size", "hidden", "rough", "hidden_rough", "blocking", "overlaying")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "learning_rate",
        "cost",
        "cost_factor",
        "success",
        "improvement",
        *WEIGHTS,
    ],
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
class Settings(neural_cleanse.Settings):
    """Those of Neural Cleanse (`learning_rate`, `cost`, `cost_factor`, `success`,
    `improvement`, `rounds`, `batches`, `batch_size`, `patience`, `stop_patience`,
    `released`), and weights of the penalties. Floats are traced.

    Attributes:
      size: of the mask's size.
      hidden: of the size of the pattern under the mask's complement.
      rough: of differences between neighbours in the mask.
      hidden_rough: of those in the pattern under the mask's complement.
      blocking: of the loss of images whose masked part is blank.
      overlaying: of the loss of the patch alone.
    """

    size: float = 1e-6
    hidden: float = 1e-5
    rough: float = 1e-7
    hidden_rough: float = 1e-8
    blocking: float = 0.0
    overlaying: float = 1e-2


def roughness(values: Array, *, rows_only: bool = False) -> Array:
    """Sum `[]` of squared differences of neighbours in `[H, W, C]`.

    Args:
      values: of an image.
      rows_only: only of those above one another.
    """
    down = jnp.sum(jnp.square(values[1:] - values[:-1]))
    if rows_only:
        return down
    return down + jnp.sum(jnp.square(values[:, 1:] - values[:, :-1]))


def norms(values: Array) -> Array:
    """The sum `[]` of magnitudes and of squares."""
    return jnp.sum(jnp.abs(values)) + jnp.sum(jnp.square(values))


def penalties(
    logits_of: inversion.LogitsOf,
    trigger: inversion.Trigger,
    images: Array,
    labels: Array,
    target: Array,
    config: Settings,
) -> Array:
    """The six terms `[6]` of a boxed trigger, in the order of `WEIGHTS`, unweighted.

    Args:
      logits_of: the model.
      trigger: mask `[H, W, 1]` and pattern `[H, W, C]`.
      images: `[B, H, W, C]`.
      labels: `[B]`.
      target: `[]`.
      config: see `Settings`; a blocking term of no weight is 0.
    """
    released = config.released
    mask, pattern = trigger
    hidden = (1 - mask) * pattern
    if released:
        mask = jnp.broadcast_to(mask, pattern.shape)
        hidden = 255 * hidden
        labels = jnp.full_like(labels, labels[0])

    def blocking() -> Array:
        logits = logits_of((1 - trigger.mask)[None] * images)
        return inversion.towards(logits, labels, exchanged=released)

    alone = logits_of((trigger.mask * pattern)[None])
    return jnp.stack(
        [
            norms(mask),
            norms(hidden),
            roughness(mask, rows_only=released),
            roughness(hidden, rows_only=released),
            jax.lax.cond(config.blocking > 0, blocking, lambda: jnp.zeros(())),
            inversion.towards(alone, target, exchanged=released),
        ]
    )


def objective(
    logits_of: inversion.LogitsOf, config: Settings
) -> patch_search.Objective:
    """Neural Cleanse's, and the weighted penalties."""
    plain = neural_cleanse.objective(logits_of, released=config.released)

    def of(
        free: inversion.Trigger,
        images: Array,
        labels: Array,
        target: Array,
        cost: Array,
    ) -> patch_search.Measured:
        measured = plain(free, images, labels, target, cost)
        terms = penalties(
            logits_of, inversion.boxed_trigger(free), images, labels, target, config
        )
        weights = jnp.stack([jnp.asarray(getattr(config, name)) for name in WEIGHTS])
        return measured._replace(total=measured.total + jnp.sum(weights * terms))

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
    """The patches of least loss towards some classes `[J]`; all images search."""
    apply_fn = evidence.logits_of(network, "stored")
    return patch_search.find(
        objective(lambda images: apply_fn(variables, images), config),
        probe,
        classes,
        key=key,
        config=config,
        learning_rate=RELEASED_LEARNING_RATE if config.released else None,
        scheduled=not config.released,
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
        network, variables, probe, found, per_round=_per_round(config)
    )


detect = ByClass(search, finish)


def _per_round(config: Settings) -> int:
    """Forward-equivalents of one round of one class, without the blocking term."""
    return 2 * config.batches * (config.batch_size + 1)


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents at most, see `Detector.work`; evidence tells them."""
    return small_masks.work(config.rounds, _per_round(config), num_classes, num_images)


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=small_masks.SmallMask(),
    work=work,
    summary="TABOR: Neural Cleanse with penalties on patches that are large, scattered, or "
    "lead to a class by covering the image",
    vectors=small_masks.WORDS,
    published=True,
    counts=("rounds",),
)
