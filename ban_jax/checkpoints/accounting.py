"""What of a file with a classifier is neither judged nor known to be no classifier's.

A second network can lie anywhere beside the first: in a list of pairs, in one long row of
numbers, in bytes, under keys that are no text. So every tensor of a file is accounted for:
it is part of a judged network, or

  - state of an optimizer: in its place, and named or shaped as such;
  - one of the whole numbers that count, index or seed;
  - of a network from images to images, which has no classes;
  - one of a few images, masks or grids, or small beside the network: losses, metrics.

What is none of these is told.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    contents,
    errors,
    naming,
    others,
    pickle_objects,
    tensor,
    watchdog,
)

_MAX_STEPS = 4_000_000
_SHARE = 0.05
"""Of the numbers of a network: what losses, metrics and constants come to beside it."""
_FEW = 256
"""Numbers that are few beside any network."""
_SEED = 8192
"""Elements of a random state; PyTorch's has 5056 bytes."""
_SEEDS = 2**16
_INDEX = 10**7
"""Whole numbers below count and index; the bits of a float32 of usual size do not."""
_BYTES = 8192
_SLOTS = re.compile(
    r"step|exp_avg\w*|max_exp_avg_sq|exp_inf|momentum_buffer|square_avg|grad_avg|sum"
    r"|acc_delta|prev|step_size|mu_product|eta|state[12]|qmap[12]|absmax[12]"
)
"""What PyTorch's optimizers, and those of bitsandbytes, keep for each parameter."""
_WEIGHTS = re.compile(r"master|param|weight|slow|ema|model", re.IGNORECASE)
"""Slots that hold weights, whatever their shape."""
_OPTAX = re.compile(r"opt\w*|tx_state")
_OPTAX_SLOTS = re.compile(
    r"mu|nu|nu_max|trace|v|m|v_row|v_col|sum_of_squares|acc_grads|e_[gx]|count"
)


class _Entry(NamedTuple):
    """A tensor, and the way to it: `(way to its container, name)`."""

    way: Any
    value: tensor.Tensor


class _Seen(NamedTuple):
    """All of a file that could hold weights.

    Attributes:
      tensors: outside optimizers.
      slots: in the states of optimizers of PyTorch, with the slot's name.
      raw: bytes, and how many.
    """

    tensors: list[_Entry]
    slots: list[tuple[str, _Entry]]
    raw: list[tuple[Any, int]]


def key(value: Any) -> tuple[Any, ...]:
    """The same for a tensor and for its transpose."""
    axes = tuple(sorted(zip(value.shape, value.strides, strict=True)))
    return id(value.storage), value.offset, axes


def unjudged(
    root: Any, judged: Iterable[Iterable[Any]], groups: list[contents.StateDict]
) -> str:
    """What of a file is not accounted for, in a sentence; empty where all is.

    Args:
      root: of a `contents.Contents`.
      judged: the tensors of each network that is judged.
      groups: of the file.

    Raises:
      CheckpointError: for an object with more parts than any checkpoint has.
    """
    known: set[Any] = set()
    shapes: set[tuple[int, ...]] = set()
    largest = 0
    for network in judged:
        size = 0
        for value in network:
            size += value.size
            shapes.add(tuple(sorted(value.shape)))
            mask = getattr(value, "mask", None)
            known |= {key(value)} if mask is None else {key(value), key(mask)}
        largest = max(largest, size)
    for group in groups:
        if _is_of_images(group.tensors):
            known |= {key(value) for value in group.tensors.values()}
    seen = _walk(root)
    left = [one for one in seen.tensors if key(one.value) not in known]
    left = [one for one in left if not _is_optax(one, shapes)]
    weights = {shape for shape in shapes if len(shape) > 1}
    shapes |= {tuple(sorted(one.value.shape)) for one in seen.tensors}
    left += [
        one
        for name, one in seen.slots
        if key(one.value) not in known and not _is_slot(name, one.value, shapes)
    ]
    left = _without_counts(left)
    if not any(_is_as_weight(one, weights) for one in left) and _is_little(
        left, max(_FEW, int(largest * _SHARE))
    ):
        left = []
    return _told(left, [one for one in seen.raw if one[1] > _BYTES])


