"""A network per class that changes images towards it: what FeatureRE and UNICORN share.

Both search on a few clean images of each class, lead those of all other classes to one,
and hold the features so led away from those of the class's own images. Batches have fixed
shapes: an image that is not there weighs nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.detectors import rules, transforms
from ban_jax.detectors.transforms import Clean
from ban_jax.models import unet
from ban_jax.types import Array, Network, Probe, Variables

FRESH = 16
"""Images that were not searched on, below which success is counted on all of them: of so
few it says next to nothing, and of none it would read as a class that was not reached."""
MOST_NAMED = 5
"""Classes without an image that a reason names."""


class Few(NamedTuple):
    """A few images of each class, the first ones of the probe.

    Attributes:
      which: `[K, I]` images; any where a class has fewer.
      there: `[K, I]` whether it is one of the class.
    """

    which: Array
    there: Array


class Others(NamedTuple):
    """Images of other classes in batches, and how much each counts: 1, or 0.

    Attributes:
      images: `[T, B, H, W, C]`.
      weights: `[T, B]`.
    """

    images: Array
    weights: Array


class Pressure(NamedTuple):
    """How far the last epoch was from each bound, as shares of the bounds; `[]` each."""

    image: Array
    success: Array
    spread: Array


def few_of_each(labels: Array, num_classes: int, count: int) -> Few:
    """The first `count` images of each class, of labels `[N]`."""
    place = jnp.arange(labels.size)
    is_of = labels[None] == jnp.arange(num_classes)[:, None]
    first = jnp.argsort(
        jnp.where(is_of, place[None], labels.size + place[None]), axis=1
    )
    index = first[:, : min(count, labels.size)]
    return Few(index, jnp.take_along_axis(is_of, index, axis=1))


class Ready(NamedTuple):
    """What the searches of all classes, and what follows them, begin with.

    Attributes:
      clean: the candidate's clean images, see `transforms.Clean`.
      few: those of each class that are searched on.
      net: the U-Net; its parameters are each search's own.
      features_of: images `[B, H, W, C]` -> features `[B, h, w, c]` of the candidate.
      features: `[N, h, w, c]` of all images.
      centres: `[K, h, w, c]`, see `centres`.
    """

    clean: Clean
    few: Few
    net: unet.UNet
    features_of: Callable[[Array], Array]
    features: Array
    centres: Array


def ready(network: Network, variables: Variables, probe: Probe, config: Any) -> Ready:
    """See `Ready`; `config` has `width`, `images_per_class` and `batch_size`."""
    clean = transforms.clean_of(variables, probe)
    net = transforms.net_of(network, clean.images.shape[1:], config.width)
    few = few_of_each(clean.labels, network.num_classes, config.images_per_class)

    def features_of(images: Array) -> Array:
        return network.features(clean.variables, images, "stored")[0]

    features = transforms.in_parts(features_of, clean.images, size=config.batch_size)
    return Ready(clean, few, net, features_of, features, centres(features, few))


class Plan(NamedTuple):
    """How many images of other classes a search of one class takes.

    Attributes:
      per_class: images of each other class.
      number: batches of an epoch.
      size: images of a batch.
    """

    per_class: int
    number: int
    size: int


def plan(num_classes: int, count: int, size: int, *, whole: bool) -> Plan:
    """Images of an epoch: those of one batch, so that work is linear in the classes.

    Args:
      num_classes: K.
      count: images there are of each class.
      size: of a batch, at most.
      whole: takes all images of all other classes instead, in as many batches.
    """
    classes = max(num_classes - 1, 1)
    if not whole:
        count = max(min(count, size // classes), 1)
    total = classes * count if whole else min(classes * count, size)
    number = -(-total // size)
    return Plan(count, number, -(-total // number))


def others(clean: Clean, few: Few, target: Array, size: int, *, whole: bool) -> Others:
    """The few images of all classes but one, in batches of at most `size` (`plan`)."""
    num_classes, count = few.which.shape
    planned = plan(num_classes, count, size, whole=whole)
    turn = (target + 1 + jnp.arange(max(num_classes - 1, 1))) % num_classes
    shape = planned.number, planned.size
    total = planned.number * planned.size

    def taken(values: Array) -> Array:
        flat = values[turn, : planned.per_class].reshape(-1)[:total]
        return jnp.pad(flat, (0, total - flat.size))

    index, there = taken(few.which), taken(few.there)
    weights = (there & (clean.labels[index] != target)).astype(clean.images.dtype)
    images = clean.images[index].reshape(*shape, *clean.images.shape[1:])
    return Others(images, weights.reshape(shape))


def centres(features: Array, few: Few) -> Array:
    """Mean features of each class `[K, h, w, c]`, of those of all images `[N, h, w, c]`."""
    weights = few.there.astype(features.dtype)
    return jax.lax.map(
        lambda job: mean_of(features[job[0]], job[1]), (few.which, weights)
    )


def fresh(clean: Clean, few: Few, target: Array, size: int, *, whole: bool) -> Array:
    """`[N]`: 1 for images of other classes that no search saw; for all images of other
    classes where those are fewer than `FRESH`.

    Args:
      clean: all images.
      few: those that searches take from.
      target: `[]` the class.
      size, whole: see `plan`.
    """
    num_classes, count = few.which.shape
    seen = plan(num_classes, count, size, whole=whole).per_class
    index, there = few.which[:, :seen].reshape(-1), few.there[:, :seen].reshape(-1)
    used = jnp.zeros(clean.labels.size).at[index].max(there * 1.0)
    others = (clean.labels != target) * 1.0
    unseen = others * (1.0 - used)
    return jnp.where(jnp.sum(unseen) < FRESH, others, unseen)


def lent(key: Array, few: Few, count: int) -> Array:
    """Which images `[count]` lend their features: any of the few, with repetition."""
    there = few.there.reshape(-1)
    order = jnp.argsort(~there)
    number = jnp.maximum(jnp.sum(there), 1)
    drawn = jax.random.randint(key, (count,), 0, number)
    return few.which.reshape(-1)[order[drawn]]


def mean_of(values: Array, weights: Array) -> Array:
    """Weighted mean over the first axis: `[B, ...]`, `[B]` -> `[...]`."""
    shaped = weights.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.sum(values * shaped, axis=0) / jnp.maximum(jnp.sum(weights), 1.0)


def cosine(one: Array, other: Array) -> Array:
    """Cosine `[]` between two arrays of one shape, flat."""
    square = jnp.sum(jnp.square(one)) * jnp.sum(jnp.square(other))
    return jnp.sum(one * other) * jax.lax.rsqrt(jnp.maximum(square, 1e-16))


def spread(features: Array, mask: Array, weights: Array) -> Array:
    """Sum of the masked features' deviations over the images, per unit of mask: `[]`.

    Args:
      features: `[B, h, w, c]`.
      mask: `[h, w, c]`.
      weights: `[B]`; the deviations are those of a sample.
    """
    mean = mean_of(features, weights)
    squares = jnp.square(features - mean[None])
    number = jnp.maximum(jnp.sum(weights), 2.0)
    variance = mean_of(squares, weights) * (number / (number - 1))
    # A feature that is the same everywhere has no slope, where the root has an infinite.
    is_flat = variance <= 0
    deviation = jnp.where(is_flat, 0.0, jnp.sqrt(jnp.where(is_flat, 1.0, variance)))
    return jnp.sum(mask * deviation) / jnp.sum(mask)


def cross_entropy(logits: Array, target: Array, weights: Array) -> Array:
    """Mean `[]` towards a class, of logits `[B, K]`."""
    return -mean_of(jax.nn.log_softmax(logits)[:, target], weights)


def success(logits: Array, target: Array, weights: Array) -> Array:
    """Share `[]` of images answered with a class."""
    return mean_of((jnp.argmax(logits, axis=-1) == target) * 1.0, weights)


def change(before: Array, after: Array, weights: Array) -> Array:
    """Mean squared change `[]` of images `[B, H, W, C]`."""
    squares = jnp.mean(jnp.square(after - before), axis=(1, 2, 3))
    return mean_of(squares, weights)


def excess(value: Array, bound: Any) -> Array:
    """How far a value is above a bound, as a share of it: 0 below."""
    return jnp.maximum(value - bound, 0.0) / bound


def cost_of_bounds(
    seen: Mapping[str, Array],
    change: str,
    bound: Any,
    entropy: Array,
    pressure: Pressure,
    config: Any,
) -> Array:
    """What a network costs that is beyond its bounds, or short of success: `[]`.

    Args:
      seen: of a batch: its `spread`, its `success`, and the `change` of its images.
      change: name of the measure of that change.
      bound: of that measure.
      entropy: `[]` towards the class, which counts as long as success is short.
      pressure: of the last epoch.
      config: settings with `spread_bound` and `success`.
    """
    bounded = (
        (seen["spread"], config.spread_bound, pressure.spread),
        (seen[change], bound, pressure.image),
    )
    cost = jnp.where(
        seen["success"] < config.success, entropy * (1 + pressure.success), 0.0
    )
    for value, most, pressed in bounded:
        cost += jnp.where(value > most, 10 * value * (1 + pressed), 0.0)
    return cost


def no_pressure() -> Pressure:
    """Before the first epoch: 1 for each."""
    return Pressure(jnp.ones(()), jnp.ones(()), jnp.ones(()))


class FirstDecides(rules.LargestShare):
    """The first vector decides; success, the second, tells whether anything was reached.

    Attributes:
      told: what a score is, for the reason of a verdict.
      reached: success that some class must have had; a search that stays below it for
        all of them has failed, whatever its bounds are. Within its bounds it may well
        not succeed: that is what clean models are told by.
    """

    told = ""
    reached = 0.1

    def scores(
        self, vectors: rules.Vectors, errors: rules.Vectors, against: rules.Baseline
    ) -> rules.Scores:
        """See `rules.Rule.scores`."""
        first, second = self.vectors[:2]
        one = rules.LargestShare((first,), self.thresholds, self.floors)
        found = one.scores(vectors, errors, against)
        missing = np.flatnonzero(np.isnan(vectors[first]))
        if missing.size:
            named = ", ".join(map(str, missing[:MOST_NAMED]))
            left = missing.size - MOST_NAMED
            more = f" and {left} more" if left > 0 else ""
            reason = f"there is no clean image of class {named}{more}"
            return found._replace(reason=reason)
        if not max(vectors[second]) >= self.reached:
            reason = (
                f"no class was reached: {max(vectors[second]):.0%} of the clean images "
                "were led to one at most"
            )
            return found._replace(reason=reason)
        return found if found.are_z else found._replace(meaning=self.told)
