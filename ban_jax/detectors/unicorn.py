"""UNICORN: a trigger is a patch in a space of its own, which is searched for with it.

For each class two U-Nets are trained, into a space and back, and in it a mask and a
pattern: `back((1 - mask) into(x) + mask pattern)`. What that makes of images must be led to
the class, by masked features among clean ones that vary little and are unlike those of the
class's own images, while the image keeps its structure, the mask is small and the two
networks undo one another.

The published code searches for one given class and prints what it reached, without a
verdict. Here every class is searched for, and a class scores the share of images it is
given by its trigger: the published thresholds, a success of 0.9 within the bounds on
structure and mask, flag it. Beyond a bound the score falls by the excess, as a share of the
bound.

`released` measures as the published code does, on the last epoch's networks, and searches
on all of the few images of all other classes. Here the networks of the best epoch are
taken, the one with the largest such score on the images searched on, and one batch of
images for each class, however many classes there are. Both count on images that the search
has not seen.

References:
  Wang et al., "UNICORN: A Unified Backdoor Trigger Inversion Framework", ICLR 2023;
  `inversion.py` and `config.py` of the code released with it.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import numpy as jnp

from ban_jax.detectors import class_transforms as shared
from ban_jax.detectors import evidence, inversion, spaces, transforms
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
        "trigger_learning_rate",
        "structure_bound",
        "spread_bound",
        "success",
        "mask_size",
        "feature_mask_size",
    ],
    meta_fields=[
        "pretrain_epochs",
        "epochs",
        "trigger_steps",
        "images_per_class",
        "batch_size",
        "width",
        "released",
    ],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released code and its README. Floats are traced.

    Attributes:
      learning_rate: Adam's, of the U-Nets.
      trigger_learning_rate: Adam's, of mask, pattern and feature mask.
      structure_bound: loss of structural similarity that is free.
      spread_bound: deviation of the masked features that is free.
      success: share of images led to the class from which on no more is asked for.
      mask_size: share of the space that the mask may hold.
      feature_mask_size: share of the features that the feature mask may hold.
      pretrain_epochs: epochs in which the U-Nets learn to undo one another.
      epochs: of the search.
      trigger_steps: of the trigger, and of the feature mask, per step of the U-Nets.
      images_per_class: that are searched on.
      batch_size: of them, all classes but one together, per step; with many classes each
        gives fewer, so that they make one batch.
      width: channels of the U-Nets' first blocks.
      released: takes the last epoch's networks, and all images.
    """

    learning_rate: float = 1e-3
    trigger_learning_rate: float = 0.1
    structure_bound: float = at_least(1e-6, 0.15)
    spread_bound: float = at_least(1e-6, 1.0)
    success: float = at_least(1e-6, 0.9)
    mask_size: float = at_least(1e-6, 0.15)
    feature_mask_size: float = at_least(1e-6, 0.15)
    pretrain_epochs: int = 500
    epochs: int = at_least(1, 1000)
    trigger_steps: int = at_least(1, 10)
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
    """Two networks and a patch in their space for each of some classes `[J]`.

    The first few images of each class search.
    """
    clean, few, net, _, features, centres = shared.ready(
        network, variables, probe, config
    )
    shape = clean.images.shape[1:]
    task = spaces.Task(net, network, clean.variables, clean.scale)

    def others(target: Array) -> shared.Others:
        return shared.others(
            clean, few, target, config.batch_size, whole=config.released
        )

    def start(target: Array, key: Array) -> spaces.State:
        batches = others(target)
        into_key, back_key = jax.random.split(key)
        nets = spaces.Nets(
            transforms.init(net, into_key), transforms.init(net, back_key)
        )
        trained = spaces.pretrain(task, nets, batches, config)
        return spaces.begin(trained, shape, features.shape[1:], config)

    def step(
        state: spaces.State, target: Array, index: Array, key: Array
    ) -> tuple[spaces.State, inversion.Seen]:
        batches = others(target)
        orders = spaces.draw_orders(key, batches.weights, config)
        return spaces.epoch(
            task, state, batches, orders, centres[target], target, index, config
        )

    def kept(state: spaces.State) -> tuple[Any, Any, Array, Array]:
        last = (state.nets.params, state.trigger.params)
        best = inversion.select(state.best.round >= 0, state.best.found, last)
        if config.released:
            final = jnp.full_like(state.best.round, config.epochs - 1)
            return *last, final, state.is_finite
        return *best, state.best.round, state.is_finite

    return inversion.search(
        start,
        step,
        classes,
        key=key,
        rounds=config.epochs,
        # Each class trains networks of its own: side by side they gain nothing.
        at_once=1,
        done=lambda state: ~state.is_finite,
        keep=kept,
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
      Evidence whose vector `inverted` is the share of fresh images of other classes that
      each class's trigger leads to it, less what exceeds the bounds, NaN where the class
      has no image; `reached` is the share alone, `structure` and `mask` are the loss of
      similarity and the mask's size as multiples of their bounds, negative. Its pictures
      are what each class's trigger makes of an image of the next class.
    """
    del key
    num_classes = network.num_classes
    clean, few, net, *_ = shared.ready(network, variables, probe, config)
    plain = evidence.over_minibatches(network, variables, probe.images, "stored")
    nets, triggers, best_epoch, finite = found.state
    places = transforms.first_of_each(clean.labels, num_classes)

    def count(job: tuple[Array, Any, Any]) -> dict[str, Array]:
        target, nets, free = job

        def of_part(images: Array) -> tuple[Array, Array, Array]:
            changed = spaces.stamp(net, nets, free, images, jnp.ones(len(images)))
            logits, _ = network.logits(clean.variables, changed, "stored")
            loss = spaces.structure_loss(clean.scale, changed, images)
            is_finite = jnp.all(jnp.isfinite(logits), axis=-1)
            hit = jnp.argmax(logits, axis=-1) == target
            return changed, hit, jnp.where(is_finite, loss, jnp.nan)

        changed, hit, loss = transforms.in_parts(
            of_part, clean.images, size=config.batch_size
        )
        weights = shared.fresh(
            clean, few, target, config.batch_size, whole=config.released
        )
        share = shared.mean_of(hit * 1.0, weights)
        number = jnp.maximum(jnp.sum(weights), 1.0)
        mask = inversion.boxed(free.mask)
        return {
            "reached": share,
            "error": jnp.sqrt(share * (1 - share) / number),
            "structure": shared.mean_of(loss, weights) / config.structure_bound,
            "mask": jnp.sum(mask) / spaces.most_of(mask.size, config.mask_size),
            "after": changed[places[(target + 1) % num_classes]],
        }

    counted = jax.lax.map(count, (jnp.arange(num_classes), nets, triggers))
    known = jnp.any(few.there, axis=1)
    beyond = sum(shared.excess(counted[name], 1.0) for name in ("structure", "mask"))
    score = jnp.where(known, counted["reached"] - beyond, jnp.nan)
    nothing = jnp.zeros(num_classes)
    numbers = (counted["reached"], counted["structure"], counted["mask"])
    return evidence.Evidence(
        vectors={
            "inverted": score,
            "reached": counted["reached"],
            "structure": -counted["structure"],
            "mask_size": -counted["mask"],
        },
        errors={
            "inverted": counted["error"],
            "reached": counted["error"],
            "structure": nothing,
            "mask_size": nothing,
        },
        clean_accuracy=jnp.mean(jnp.argmax(plain, axis=-1) == probe.labels),
        is_finite=jnp.all(finite)
        & jnp.all(jnp.isfinite(jnp.stack(numbers)))
        & jnp.all(jnp.isfinite(plain)),
        info={"search": inversion.told(found), "best_epoch": best_epoch},
        images=transforms.pictures(
            clean.scale, clean.images[jnp.roll(places, -1)], counted["after"]
        ),
    )


detect = ByClass(search, finish)


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`; those of the U-Nets count alike."""
    count = min(config.images_per_class, num_images)
    planned = shared.plan(num_classes, count, config.batch_size, whole=config.released)
    # Both U-Nets there and back are 6. A step of them passes the first once and the second
    # twice, and the candidate there and back; one of the trigger needs the second alone,
    # and no weights' gradients.
    per_image = 6 * config.pretrain_epochs
    per_image += (9 + 2 + 1 + 1 + config.trigger_steps * (2 + 2) + 2) * config.epochs
    return 2 * num_images + num_classes * (
        planned.number * planned.size * per_image + 3 * num_images
    )


class Inverted(shared.FirstDecides):
    """The largest success within the bounds."""

    told = (
        "the share of images that its trigger leads to it, less what exceeds the bounds"
    )


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=Inverted(
        ("inverted", "reached"),
        {"within": 0.9, "trusted": 5.0, "population": 3.5},
        floors={"inverted": 0.01},
    ),
    work=work,
    summary="UNICORN: a patch per class in a space that two networks span, which leads "
    "images to it within bounds on their structure",
    vectors={
        **transforms.PICTURES,
        "inverted": Words(
            "Success within the bounds",
            "Share of clean images of other classes that the recovered trigger leads to "
            "each class, less what exceeds the bounds on structure and mask.",
            "number",
        ),
        "reached": Words(
            "Success of the recovered trigger",
            "Share of clean images of other classes that the recovered trigger leads to "
            "each class.",
        ),
        "structure": Words(
            "Loss of structure, negative",
            "Minus the loss of structural similarity of stamped images, as a multiple of "
            "what is allowed.",
            "number",
        ),
        "mask_size": Words(
            "Size of the mask, negative",
            "Minus the share of the space that the mask holds, as a multiple of what is "
            "allowed.",
            "number",
        ),
    },
    published=True,
    counts=("pretrain_epochs", "epochs"),
)
