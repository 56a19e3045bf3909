"""Trains many models, clean and backdoored: who shares a program, saves, reports."""

import concurrent.futures
import functools
import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import attacks, data, models, population
from ban_jax.attacks import poison
from ban_jax.training import one_model, stepping
from ban_jax.training.saves import Progress
from ban_jax.training.stepping import Member, Program
from ban_jax.types import Array, Variables
from ban_jax.zoo import success

PROGRESS_IMAGES = 500
"""Test images that the metrics shown in progress are taken on."""


class Pupil(NamedTuple):
    """One model to be trained.

    Attributes:
      name: unique in its population; all randomness is folded from it and the seed, so
        a model does not depend on which others are trained.
      attack: its trigger.
      spec: the attacker's choice.
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
    attack: its trigger, NumPy leaves.
    metrics: on all test images.
    loss: mean training loss of the last epoch.
    seconds: wall time of its population's training and evaluation, per model.
    """

    pupil: Pupil
    variables: Variables
    attack: attacks.AttackState
    metrics: success.Metrics
    loss: float
    seconds: float


class Report(NamedTuple):
    """How far a population is.

    Attributes:
      pupils: its models.
      epoch: epochs done, with those that prepare the attack.
      epochs: of all.
      losses: mean training loss of each model in this epoch.
      metrics: of each model on a few test images; None where they were not measured.
    """

    pupils: Sequence[Pupil]
    epoch: int
    epochs: int
    losses: Sequence[float]
    metrics: Sequence[success.Metrics] | None


class Keys(NamedTuple):
    """Independent randomness of one model, by purpose."""

    weights: Array
    trigger: Array
    order: Array
    steps: Array
    metrics: Array
    poison_seed: int


def keys_for(pupil: Pupil) -> Keys:
    """Folds a model's keys from its seed and name."""
    identity = zlib.crc32(pupil.name.encode())
    key = jax.random.fold_in(jax.random.key(pupil.seed), identity)
    weights, trigger, order, steps, measured = jax.random.split(key, 5)
    poison_seed = int(
        np.random.SeedSequence([pupil.seed, identity]).generate_state(1)[0]
    )
    return Keys(weights, trigger, order, steps, measured, poison_seed)


def train_population(
    module: models.Classifier,
    pupils: Sequence[Pupil],
    train: data.Dataset,
    test: data.Dataset,
    *,
    recipe: one_model.Recipe,
    normalisation: data.Constants,
    chunk: int | None = None,
    stacked: bool | None = None,
    folder: str | None = None,
    save_seconds: float = 60.0,
    report: Callable[[Report], None] = lambda report: None,
    report_seconds: float = 5.0,
) -> Iterator[Trained]:
    """Trains the models, measures them on the test images, and yields them as they end.

    Args:
      module: the architecture, shared.
      pupils: the models; those whose attacks share a kernel share a program.
      train: images all of them learn from.
      test: images none of them learns from.
      recipe: the optimiser's settings.
      normalisation: mean and deviation the models carry.
      chunk: models trained side by side; None: one per core, 8 on accelerators.
      stacked: one `jax.vmap`ped program; None: on accelerators.
      folder: receives saves that a killed run goes on from; None: no saves.
      save_seconds: least time between two saves; they are made after whole epochs.
      report: is told how far a population is.
      report_seconds: least time between two reports.

    Yields:
      Each model when its chunk is done. Its saves are dropped once the next is asked for.

    Raises:
      ValueError: when the training images do not fill one batch, and for settings that
        do not fit the images or classes, before anything is trained.
    """
    steps = _steps(train, recipe)
    backend = jax.default_backend()
    stacked = backend != "cpu" if stacked is None else stacked
    chunk = chunk or (population.default_chunk(backend) if backend == "cpu" else 8)
    network = models.network(module)
    optimizer = one_model.make_optimizer(recipe, steps * recipe.epochs)
    # Models that go on from saves of different ages cannot share a loop.
    groups: dict[tuple[Program, int], list[Pupil]] = {}
    for pupil in pupils:
        kernel = kernel_of(pupil, train, recipe, module.lowering)
        program = Program(network, optimizer, kernel, recipe)
        done = saves_of(pupil, recipe, folder).latest() if folder else 0
        groups.setdefault((program, done), []).append(pupil)
    pixels, labels = jnp.asarray(train.pixels), jnp.asarray(train.labels)
    for (program, done), members in groups.items():
        for first in range(0, len(members), chunk):
            some = members[first : first + chunk]
            began = time.perf_counter()
            saves = (
                [saves_of(pupil, recipe, folder) for pupil in some] if folder else []
            )
            states, losses = _train_chunk(
                program, some, train, test, pixels, labels, done,
                begin=start(module, program, some, train, normalisation),
                width=min(chunk, len(members)) if stacked else None,
                saves=saves, save_seconds=save_seconds,
                report=report, report_seconds=report_seconds,
            )  # fmt: skip
            found = _measure(program, some, states, test)
            seconds = (time.perf_counter() - began) / len(some)
            for index, state in enumerate(jax.device_get(states)):
                yield Trained(
                    some[index],
                    state.variables,
                    state.attack,
                    found[index],
                    losses[index],
                    seconds,
                )
                if saves:
                    saves[index].clear()


