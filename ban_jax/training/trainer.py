"""Trains many models, clean and backdoored: who shares a program, saves, reports."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import attacks, data, models, population
from ban_jax.training import model_plan, one_model, stepping
from ban_jax.training.model_plan import ModelPlan
from ban_jax.training.saves import Progress
from ban_jax.training.stepping import Member, Program
from ban_jax.types import Variables
from ban_jax.zoo import success

PROGRESS_IMAGES = 500
"""Test images that the metrics shown in progress are taken on."""
CHUNK = 8
"""Models per accelerator that train in one program."""


class Trained(NamedTuple):
    """A finished model.

    Attributes:
      plan: as given.
      variables: NumPy leaves.
      attack: its trigger, NumPy leaves.
      metrics: on all test images.
      loss: mean training loss of the last epoch.
      seconds: wall time of its chunk's training and evaluation, per model.
    """

    plan: ModelPlan
    variables: Variables
    attack: attacks.AttackState
    metrics: success.Metrics
    loss: float
    seconds: float


class Start(NamedTuple):
    """A trained model that others go on from.

    Attributes:
      sha256: of its weights.
      variables: NumPy leaves, of the architecture that is trained.
    """

    sha256: str
    variables: Variables


class Report(NamedTuple):
    """How far the models of a chunk are.

    Attributes:
      plans: its models.
      epoch: epochs done, with those that prepare the attack.
      epochs: of all.
      losses: mean training loss of each model in this epoch.
      metrics: of each model on a few test images; None where they were not measured.
    """

    plans: Sequence[ModelPlan]
    epoch: int
    epochs: int
    losses: Sequence[float]
    metrics: Sequence[success.Metrics] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """How a population is trained: what its models share, where they go, who is told.

    Attributes:
      module: the architecture.
      train: images all models learn from.
      test: images none of them learns from.
      recipe: the optimiser's settings.
      normalisation: mean and deviation the models carry.
      begin: weights that all models go on from; None: each draws its own.
      placement: devices; None: all of this process.
      chunk: models that train side by side, on each device; None: one per core of a
        CPU, `CHUNK` on accelerators.
      folder: receives saves that a killed run goes on from; None: no saves.
      save_seconds: least time between two saves; they are made after whole epochs.
      report: is told how far a chunk is.
      report_seconds: least time between two reports.
    """

    module: models.Classifier
    train: data.Dataset
    test: data.Dataset
    recipe: one_model.Recipe
    normalisation: data.Constants
    begin: Start | None = None
    placement: population.Placement | None = None
    chunk: int | None = None
    folder: str | None = None
    save_seconds: float = 60.0
    report: Callable[[Report], None] = lambda report: None
    report_seconds: float = 5.0

    @functools.cached_property
    def identity(self) -> str:
        """Of what models share that decides their weights: the same, the same weights."""
        begin = self.begin.sha256 if self.begin else None
        shared = (self.recipe, begin, self.module, self.normalisation)
        hasher = hashlib.sha256(repr(shared).encode())
        for array in (self.train.pixels, self.train.labels):
            hasher.update(f"{array.dtype}{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()


def train_population(run: Run, plans: Sequence[ModelPlan]) -> Iterator[Trained]:
    """Trains the models, measures them on the test images, and yields them as they end.

    An interrupt (Ctrl-C) is answered at once, whatever is being compiled or computed:
    models that were yielded are whole, and the others go on from their saves.

    Args:
      run: what the models share.
      plans: the models; those whose attacks share a kernel share a program.

    Yields:
      Each model when its chunk is done. Its saves are dropped once the next is asked for.

    Raises:
      ValueError: when the training images do not fill one batch, and for settings that
        do not fit the images or classes, before anything is trained.
    """
    placement = run.placement or population.default_placement()
    most = placement.rounded(_chunk_size(run, placement))
    images = population.share(
        stepping.Images(run.train.pixels, run.train.labels), placement
    )
    for (program, done), alike in _groups(run, plans).items():
        size = placement.rounded(min(most, len(alike)))
        for first in range(0, len(alike), size):
            some = alike[first : first + size]
            yield from _train_chunk(
                run, program, some, done, placement=placement, size=size, images=images
            )


def saves_of(run: Run, plan: ModelPlan, folder: str) -> Progress:
    """Where a model's saves are: of this very model, trained this very way."""
    # Without the plan's class, whose name is nothing that decides.
    decisive = repr((run.identity, *plan))
    identity = hashlib.sha256(decisive.encode()).hexdigest()[:16]
    return Progress(folder, f"{plan.name}.{identity}")


