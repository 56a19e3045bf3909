"""Searches towards one class at a time: neuron noise, one change of all images, a patch.

The first two lead clean images of other classes to a class, and measure the mean
probability of the class on fresh images of other classes. Noise on neurons finds what a
network has learned of a target; a change of all images' pixels alike finds a pattern over
the whole image, which leads into its target and hardly anywhere else. A patch of a
hundredth of the image (`patches`) costs less: the first look (`detectors.ban`) takes it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import numpy as jnp

from ban_jax import patch, perturb, universal
from ban_jax.detectors import evidence, witnesses
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words
from ban_jax.registry import at_least
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables

SALIENT_STEPS = 2
"""On all pixels, to find where a patch lies."""
VECTORS = ("targeted", "universal")
"""What is searched for, class by class; each can be had without the other."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon", "pixel_epsilon"],
    meta_fields=["steps", "pixel_steps", "pixel_images"],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Floats are traced: changing one compiles nothing.

    Attributes:
      epsilon: radius of the neuron noise, relative to each scale and bias.
      steps: sign steps of one search of noise.
      pixel_epsilon: radius of the change of images, of pixels in [0, 1].
      pixel_steps: sign steps of one search of such a change.
      pixel_images: images each of those searches is made on, at most a minibatch.
    """

    epsilon: float = 0.2
    steps: int = at_least(1, 2)
    pixel_epsilon: float = 12 / 255
    pixel_steps: int = at_least(1, 4)
    pixel_images: int = at_least(1, 64)


class Strongest(NamedTuple):
    """The patch that adds most to the probability of its class.

    Attributes:
      target: `[]` the class.
      corner: `[2]` row and column of its first pixel.
      change: `[S, S, C]` in [-1, 1], what it adds to the pixels of an image.
    """

    target: Array
    corner: Array
    change: Array


class Reached(NamedTuple):
    """How much of each class a search reached.

    Attributes:
      share: `[K]` mean probability of the class; NaN for classes that were not tried.
      error: `[K]` its standard error; 0 for classes that were not tried.
      is_finite: `[]` bool, false where a search, or what it reached, was not.
    """

    share: Array
    error: Array
    is_finite: Array


def noise_towards(
    network: Network,
    variables: Variables,
    images: Array,
    labels: Array,
    target: Array,
    *,
    key: Array,
    epsilon: Array | float,
    steps: int,
    start: Array | float = 0.0,
) -> tuple[Variables, perturb.NoiseInfo]:
    """The network under noise that leads images `[B, H, W, C]` of other classes to one.

    Batch statistics: images of the class itself count in them, and in nothing else.
    """
    return perturb.perturb_params(
        evidence.logits_of(network, "batch"),
        variables,
        images,
        jnp.full(labels.shape, target),
        key=key,
        epsilon=epsilon,
        steps=steps,
        start=start,
        towards=True,
        weights=(labels != target).astype(images.dtype),
    )


def noise(
    network: Network,
    variables: Variables,
    probe: Probe,
    classes: Array,
    *,
    key: Array,
    epsilon: Array | float,
    steps: int,
) -> Reached:
    """Neuron noise towards each of `classes` `[J]`.

    It is searched on the first minibatch and counted on the second, with statistics of
    the minibatch.
    """
    apply_fn = evidence.logits_of(network, "batch")
    (images, fresh), (labels, others) = _two(probe)

    def towards(target: Array) -> tuple[Array, ...]:
        noisy, info = noise_towards(
            network,
            variables,
            images,
            labels,
            target,
            key=jax.random.fold_in(key, target),
            epsilon=epsilon,
            steps=steps,
        )
        return *_count(apply_fn(noisy, fresh), others, target), info.is_finite

    return _reached(towards, classes, network.num_classes)


def pixels(
    network: Network,
    variables: Variables,
    probe: Probe,
    classes: Array,
    *,
    epsilon: Array | float,
    steps: int,
    num_images: int,
) -> Reached:
    """A universal perturbation of the images towards each of `classes` `[J]`.

    It is searched on the first `num_images` images and counted on the second minibatch,
    with stored statistics.
    """
    apply_fn = evidence.logits_of(network, "stored")
    (images, fresh), (labels, others) = _two(probe)
    images, labels = images[:num_images], labels[:num_images]

    def towards(target: Array) -> tuple[Array, ...]:
        found, info = universal.perturb_images(
            apply_fn,
            variables,
            images,
            jnp.full(labels.shape, target),
            epsilon=epsilon,
            steps=steps,
            weights=(labels != target).astype(images.dtype),
        )
        logits = apply_fn(variables, universal.shift(fresh, found))
        return *_count(logits, others, target), info.is_finite

    return _reached(towards, classes, network.num_classes)


def patches(
    network: Network,
    variables: Variables,
    probe: Probe,
    classes: Array,
    *,
    steps: int,
    num_images: int,
) -> tuple[Reached, Strongest]:
    """A small patch on the images towards each of `classes` `[J]`: `patch.find_patches`.

    It is searched on the first `num_images` images and counted on as many of the second
    minibatch, with stored statistics; of a single one on half of it at most, and counted
    on the other half. Told is what it adds to the mean probability, and the strongest
    patch itself.
    """
    apply_fn = evidence.logits_of(network, "stored")
    (images, fresh), (labels, others) = _two(probe)
    num_images = searched_on(num_images, len(images), len(probe.images))
    # Of a single image there is no other half.
    first = num_images if len(probe.images) == 1 < len(images) else 0
    fresh, others = (part[first : first + num_images] for part in (fresh, others))
    found = patch.find_patches(
        apply_fn,
        variables,
        images[:num_images],
        labels[:num_images],
        classes,
        salient_steps=SALIENT_STEPS,
        steps=steps,
    )

    # Without a patch as with one, in one loop: the network is compiled once for both.
    none = jnp.zeros_like(found.changes[:1])
    shown = jax.lax.map(
        lambda change: jax.nn.softmax(
            apply_fn(variables, universal.shift(fresh, change))
        ),
        jnp.concatenate([none, found.changes]),
    )
    plain, patched = shown[0], shown[1:]

    def gained(pair: tuple[Array, Array]) -> tuple[Array, ...]:
        target, after = pair
        mean, error = evidence.share_of_others(after - plain, others)
        return mean[target], error[target], found.is_finite

    reached = _reached(gained, (classes, patched), network.num_classes)
    best = jnp.argmax(reached.share[classes])
    change, corner = found.changes[best], found.corners[best]
    square = patch.square_at(change, corner)
    return reached, Strongest(classes[best], corner, square)


def searched_on(wanted: int, size: int, minibatches: int) -> int:
    """Images of a minibatch of `size` that a patch is searched on."""
    return min(wanted, size) if minibatches > 1 else max(min(wanted, size // 2), 1)


def work_of_patches(num_classes: int, num_images: int, steps: int) -> int:
    """Image forward-equivalents of `patches` towards so many classes."""
    return num_images * (1 + num_classes * (2 * (SALIENT_STEPS + steps) + 1))


def _two(probe: Probe) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The first two minibatches; of a single one, itself twice."""
    second = min(1, probe.images.shape[0] - 1)
    return (
        (probe.images[0], probe.images[second]),
        (probe.labels[0], probe.labels[second]),
    )


