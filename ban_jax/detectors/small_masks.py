"""Triggers of all classes by the size of their masks: Neural Cleanse's rule, and evidence.

The rule as published: of the L1 norms n of all classes' masks, median and MAD (times
1.4826, NumPy's median); a class below the median whose distance from it is more than 2 MAD
is a target. With ten classes that is seldom certain: of clean models whose norms are drawn
from one normal distribution it flags a third.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.detectors import evidence, inversion, rules
from ban_jax.detectors.rules import Baseline, Scores, Vectors
from ban_jax.detectors.words import Words
from ban_jax.types import Array, Network, Probe, Variables

SIZE, SUCCESS = "small_mask", "trigger_success"
IMAGES_PER_CLASS = 2
"""Clean images, for each class, below which a trigger's success means nothing."""

WORDS = {
    SIZE: Words(
        "Size of the smallest mask, negative",
        "Minus the number of pixels, partly covered ones in part, of the smallest patch "
        "found that sends images to each class. A backdoor's target needs the fewest.",
        "number",
    ),
    SUCCESS: Words(
        "Success of the recovered trigger",
        "Share of clean images of other classes that the recovered trigger sends to each "
        "class.",
    ),
    "trigger": Words(
        "Recovered trigger",
        "The pattern where the mask lets it through, one per class.",
    ),
    "mask": Words("Recovered mask", "White where the image is covered, one per class."),
    "loss": Words("Loss towards the class", "Of the patch, mean of a round.", "number"),
    "size": Words("Size of the mask", "In pixels, mean of a round.", "number"),
    "success": Words("Success", "Share of images answered with the class."),
    "cost": Words(
        "Weight of the size",
        "It rises while the patch succeeds and falls while it does not.",
        "number",
    ),
}
"""Of vectors, images and curves."""


@dataclasses.dataclass(frozen=True)
class SmallMask:
    """Scores a class by how far its mask is below the median, in MADs.

    Against other models the distance is from their masks of the same class, as in
    `rules.AverageZ`.

    Attributes:
      reached: success from which on a trigger counts as one. A class that was not reached
        is not flagged; where none was, there is no verdict.
      thresholds, suspicious, pools: see `rules.Rule`.
    """

    reached: float = 0.9
    thresholds: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"within": 2.0, "trusted": 5.0, "population": 3.5}
    )
    suspicious: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pools: bool = False

    @property
    def vectors(self) -> tuple[str, ...]:
        """Size and success."""
        return (SIZE, SUCCESS)

    @property
    def needed(self) -> tuple[str, ...]:
        """Both."""
        return self.vectors

    def scores(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        """See `rules.Rule.scores`."""
        vector = np.asarray(vectors[SIZE], float)
        is_reached = np.asarray(vectors[SUCCESS], float) >= self.reached
        reason = ""
        if against.kind == "within":
            deviations = vector - np.median(vector)
            unit = rules.MAD_TO_SIGMA * float(np.median(np.abs(deviations)))
            if not unit > rules.FLOOR:
                unit, reason = 1.0, "more than half of the masks have the same size"
            z = deviations / unit
        else:
            z, unit = rules.z_values(vector, SIZE, against)
        if np.isnan(vectors[SUCCESS]).all():
            reason = (
                f"fewer than {IMAGES_PER_CLASS} clean images for each class are too few "
                "to recover triggers from"
            )
        elif not is_reached.any():
            reason = (
                f"no class was reached: no trigger sends {self.reached:.0%} of the clean "
                "images to one"
            )
        z = np.where(is_reached, z, np.minimum(z, 0.0))
        error = float(errors[SIZE][int(np.argmax(z))]) / unit
        return Scores(z, error, reason=reason)


def measured(
    network: Network,
    variables: Variables,
    probe: Probe,
    found: inversion.Searched,
    *,
    per_round: int,
    eight_bits: bool = False,
) -> evidence.Evidence:
    """The evidence of searches of patches (`patch_search.find`) of all classes.

    Args:
      network, variables: the candidate.
      probe: clean images, on all of which success is counted.
      found: the search.
      per_round: forward-equivalents of a round of one class.
      eight_bits: whether masks are cut to 255 steps before they are measured.
    """
    triggers = found.state.trigger
    num_classes = network.num_classes
    plain = evidence.over_minibatches(network, variables, probe.images, "stored")
    apply_fn = evidence.logits_of(network, "stored")
    labels = probe.labels.reshape(-1)
    masks = triggers.mask
    if eight_bits:
        masks = jnp.floor(masks * 255) / 255

    def count(job: tuple[Array, inversion.Trigger]) -> tuple[Array, Array, Array]:
        target, trigger = job
        logits = jax.lax.map(
            lambda images: apply_fn(variables, inversion.stamp(images, trigger)),
            probe.images,
        )
        answers = jnp.argmax(logits, axis=-1).reshape(-1)
        mean, error = evidence.share_of_others(
            jax.nn.one_hot(answers, num_classes), labels
        )
        return mean[target], error[target], jnp.all(jnp.isfinite(logits))

    success, error, finite = jax.lax.map(count, (jnp.arange(num_classes), triggers))
    if labels.size < IMAGES_PER_CLASS * num_classes:
        success = jnp.full_like(success, jnp.nan)
    size = jnp.sum(masks, axis=(1, 2, 3))
    done = jnp.sum(found.rounds) * per_round
    clean = jnp.argmax(plain, axis=-1) == probe.labels
    return evidence.Evidence(
        vectors={SIZE: -size, SUCCESS: success},
        errors={SIZE: jnp.zeros_like(size), SUCCESS: error},
        clean_accuracy=jnp.mean(clean),
        is_finite=jnp.all(found.state.is_finite)
        & jnp.all(finite)
        & jnp.all(jnp.isfinite(plain)),
        info={"search": inversion.told(found)},
        images={
            "trigger": jnp.nan_to_num(triggers.mask * triggers.pattern),
            "mask": jnp.nan_to_num(triggers.mask),
        },
        work=done + (1 + num_classes) * labels.size,
    )


def work(rounds: int, per_round: int, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents at most, where all images are counted on."""
    return num_images + num_classes * (rounds * per_round + num_images)