def _told(left: list[_Entry], raw: list[tuple[Any, int]]) -> str:
    parts = []
    if left:
        numbers = sum(one.value.size for one in left)
        first = [f"{_shown(one.way)} {one.value.shape}" for one in left[:8]]
        parts.append(
            f"{len(left):,} tensors of {numbers:,} numbers: {', '.join(first)}"
            + (", ..." if len(left) > 8 else "")
        )
    if raw:
        first = [f"{_shown(way)} ({size:,} bytes)" for way, size in raw[:8]]
        parts.append(f"bytes that may hold anything: {', '.join(first)}")
    if not parts:
        return ""
    return (
        "the file holds more than was judged, and nothing says that it is no "
        f"classifier's: {'; '.join(parts)}"
    )


def _words(way: Any) -> list[str]:
    words: list[str] = []
    while way is not None and len(words) < 64:
        way, name = way
        words.append(str(name))
    return words[::-1]


def _shown(way: Any) -> str:
    return errors.show("/".join(_words(way)) or ".", 100)


def _walk(root: Any) -> _Seen:
    """Every tensor of an object, in whatever container, each place once."""
    found = _Seen([], [], [])
    pending: list[tuple[Any, Any, str | None]] = [(None, root, None)]
    seen: set[tuple[int, str | None]] = set()
    steps = 0
    while pending:
        way, node, slot = pending.pop()
        watchdog.check()
        if isinstance(node, tensor.Tensor):
            entry = _Entry(way, node)
            if slot is None:
                found.tensors.append(entry)
            else:
                found.slots.append((slot, entry))
            continue
        if isinstance(node, bytes | memoryview):
            found.raw.append((way, len(node)))
            continue
        if (id(node), slot) in seen:
            continue
        seen.add((id(node), slot))
        is_optimizer = slot is None and _is_optimizer(node)
        for name, value in _inside(node):
            steps += 1
            if steps > _MAX_STEPS:
                raise errors.CheckpointError(
                    f"more than {_MAX_STEPS:,} objects inside objects"
                )
            if is_optimizer and name == "state":
                pending += _of_state((way, name), value)
            elif isinstance(value, _MAY_HOLD):
                pending.append(((way, name), value, slot))
    found.tensors.reverse()
    return found


def _is_optimizer(node: Any) -> bool:
    return (
        type(node) is dict
        and type(node.get("param_groups")) in (list, dict)
        and type(node.get("state")) is dict
    )


def _of_state(way: Any, state: Any) -> Iterator[tuple[Any, Any, str | None]]:
    """The slots of an optimizer's state, one below the parameters; others are as any."""
    for number, slots in state.items():
        if type(slots) is not dict:
            if isinstance(slots, _MAY_HOLD):
                yield (way, number), slots, None
            continue
        for name, value in slots.items():
            is_slot = isinstance(value, tensor.Tensor) and type(name) is str
            if isinstance(value, _MAY_HOLD):
                yield ((way, number), name), value, name if is_slot else None


def _inside(node: Any) -> Iterable[tuple[Any, Any]]:
    if type(node) is dict:
        # A key may be a container too.
        return [
            *((name, name) for name in node if not isinstance(name, str | int)),
            *node.items(),
        ]
    if type(node) in (list, tuple):
        return enumerate(node)
    if isinstance(node, pickle_objects.OddKey):
        return [("key", node.value)]
    if isinstance(node, pickle_objects.Placeholder):
        return [("state", node.state), ("items", node.items)]
    if isinstance(node, pickle_objects.EmptyArray):
        return [("array", node.value)]
    return ()


