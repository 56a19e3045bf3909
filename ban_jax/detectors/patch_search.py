"""The search of the smallest patch that leads to a class, which two methods share.

Adam moves mask and pattern; the weight of the mask's size rises while the patch succeeds
and falls while it does not. A round is `batches` minibatches: its success and its mask's
size are means over them, each taken before the minibatch's own update, and its mask is the
one after the last.

References:
  Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
  Networks", IEEE S&P 2019, section IV; `visualizer.py` of the code released with it.
"""

from typing import Any, NamedTuple, Protocol

import jax
import optax
from jax import numpy as jnp

from ban_jax.detectors import inversion
from ban_jax.detectors.inversion import Best, Trigger
from ban_jax.types import Array, Probe

Settings = Any
"""Of a method, with the fields of `neural_cleanse.Settings`."""


class Schedule(NamedTuple):
    """What decides the weight of the mask's size, and the end; all `[]`.

    Attributes:
      cost: the weight.
      begun: rounds of success in a row while it was 0.
      ups: rounds of success in a row.
      downs: rounds of failure in a row.
      rose, fell: whether it did.
      idle: rounds without improvement.
      smallest: best size before the last round.
      done: whether the search has ended.
    """

    cost: Array
    begun: Array
    ups: Array
    downs: Array
    rose: Array
    fell: Array
    idle: Array
    smallest: Array
    done: Array


class State(NamedTuple):
    """The search of one class.

    Attributes:
      free: the unbounded trigger.
      moments: Adam's.
      schedule: see `Schedule`.
      best: the trigger, boxed, of the best round.
      is_finite: whether all losses were.
    """

    free: Trigger
    moments: optax.OptState
    schedule: Schedule
    best: Best
    is_finite: Array


class Kept(NamedTuple):
    """What is left of the search of one class.

    Attributes:
      trigger: boxed, of the best round; where none qualified, the last one.
      is_finite: whether all losses were.
    """

    trigger: Trigger
    is_finite: Array


class Measured(NamedTuple):
    """Of one minibatch before its update, `[]` each.

    Attributes:
      total: what is minimised.
      loss: the part of it that leads to the class.
      size: L1 norm of the mask, in pixels.
      success: share of the images that are answered with the class.
    """

    total: Array
    loss: Array
    size: Array
    success: Array


class Objective(Protocol):
    """`(free, images [B,H,W,C], labels [B], target [], cost []) -> Measured`.

    Its `total` is differentiated by the unbounded trigger `free`; `cost` is the weight of
    the mask's size at the time.
    """

    def __call__(
        self, free: Trigger, images: Array, labels: Array, target: Array, cost: Array
    ) -> Measured: ...


def find(
    objective: Objective,
    probe: Probe,
    classes: Array,
    *,
    key: Array,
    config: Settings,
    learning_rate: Any = None,
    scheduled: bool = True,
) -> inversion.Searched:
    """Searches a patch for each of the classes; pure, for one model.

    Args:
      objective: of the method.
      probe: images `[T, B, H, W, C]`, labels `[T, B]` to search on.
      classes: `[J]`.
      key: typed key, consumed.
      config: see `neural_cleanse.Settings`.
      learning_rate: in place of the settings' own.
      scheduled: whether the weight of the size changes, the best is the smallest patch
        that succeeds, and a search may end early. Else the weight stays 0, the best has
        the smallest `total`, and every search takes all its rounds.

    Returns:
      A search whose states are `Kept`.
    """
    images, labels = inversion.flat(probe)
    optimizer = inversion.adam(
        config.learning_rate if learning_rate is None else learning_rate
    )

    def step(
        state: State, target: Array, index: Array, key: Array
    ) -> tuple[State, inversion.Seen]:
        drawn = inversion.batches(
            key, len(images), number=config.batches, size=config.batch_size
        )

        def descend(carry: tuple, chosen: Array) -> tuple[tuple, Measured]:
            free, moments, measured, _ = update(
                objective,
                optimizer,
                carry[0],
                carry[1],
                images[chosen],
                labels[chosen],
                target,
                state.schedule.cost,
            )
            return (free, moments), measured

        carry, measured = jax.lax.scan(descend, (state.free, state.moments), drawn)
        finish = finish_round if scheduled else finish_plainly
        return finish(state, *carry, measured, index, config)

    return inversion.search(
        lambda target, key: start(optimizer, inversion.draw(key, images.shape[1:])),
        step,
        classes,
        key=key,
        rounds=config.rounds,
        done=lambda state: state.schedule.done | ~state.is_finite,
        keep=kept,
    )


def kept(state: State) -> Kept:
    """See `Kept`."""
    last = inversion.boxed_trigger(state.free)
    best = inversion.select(state.best.round >= 0, state.best.found, last)
    return Kept(best, state.is_finite)


