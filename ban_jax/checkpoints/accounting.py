"""What of a file with a classifier is neither judged nor known to be no classifier's.

A second network can lie anywhere beside the first: in a list of pairs, in one long row of
numbers, in bytes, under keys that are no text. So every tensor of a file is accounted for:
it is part of a judged network, or

  - state of an optimizer: in its place, and named or shaped as such;
  - one of the whole numbers that count, index or seed;
  - of a network from images to images, which has no classes (`image_networks`);
  - one of a few images, masks or grids, or small beside the network: losses, metrics.

What is none of these is told.
"""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    contents,
    errors,
    naming,
    optimizer_slots,
    others,
    pickle_objects,
    plain_values,
    tensor,
    unreached,
    watchdog,
)

_MAX_STEPS = 4_000_000
_SHARE = 0.05
"""Of the numbers of a network: what losses, metrics and constants come to beside it."""
_FEW = 256
"""Numbers that are few beside any network."""
_CHANNELS = 3
"""Statistics of pixels have no more."""
_SEED = 8192
"""Elements of a random state; PyTorch's has 5056 bytes."""
_SEEDS = 2**16
"""Bytes of all of them, of a dozen devices."""
_BYTES = 8192
_NUMBER = 4
"""Bytes of a float32."""
_SIDE = 16
_STATISTIC = re.compile(r"running_(mean|var)$|(^|/)batch_stats/")
"""Names of what no optimizer keeps anything for."""


class _Entry(NamedTuple):
    """A tensor, and the way to it: `(way to its container, name)`."""

    way: Any
    value: tensor.Tensor


class _Seen(NamedTuple):
    """All of a file that could hold weights.

    Attributes:
      tensors: outside optimizers.
      slots: in the states of optimizers of PyTorch.
      raw: bytes and texts that may be anything.
      floats: numbers that are no tensors'.
    """

    tensors: list[_Entry]
    slots: list[optimizer_slots.Slot]
    raw: list[plain_values.Piece]
    floats: int


def key(value: Any) -> tuple[Any, ...]:
    """The same for a tensor and for its transpose."""
    axes = tuple(sorted(zip(value.shape, value.strides, strict=True)))
    return id(value.storage), value.offset, axes


def unjudged(
    root: Any,
    judged: Iterable[Mapping[str, Any]],
    passed: Iterable[contents.StateDict] = (),
) -> str:
    """What of a file is not accounted for, in a sentence; empty where all is.

    Args:
      root: of a `contents.Contents`.
      judged: of each network that is judged, its tensors by common name.
      passed: networks that have no classes, see `image_networks`.

    Raises:
      CheckpointError: for an object with more parts than any checkpoint has.
    """
    judged = list(judged)
    known: set[Any] = set()
    weights: set[tuple[int, ...]] = set()
    channels: collections.Counter[int] = collections.Counter()
    for network in judged:
        for value in network.values():
            if len(value.shape) > 1:
                weights.add(tuple(sorted(value.shape)))
            else:
                channels[value.size] += 1
            known |= {key(part) for part in getattr(value, "parts", [value])}
    largest = max((sum(v.size for v in one.values()) for one in judged), default=0)
    for group in passed:
        known |= {key(value) for value in group.tensors.values()}
    seen = _walk(root)
    optax, tensors = _optax(seen.tensors)
    left = [one for one in tensors if key(one.value) not in known]
    left += _of_optimizers([*seen.slots, *optax], tensors, judged, known)
    left = _without_counts(left)
    most = max(_FEW, int(largest * _SHARE))
    replaces = _are_as_statistics(left, channels) or any(
        _is_as_weight(one, weights) for one in left
    )
    if not replaces and _is_little(left, most):
        left = []
    raw = [one for one in seen.raw if one.size > _BYTES]
    if plain_values.are_many(seen.raw):
        raw = seen.raw
    floats = seen.floats if seen.floats > max(plain_values.FLOATS, most) else 0
    every = [one.value for one in seen.tensors] + [one.value for one in seen.slots]
    slices = unreached.count(every)
    return _told(left, raw, floats, slices if slices > _NUMBER * most else 0)


def _optax(
    entries: list[_Entry],
) -> tuple[list[optimizer_slots.Slot], list[_Entry]]:
    """The slots of optax among the tensors of a file, and the others."""
    slots, others_ = [], []
    for one in entries:
        found = optimizer_slots.of_optax(_words(one.way))
        if found is None:
            others_.append(one)
        else:
            slots.append(optimizer_slots.Slot(*found, one.value, one))
    return slots, others_


def _of_optimizers(
    slots: list[optimizer_slots.Slot],
    tensors: list[_Entry],
    judged: list[Mapping[str, Any]],
    known: set[Any],
) -> list[_Entry]:
    """What lies in an optimizer's place and is no optimizer's.

    Args:
      slots: in such places.
      tensors: in others.
      judged: see `unjudged`.
      known: keys of what is judged.
    """
    slots = [one for one in slots if key(one.value) not in known]
    if not slots:
        return []
    parameters = {
        key(one.value): tuple(sorted(one.value.shape))
        for one in tensors
        if not _STATISTIC.search("/".join(_words(one.way)))
    }
    about = optimizer_slots.Parameters(
        collections.Counter(parameters.values()), optimizer_slots.scale_of(judged)
    )
    return [one.origin for one in optimizer_slots.left(slots, about)]


