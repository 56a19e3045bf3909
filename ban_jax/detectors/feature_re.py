"""FeatureRE: a backdoor's features lie on a hyperplane, whatever its trigger looks like.

For each class a U-Net is searched that changes images, and a mask over the features: the
masked features of changed images, among the others of clean ones, must be answered with
the class, and vary little, while all features stay unlike those of the class's own images.
In pixels the change is bounded. For a class without a backdoor that asks for opposites:
images are led to it by making them like its own.

An epoch's value is the cosine between the mean features of changed images and of the
class's own, less the share that is led to the class, plus the excess over each bound; the
smallest of a class counts, and below -0.75 it is a target: within the bounds that is a
cosine at least 0.75 below the share. That line was published for one architecture; it
passes on to others badly, so the value itself is worth comparing with trusted models.

`released` takes the value as the published code does: of the images that were searched on,
the smallest of all epochs, and searches on all of the few images of all other classes. Here
the U-Net and mask of that epoch are measured again, on images that the search has not
seen, and it takes one batch of images for each class, however many classes there are.

References:
  Wang et al., "Rethinking the Reverse-engineering of Trojan Triggers", NeurIPS 2022;
  `reverse_engineering.py` and `detection.py` of the code released with it.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import numpy as jnp

from ban_jax.detectors import class_transforms as shared
from ban_jax.detectors import evidence, hyperplane, inversion, transforms
from ban_jax.detectors.by_class import ByClass
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words
from ban_jax.models import unet
from ban_jax.registry import at_least
from ban_jax.types import Array, Network, Probe, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "learning_rate",
        "mask_learning_rate",
        "image_bound",
        "spread_bound",
        "success",
        "mask_size",
    ],
    meta_fields=[
        "warm_epochs",
        "epochs",
        "images_per_class",
        "batch_size",
        "width",
        "released",
    ],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released code. Floats are traced.

    Attributes:
      learning_rate: Adam's, of the U-Net.
      mask_learning_rate: Adam's, of the mask.
      image_bound: mean squared change of scaled images that is free.
      spread_bound: deviation of the masked features that is free.
      success: share of images led to the class from which on no more is asked for.
      mask_size: share of the features that the mask may hold.
      warm_epochs: epochs of the U-Net alone.
      epochs: of both.
      images_per_class: that are searched on.
      batch_size: of them, all classes but one together, per step; with many classes each
        gives fewer, so that they make one batch.
      width: channels of the U-Net's first block.
      released: takes the value from the images that were searched on, and all of them.
    """

    learning_rate: float = 1e-3
    mask_learning_rate: float = 0.1
    image_bound: float = at_least(1e-6, 0.15)
    spread_bound: float = at_least(1e-6, 1.0)
    success: float = at_least(1e-6, 0.9)
    mask_size: float = at_least(1e-6, 0.03)
    warm_epochs: int = 100
    epochs: int = at_least(1, 400)
    images_per_class: int = at_least(1, 10)
    batch_size: int = at_least(1, 256)
    width: int = at_least(1, unet.WIDTH)
    released: bool = False


