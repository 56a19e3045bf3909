"""The training step for ONE model, pure; `ban_jax.population` makes it one of many.

Everything two models may differ in (initial weights, trigger, labels, poisoned images,
order of the images) is data; what they share (architecture, optimiser, attack kernel) is
static.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import chex
import jax
import numpy as np
import optax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import data, types
from ban_jax.attacks import poison
from ban_jax.attacks.types import AttackState, Batch, Kernel
from ban_jax.data import augmentation
from ban_jax.registry import at_least, check_settings
from ban_jax.types import Array, Variables


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how fast. Static: one recipe, one compiled program.

    Attributes:
      epochs: passes over the training images; the last incomplete batch is left out.
      batch_size: images per step.
      learning_rate: the peak (one-cycle) or start (step).
      optimizer: `sgd`, or `adamw` with its documented moments.
      momentum: of SGD.
      weight_decay: for `sgd` added to the gradient of every parameter before momentum, as
        in PyTorch's SGD; for `adamw` times the rate, apart from the gradient.
      label_smoothing: share of every label that is spread evenly over all classes.
      schedule: `one-cycle` rises linearly over the first 30 % and falls to zero; `step`
        divides by 10 after 50 % and 75 % of the steps, the 100 and 150 of 200 epochs of
        the literature.
      crop: zero pixels added on every side before a random crop; 0 is off.
      flip: mirrors every other image.
      stamp_last: static triggers go onto augmented images, as at test time; else before,
        as if the data set had been poisoned once on disk: a patch then moves and
        mirrors with its image.
    """

    epochs: int = at_least(1, 6)
    batch_size: int = at_least(1, 128)
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    crop: int = 4
    flip: bool = True
    stamp_last: bool = False

    def check(self, prefix: str = "") -> None:
        """Refuses numbers and names that cannot be.

        Args:
          prefix: put before a field's name in messages, such as `--`.

        Raises:
          ValueError: naming the field, what it allows and what was found.
        """
        check_settings(self, prefix)
        if self.label_smoothing >= 1:
            name = f"{prefix}label-smoothing" if prefix else "label_smoothing"
            raise ValueError(f"{name} must be below 1, got {self.label_smoothing:g}")


class TrainState(NamedTuple):
    """What training changes.

    Attributes:
      variables: the model's collections.
      optimizer: Optax's states, of the model and of the attack.
      attack: the trigger, which some attacks learn.
      step: `[]` int32 steps of the classifier taken.
    """

    variables: Variables
    optimizer: tuple[optax.OptState, optax.OptState]
    attack: AttackState
    step: Array


class StepInfo(NamedTuple):
    """How a step went.

    Attributes:
      loss: `[]` mean cross-entropy before the step, with the attack's penalty.
      accuracy: `[]` share of the batch classified as taught.
    """

    loss: Array
    accuracy: Array


@functools.lru_cache(maxsize=64)
def make_optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """The recipe's optimiser and schedule.

    Equal arguments give the same object, so it can be static in a compiled program.
    """
    peak = recipe.learning_rate
    if recipe.schedule == "one-cycle":
        rise = max(1, round(0.3 * steps))
        rate = optax.join_schedules(
            [
                optax.linear_schedule(peak / rise, peak, rise - 1),
                optax.linear_schedule(peak, 0.0, max(1, steps - rise + 1)),
            ],
            [rise - 1],
        )
    else:
        boundaries = {round(0.5 * steps): 0.1, round(0.75 * steps): 0.1}
        rate = optax.piecewise_constant_schedule(peak, boundaries)
    if recipe.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=recipe.weight_decay)
    return sgd(rate, recipe.momentum, recipe.weight_decay)


