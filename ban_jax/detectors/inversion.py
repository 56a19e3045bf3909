"""Searches per target class: what all methods share that recover a trigger of each class.

A method says how the search of ONE class starts, what one of its rounds does, and when it
has nothing left to gain; `search` runs the classes, several side by side. A class that is
done stays as it is (`select`), and the loop ends when all of a group are: so the compiled
program has fixed shapes, and no class hangs on its neighbours. Nothing leaves the device.

Images are stamped with a mask and a pattern that live in an unbounded space; `boxed` maps
them into [0, 1], as nearly all published code does.

References:
  Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
  Networks", IEEE S&P 2019, for mask, pattern and stamp.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import optax
from jax import numpy as jnp
from jax.extend import core

from ban_jax.types import Array, Probe

State = TypeVar("State")
"""What a search of one class changes: any tree of arrays, no typed keys."""
Seen = dict[str, Array]
"""Name -> `[]` number of one round of one class; it becomes a curve of the report."""
Start = Callable[[Array, Array], State]
"""`(target [], key) -> state`: the key is the class's own."""
Step = Callable[[State, Array, Array, Array], tuple[State, Seen]]
"""`(state, target [], index [] of the round, key) -> (state, seen)`: one round of one
class. All classes are given the same key in a round, so that what they draw of the clean
images is drawn once."""

LogitsOf = Callable[[Array], Array]
"""Images `[B, H, W, C]` -> logits `[B, K]`: a model as a search of triggers sees it."""

SIDE_BY_SIDE = {"cpu": 1}
"""Classes computed side by side per backend. A CPU shares one class's convolutions out
among its cores and gains nothing by more: of two to ten at once a round of a class took
0.95 to 1.2 times the processor time of one alone (ResNet18 of width 4 at 8 pixels and of
width 8 at 16), and each of a group waits for the slowest: in pairs a sixth of Neural
Cleanse's rounds there were of classes that were done."""
EDGE = 1e-6
"""How far from 0 and 1 the inverse of the box map is taken."""
CLIP = 1e-7
"""Where Keras clips what it takes the logarithm of."""
POINTS = 33
"""Rounds of a curve that are kept for the record."""


class Searched(NamedTuple):
    """What the searches of J classes ended with.

    Attributes:
      state: leaves `[J, ...]`, what was kept of each class's last round.
      curves: name -> `[J, S]`, NaN from the round on in which a class was done.
      rounds: `[J]` rounds that each class took.
    """

    state: Any
    curves: dict[str, Array]
    rounds: Array


class Best(NamedTuple):
    """The best that a search of one class has found so far.

    Attributes:
      value: `[]`, smaller is better; infinite as long as nothing qualified.
      found: what it belongs to, a tree.
      round: `[]` the round it is from, -1 as long as nothing qualified.
    """

    value: Array
    found: Any
    round: Array


class Trigger(NamedTuple):
    """A mask `[H, W, 1]` and a pattern `[H, W, C]`: unbounded, or boxed into [0, 1]."""

    mask: Array
    pattern: Array


