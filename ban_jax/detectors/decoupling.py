"""The stages of BTI-DBF: a U-Net that gives images back, a mask, and the U-Net again.

`detectors.bti_dbf` says what they are for and what `released` changes. Every stage is pure,
for one model, and draws its images from the probe with a key of its own; settings are
those of `bti_dbf.Settings`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp

from ban_jax import perturb
from ban_jax.data import augmentation
from ban_jax.detectors import inversion, transforms
from ban_jax.detectors.transforms import Clean, Trained
from ban_jax.models import unet
from ban_jax.types import Array, Network, NormMode, Variables

PRETRAIN_BOUND = 0.1
"""Squared change of an image up to which the first stage lets it be."""


class MaskState(NamedTuple):
    """What a mask step changes: the mask, unbounded `[h, w, c]`, and statistics."""

    trained: Trained
    variables: Variables


class Decoupled(NamedTuple):
    """Outcome of the mask's stage.

    Attributes:
      mask: `[h, w, c]` of the benign features, in [0, 1].
      variables: with the statistics of the stages that follow.
      kept, dropped: `[S]` cross-entropies through the mask and through its complement.
    """

    mask: Array
    variables: Variables
    kept: Array
    dropped: Array


Decouple = Callable[[Network, Clean, Array, Any], Decoupled]
"""`(network, clean, key, settings) -> Decoupled`."""


def draw(clean: Clean, index: Array, key: Array, config: Any) -> Array:
    """Scaled images `[B, H, W, C]` of a step, augmented where the release does that."""
    images = clean.images[index]
    if not config.released:
        return images
    # What is black before the scaling surrounds the image, not what is grey after it.
    pixels = augmentation.augment(
        key, clean.scale.pixels(images), crop=config.crop, flip=config.flip
    )
    return clean.scale.scaled(pixels)


def steps_of(key: Array, clean: Clean, epochs: int, config: Any) -> tuple[Array, Array]:
    """Which images each step takes `[E, batches, B]`, and a key for each step."""
    order_key, augment_key = jax.random.split(key)
    number = epochs * config.batches
    index = inversion.batches(
        order_key, clean.labels.size, number=number, size=config.batch_size
    )
    keys = jax.random.split(augment_key, number)
    return (
        index.reshape(epochs, config.batches, -1),
        keys.reshape(epochs, config.batches),
    )


def pretrain(
    net: unet.UNet,
    network: Network,
    clean: Clean,
    params: Any,
    key: Array,
    config: Any,
) -> tuple[Any, dict[str, Array]]:
    """Trains the U-Net to give images back; parameters, and curves `[E]`."""
    optimizer = optax.adam(config.learning_rate)
    if not config.pretrain_epochs:
        return params, {}

    def step(trained: Trained, job: tuple[Array, Array]) -> tuple[Trained, Any]:
        index, key = job
        images = draw(clean, index, key, config)
        return transforms.descend(
            lambda params: pretrain_loss(
                net, network, clean.variables, params, images, config.released
            ),
            trained,
            optimizer,
        )

    def epoch(trained: Trained, job: Any) -> tuple[Trained, Any]:
        trained, seen = jax.lax.scan(step, trained, job)
        return trained, {name: jnp.mean(curve) for name, curve in seen.items()}

    jobs = steps_of(key, clean, config.pretrain_epochs, config)
    trained, curves = jax.lax.scan(epoch, transforms.begin(params, optimizer), jobs)
    return trained.params, curves


def pretrain_loss(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    params: Any,
    images: Array,
    released: bool,
) -> tuple[Array, dict[str, Array]]:
    """Loss `[]` of the first stage: other answers, other features, other pixels."""
    generated = transforms.apply(net, params, images)
    before, _ = network.features(variables, images, "stored")
    after, _ = network.features(variables, generated, "stored")
    clean, _ = network.head(variables, before, "stored")
    logits, _ = network.head(variables, after, "stored")
    if released:
        answers = optax.softmax_cross_entropy(
            jax.nn.softmax(clean), jax.nn.softmax(logits)
        )
    else:
        answers = optax.kl_divergence(jax.nn.log_softmax(logits), jax.nn.softmax(clean))
    prediction = jnp.mean(answers)
    features = transforms.squared(before, after)
    image = transforms.squared(images, generated)
    weight = jnp.where(image > PRETRAIN_BOUND, 100.0, 0.01)
    loss = prediction + features + weight * image
    return loss, {"loss": loss, "image": image}


def decouple(network: Network, clean: Clean, key: Array, config: Any) -> Decoupled:
    """Learns the mask of the benign features, as BTI-DBF does."""
    start_key, steps_key = jax.random.split(key)
    features = jax.eval_shape(
        lambda images: network.features(clean.variables, images, "stored")[0],
        clean.images[:1],
    )
    start = jax.random.normal(start_key, features.shape[1:], features.dtype)
    optimizer = optax.adam(config.mask_learning_rate)
    mode: NormMode = "update" if config.released else "stored"
    if not config.released:
        # Nothing but the mask changes, so features are computed once.
        network, clean = remembered(network, clean, config.batch_size)

    def step(state: MaskState, job: tuple[Array, Array]) -> tuple[MaskState, Any]:
        index, key = job
        images = draw(clean, index, key, config)
        return mask_step(network, state, images, clean.labels[index], optimizer, mode)

    index, keys = steps_of(steps_key, clean, config.mask_epochs, config)
    jobs = index.reshape(-1, index.shape[-1]), keys.reshape(-1)
    first = MaskState(transforms.begin(start, optimizer), clean.variables)
    state, (kept, dropped) = jax.lax.scan(step, first, jobs)
    return Decoupled(mask_of(state.trained.params), state.variables, kept, dropped)


def remembered(network: Network, clean: Clean, size: int) -> tuple[Network, Clean]:
    """A network whose images are the features `[N, h, w, c]` of those it was given."""
    features = transforms.in_parts(
        lambda images: network.features(clean.variables, images, "stored")[0],
        clean.images,
        size=size,
    )
    same = network._replace(
        features=lambda variables, images, mode: (images, variables)
    )
    return same, clean._replace(images=features)


def mask_of(free: Array) -> Array:
    """The mask `[h, w, c]` in [0, 1] of an unbounded one."""
    return inversion.boxed(free)


def mask_step(
    network: Network,
    state: MaskState,
    images: Array,
    labels: Array,
    optimizer: optax.GradientTransformation,
    mode: NormMode,
) -> tuple[MaskState, tuple[Array, Array]]:
    """One step of the mask: cross-entropy through it down, through its complement up.

    Returns:
      The state after it, and both cross-entropies `[]` before it.
    """
    features, variables = network.features(state.variables, images, mode)

    def objective(free: Array) -> tuple[Array, tuple[Array, Array, Variables]]:
        mask = mask_of(free)[None]
        logits, after = network.head(variables, features * mask, mode)
        kept = perturb.cross_entropy(logits, labels)
        logits, after = network.head(after, features * (1 - mask), mode)
        dropped = perturb.cross_entropy(logits, labels)
        return kept - dropped, (kept, dropped, after)

    trained, (kept, dropped, after) = transforms.descend(
        objective, state.trained, optimizer
    )
    return MaskState(trained, after), (kept, dropped)


def generate(
    net: unet.UNet,
    network: Network,
    clean: Clean,
    params: Any,
    mask: Array,
    key: Array,
    config: Any,
) -> tuple[Any, dict[str, Array], Array]:
    """Trains the U-Net to change what is not benign.

    Returns:
      Parameters, curves `[E]`, and the epoch `[]` the parameters are from: -1 where none
      was within the bounds, and the last ones are taken.
    """
    optimizer = optax.adam(config.learning_rate)

    def step(trained: Trained, job: tuple[Array, Array]) -> tuple[Trained, Any]:
        index, key = job
        images = draw(clean, index, key, config)
        return transforms.descend(
            lambda params: generator_loss(
                net, network, clean.variables, params, mask, images, config
            ),
            trained,
            optimizer,
        )

    def epoch(carry: tuple, job: tuple) -> tuple[tuple, Any]:
        trained, best = carry
        number, *steps = job
        trained, seen = jax.lax.scan(step, trained, tuple(steps))
        seen = {name: jnp.mean(curve) for name, curve in seen.items()}
        if not config.released:
            within = seen["image"] <= config.image_bound
            within &= seen["benign"] <= config.feature_bound
            best = inversion.better(
                best, -seen["other"], trained.params, number, within
            )
        return (trained, best), seen

    first = transforms.begin(params, optimizer)
    jobs = steps_of(key, clean, config.generator_epochs, config)
    numbers = jnp.arange(config.generator_epochs)
    (trained, best), curves = jax.lax.scan(
        epoch, (first, inversion.nothing(params)), (numbers, *jobs)
    )
    if config.released:
        return trained.params, curves, numbers[-1]
    taken = inversion.select(best.round >= 0, best.found, trained.params)
    return taken, curves, best.round


def generator_loss(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    params: Any,
    mask: Array,
    images: Array,
    config: Any,
) -> tuple[Array, dict[str, Array]]:
    """Loss `[]` of the second stage; beyond a bound it is the change of the image alone.

    Returns:
      The loss, and it beside the squared changes of image, benign and other features.
    """
    generated = transforms.apply(net, params, images)
    before, _ = network.features(variables, images, "stored")
    after, _ = network.features(variables, generated, "stored")
    benign = transforms.squared(mask[None] * before, mask[None] * after)
    other = transforms.squared((1 - mask)[None] * before, (1 - mask)[None] * after)
    image = transforms.squared(images, generated)
    beyond = (image > config.image_bound) | (benign > config.feature_bound)
    loss = jnp.where(beyond, image, 0.01 * benign - other)
    return loss, {"loss": loss, "image": image, "benign": benign, "other": other}


def count(
    net: unet.UNet,
    network: Network,
    clean: Clean,
    params: Any,
    key: Array,
    config: Any,
) -> tuple[Array, Array]:
    """Predictions `[N]` of changed images under noise, and the squared changes `[N]`.

    The change is NaN where a logit is not finite: such a prediction is none.
    """
    augment_key, noise_key = jax.random.split(key)
    images = draw(clean, jnp.arange(clean.labels.size), augment_key, config)
    noise = config.noise * jax.random.normal(noise_key, images.shape, images.dtype)

    def of_part(images: Array, noise: Array) -> tuple[Array, Array]:
        changed = transforms.apply(net, params, images + noise)
        logits = network.logits(clean.variables, changed, "stored")[0]
        change = jnp.mean(jnp.square(images - changed), axis=(1, 2, 3))
        is_finite = jnp.all(jnp.isfinite(logits), axis=-1)
        return jnp.argmax(logits, axis=-1), jnp.where(is_finite, change, jnp.nan)

    return transforms.in_parts(of_part, images, noise, size=config.batch_size)
