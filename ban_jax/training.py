"""The training step for ONE model, pure: `jax.vmap` over states trains a population.

Everything two models may differ in (initial weights, trigger, labels, poisoned images,
order of the images) is data; what they share (architecture, optimiser, kind of trigger)
is static.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import chex
import jax
import optax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import data, types
from ban_jax.attacks import poison
from ban_jax.attacks.types import ApplyFn, State
from ban_jax.types import Array, Variables


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how fast. Static: one recipe, one compiled program.

    Attributes:
      epochs: passes over the training images; the last incomplete batch is left out.
      batch_size: images per step.
      learning_rate: the peak (one-cycle) or start (step).
      momentum: of SGD.
      weight_decay: added to the gradient of every parameter before momentum, as in
        PyTorch's SGD.
      schedule: `one-cycle` rises linearly over the first 30 % and falls to zero; `step`
        divides by 10 after 50 % and 75 % of the steps, the 100 and 150 of 200 epochs of
        the literature.
      crop: zero pixels added on every side before a random crop; 0 is off.
      flip: mirrors every other image.
    """

    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    crop: int = 4
    flip: bool = True


class TrainState(NamedTuple):
    """What training changes.

    Attributes:
      variables: the model's collections.
      optimizer: Optax's state, momentum and step count.
      step: `[]` int32 steps taken.
    """

    variables: Variables
    optimizer: optax.OptState
    step: Array


class Batch(NamedTuple):
    """Attributes:
    images: `[B, H, W, C]` float32 in [0, 1], without trigger.
    labels: `[B]` int32 as taught, changed where poisoned.
    roles: `[B]` int8, see `attacks.poison`.
    """

    images: Array
    labels: Array
    roles: Array


class StepInfo(NamedTuple):
    """Attributes:
    loss: `[]` mean cross-entropy before the step.
    accuracy: `[]` share of the batch classified as taught.
    """

    loss: Array
    accuracy: Array


@functools.cache
def make_optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """SGD in PyTorch's order: decay joins the gradient, then momentum, then the rate.

    Equal arguments give the same object, so it can be a static argument of `jax.jit`.
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
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(rate, momentum=recipe.momentum),
    )


def init(
    key: Array,
    module: nn.Module,
    image_shape: tuple[int, int, int],
    normalisation: data.Constants,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """A fresh model with its pixel normalisation. Consumes `key`."""
    variables = module.init(key, jnp.zeros((1, *image_shape)))
    mean, std = (jnp.array(values) for values in normalisation)
    variables = {**variables, "normalisation": {"mean": mean, "std": std}}
    return TrainState(
        variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32)
    )


def take_batch(
    pixels: Array, labels: Array, roles: Array, order: Array, index: Array, size: int
) -> Batch:
    """The `index`-th run of `size` images in the given order.

    Args:
      pixels: `[N, H, W, C]` uint8 or float, shared by all models.
      labels: `[N]` as taught to this model.
      roles: `[N]`.
      order: `[N]` a permutation, one per epoch and model.
      index: `[]` which batch.
      size: B, static.
    """
    chosen = jax.lax.dynamic_slice_in_dim(order, index * size, size)
    return Batch(data.to_float(pixels[chosen]), labels[chosen], roles[chosen])


def augment(key: Array, images: Array, *, crop: int, flip: bool) -> Array:
    """Random crop from the zero-padded image, random mirroring. Consumes `key`.

    Args:
      key: PRNG key.
      images: `[B, H, W, C]`.
      crop: padding on every side, 0 for none; static.
      flip: whether half of the images are mirrored; static.

    Returns:
      `[B, H, W, C]`.
    """
    shift, mirrored = draw_augmentation(key, len(images), crop=crop, flip=flip)
    return crop_and_mirror(images, shift, mirrored, crop=crop)


def draw_augmentation(
    key: Array, count: int, *, crop: int, flip: bool
) -> tuple[Array, Array]:
    """What `augment` draws: `[count, 2]` first row and column, `[count]` mirrored."""
    crop_key, flip_key = jax.random.split(key)
    shift = jax.random.randint(crop_key, (2, count), 0, 2 * crop + 1)
    mirrored = jnp.zeros(count, bool)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count,))
    return shift.T, mirrored


def crop_and_mirror(
    images: Array, shift: Array, mirrored: Array, *, crop: int
) -> Array:
    """Cuts images out of themselves padded with zeros, and mirrors some.

    Args:
      images: `[B, H, W, C]`.
      shift: `[B, 2]` first row and column in the padded image; `crop` changes nothing.
      mirrored: `[B]` bool.
      crop: padding on every side; static.
    """
    count, height, width, _ = images.shape
    columns = jnp.broadcast_to(jnp.arange(width), (count, width))
    columns = jnp.where(mirrored[:, None], width - 1 - columns, columns)
    rows = jnp.arange(height)[None] + shift[:, :1]
    columns += shift[:, 1:]
    images = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
    which = jnp.arange(count)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]


def train_step(
    state: TrainState,
    batch: Batch,
    trigger: State,
    key: Array,
    *,
    network: types.Network,
    optimizer: optax.GradientTransformation,
    apply_trigger: ApplyFn,
    recipe: Recipe,
) -> tuple[TrainState, StepInfo]:
    """One step of SGD on cross-entropy, BatchNorm in mode `update`.

    The trigger goes onto the poisoned images before augmentation, as if the data set
    had been poisoned once on disk: a patch moves and mirrors with its image.

    Args:
      state: the model so far.
      batch: its images.
      trigger: the attack's state of this model.
      key: PRNG key, consumed.
      network, optimizer, apply_trigger, recipe: static.
    """
    chex.assert_rank([batch.images, batch.labels, batch.roles], [4, 1, 1])
    poisoned = (batch.roles == poison.POISONED)[:, None, None, None]
    images = jnp.where(poisoned, apply_trigger(trigger, batch.images), batch.images)
    images = augment(key, images, crop=recipe.crop, flip=recipe.flip)
    rest = {name: value for name, value in state.variables.items() if name != "params"}

    def loss_fn(params: Any) -> tuple[Array, tuple[Variables, Array]]:
        variables: Variables = {**rest, "params": params}
        features, variables = network.features(variables, images, "update")
        logits, variables = network.head(variables, features, "update")
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return jnp.mean(losses), (variables, logits)

    params = state.variables["params"]
    (loss, (variables, logits)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, params)
    params = optax.apply_updates(params, updates)
    state = TrainState({**variables, "params": params}, optimizer_state, state.step + 1)
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch.labels)
    return state, StepInfo(loss, accuracy)


def predict(variables: Variables, images: Array, *, network: types.Network) -> Array:
    """`[B, H, W, C]` in [0, 1] -> `[B]` the most likely classes, stored statistics."""
    features, variables = network.features(variables, images, "stored")
    logits, _ = network.head(variables, features, "stored")
    return jnp.argmax(logits, axis=-1)