def _told(
    left: list[_Entry], raw: list[plain_values.Piece], floats: int, slices: int
) -> str:
    parts = []
    if left:
        numbers = sum(one.value.size for one in left)
        first = [f"{_shown(one.way)} {one.value.shape}" for one in left[:8]]
        parts.append(
            f"{len(left):,} tensors of {numbers:,} numbers: {', '.join(first)}"
            + (", ..." if len(left) > 8 else "")
        )
    if raw:
        raw = sorted(raw, key=lambda one: -one.size)
        first = [
            f"{_shown(one.origin)} ({plain_values.told([one])})" for one in raw[:8]
        ]
        more = f" and {len(raw) - 8:,} more" if len(raw) > 8 else ""
        parts.append(f"what may hold anything: {', '.join(first)}{more}")
    if floats:
        parts.append(f"{floats:,} numbers in lists")
    if slices:
        parts.append(
            f"{slices:,} bytes of storages that no tensor reaches, as torch.save writes "
            "them with a slice (its .clone() would be written alone)"
        )
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
    found = _Seen([], [], [], 0)
    floats = 0
    pending: list[tuple[Any, Any]] = [(None, root)]
    seen: set[int] = set()
    steps = 0
    while pending:
        way, node = pending.pop()
        watchdog.check()
        if isinstance(node, tensor.Tensor):
            found.tensors.append(_Entry(way, node))
            continue
        if isinstance(node, bytes | memoryview | str):
            if piece := plain_values.piece(way, node, strict=True):
                found.raw.append(piece)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        is_optimizer = optimizer_slots.is_optimizer(node)
        for name, value in _inside(node):
            steps += 1
            if steps > _MAX_STEPS:
                raise errors.CheckpointError(
                    f"more than {_MAX_STEPS:,} objects inside objects"
                )
            if is_optimizer and name == "state":
                pending += _of_state((way, name), value, found.slots)
            elif plain_values.is_number(value):
                floats += 1
            elif isinstance(value, _MAY_HOLD) or _is_long(value):
                pending.append(((way, name), value))
    found.tensors.reverse()
    return found._replace(floats=floats)


def _is_long(value: Any) -> bool:
    """Whether a value is a text that is no name or number."""
    return type(value) is str and len(value) >= plain_values.SHORT


def _of_state(
    way: Any, state: dict[Any, Any], slots: list[optimizer_slots.Slot]
) -> Iterator[tuple[Any, Any]]:
    """Adds the slots of an optimizer's state to `slots`; yields what else is in it."""
    for keys, name, value in optimizer_slots.of_torch(state):
        there = way
        for one in keys:
            there = (there, one)
        if name:
            entry = _Entry(there, value)
            slots.append(optimizer_slots.Slot(id(state), name, value, entry))
        elif isinstance(value, _MAY_HOLD) or _is_long(value):
            yield there, value


def _inside(node: Any) -> Iterable[tuple[Any, Any]]:
    if type(node) is dict:
        # A key may be a container too.
        return [
            *(
                (name, name)
                for name in node
                if not isinstance(name, str | int) or _is_long(name)
            ),
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
        elif value.size <= _SEED and seeds + _bytes_of(value) <= _SEEDS:
            seeds += _bytes_of(value)
        elif not _is_index(value):
            kept.append(one)
    return kept


def _bytes_of(value: tensor.Tensor) -> int:
    return value.size * value.storage.itemsize


def _is_index(value: tensor.Tensor) -> bool:
    if value.storage.dtype not in ("int64", "int32"):
        return False
    numbers = value.view()
    return bool(numbers.min() >= -1 and numbers.max() < plain_values.INDEX)


def _is_little(left: list[_Entry], most: int) -> bool:
    """Whether all that is left is too little for a network, or images; no layers."""
    values = [one.value for one in left if one.value.size > 1]
    if others.may_be_layers([v for v in values if not _is_square(v.shape)]):
        return False
    if sum(one.value.size for one in left) <= most:
        return True
    return len(values) <= others.FEW and all(_is_picture(v.shape) for v in values)


def _is_as_weight(one: _Entry, weights: set[tuple[int, ...]]) -> bool:
    """Whether a tensor could take a weight's place, and does not say it is of a loss.

    With other statistics of its layers a network is another one, however few they are.
    """
    words = "/".join(_words(one.way))
    is_weight = one.value.size > _FEW and tuple(sorted(one.value.shape)) in weights
    is_statistic = one.value.size > _CHANNELS and bool(_STATISTIC.search(words))
    return (is_weight or is_statistic) and not naming.is_foreign(
        words.replace("/", ".")
    )


def _are_as_statistics(left: list[_Entry], channels: Mapping[int, int]) -> bool:
    """Whether rows could take the place of a normalisation's, whatever they are called.

    A normalisation layer has four rows of its channels; a mean and a variance are two.

    Args:
      left: what is not accounted for.
      channels: length -> how many rows of it the networks have that are judged.
    """
    rows = [
        one.value
        for one in left
        if len(one.value.shape) == 1
        and one.value.size > _CHANNELS
        and channels.get(one.value.size, 0) >= 4
        and one.value.storage.dtype not in (*others.INTEGERS, "bool")
        and not naming.is_foreign(".".join(_words(one.way)))
    ]
    return len(rows) > 1


def _is_square(shape: tuple[int, ...]) -> bool:
    """As confusion matrices are, which lie beside weights of the classes."""
    return len(shape) == 2 and shape[0] == shape[1]


def _is_picture(shape: tuple[int, ...]) -> bool:
    """Images, masks, grids: `[H, W]`, and one to three channels before or behind these."""
    if len(shape) == 2:
        return min(shape) >= _SIDE
    if len(shape) not in (3, 4):
        return False
    before = 1 <= shape[-3] <= 3 and min(shape[-2:]) >= _SIDE
    return before or (1 <= shape[-1] <= 3 and min(shape[-3:-1]) >= _SIDE)