def start(
    run: Run, program: Program, plan: ModelPlan
) -> tuple[one_model.TrainState, Member]:
    """A model before its first step."""
    keys = model_plan.keys_for(plan)
    poisoning = model_plan.poisoning(plan, run.train, run.recipe)
    state = _init(
        keys.weights,
        plan.attack.init(keys.trigger, run.train.image_shape),
        run.begin.variables if run.begin else None,
        module=run.module,
        image_shape=run.train.image_shape,
        normalisation=run.normalisation,
        optimizer=program.optimizer,
        attack_optimizer=program.kernel.optimizer,
    )
    return state, Member(jax.tree.map(jnp.asarray, poisoning), keys.order, keys.steps)


_init = population.compiled(one_model.init)


def _chunk_size(run: Run, placement: population.Placement) -> int:
    """Models of a chunk, on all devices together."""
    cpu = placement.devices[0].platform == "cpu"
    each = run.chunk or (population.default_chunk("cpu") if cpu else CHUNK)
    return each * len(placement.devices)


def _groups(
    run: Run, plans: Sequence[ModelPlan]
) -> dict[tuple[Program, int], list[ModelPlan]]:
    """Models that can share a chunk, by their program and the epochs behind them.

    Those that go on from saves of different ages cannot share a loop.
    """
    steps = model_plan.steps_per_epoch(run.train, run.recipe)
    network = models.network(run.module)
    optimizer = one_model.make_optimizer(run.recipe, steps * run.recipe.epochs)
    groups: dict[tuple[Program, int], list[ModelPlan]] = {}
    for plan in plans:
        kernel = model_plan.kernel_of(plan, run.train, run.recipe, run.module.lowering)
        program = Program(network, optimizer, kernel, run.recipe)
        done = saves_of(run, plan, run.folder).latest() if run.folder else 0
        groups.setdefault((program, done), []).append(plan)
    return groups


def _train_chunk(
    run: Run,
    program: Program,
    plans: Sequence[ModelPlan],
    done: int,
    *,
    placement: population.Placement,
    size: int,
    images: stepping.Images,
) -> Iterator[Trained]:
    """Trains and yields a few models of which each has `done` epochs behind it."""
    began = time.perf_counter()
    saves = [saves_of(run, plan, run.folder) for plan in plans if run.folder]
    begin = population.interruptible(
        lambda: [start(run, program, plan) for plan in plans]
    )
    if saves:
        begin = [
            (save.load(state)[1], member)
            for save, (state, member) in zip(saves, begin, strict=True)
        ]
    chunk = stepping.chunk(program, images, begin, placement, size)
    del begin  # a second copy of all weights
    losses = _train_epochs(run, program, plans, done, chunk, saves, placement)
    states = chunk.states()
    found = _measure(run, program, plans, states, placement)
    seconds = (time.perf_counter() - began) / len(plans)
    for index, state in enumerate(jax.device_get(states)):
        yield Trained(
            plans[index],
            state.variables,
            state.attack,
            found[index],
            losses[index],
            seconds,
        )
        if saves:
            saves[index].clear()


def _train_epochs(
    run: Run,
    program: Program,
    plans: Sequence[ModelPlan],
    done: int,
    chunk: stepping.Chunk,
    saves: Sequence[Progress],
    placement: population.Placement,
) -> list[float]:
    """The epochs that are left, with saves and reports between; the last one's losses."""
    preparation = program.kernel.preparation
    prepared = preparation.epochs if preparation else 0
    epochs = prepared + run.recipe.epochs
    losses = [float("nan")] * len(plans)
    saved = reported = time.perf_counter()
    for epoch in range(done, epochs):
        losses = chunk.train(epoch, preparing=epoch < prepared)
        now, last = time.perf_counter(), epoch + 1 == epochs
        saving = bool(saves) and not last and now - saved >= run.save_seconds
        reporting = last or now - reported >= run.report_seconds
        measuring = reporting and not last and epoch >= prepared
        states = chunk.states() if saving or measuring else []
        if saving:
            for save, state in zip(saves, states, strict=True):
                save.save(epoch + 1, state)
            saved = time.perf_counter()
        if reporting:
            found = None
            if measuring:
                found = _measure(
                    run, program, plans, states, placement, PROGRESS_IMAGES
                )
            run.report(Report(plans, epoch + 1, epochs, losses, found))
            reported = time.perf_counter()
    return losses


def _measure(
    run: Run,
    program: Program,
    plans: Sequence[ModelPlan],
    states: Sequence[one_model.TrainState],
    placement: population.Placement,
    limit: int | None = None,
) -> list[success.Metrics]:
    """The metrics of each model, on the first `limit` test images or all."""

    def one(index: int) -> success.Metrics:
        plan, state = plans[index], placed[index]
        return success.measure(
            state.variables,
            run.test,
            network=program.network,
            kernel=program.kernel,
            attack=state.attack,
            spec=plan.spec,
            policy=plan.attack.policy,
            key=model_plan.keys_for(plan).metrics,
            limit=limit,
        )

    placed = population.deal(states, placement)
    return population.side_by_side(one, range(len(plans)), population.cores())
