"""ANP, adversarial neuron pruning: neurons that noise leads astray are cut, for ONE model.

Every channel of a normalisation layer gets a mask that multiplies its scale. The masks
learn to keep the loss low with and without adversarial neuron noise; channels whose mask
ends at or below a threshold lose their scale in the original model, which is otherwise
left as it is.

References:
  Wu and Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models",
  NeurIPS 2021; csdongxian/ANP_backdoor, `optimize_mask_cifar.py` and
  `prune_neuron_cifar.py`.
"""

import dataclasses
import functools

import jax
from jax import numpy as jnp

from ban_jax import data as pixels
from ban_jax import perturb
from ban_jax.data import augmentation
from ban_jax.registry import at_least
from ban_jax.repairs import descent
from ban_jax.repairs.types import CleanSet, Method, RepairInfo
from ban_jax.training import one_model
from ban_jax.types import Array, Network, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "learning_rate", "momentum", "budget", "epsilon", "clean_weight", "thresholds",
    ),
    meta_fields=("epochs", "iterations", "batch_size", "steps", "crop", "flip"),
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's settings. Floats are traced: changing one compiles nothing.

    Noise stays within `epsilon`, as in the paper: a single step ends on the bound wherever
    it began. The released code takes one step of epsilon from a start drawn within it and
    does not clip, so that its noise reaches up to twice as far.

    Attributes:
      learning_rate: of SGD on the masks.
      momentum: of SGD.
      budget: how far the held-out accuracy may fall, in [0, 1].
      epsilon: radius of the neuron noise, relative to each scale and bias.
      steps: sign steps of a noise search, one search per batch.
      clean_weight: of the loss without noise; the one under noise has the rest of 1.
      thresholds: channels with a mask at or below one of them are cut: the largest whose
        held-out accuracy stays within the budget, none if no one's does. A single
        value is a fixed threshold, not used where it exceeds the budget.
      epochs: of which each reports its loss.
      iterations: steps per epoch, each on images drawn with replacement.
      batch_size: images per step.
      crop: zero pixels added on every side before a random crop; 0 is off.
      flip: mirrors every other image.
    """

    learning_rate: float = 0.2
    momentum: float = 0.9
    budget: float = 0.03
    epsilon: float = 0.4
    steps: int = at_least(1, 1)
    clean_weight: float = 0.2
    thresholds: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 19))
    epochs: int = at_least(1, 20)
    iterations: int = at_least(1, 100)
    batch_size: int = at_least(1, 128)
    crop: int = 4
    flip: bool = True


def repair(
    network: Network,
    variables: Variables,
    data: CleanSet,
    *,
    key: Array,
    config: Settings,
) -> tuple[Variables, RepairInfo]:
    """See `repairs.types.Repair`; `details` has `threshold` and the share `pruned`.

    Raises:
      ValueError: when no normalisation layer has a scale to prune.
    """
    scales = _scales(variables)
    optimizer = one_model.sgd(config.learning_rate, config.momentum, 0.0)

    def step(carry, key):
        masks, optimizer_state = carry
        draw_key, augment_key, noise_key = jax.random.split(key, 3)
        chosen = jax.random.randint(draw_key, (config.batch_size,), 0, len(data.labels))
        labels = data.labels[chosen]
        images = augmentation.augment(
            augment_key,
            pixels.to_float(data.images[chosen]),
            crop=config.crop,
            flip=config.flip,
        )

        def loss_of(factors: perturb.Noise) -> Array:
            changed = perturb.apply_noise(variables, factors)
            logits, _ = network.logits(changed, images, "batch")
            return perturb.cross_entropy(logits, labels)

        start = perturb.init_noise(noise_key, variables, config.epsilon)
        noise, _ = perturb.climb(
            lambda noise: loss_of(_joined(masks, noise)),
            start,
            epsilon=config.epsilon,
            steps=config.steps,
        )

        def loss_fn(masks: perturb.Noise) -> Array:
            clean = loss_of(_joined(masks, {}))
            robust = loss_of(_joined(masks, noise))
            return config.clean_weight * clean + (1 - config.clean_weight) * robust

        loss, gradient = jax.value_and_grad(loss_fn)(masks)
        masks, optimizer_state = one_model.descend(
            optimizer, gradient, optimizer_state, masks
        )
        masks = jax.tree.map(lambda mask: jnp.clip(mask, 0, 1), masks)
        return (masks, optimizer_state), loss

    masks = jax.tree.map(lambda scale: jnp.ones(scale.shape, scale.dtype), scales)
    keys = jax.random.split(key, (config.epochs, config.iterations))
    (masks, _), losses = jax.lax.scan(
        lambda carry, some: jax.lax.scan(step, carry, some),
        (masks, optimizer.init(masks)),
        keys,
    )

    def prune(threshold: Array) -> Variables:
        cut = jax.tree.map(lambda mask: -1.0 * (mask <= threshold), masks)
        return perturb.apply_noise(variables, cut)

    thresholds = jnp.sort(jnp.asarray(config.thresholds))
    before = descent.held_accuracy(network, variables, data)
    accuracies = jax.lax.map(
        lambda threshold: descent.held_accuracy(network, prune(threshold), data),
        thresholds,
    )
    within = accuracies >= before - config.budget
    # Below every mask, so that nothing is cut.
    threshold = jnp.max(jnp.where(within, thresholds, -1.0))
    cut = jnp.concatenate([mask <= threshold for mask in masks.values()])
    repaired = prune(threshold)
    unknown = jnp.full((config.epochs,), jnp.nan)
    return repaired, RepairInfo(
        loss=jnp.mean(losses, axis=1),
        accuracy=unknown,
        accuracy_before=before,
        accuracy_after=descent.held_accuracy(network, repaired, data),
        epochs=jnp.asarray(config.epochs, jnp.int32),
        stopped=~within[-1],
        is_finite=jnp.all(jnp.isfinite(losses)),
        details={"threshold": threshold, "pruned": jnp.mean(cut)},
    )


def _joined(masks: perturb.Noise, noise: perturb.Noise) -> perturb.Noise:
    """Factors minus one: `(mask + delta) * scale` and `(1 + xi) * bias`."""
    shift = {path: mask - 1 for path, mask in masks.items()}
    return {**shift, **{path: shift.get(path, 0) + noise[path] for path in noise}}


def _scales(variables: Variables) -> dict[str, Array]:
    return perturb.neurons(variables, lambda path, _: path.endswith("/scale"))


def unfit(variables: Variables) -> str:
    """See `repairs.types.Method`."""
    try:
        _scales(variables)
    except ValueError:
        return "has no normalisation layer, whose scales ANP cuts"
    return ""


METHOD = Method(
    repair,
    Settings,
    "adversarial neuron pruning: neurons that noise leads astray are cut",
    unfit,
)
