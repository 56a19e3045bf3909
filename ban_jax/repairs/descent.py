"""Fine-tuning ONE model on clean images, the loop that the repairs share."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import optax
from jax import numpy as jnp

from ban_jax import data
from ban_jax.data import augmentation
from ban_jax.registry import at_least
from ban_jax.repairs.types import FILLER, CleanSet, RepairInfo
from ban_jax.training import one_model
from ban_jax.types import Array, Network, Variables

TRACED = ("learning_rate", "momentum", "weight_decay", "budget")
STATIC = (
    "schedule", "epochs", "batch_size", "crop", "flip", "shuffle", "patience",
)  # fmt: skip
"""Data and meta fields of `DescentConfig`, for the registration of its heirs."""


@dataclasses.dataclass(frozen=True)
class DescentConfig:
    """How long and how fast. Floats are traced: changing one compiles nothing.

    Attributes:
      learning_rate: of SGD, at the start.
      schedule: `constant`, or `linear` down to zero.
      momentum: of SGD.
      weight_decay: added to every gradient before momentum, as in PyTorch's SGD.
      budget: how far the held-out accuracy may fall, in [0, 1].
      patience: the repair stops after so many epochs in a row below the budget. The
        model given back is the last one within it.
      epochs: passes over the clean images; the last incomplete batch is left out.
      batch_size: images per step.
      crop: zero pixels added on every side before a random crop; 0 is off.
      flip: mirrors every other image.
      shuffle: draws the order of the images anew each epoch.
    """

    learning_rate: float = 0.005
    schedule: Literal["constant", "linear"] = "constant"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    budget: float = 0.03
    patience: int = at_least(1, 3)
    epochs: int = at_least(1, 24)
    batch_size: int = at_least(1, 128)
    crop: int = 4
    flip: bool = True
    shuffle: bool = True


Loss = Callable[[Any], tuple[Array, Variables]]
"""`params -> (loss [], variables with new statistics)`, differentiable."""
Lesson = Callable[[Variables, Array, Array, Array], Loss]
"""`(variables, images [B,H,W,C], labels [B], key) -> Loss`: what a method teaches."""


class _State(NamedTuple):
    """Between epochs: the model in training, the one to give back, and why."""

    variables: Variables
    optimizer: optax.OptState
    kept: Variables
    kept_epochs: Array
    misses: Array


def fit(
    network: Network,
    variables: Variables,
    clean: CleanSet,
    lesson: Lesson,
    *,
    key: Array,
    config: DescentConfig,
) -> tuple[Variables, RepairInfo]:
    """Descends on a lesson while the held-out accuracy stays within the budget. Pure.

    Args:
      network: the model's two functions.
      variables: its collections.
      clean: what it learns from and is watched on; at least one batch.
      lesson: gives the loss of each batch, already augmented.
      key: typed key, consumed.
      config: see `DescentConfig`.

    Returns:
      The last variables within the budget, the given ones where none were.
    """
    chex.assert_rank([clean.images, clean.held_images], [4, 5])
    count, size = len(clean.labels), config.batch_size
    steps = count // size
    if steps == 0:
        raise ValueError(f"{count} clean images do not fill one batch of {size}")
    optimizer = one_model.sgd(
        _rate(config, steps), config.momentum, config.weight_decay
    )
    before = held_accuracy(network, variables, clean)

    def step(carry, batch):
        variables, optimizer_state = carry
        chosen, key = batch
        augment_key, lesson_key = jax.random.split(key)
        images = augmentation.augment(
            augment_key,
            data.to_float(clean.images[chosen]),
            crop=config.crop,
            flip=config.flip,
        )
        loss_fn = lesson(variables, images, clean.labels[chosen], lesson_key)
        params = variables["params"]
        (loss, after), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, optimizer_state = one_model.descend(
            optimizer, gradient, optimizer_state, params
        )
        return ({**after, "params": params}, optimizer_state), loss

    def train(state: _State, key: Array, epoch: Array) -> tuple[_State, Array, Array]:
        order_key, steps_key = jax.random.split(key)
        order = jnp.arange(count)
        if config.shuffle:
            order = jax.random.permutation(order_key, count)
        batches = order[: steps * size].reshape(steps, size)
        (variables, optimizer_state), losses = jax.lax.scan(
            step,
            (state.variables, state.optimizer),
            (batches, jax.random.split(steps_key, steps)),
        )
        loss = jnp.mean(losses).astype(before.dtype)
        accuracy = held_accuracy(network, variables, clean)
        within = jnp.isfinite(loss) & (accuracy >= before - config.budget)
        kept, kept_epochs = jax.tree.map(
            lambda new, old: jnp.where(within, new, old),
            (variables, epoch + 1),
            (state.kept, state.kept_epochs),
        )
        misses = jnp.where(within, 0, state.misses + 1)
        state = _State(variables, optimizer_state, kept, kept_epochs, misses)
        return state, loss, accuracy

    def skip(state: _State, key: Array, epoch: Array) -> tuple[_State, Array, Array]:
        del key, epoch
        unknown = jnp.full_like(before, jnp.nan)
        return state, unknown, unknown

    def body(state: _State, epoch: Array) -> tuple[_State, tuple[Array, Array]]:
        stopped = state.misses >= config.patience
        key_of_epoch = jax.random.fold_in(key, epoch)
        state, loss, accuracy = jax.lax.cond(
            stopped, skip, train, state, key_of_epoch, epoch
        )
        return state, (loss, accuracy)

    zero = jnp.zeros((), jnp.int32)
    variables = jax.tree.map(jnp.asarray, dict(variables))
    state = _State(
        variables, optimizer.init(variables["params"]), variables, zero, zero
    )
    epochs = jnp.arange(config.epochs, dtype=zero.dtype)
    state, (loss, accuracy) = jax.lax.scan(body, state, epochs)
    return state.kept, RepairInfo(
        loss=loss,
        accuracy=accuracy,
        accuracy_before=before,
        accuracy_after=held_accuracy(network, state.kept, clean),
        epochs=state.kept_epochs,
        stopped=state.misses >= config.patience,
        is_finite=jnp.all(jnp.isfinite(loss) | jnp.isnan(accuracy)),
        details={},
    )


def _rate(config: DescentConfig, steps: int) -> optax.ScalarOrSchedule:
    """The learning rate over `steps` steps of each epoch."""
    if config.schedule == "constant":
        return config.learning_rate
    return optax.linear_schedule(config.learning_rate, 0.0, config.epochs * steps)


def held_accuracy(network: Network, variables: Variables, clean: CleanSet) -> Array:
    """Share `[]` of the held-out images classified as labelled, stored statistics."""

    def hits(minibatch: tuple[Array, Array]) -> Array:
        pixels, labels = minibatch
        found = network.predict(variables, data.to_float(pixels))
        return jnp.sum((found == labels) & (labels != FILLER))

    counted = jnp.sum(clean.held_labels != FILLER)
    hit = jnp.sum(jax.lax.map(hits, (clean.held_images, clean.held_labels)))
    return hit / counted
