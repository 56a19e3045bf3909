"""One epoch of a population: many models, one compiled program.

Accelerators train a population in one step, stacked by `jax.vmap`, an epoch in one call.
A CPU trains its models on host threads, each with the same one-model program: a native
convolution is fastest for one model at a time.
"""

import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    """What the models of a population share. Static."""

    network: types.Network
    optimizer: optax.GradientTransformation
    kernel: attacks.Kernel
    recipe: one_model.Recipe


def one_step(
    state: one_model.TrainState,
    member: Member,
    order: Array,
    index: Array,
    pixels: Array,
    labels: Array,
    epoch: Array,
    *,
    preparing: bool,
    program: Program,
) -> tuple[one_model.TrainState, Array]:
    """The `index`-th step of an epoch of one model, and its loss. Pure."""
    recipe = program.recipe
    batch = one_model.take_batch(
        pixels, labels, member.plan, order, index, recipe.batch_size
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


_jitted_step = functools.partial(
    jax.jit, static_argnames=("preparing", "program"), donate_argnums=0
)(one_step)


@functools.partial(jax.jit, static_argnames="count")
def _order(key: Array, epoch: Array, count: int) -> Array:
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


_compiling = threading.Lock()


def on_threads(
    states: Sequence[one_model.TrainState],
    members: Sequence[Member],
    pixels: Array,
    labels: Array,
    epoch: int,
    preparing: bool,
    program: Program,
    steps: int,
) -> tuple[list[one_model.TrainState], list[float]]:
    """Each model on a host thread, step by step; new states, and mean losses.

    A Python loop over steps: as fast as a loop of the device for one model, faster for
    two side by side, and it can be interrupted between steps.

    Args:
      states: of each model; they are used up.
      members: likewise.
      pixels: `[N, H, W, C]`, shared.
      labels: `[N]`.
      epoch: number of this epoch.
      preparing: whether the attack is prepared or the classifier trained.
      program: static.
      steps: of this epoch.
    """
    stop = threading.Event()

    def epoch_of(index: int) -> tuple[one_model.TrainState, float]:
        state, member = states[index], members[index]
        order = _order(member.order, epoch, len(labels))
        losses = []
        for step in range(steps):
            if stop.is_set():
                break
            # So that the first two do not both compile.
            with _compiling if step == 0 else contextlib.nullcontext():
                state, loss = _jitted_step(
                    state, member, order, step, pixels, labels, epoch,
                    preparing=preparing, program=program,
                )  # fmt: skip
            losses.append(jax.block_until_ready(loss))
        return state, float(np.mean(losses))

    workers = min(len(states), population.cores())
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            results = list(pool.map(epoch_of, range(len(states))))
        except BaseException:
            stop.set()
            raise
    return [state for state, _ in results], [loss for _, loss in results]


@functools.partial(
    jax.jit, static_argnames=("preparing", "program", "steps"), donate_argnums=0
)
def _stacked(
    states, members, pixels, labels, epoch, preparing, program, steps
) -> tuple[Any, Array]:
    """An epoch of M stacked models in one program; returns losses `[M]` too."""

    def of_one(state, member):
        order = _order(member.order, epoch, len(labels))

        def body(index, carry):
            state, total = carry
            state, loss = one_step(
                state, member, order, index, pixels, labels, epoch,
                preparing=preparing, program=program,
            )  # fmt: skip
            return state, total + loss

        state, total = jax.lax.fori_loop(0, steps, body, (state, jnp.zeros(())))
        return state, total / steps

    return jax.vmap(of_one)(states, members)


def stacked(
    states: Sequence[one_model.TrainState],
    members: Sequence[Member],
    width: int,
    pixels: Array,
    labels: Array,
    epoch: int,
    preparing: bool,
    program: Program,
    steps: int,
) -> tuple[list[one_model.TrainState], list[float]]:
    """As `on_threads`, in one program of `width` models.

    A last, smaller chunk takes the same program: its last model is repeated.
    """
    count = len(states)
    together = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *population.pad(trees, width))
        for trees in (states, members)
    ]
    after, losses = _stacked(
        *together, pixels, labels, epoch, preparing, program, steps
    )
    states = [
        jax.tree.map(lambda leaf, index=index: leaf[index], after)
        for index in range(count)
    ]
    return states, [float(loss) for loss in losses[:count]]