def _count(logits: Array, labels: Array, target: Array) -> tuple[Array, Array]:
    """Mean probability `[]` of a class over images of others, and its error `[]`."""
    mean, error = evidence.share_of_others(jax.nn.softmax(logits), labels)
    return mean[target], error[target]


def _reached(
    towards: Callable[..., tuple[Array, ...]],
    given: Array | tuple[Array, ...],
    num_classes: int,
) -> Reached:
    """What `towards` tells of classes `[J]`, which `given` is, or begins with."""
    share, error, finite = jax.lax.map(towards, given)
    classes = given[0] if isinstance(given, tuple) else given
    return Reached(
        jnp.full(num_classes, jnp.nan, share.dtype).at[classes].set(share),
        jnp.zeros(num_classes, error.dtype).at[classes].set(error),
        # A class that overflows must not read as one that was not tried.
        jnp.all(finite) & jnp.all(jnp.isfinite(share)),
    )


def detect(
    network: Network,
    variables: Variables,
    probe: Probe,
    *,
    key: Array,
    config: Settings,
    classes: Array | None = None,
    vectors: tuple[str, ...] = VECTORS,
) -> evidence.Evidence:
    """Measures one candidate; pure.

    Args:
      network: the model's two functions.
      variables: its collections.
      probe: images `[T, B, H, W, C]`, labels `[T, B]`.
      key: typed key, consumed.
      config: see `Settings`.
      classes: `[J]` those that are searched towards; None: all.
      vectors: those that are searched for; static.

    Returns:
      Evidence with `targeted` (noise) and `universal` (pixels): the mean probability that
      images of other classes are given of each class; NaN for classes not in `classes`.
    """
    if classes is None:
        classes = jnp.arange(network.num_classes)
    searches = {
        "targeted": functools.partial(
            noise, key=key, epsilon=config.epsilon, steps=config.steps
        ),
        "universal": functools.partial(
            pixels,
            epsilon=config.pixel_epsilon,
            steps=config.pixel_steps,
            num_images=config.pixel_images,
        ),
    }
    reached = {
        name: searches[name](network, variables, probe, classes) for name in vectors
    }
    return evidence.Evidence(
        vectors={name: found.share for name, found in reached.items()},
        errors={name: found.error for name, found in reached.items()},
        clean_accuracy=jnp.array(jnp.nan),
        is_finite=jnp.all(jnp.stack([found.is_finite for found in reached.values()])),
    )


def work(
    config: Settings,
    num_classes: int,
    num_images: int,
    vectors: tuple[str, ...] = VECTORS,
) -> int:
    """Image forward-equivalents of so many classes, see `Detector.work`."""
    minibatch = min(num_images, MINIBATCH)
    searches = {
        "targeted": 2 * config.steps * minibatch,
        "universal": 2 * config.pixel_steps * min(minibatch, config.pixel_images),
    }
    return num_classes * sum(searches[name] + minibatch for name in vectors)


WORDS = {
    "targeted": Words(
        "Success of noise towards each class",
        "Mean probability of each class on clean images of other classes when the "
        "network's neurons are nudged towards it. A backdoor makes its target easy.",
    ),
    "universal": Words(
        "Success of one change of all images towards each class",
        "Mean probability of each class on clean images of other classes when the same "
        "small change of pixels is added to all of them. A backdoor that answers to a "
        "pattern over the whole image leads them into its target.",
    ),
}

DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=witnesses.Agreement(
        tuple(WORDS),
        needed=tuple(WORDS),
        explained={"targeted": "stored"},
    ),
    work=work,
    summary="searches towards each class, of neuron noise and of one change of all images",
    vectors=WORDS,
    needs=frozenset({"images", "labels", "classes", "vectors"}),
    counts=("steps", "pixel_steps"),
)