def search(
    start: Start,
    step: Step,
    classes: Array,
    *,
    key: Array,
    rounds: int,
    at_once: int | None = None,
    done: Callable[[Any], Array] | None = None,
    keep: Callable[[Any], Any] = lambda state: state,
) -> Searched:
    """Runs the searches of several classes; pure, for one model.

    Args:
      start, step: see `Start` and `Step`.
      classes: `[J]`.
      key: typed key, consumed; a class draws its start from it and from its own number,
        so it gets what it would get alone.
      rounds: that a search takes at most, S.
      at_once: classes computed side by side, which decides speed and memory, nothing
        else; None: one on a CPU, up to ten elsewhere.
      done: `state -> []` bool, whether a search has nothing left to gain; None: never.
      keep: `state -> tree`, what of a search's last state is needed afterwards.
    """
    count = classes.shape[0]
    at_once = at_once or SIDE_BY_SIDE.get(jax.default_backend(), 10)
    groups = -(-count // at_once)
    size = -(-count // groups)
    index = jnp.arange(groups * size)
    padded = classes[jnp.minimum(index, count - 1)].reshape(groups, size)
    is_spare = (index >= count).reshape(groups, size)
    start_key, round_key = jax.random.split(key)

    def begin(target: Array) -> Any:
        return start(target, jax.random.fold_in(start_key, target))

    def group(job: tuple[Array, Array]) -> tuple[Any, dict[str, Array], Array]:
        targets, spare = job

        def advance(state: Any, index: Array) -> tuple[Any, Seen]:
            one_key = jax.random.fold_in(round_key, index)
            return beside(
                lambda state, target: step(state, target, index, one_key), size
            )(state, targets)

        state = beside(begin, size)(targets)
        # A round takes seconds to trace: what it gives is asked of what the loop runs.
        traced, shapes = jax.make_jaxpr(advance, return_shape=True)(state, jnp.int32(0))
        advanced = core.jaxpr_as_fun(traced)

        def body(carry: tuple) -> tuple:
            index, state, frozen, curves, taken = carry
            leaves = advanced(*jax.tree.leaves((state, index)))
            moved, seen = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
            # Where 64 bits are on, a state may begin with more digits than it goes on.
            moved = jax.tree.map(lambda new, was: new.astype(was.dtype), moved, state)
            if size > 1:  # a class alone is advanced only as long as it is not done
                moved = select(frozen, state, moved)
            curves = {
                name: curve.at[index].set(jnp.where(frozen, jnp.nan, seen[name]))
                for name, curve in curves.items()
            }
            taken = taken + jnp.where(frozen, 0, 1)
            if done is not None:
                frozen = frozen | beside(done, size)(moved)
            return index + 1, moved, frozen, curves, taken

        def goes_on(carry: tuple) -> Array:
            return (carry[0] < rounds) & ~jnp.all(carry[2])

        curves = {
            name: jnp.full((rounds, size), jnp.nan, one.dtype)
            for name, one in shapes[1].items()
        }
        taken = jnp.zeros(size, jnp.int32)
        carry = (jnp.int32(0), state, spare, curves, taken)
        _, state, _, curves, taken = jax.lax.while_loop(goes_on, body, carry)
        curves = {name: curve.T for name, curve in curves.items()}
        return beside(keep, size)(state), curves, taken

    found = jax.lax.map(group, (padded, is_spare))
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:])[:count], found
    )
    return Searched(*flat)


def beside(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    """`jax.vmap(function)` over `size` classes.

    A class alone gets no axis: UNICORN would take half as long again to trace.
    """
    if size > 1:
        return jax.vmap(function)

    def alone(*trees: Any) -> Any:
        found = function(*jax.tree.map(lambda leaf: leaf[0], trees))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], found)

    return alone


def select(condition: Array, first: State, second: State) -> State:
    """`first` where the condition `[J]` (or `[]`) holds, else `second`, leaf by leaf."""

    def one(a: Array, b: Array) -> Array:
        shape = condition.shape + (1,) * (jnp.ndim(a) - condition.ndim)
        return jnp.where(condition.reshape(shape), a, b)

    return jax.tree.map(one, first, second)


def nothing(found: Any) -> Best:
    """Before anything qualified; `found` only says what it will look like."""
    return Best(jnp.float32(jnp.inf), found, jnp.int32(-1))


def better(
    best: Best, value: Array, found: Any, index: Array, qualifies: Array | bool = True
) -> Best:
    """The better of the best and what round `index` found.

    Only what `qualifies` and has a finite, smaller value takes its place.
    """
    wins = (value < best.value) & jnp.isfinite(value) & qualifies
    new = Best(value.astype(best.value.dtype), found, index.astype(best.round.dtype))
    return select(wins, new, best)


