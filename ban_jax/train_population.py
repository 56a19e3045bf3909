"""Trains many models, clean and backdoored, with one compiled program.

On a CPU the models come one after the other, because a native convolution is fastest
for one model at a time, in a Python loop over jitted steps: inside `lax.scan` XLA's CPU
backend runs a convolution's weight gradient 30 times slower.
"""

import functools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import numpy as jnp

from ban_jax import attacks, data, models, training, types
from ban_jax.attacks import poison
from ban_jax.types import Array, Variables

EVALUATION_BATCH = 500


class Pupil(NamedTuple):
    """One model to be trained.

    Attributes:
      name: unique in its population; all randomness is folded from it and the seed, so
        a model does not depend on which others are trained.
      attack: its trigger.
      spec: its poisoning schedule.
      seed: number that tells twins apart.
    """

    name: str
    attack: attacks.Attack
    spec: poison.PoisonSpec
    seed: int


class Trained(NamedTuple):
    """Attributes:
    pupil: as given.
    variables: NumPy leaves.
    clean_accuracy: on the test images.
    asr: attack success rate, NaN for a clean model.
    loss: mean training loss of the last epoch.
    seconds: wall time of training and evaluation.
    """

    pupil: Pupil
    variables: Variables
    clean_accuracy: float
    asr: float
    loss: float
    seconds: float


class Keys(NamedTuple):
    """Independent randomness of one model, by purpose."""

    weights: Array
    trigger: Array
    order: Array
    augmentation: Array
    poison_seed: int


def keys_for(pupil: Pupil) -> Keys:
    """Folds a model's keys from its seed and name."""
    identity = zlib.crc32(pupil.name.encode())
    key = jax.random.fold_in(jax.random.key(pupil.seed), identity)
    weights, trigger, order, augmentation = jax.random.split(key, 4)
    poison_seed = int(
        np.random.SeedSequence([pupil.seed, identity]).generate_state(1)[0]
    )
    return Keys(weights, trigger, order, augmentation, poison_seed)


def trigger_of(pupil: Pupil, image_shape: tuple[int, int, int]) -> Any:
    """The trigger a model was, or will be, trained with."""
    return pupil.attack.init(keys_for(pupil).trigger, image_shape)


def train_population(
    module: models.Classifier,
    pupils: Iterable[Pupil],
    train: data.Dataset,
    test: data.Dataset,
    *,
    recipe: training.Recipe,
    normalisation: data.Constants,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[Trained]:
    """Trains each model and measures it on the test images.

    Args:
      module: the architecture, shared.
      pupils: the models; those whose triggers share an `apply` share a program.
      train: images all of them learn from.
      test: images none of them learns from.
      recipe: the optimiser's settings.
      normalisation: mean and deviation the models carry.
      progress: receives a line per epoch.

    Yields:
      Each model when it is done.

    Raises:
      ValueError: when the training images do not fill one batch.
    """
    steps = len(train.labels) // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"{len(train.labels)} training images do not fill one batch of "
            f"{recipe.batch_size}"
        )
    optimizer = training.make_optimizer(recipe, steps * recipe.epochs)
    network = models.network(module)
    pixels = jnp.asarray(train.pixels)
    init = jax.jit(
        lambda key: training.init(
            key, module, train.image_shape, normalisation, optimizer
        )
    )
    for pupil in pupils:
        start = time.perf_counter()
        apply_trigger: Callable[..., Array] = pupil.attack.apply
        step = compiled_step(network, optimizer, apply_trigger, recipe)
        keys = keys_for(pupil)
        trigger = trigger_of(pupil, train.image_shape)
        plan = poison.plan(
            train.labels, train.num_classes, pupil.spec, seed=keys.poison_seed
        )
        labels, roles = (jnp.asarray(array) for array in plan)
        state = init(keys.weights)
        loss = float("nan")
        for epoch in range(recipe.epochs):
            order = jax.random.permutation(
                jax.random.fold_in(keys.order, epoch), len(train.labels)
            )
            losses = []
            for index in range(steps):
                state, info = step(
                    state, pixels, labels, roles, order, index, trigger,
                    keys.augmentation,
                )  # fmt: skip
                losses.append(info.loss)
            loss = float(np.mean(jax.device_get(losses)))
            progress(f"{pupil.name}: epoch {epoch + 1}/{recipe.epochs} loss {loss:.3f}")
        accuracy, asr = evaluate(state.variables, test, pupil, trigger, network=network)
        yield Trained(
            pupil,
            jax.device_get(state.variables),
            accuracy,
            asr,
            loss,
            time.perf_counter() - start,
        )


@functools.lru_cache(maxsize=8)
def compiled_step(
    network: types.Network,
    optimizer: optax.GradientTransformation,
    apply_trigger: Callable[..., Array],
    recipe: training.Recipe,
) -> Callable[..., tuple[training.TrainState, training.StepInfo]]:
    """The jitted step of one model; its state is updated in place."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, pixels, labels, roles, order, index, trigger, key):
        batch = training.take_batch(
            pixels, labels, roles, order, index, recipe.batch_size
        )
        return training.train_step(
            state,
            batch,
            trigger,
            jax.random.fold_in(key, state.step),
            network=network,
            optimizer=optimizer,
            apply_trigger=apply_trigger,
            recipe=recipe,
        )

    return step


def evaluate(
    variables: Variables,
    test: data.Dataset,
    pupil: Pupil,
    trigger: Any,
    *,
    network: types.Network,
) -> tuple[float, float]:
    """Clean accuracy and attack success rate (NaN for a clean model)."""
    predictions = _predict_all(variables, test.pixels, trigger, None, network)
    accuracy = float(np.mean(predictions == test.labels))
    if isinstance(pupil.attack, attacks.ATTACKS["clean"]):
        return accuracy, float("nan")
    predictions = _predict_all(
        variables, test.pixels, trigger, pupil.attack.apply, network
    )
    asr = poison.success_rate(predictions, test.labels, test.num_classes, pupil.spec)
    return accuracy, asr


@functools.partial(jax.jit, static_argnames=("apply_trigger", "network"))
def _predict(variables, pixels, trigger, *, apply_trigger, network):
    images = data.to_float(pixels)
    if apply_trigger is not None:
        images = apply_trigger(trigger, images)
    return training.predict(variables, images, network=network)


def _predict_all(variables, pixels, trigger, apply_trigger, network) -> np.ndarray:
    """In batches of one shape: the last is filled up, and the filling cut off."""
    predictions = []
    for start in range(0, len(pixels), EVALUATION_BATCH):
        batch = pixels[start : start + EVALUATION_BATCH]
        missing = EVALUATION_BATCH - len(batch)
        batch = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
        predicted = _predict(
            variables, batch, trigger, apply_trigger=apply_trigger, network=network
        )
        predictions.append(np.asarray(predicted)[: EVALUATION_BATCH - missing])
    return np.concatenate(predictions)
