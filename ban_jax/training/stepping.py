"""Some models that train side by side: their states, and how an epoch moves them.

One CPU trains its models on host threads, each with the same one-model program: a native
convolution is fastest for one model at a time. Accelerators, and several devices of any
kind, train them in one program for a whole epoch; the states stay stacked on the devices
until somebody asks for them.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax
from jax import numpy as jnp

from ban_jax import attacks, population, types
from ban_jax.attacks import poison
from ban_jax.training import one_model
from ban_jax.types import Array


class Member(NamedTuple):
    """What one model's steps need beside its state: data, so that members stack.

    Attributes:
      plan: what it is taught.
      order: key of the order of its images.
      steps: key of augmentation and triggers.
    """

    plan: poison.Plan
    order: Array
    steps: Array


class Program(NamedTuple):
    """What the models of a population share. Static.

    Attributes:
      network: the architecture.
      optimizer: of its parameters.
      kernel: of the attacks.
      recipe: batch size and augmentation.
    """

    network: types.Network
    optimizer: optax.GradientTransformation
    kernel: attacks.Kernel
    recipe: one_model.Recipe


class Images(NamedTuple):
    """Training images, shared by all models.

    Attributes:
      pixels: `[N, H, W, C]` uint8 or float.
      labels: `[N]` true classes.
    """

    pixels: Array | np.ndarray
    labels: Array | np.ndarray


def one_step(
    state: one_model.TrainState,
    member: Member,
    order: Array,
    index: Array,
    images: Images,
    epoch: Array,
    *,
    preparing: bool,
    program: Program,
) -> tuple[one_model.TrainState, Array]:
    """The `index`-th step of an epoch of one model, and its loss. Pure.

    Args:
      state: the model so far.
      member: what it is taught.
      order: `[N]` of its images in this epoch.
      index: `[]` of the step.
      images: of all models.
      epoch: `[]` its number.
      preparing: whether the attack is prepared or the classifier trained; static.
      program: static.
    """
    recipe = program.recipe
    batch = one_model.take_batch(
        images.pixels, images.labels, member.plan, order, index, recipe.batch_size
    )
    key = jax.random.fold_in(jax.random.fold_in(member.steps, epoch), index)
    if preparing:
        state, info = one_model.prepare_step(
            state, batch, key, kernel=program.kernel, recipe=recipe
        )
    else:
        state, info = one_model.train_step(
            state,
            batch,
            key,
            network=program.network,
            optimizer=program.optimizer,
            kernel=program.kernel,
            recipe=recipe,
        )
    return state, info.loss


def order_of(key: Array, epoch: Array, *, count: int) -> Array:
    """`[count]` the order of a model's images in one epoch."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


@dataclasses.dataclass(frozen=True)
class Epoch:
    """A whole epoch of one model as one pure function, for `population.program`.

    Equal epochs are one program, so this is a value and no closure.

    Attributes:
      program: what the models share.
      steps: of the epoch.
      preparing: whether the attack is prepared or the classifier trained.
    """

    program: Program
    steps: int
    preparing: bool

    def __call__(
        self,
        model: tuple[one_model.TrainState, Member],
        shared: tuple[Images, Array],
    ) -> tuple[tuple[one_model.TrainState, Member], Array]:
        """The model after the epoch, and its mean loss `[]`.

        Args:
          model: its state, and what it is taught.
          shared: the images, and the number `[]` of the epoch.
        """
        (state, member), (images, epoch) = model, shared
        order = order_of(member.order, epoch, count=len(images.labels))

        def body(index: Array, carry: Any) -> Any:
            state, total = carry
            state, loss = one_step(
                state,
                member,
                order,
                index,
                images,
                epoch,
                preparing=self.preparing,
                program=self.program,
            )
            return state, total + loss

        start = (state, jnp.zeros(()))
        state, total = jax.lax.fori_loop(0, self.steps, body, start)
        return (state, member), total / self.steps