def sgd(
    rate: optax.ScalarOrSchedule, momentum: Array | float, weight_decay: Array | float
) -> optax.GradientTransformation:
    """SGD in PyTorch's order: decay joins the gradient, then momentum, then the rate."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum=momentum)
    )


def init(
    key: Array,
    attack: AttackState,
    begin: Variables | None = None,
    *,
    module: nn.Module,
    image_shape: tuple[int, int, int],
    normalisation: data.Constants,
    optimizer: optax.GradientTransformation,
    attack_optimizer: optax.GradientTransformation,
) -> TrainState:
    """A fresh model with its pixel normalisation, and its trigger.

    Args:
      key: PRNG key, consumed.
      attack: the trigger.
      begin: collections to go on from, in place of drawn ones.
      module: the architecture; static, as all that follows.
      image_shape: `(H, W, C)`.
      normalisation: mean and deviation the model carries.
      optimizer, attack_optimizer: of the model and of the trigger.
    """
    variables: Variables = begin or module.init(key, jnp.zeros((1, *image_shape)))
    mean, std = (jnp.array(values) for values in normalisation)
    variables = {**variables, "normalisation": {"mean": mean, "std": std}}
    # A leaf that XLA types weakly would compile a program for this kind of attack alone.
    attack = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), attack)
    optimizers = (
        optimizer.init(variables["params"]),
        attack_optimizer.init(attack.learned),
    )
    return TrainState(variables, optimizers, attack, jnp.zeros((), jnp.int32))


def take_batch(
    pixels: Array | np.ndarray,
    labels: Array | np.ndarray,
    plan: poison.Plan,
    order: Array,
    index: Array,
    size: int,
) -> Batch:
    """The `index`-th run of `size` images in the given order.

    Args:
      pixels: `[N, H, W, C]` uint8 or float, shared by all models.
      labels: `[N]` true classes.
      plan: what this model is taught.
      order: `[N]` a permutation, one per epoch and model.
      index: `[]` which batch.
      size: B, static.
    """
    chosen = jax.lax.dynamic_slice_in_dim(order, index * size, size)
    roles = jnp.maximum(plan.roles[chosen], plan.slots)
    return Batch(
        data.to_float(pixels[chosen]), labels[chosen], roles, jnp.asarray(plan.mapping)
    )


def train_step(
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    network: types.Network,
    optimizer: optax.GradientTransformation,
    kernel: Kernel,
    recipe: Recipe,
) -> tuple[TrainState, StepInfo]:
    """One step of SGD on cross-entropy, BatchNorm in mode `update`.

    An attack that learns steps too, on the gradient of the same loss.

    Args:
      state: the model so far, with its attack.
      batch: its images.
      key: PRNG key, consumed.
      network, optimizer, kernel, recipe: static.
    """
    chex.assert_rank([batch.images, batch.labels, batch.roles], [4, 1, 1])
    augment_key, attack_key = jax.random.split(key)
    rest = {name: value for name, value in state.variables.items() if name != "params"}

    def augmented(images: Array) -> Array:
        return augmentation.augment(
            augment_key, images, crop=recipe.crop, flip=recipe.flip
        )

    def loss_fn(learned: Any) -> tuple[Array, Any]:
        params, attack_params = learned
        attack = state.attack._replace(learned=attack_params)
        if kernel.after_augmentation or recipe.stamp_last:
            shown = batch._replace(images=augmented(batch.images))
            taught = kernel.teach(attack, attack_key, shown)
            images = taught.images
        else:
            taught = kernel.teach(attack, attack_key, batch)
            images = augmented(taught.images)
        variables: Variables = {**rest, "params": params}
        features, variables = network.features(variables, images, "update")
        logits, variables = network.head(variables, features, "update")
        losses = _cross_entropy(logits, taught.labels, recipe.label_smoothing)
        hits = jnp.argmax(logits, axis=-1) == taught.labels
        loss = jnp.mean(losses) + taught.penalty
        return loss, (variables, taught.fixed, jnp.mean(hits))

    learned = (state.variables["params"], state.attack.learned)
    (loss, (variables, fixed, accuracy)), gradients = jax.value_and_grad(
        loss_fn, has_aux=True
    )(learned)
    (params, optimizer_state), (attack_params, attack_optimizer_state) = (
        descend(*arguments)
        for arguments in zip(
            (optimizer, kernel.optimizer),
            gradients,
            state.optimizer,
            learned,
            strict=True,
        )
    )
    state = TrainState(
        {**variables, "params": params},
        (optimizer_state, attack_optimizer_state),
        AttackState(attack_params, fixed),
        state.step + 1,
    )
    return state, StepInfo(loss, accuracy)


def _cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
    """`[B]` losses; `smoothing` of each label is spread over all classes."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    wanted = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(wanted, smoothing))


def descend(
    optimizer: optax.GradientTransformation,
    gradient: Any,
    state: optax.OptState,
    params: Any,
) -> tuple[Any, optax.OptState]:
    """One step of an optimiser: the new parameters, and its new state."""
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def prepare_step(
    state: TrainState, batch: Batch, key: Array, *, kernel: Kernel, recipe: Recipe
) -> tuple[TrainState, StepInfo]:
    """One step of an attack's preparation; the classifier stays as it is.

    Args:
      state: the model so far, with its attack.
      batch: its images.
      key: PRNG key, consumed.
      kernel, recipe: static; the kernel has a preparation.
    """
    if kernel.preparation is None:
        raise ValueError("this attack has no preparation")
    augment_key, attack_key = jax.random.split(key)
    images = augmentation.augment(
        augment_key, batch.images, crop=recipe.crop, flip=recipe.flip
    )
    attack, loss = kernel.preparation.step(state.attack, attack_key, images)
    return state._replace(attack=attack), StepInfo(loss, jnp.full((), jnp.nan))