_MAY_HOLD = (
    dict,
    list,
    tuple,
    tensor.Tensor,
    bytes,
    memoryview,
    pickle_objects.Placeholder,
    pickle_objects.EmptyArray,
    pickle_objects.OddKey,
)


def _is_slot(name: str, value: tensor.Tensor, shapes: set[tuple[int, ...]]) -> bool:
    if _SLOTS.fullmatch(name):
        return True
    mirrors = value.size == 1 or tuple(sorted(value.shape)) in shapes
    return mirrors and not _WEIGHTS.search(name)


def _is_optax(one: _Entry, shapes: set[tuple[int, ...]]) -> bool:
    """Moments of optax: below a known slot of an optimizer's state, shaped as weights."""
    if one.value.size > 1 and tuple(sorted(one.value.shape)) not in shapes:
        return False
    words = [word for name in _words(one.way) for word in name.split("/")]
    for index, word in enumerate(words):
        if _OPTAX.fullmatch(word):
            below = words[index + 1 :]
            return any(map(_OPTAX_SLOTS.fullmatch, below[:6])) and not any(
                name in ("ema", "params_ema", "slow") for name in below[:6]
            )
    return False


def _without_counts(left: list[_Entry]) -> list[_Entry]:
    """Without rows of whole numbers that seed, count or index."""
    kept, seeds = [], 0
    for one in left:
        value = one.value
        if (
            value.storage.dtype not in (*others.INTEGERS, "bool")
            or len(value.shape) > 1
        ):
            kept.append(one)
        elif value.size <= _SEED and seeds + value.size <= _SEEDS:
            seeds += value.size
        elif not _is_index(value):
            kept.append(one)
    return kept


def _is_index(value: tensor.Tensor) -> bool:
    if value.storage.dtype not in ("int64", "int32"):
        return False
    numbers = value.view()
    return bool(numbers.min() >= -1 and numbers.max() < _INDEX)


def _is_little(left: list[_Entry], most: int) -> bool:
    """Whether all that is left is too little for a network, or images; no layers."""
    values = [one.value for one in left if one.value.size > 1]
    if others.may_be_layers([v for v in values if not _is_square(v.shape)]):
        return False
    if sum(one.value.size for one in left) <= most:
        return True
    return len(values) <= others.FEW and all(_is_picture(v.shape) for v in values)


def _is_as_weight(one: _Entry, weights: set[tuple[int, ...]]) -> bool:
    """Whether a tensor could take a weight's place, and does not say it is of a loss."""
    words = ".".join(_words(one.way)).replace("/", ".")
    return (
        one.value.size > _FEW
        and tuple(sorted(one.value.shape)) in weights
        and not naming.is_foreign(words)
    )


def _is_square(shape: tuple[int, ...]) -> bool:
    """As confusion matrices are, which lie beside weights of the classes."""
    return len(shape) == 2 and shape[0] == shape[1]


def _is_picture(shape: tuple[int, ...]) -> bool:
    """Images, masks, grids: one to three channels, and sides."""
    if len(shape) == 2:
        return min(shape) >= _SIDE
    sides = sorted(shape)
    return (
        len(shape) in (3, 4)
        and (1 <= shape[-3] <= 3 or 1 <= shape[-1] <= 3)
        and math.prod(sides[-2:]) >= _SIDE**2
        and sides[-2] >= _SIDE
    )


_SIDE = 16


def _is_of_images(tensors: dict[str, tensor.Tensor]) -> bool:
    """A network from images to images: no linear layer, kernels at both ends."""
    values = list(tensors.values())
    kernels = [v for v in values if len(v.shape) == 4]
    if len(kernels) < 3 or any(len(v.shape) not in (0, 1, 4) for v in values):
        return False
    first, last = kernels[0].shape, kernels[-1].shape
    return first[1] in (1, 2, 3, 4) and min(last[:2]) in (1, 2, 3) and min(last[2:]) > 1