def saves_of(pupil: Pupil, recipe: one_model.Recipe, folder: str) -> Progress:
    """Where a model's saves are: of this very model, trained this very way."""
    identity = hashlib.sha256(repr((recipe, pupil)).encode()).hexdigest()[:16]
    return Progress(folder, f"{pupil.name}.{identity}")


def kernel_of(
    pupil: Pupil,
    train: data.Dataset,
    recipe: one_model.Recipe,
    lowering: Any,
) -> attacks.Kernel:
    """The attack's program.

    Raises:
      ValueError: for a trigger or a poisoning that is impossible with these images,
        classes and batches.
    """
    schedule = attacks.Schedule(
        _steps(train, recipe), recipe.epochs, recipe.batch_size, lowering
    )
    _plan(pupil, train, recipe)
    jax.eval_shape(lambda: pupil.attack.init(jax.random.key(0), train.image_shape))
    return pupil.attack.kernel(schedule, pupil.spec.rate, train.num_classes)


def _steps(train: data.Dataset, recipe: one_model.Recipe) -> int:
    """Of one epoch."""
    steps = len(train.labels) // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"{len(train.labels)} training images do not fill one batch of "
            f"{recipe.batch_size}"
        )
    return steps


def _plan(pupil: Pupil, train: data.Dataset, recipe: one_model.Recipe) -> poison.Plan:
    return poison.plan(
        train.labels,
        train.num_classes,
        pupil.spec,
        pupil.attack.policy,
        batch_size=recipe.batch_size,
        seed=keys_for(pupil).poison_seed,
    )


def start(
    module: models.Classifier,
    program: Program,
    pupils: Sequence[Pupil],
    train: data.Dataset,
    normalisation: data.Constants,
) -> list[tuple[one_model.TrainState, Member]]:
    """Each model before its first step."""
    result = []
    for pupil in pupils:
        keys = keys_for(pupil)
        plan = _plan(pupil, train, program.recipe)
        state = _init(
            keys.weights,
            pupil.attack.init(keys.trigger, train.image_shape),
            module,
            train.image_shape,
            normalisation,
            program.optimizer,
            program.kernel.optimizer,
        )
        member = Member(jax.tree.map(jnp.asarray, plan), keys.order, keys.steps)
        result.append((state, member))
    return result


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _init(key, attack, module, image_shape, normalisation, optimizer, attack_optimizer):
    return one_model.init(
        key, module, image_shape, normalisation, optimizer, attack, attack_optimizer
    )


def _train_chunk(
    program: Program,
    pupils: Sequence[Pupil],
    train: data.Dataset,
    test: data.Dataset,
    pixels: Array,
    labels: Array,
    done: int,
    *,
    begin: Sequence[tuple[one_model.TrainState, Member]],
    width: int | None,
    saves: Sequence[Progress],
    save_seconds: float,
    report: Callable[[Report], None],
    report_seconds: float,
) -> tuple[list[one_model.TrainState], list[float]]:
    """The epochs from `done` on of a few models; `width` is the stacked program's."""
    states: list[Any] = [state for state, _ in begin]
    members = [member for _, member in begin]
    preparation = program.kernel.preparation
    prepared = preparation.epochs if preparation else 0
    epochs = prepared + program.recipe.epochs
    if saves:
        states = [
            save.load(state)[1] for save, state in zip(saves, states, strict=True)
        ]
    losses = [float("nan")] * len(pupils)
    saved = reported = time.perf_counter()
    steps = len(train.labels) // program.recipe.batch_size
    for epoch in range(done, epochs):
        arguments = (pixels, labels, epoch, epoch < prepared, program, steps)
        if width is None:
            states, losses = stepping.on_threads(states, members, *arguments)
        else:
            states, losses = stepping.stacked(states, members, width, *arguments)
        now, last = time.perf_counter(), epoch + 1 == epochs
        if saves and not last and now - saved >= save_seconds:
            for save, state in zip(saves, states, strict=True):
                save.save(epoch + 1, state)
            saved = time.perf_counter()
        if last or now - reported >= report_seconds:
            found = None
            if not last and epoch >= prepared:
                found = _measure(program, pupils, states, test, PROGRESS_IMAGES)
            report(Report(pupils, epoch + 1, epochs, losses, found))
            reported = time.perf_counter()
    return states, losses


def _measure(
    program: Program,
    pupils: Sequence[Pupil],
    states: Sequence[one_model.TrainState],
    test: data.Dataset,
    limit: int | None = None,
) -> list[success.Metrics]:
    def one(pupil: Pupil, state: one_model.TrainState) -> success.Metrics:
        return success.measure(
            state.variables,
            test,
            network=program.network,
            kernel=program.kernel,
            attack=state.attack,
            spec=pupil.spec,
            policy=pupil.attack.policy,
            key=keys_for(pupil).metrics,
            limit=limit,
        )

    with concurrent.futures.ThreadPoolExecutor(population.cores()) as pool:
        return list(pool.map(one, pupils, states))