def update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    free: Trigger,
    moments: optax.OptState,
    images: Array,
    labels: Array,
    target: Array,
    cost: Array,
) -> tuple[Trigger, optax.OptState, Measured, Trigger]:
    """One step on one minibatch `[B, H, W, C]`, `[B]`.

    Returns:
      The unbounded trigger and moments after it, what was measured before it, and the
      gradient.
    """

    def total(free: Trigger) -> tuple[Array, Measured]:
        measured = objective(free, images, labels, target, cost)
        return measured.total, measured

    gradient, measured = jax.grad(total, has_aux=True)(free)
    updates, moments = optimizer.update(gradient, moments, free)
    return optax.apply_updates(free, updates), moments, measured, gradient


def start(optimizer: optax.GradientTransformation, free: Trigger) -> State:
    """A search before its first round, from an unbounded trigger; size has no weight."""
    zero, no = jnp.int32(0), jnp.array(False)
    never = jnp.float32(jnp.inf)
    return State(
        free=free,
        moments=optimizer.init(free),
        schedule=Schedule(jnp.float32(0), zero, zero, zero, no, no, zero, never, no),
        best=inversion.nothing(inversion.boxed_trigger(free)),
        is_finite=jnp.array(True),
    )


def finish_round(
    state: State,
    free: Trigger,
    moments: optax.OptState,
    measured: Measured,
    index: Array,
    config: Settings,
) -> tuple[State, inversion.Seen]:
    """What follows a round's minibatches: best, end and weight, in this order.

    Args:
      state: before the round.
      free, moments: after its last minibatch.
      measured: `[batches]` each.
      index: `[]` of the round.
      config: see `Settings`.
    """
    total, loss, size, success = (jnp.mean(values) for values in measured)
    best = inversion.better(
        state.best,
        size,
        inversion.boxed_trigger(free),
        index,
        succeeds(success, config),
    )
    schedule = advance(state.schedule, success, best.value, config)
    seen = {"loss": loss, "size": size, "success": success, "cost": state.schedule.cost}
    is_finite = state.is_finite & jnp.isfinite(total)
    return State(free, moments, schedule, best, is_finite), seen


def finish_plainly(
    state: State,
    free: Trigger,
    moments: optax.OptState,
    measured: Measured,
    index: Array,
    config: Settings,
) -> tuple[State, inversion.Seen]:
    """The same without a weight: the best is the one of the smallest `total`."""
    del config
    total, loss, size, success = (jnp.mean(values) for values in measured)
    best = inversion.better(state.best, total, inversion.boxed_trigger(free), index)
    seen = {"loss": loss, "size": size, "success": success, "total": total}
    is_finite = state.is_finite & jnp.isfinite(total)
    return State(free, moments, state.schedule, best, is_finite), seen


def advance(
    schedule: Schedule, success: Array, smallest: Array, config: Settings
) -> Schedule:
    """End and weight after a round.

    While the weight is 0, `patience` rounds of success set it; then the same number of
    rounds of success raise it and of failure lower it. Setting it clears what was counted,
    and the same round is counted again as one of success. A search ends only once the
    weight has gone both ways.

    Args:
      schedule: before.
      success: `[]` of the round.
      smallest: `[]` best size, this round's included; infinite as long as none qualified.
      config: see `Settings`.
    """
    won = succeeds(success, config)
    idles = smallest >= config.improvement * schedule.smallest
    found = jnp.isfinite(smallest)
    idle = jnp.where(found, jnp.where(idles, schedule.idle + 1, 0), schedule.idle)
    done = schedule.rose & schedule.fell & (idle >= config.stop_patience)

    begun = jnp.where((schedule.cost == 0) & won, schedule.begun + 1, 0)
    begins = (schedule.cost == 0) & (begun >= config.patience)
    cost = jnp.where(begins, config.cost, schedule.cost)
    ups = jnp.where(won, jnp.where(begins, 0, schedule.ups) + 1, 0)
    downs = jnp.where(won, 0, schedule.downs + 1)
    up, down = ups >= config.patience, downs >= config.patience
    cost = jnp.where(up, cost * config.cost_factor, cost)
    cost = jnp.where(down, cost / config.cost_factor**1.5, cost)
    return Schedule(
        cost=cost,
        begun=begun,
        ups=jnp.where(up, 0, ups),
        downs=jnp.where(down, 0, downs),
        rose=jnp.where(begins, False, schedule.rose) | up,
        fell=jnp.where(begins, False, schedule.fell) | down,
        idle=idle,
        smallest=jnp.minimum(smallest, schedule.smallest),
        done=done,
    )


def succeeds(success: Array, config: Settings) -> Array:
    """Whether a share is enough; a tie is, in whatever order the mean was summed."""
    return success >= config.success - 1e-6