class Chunk(Protocol):
    """Some models that train side by side."""

    def train(self, epoch: int, *, preparing: bool) -> list[float]:
        """Moves all models by one epoch; returns each one's mean loss.

        An interrupt of the caller is answered at once; the states are lost with it.
        """

    def states(self) -> list[one_model.TrainState]:
        """Each model's own state: on its device, or on the host."""


_step = population.compiled(one_step, donated=True)
_order = population.compiled(order_of)
_compiling = threading.Lock()


class Threads:
    """A chunk on host threads, step by step.

    A Python loop over steps: as fast as a loop of the device for one model, faster for
    two side by side, and it can be interrupted between steps.
    """

    def __init__(
        self,
        program: Program,
        images: Images,
        models: Sequence[tuple[one_model.TrainState, Member]],
    ) -> None:
        """`images` and states are used where they are."""
        self._program = program
        self._images = images
        self._states = [state for state, _ in models]
        self._members = [member for _, member in models]

    def states(self) -> list[one_model.TrainState]:
        return list(self._states)

    def train(self, epoch: int, *, preparing: bool) -> list[float]:
        stop = threading.Event()

        def of_one(index: int) -> tuple[one_model.TrainState, float]:
            return self._epoch(index, epoch, preparing, stop)

        results = population.side_by_side(
            of_one, range(len(self._states)), population.cores(), stop
        )
        self._states = [state for state, _ in results]
        return [loss for _, loss in results]

    def _epoch(
        self, index: int, epoch: int, preparing: bool, stop: threading.Event
    ) -> tuple[one_model.TrainState, float]:
        """One model's epoch, or its beginning where `stop` is set meanwhile."""
        state, member = self._states[index], self._members[index]
        count = len(self._images.labels)
        order = _order(member.order, epoch, count=count)
        losses = []
        for step in range(count // self._program.recipe.batch_size):
            if stop.is_set():
                break
            # So that the first two do not both compile.
            with _compiling if step == 0 else contextlib.nullcontext():
                state, loss = _step(
                    state,
                    member,
                    order,
                    step,
                    self._images,
                    epoch,
                    preparing=preparing,
                    program=self._program,
                )
            losses.append(jax.block_until_ready(loss))
        return state, float(np.mean(losses)) if losses else float("nan")


class Stacked:
    """A chunk in one program for all models and a whole epoch.

    The models are stacked once, and their buffers reused from epoch to epoch. A chunk
    with fewer models than `size` takes the same program: the last one is repeated.
    """

    def __init__(
        self,
        program: Program,
        images: Images,
        models: Sequence[tuple[one_model.TrainState, Member]],
        placement: population.Placement,
        size: int,
    ) -> None:
        """`images` are on all devices of the placement, `size` is a multiple of them."""
        self._program = program
        self._images = images
        self._placement = placement
        self._size = size
        self._count = len(models)
        # By way of the host: a single device may have no room for the models of all.
        on_host = [jax.device_get(model) for model in models]
        self._one = on_host[0]
        self._models = population.place(on_host, placement, size)

    def states(self) -> list[one_model.TrainState]:
        states, _ = self._models
        return population.unstack(states, self._count)

    def train(self, epoch: int, *, preparing: bool) -> list[float]:
        return population.interruptible(self._train, epoch, preparing)

    def _train(self, epoch: int, preparing: bool) -> list[float]:
        steps = len(self._images.labels) // self._program.recipe.batch_size
        shared = (self._images, np.int32(epoch))
        move = population.program(
            Epoch(self._program, steps, preparing),
            self._placement,
            self._one,
            shared,
            self._size,
            advances=True,
        )
        self._models, losses = move(self._models, shared)
        return [float(loss) for loss in jax.device_get(losses)[: self._count]]


def chunk(
    program: Program,
    images: Images,
    models: Sequence[tuple[one_model.TrainState, Member]],
    placement: population.Placement,
    size: int,
) -> Chunk:
    """Models that train side by side, in the way of the placement.

    Args:
      program: what they share.
      images: from `population.share`.
      models: each one's state and what it is taught.
      placement: where.
      size: of the compiled program, where the models are stacked.
    """
    if placement.on_threads:
        return Threads(program, images, models)
    return Stacked(program, images, models, placement, size)