def boxed(free: Array) -> Array:
    """An unbounded array's values in [0, 1]: `tanh(z) / 2 + 0.5`.

    Published code divides by `2 + 1e-7` or `2 - 1e-7`; in float32 that is the same.
    """
    return jnp.tanh(free) / 2 + 0.5


def unboxed(values: Array) -> Array:
    """The inverse of `boxed`; values are kept `EDGE` off 0 and 1, where it is infinite."""
    return jnp.arctanh(2 * jnp.clip(values, EDGE, 1 - EDGE) - 1)


def boxed_trigger(free: Trigger) -> Trigger:
    """Mask and pattern in [0, 1]."""
    return Trigger(boxed(free.mask), boxed(free.pattern))


def draw(key: Array, shape: tuple[int, ...]) -> Trigger:
    """An unbounded trigger for images `(H, W, C)`, whose boxed values are from U(0, 1)."""
    mask_key, pattern_key = jax.random.split(key)
    mask = jax.random.uniform(mask_key, (*shape[:2], 1))
    return Trigger(unboxed(mask), unboxed(jax.random.uniform(pattern_key, shape)))


def stamp(images: Array, trigger: Trigger) -> Array:
    """Images `[B, H, W, C]` with a boxed trigger: `(1 - m) x + m p`."""
    mask, pattern = trigger.mask[None], trigger.pattern[None]
    return (1 - mask) * images + mask * pattern


def adam(learning_rate: Any) -> optax.GradientTransformation:
    """Adam as inversions use it: decay rates .5 and .9."""
    return optax.adam(learning_rate, b1=0.5, b2=0.9)


def flat(probe: Probe) -> tuple[Array, Array]:
    """The probe's images `[N, H, W, C]` and labels `[N]`."""
    images = probe.images.reshape(-1, *probe.images.shape[2:])
    return images, probe.labels.reshape(-1)


def batches(key: Array, count: int, *, number: int, size: int) -> Array:
    """Which of `count` images the next batches hold: `[number, size]`.

    Whole passes in a new order each, as a shuffled loader gives them: no image comes
    again before all the others were there.

    Args:
      key: typed key, consumed.
      count: images there are.
      number: of batches.
      size: images of a batch; more than there are come several times.
    """
    passes = -(-number * size // count)
    orders = jax.lax.map(
        lambda one: jax.random.permutation(one, count), jax.random.split(key, passes)
    )
    return orders.reshape(-1)[: number * size].reshape(number, size)


def towards(logits: Array, target: Array, *, exchanged: bool = False) -> Array:
    """The loss `[]` that leads images of logits `[B, K]` to a class: the cross-entropy.

    Args:
      logits: of the images.
      target: `[]` the class, or `[B]` one of each image.
      exchanged: with the arguments exchanged, as code released with Keras calls it: then
        it is linear in the probability p of the class, `16.118 (1 - p) + 1e-7 p`.
    """
    classes = jnp.broadcast_to(target, logits.shape[:1])[:, None]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), classes, axis=-1)
    if exchanged:
        p = jnp.exp(log_p)
        return jnp.mean(-(1 - p) * math.log(CLIP) - p * math.log1p(-CLIP))
    return -jnp.mean(log_p)


def told(found: Searched, points: int = POINTS) -> dict[str, Any]:
    """The curves of a search as the record keeps them (`Evidence.info`).

    Returns:
      `rounds`: `[J]` that each class took; `round`: `[P]` rounds, evenly spread over the
      longest search; `curves`: name -> `[P, J]` there, NaN where a class was done.
    """
    last = jnp.maximum(jnp.max(found.rounds) - 1, 0)
    total = next(iter(found.curves.values())).shape[1]
    number = min(points, total)
    share = jnp.arange(number) / max(number - 1, 1)
    kept = jnp.round(share * last).astype(jnp.int32)
    curves = {name: curve[:, kept].T for name, curve in found.curves.items()}
    return {"rounds": found.rounds, "round": kept, "curves": curves}