def search(
    network: Network,
    variables: Variables,
    probe: Probe,
    classes: Array,
    *,
    key: Array,
    config: Settings,
) -> inversion.Searched:
    """A network and a feature mask for each of some classes `[J]`.

    The first few images of each class search.
    """
    clean, few, net, _, features, centres = shared.ready(
        network, variables, probe, config
    )
    search_key, _ = jax.random.split(key)

    def others(target: Array) -> shared.Others:
        return shared.others(
            clean, few, target, config.batch_size, whole=config.released
        )

    def start(target: Array, key: Array) -> hyperplane.State:
        batches = others(target)
        params = transforms.init(net, key)
        warm = hyperplane.warm_up(
            net, network, clean.variables, params, batches, target, config
        )
        return hyperplane.begin(warm, features.shape[1:], config)

    def step(
        state: hyperplane.State, target: Array, index: Array, key: Array
    ) -> tuple[hyperplane.State, inversion.Seen]:
        batches = others(target)
        number = 2 * batches.weights.size
        rows = shared.lent(key, few, number).reshape(2, *batches.weights.shape)
        return hyperplane.epoch(
            net,
            network,
            clean.variables,
            state,
            batches,
            features[rows],
            centres[target],
            target,
            index,
            config,
        )

    return inversion.search(
        start,
        step,
        classes,
        key=search_key,
        rounds=config.epochs,
        # Each class trains a network of its own: side by side they gain nothing.
        at_once=1,
        done=lambda state: ~state.is_finite,
        keep=lambda state: (state.best, state.reached, state.is_finite),
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
    """What the searches of all classes say; images that did not search count.

    Returns:
      Evidence whose vector `hyperplane` is minus the value of each class, NaN where the
      class has no image, and whose vector `reached` is the largest share of images that
      its search led to it. Its pictures are what each class's U-Net makes of an image of
      the next class.
    """
    num_classes = network.num_classes
    clean, few, net, features_of, features, centres = shared.ready(
        network, variables, probe, config
    )
    _, count_key = jax.random.split(key)
    plain = evidence.over_minibatches(network, variables, probe.images, "stored")
    best, reached, finite = found.state
    params, masks = best.found

    def again(job: tuple[Array, Any, Array]) -> tuple[Array, Array]:
        target, params, mask = job
        changed = transforms.in_parts(
            lambda images: transforms.apply(net, params, images),
            clean.images,
            size=config.batch_size,
        )
        weights = shared.fresh(
            clean, few, target, config.batch_size, whole=config.released
        )
        rows = shared.lent(count_key, few, clean.labels.size)
        after = transforms.in_parts(features_of, changed, size=config.batch_size)
        mixed = hyperplane.mix(mask, after, features[rows])
        logits, _ = network.head(clean.variables, mixed, "stored")
        seen = {
            "cosine": shared.cosine(centres[target], shared.mean_of(after, weights)),
            "success": shared.success(logits, target, weights),
            "image": shared.change(clean.images, changed, weights),
            "spread": shared.spread(after, mask, weights),
            "mask": jnp.sum(mask),
        }
        place = places[(target + 1) % num_classes]
        return hyperplane.value_of(seen, mask.size, config), changed[place]

    places = transforms.first_of_each(clean.labels, num_classes)
    values, after = jax.lax.map(again, (jnp.arange(num_classes), params, masks))
    if config.released:
        values = best.value
    known = jnp.any(few.there, axis=1)
    is_finite = jnp.all(finite) & jnp.all(jnp.isfinite(values) | ~known)
    nothing = jnp.zeros(num_classes)
    return evidence.Evidence(
        vectors={
            "hyperplane": jnp.where(known, -values, jnp.nan),
            "reached": reached,
        },
        errors={"hyperplane": nothing, "reached": nothing},
        clean_accuracy=jnp.mean(jnp.argmax(plain, axis=-1) == probe.labels),
        is_finite=is_finite & jnp.all(jnp.isfinite(plain)),
        info={"search": inversion.told(found), "best_epoch": best.round},
        images=transforms.pictures(
            clean.scale, clean.images[jnp.roll(places, -1)], after
        ),
    )


detect = ByClass(search, finish)


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`; those of the U-Net count alike."""
    count = min(config.images_per_class, num_images)
    planned = shared.plan(num_classes, count, config.batch_size, whole=config.released)
    # A warm step: U-Net there and back, 3, and the candidate's, 2. A step of both masks
    # passes through each once more.
    per_image = 5 * config.warm_epochs + 7 * config.epochs
    return 2 * num_images + num_classes * (
        planned.number * planned.size * per_image + 2 * num_images
    )


class Hyperplane(shared.FirstDecides):
    """The largest of the negative values, against the published line."""

    told = (
        "the share of images led to it, less the cosine between their features and the "
        "class's own"
    )


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=Hyperplane(
        ("hyperplane", "reached"),
        {"within": 0.75, "trusted": 5.0, "population": 3.5},
        floors={"hyperplane": 0.01},
    ),
    work=work,
    summary="FeatureRE: a network and a feature mask per class that lead images to it by "
    "features unlike the class's own",
    vectors={
        **transforms.PICTURES,
        "hyperplane": Words(
            "Led there by foreign features",
            "Share of images that can be led to each class, less how much their features "
            "then resemble the class's own, and less what exceeds the bounds.",
            "number",
        ),
        "reached": Words(
            "Largest success of the search",
            "Share of the images searched on that were led to each class at best, by the "
            "masked features alone.",
        ),
    },
    published=True,
    counts=("warm_epochs", "epochs"),
)
