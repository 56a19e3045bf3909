"""What a file without a classifier holds, where that can be told for certain.

Programs leave much beside their models: optimizers, schedulers, random states, arguments,
triggers, indices. To call a file one of these is to say that no backdoor can be in it, so
each rule here excludes what could be weights, and the parts that were looked at must
account for the file's bytes. What no rule knows is nothing of this kind.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    errors,
    optimizer_slots,
    pickle_objects,
    plain_values,
    tensor,
    unreached,
)

_MAX_NODES = 200_000
_MAX_HOLDERS = 1000
_SMALLEST_IMAGE = 24
_FLAT = 4096
"""Numbers in a row from which on they could be all weights of a network."""
_SHORT = 8
"""Rows that are no picture yet, and no table of classes."""
_COUNTERS = "indices, counters or random states"
_INDICES = ("int64", "bool")
_MANY_INTEGERS = 2**21
"""Bytes that integers in rows come to at most where they are not 64-bit indices."""
_PICTURE = 3
"""Channels of a picture."""
FEW = 4
"""Tensors that triggers and their masks come to."""
_UNACCOUNTED = 2**16
"""Bytes of a file that its format may add, and a quarter of it."""
_TRIGGER = ".trigger"
"""Of `attacks.files`, which lie beside the models of a zoo; nothing else reads them."""
_TRIGGERS_NAME = re.compile(
    r"fixed\.(hidden|jitter|levels|offset|places|scale|strength)"
    r"|fixed\.mask_optimizer\.\d\.count"
    r"|(learned|fixed\.(statistics|mask\.\w+|mask_optimizer\.\d\.[mn]u))"
    r"\.convblock_(middle|(down|up)_\d)\.(batch_norm|conv2d)\.\w+"
)
"""Names of a trigger's numbers, and of the generators of triggers that learn."""
_LAYERS_NAME = re.compile(r"(^|[._])(weights?|kernel|lora_[ab])([._]|$)", re.IGNORECASE)
"""What programs call the numbers of a layer."""
_LAYERS_KIND = "torch.nn.modules."
_LABEL = 200
"""Numbers up to which bytes in rows are taken for labels."""
_LONG = 8192
"""Integers in a row from which on they are looked at; PyTorch's random state has 5056."""
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")


class _Parts(NamedTuple):
    """Everything in a file.

    Attributes:
      tensors: in the order met.
      weight: bytes of the file that what was met accounts for, about.
      kinds: names of the classes of objects.
      pieces: bytes and texts that may hold weights.
      floats: numbers that are no tensors'.
    """

    tensors: list[tensor.Tensor]
    weight: int
    kinds: list[str]
    pieces: list[plain_values.Piece]
    floats: int = 0


def what(root: Any, size: int, path: str = "") -> str | None:
    """A few words for what is no classifier, or None.

    Args:
      root: of a `contents.Contents` in which no classifier was found.
      size: bytes of the file.
      path: of the file.
    """
    if path.endswith(_TRIGGER) and type(root) is dict and _is_trigger(root):
        return "the trigger of an attack, written by ban-jax train"
    parts = _parts(root)
    if parts is None or size - parts.weight > _UNACCOUNTED + size // 4:
        return None
    if unreached.count(parts.tensors) > _UNACCOUNTED:
        return None
    if _may_be_weights(parts) or _are_called_layers(root, parts):
        return None
    if _without_optimizers(root):
        return "the state of an optimizer"
    if not parts.tensors:
        return _without_tensors(root, parts.kinds)
    if all(
        t.storage.dtype in (*INTEGERS, "bool") and len(t.shape) < 2
        for t in parts.tensors
    ):
        return None if _may_be_bits(parts.tensors) else _COUNTERS
    if len(parts.tensors) == 1:
        only = parts.tensors[0]
        # One long axis, whatever short ones stand beside it.
        is_flat = only.size > _FLAT and only.size < _SHORT * max(only.shape)
        return None if is_flat else f"a single tensor {only.shape}"
    if len(parts.tensors) <= FEW and not may_be_layers(parts.tensors):
        return f"{len(parts.tensors)} tensors that are no layers"
    return None


def unopened(root: Any) -> str:
    """What besides named tensors may hold weights, in a sentence; empty where none does."""
    parts = _parts(root)
    told = []
    slots = optimizer_slots.left(_optimizers(root)[0], optimizer_slots.UNKNOWN)
    for name in dict.fromkeys(one.name for one in slots):
        told.append(f"{errors.show(name)} of an optimizer")
    if parts is not None and plain_values.are_many(parts.pieces):
        told.append(plain_values.told(parts.pieces))
    if parts is not None and parts.floats > plain_values.FLOATS:
        told.append(f"{parts.floats:,} numbers in lists")
    return f"what may be weights was not judged: {'; '.join(told)}" if told else ""


def _may_be_weights(parts: _Parts) -> bool:
    return plain_values.are_many(parts.pieces) or parts.floats > plain_values.FLOATS


def _may_be_bits(tensors: list[tensor.Tensor]) -> bool:
    """Whether integers may be bytes: of a file, or in rows as long as weights."""
    if any(plain_values.begins_a_file(_start(value)) for value in tensors):
        return True
    others = [t for t in tensors if t.storage.dtype not in _INDICES]
    sizes = [t.size * t.storage.itemsize for t in others]
    return sum(sizes) > _MANY_INTEGERS or not all(map(_may_be_labels, tensors))


def _may_be_labels(row: tensor.Tensor) -> bool:
    """Whether integers in a row count, seed or index, and are no quantised weights."""
    if row.size <= _LONG or row.storage.dtype == "bool":
        return True
    numbers = row.view()
    most = _LABEL if row.storage.itemsize == 1 else plain_values.INDEX
    return bool(numbers.min() >= -1 and numbers.max() < most)


def _start(value: tensor.Tensor) -> bytes:
    first = min(value.size, plain_values.MAGIC)
    strides = value.strides[:1] or (1,)
    start = tensor.Tensor(value.storage, (first,), strides, value.offset)
    return start.view().tobytes()


def _are_called_layers(root: Any, parts: _Parts) -> bool:
    """Whether tensors with several axes are those of a module, or called a layer's."""
    if any(kind.startswith(_LAYERS_KIND) for kind in parts.kinds) and any(
        len(one.shape) > 1 for one in parts.tensors
    ):
        return True
    return type(root) is dict and any(
        isinstance(name, str)
        and isinstance(value, tensor.Tensor)
        and len(value.shape) > 1
        and bool(_LAYERS_NAME.search(name))
        for name, value in root.items()
    )


def _without_tensors(root: Any, kinds: list[str]) -> str | None:
    if isinstance(root, pickle_objects.Placeholder):
        if root.kind == "argparse.Namespace":
            return "arguments"
        return f"an object without tensors, of {root.kind}"
    if isinstance(root, Mapping) and "last_epoch" in root:
        return "the state of a scheduler"
    return "plain values, no tensors" if not kinds else "values without tensors"


def _without_optimizers(root: Any) -> bool:
    """Whether there are states of optimizers, and no tensors besides them."""
    slots, beside = _optimizers(root)
    rest = _parts(beside)
    return (
        beside is not root
        and rest is not None
        and not rest.tensors
        and not optimizer_slots.left(slots, optimizer_slots.UNKNOWN)
    )


def _optimizers(root: Any) -> tuple[list[optimizer_slots.Slot], Any]:
    """What optimizers keep, and all else; that is the root where there is no optimizer."""
    beside: list[Any] = []
    slots: list[optimizer_slots.Slot] = []
    found = False
    pending = [root]
    for node in pending:
        if _is_optimizer(node):
            found = True
            beside += [v for k, v in node.items() if k != "state"]
            for _, name, value in optimizer_slots.of_torch(node["state"]):
                if name:
                    slots.append(optimizer_slots.Slot(id(node), name, value, None))
                else:
                    beside.append(value)
        elif type(node) in (dict, list, tuple) and len(pending) < _MAX_HOLDERS:
            pending += node.values() if type(node) is dict else node
        else:
            beside.append(node)
    return slots, beside if found else root


def _is_optimizer(node: Any) -> bool:
    """`state` by number, as PyTorch keeps it; by name, as FSDP does, of known slots alone.

    What else is kept by name could be weights.
    """
    return optimizer_slots.is_optimizer(node) and all(
        type(value) is dict
        and (
            type(name) is int
            or (isinstance(name, pickle_objects.OddKey) and name.is_number)
            or all(type(n) is str and optimizer_slots.is_known(n) for n in value)
        )
        for name, value in node["state"].items()
    )


def _is_trigger(root: Mapping[str, Any]) -> bool:
    """The two halves of `attacks.types.AttackState`."""
    return bool(root) and all(
        isinstance(name, str)
        and bool(_TRIGGERS_NAME.fullmatch(name))
        and isinstance(value, tensor.Tensor)
        and (len(value.shape) < 4 or value.shape[:2] == (3, 3))
        for name, value in root.items()
    )


def may_be_layers(tensors: list[tensor.Tensor]) -> bool:
    """Whether among tensors may be weights.

    That is a vector that may be the bias or scale of another tensor's outputs, more than
    two kernels, two of which one takes what the other gives, or two factors of what is
    added to a layer (LoRA).
    """
    others = [t for t in tensors if not _is_images(t.shape)]
    lengths = {t.shape[0] for t in others if len(t.shape) == 1}
    ends = {
        end for t in others if len(t.shape) > 1 for end in (t.shape[0], t.shape[-1])
    }
    kernels = [t.shape for t in others if _may_be_kernel(t.shape)]
    return (
        bool(lengths & ends)
        or len(kernels) > 2
        or _are_factors(kernels)
        or any(_follows(*pair) for pair in itertools.permutations(kernels, 2))
    )


def _may_be_kernel(shape: tuple[int, ...]) -> bool:
    """Of a linear layer, or of a convolution of one to three axes; no picture is one."""
    if len(shape) == 3:
        return _PICTURE < min(shape[0], shape[-1])
    return len(shape) in (2, 4, 5)


def _follows(first: tuple[int, ...], then: tuple[int, ...]) -> bool:
    """Whether a second kernel takes the outputs of a first, flat or channel by channel.

    As PyTorch keeps them, outputs first, or as Flax does, outputs last. What would take or
    give up to three numbers may as well be curves of as many epochs.
    """
    is_flattened = len(first) > 2 and len(then) == 2
    for given, taken, inputs, outputs in (
        (first[0], then[1], first[1], then[0]),
        (first[-1], then[0], first[0], then[-1]),
    ):
        fits = taken % given == 0 if is_flattened and given > 0 else taken == given
        if fits and outputs > _PICTURE and (len(first) > 2 or inputs > _PICTURE):
            return True
    return False


def _are_factors(shapes: list[tuple[int, ...]]) -> bool:
    """Whether a product of two kernels is larger than either in both directions."""
    return any(
        1 < inner[0] == outer[1] < min(inner[1], outer[0])
        for inner, outer in itertools.permutations(shapes, 2)
    )


def _is_images(shape: tuple[int, ...]) -> bool:
    """`[N, H, W, C]` or `[N, C, H, W]` of one or three channels; no kernel is so large."""
    if len(shape) != 4:
        return False
    first, last = shape[1], shape[3]
    return (last in (1, 3) and min(shape[1:3]) >= _SMALLEST_IMAGE) or (
        first in (1, 3) and min(shape[2:]) >= _SMALLEST_IMAGE
    )


def _parts(root: Any) -> _Parts | None:
    """All that an object holds, each part once; None where that is too much."""
    found = _Parts([], 0, [], [])
    weight = floats = 0
    pending, seen, storages = [root], set(), set()
    while pending:
        node = pending.pop()
        weight += 16
        if isinstance(node, str | bytes | memoryview):
            weight += len(node)
            if piece := plain_values.piece(None, node):
                found.pieces.append(piece)
        elif plain_values.is_number(node):
            floats += 1
        elif isinstance(node, tensor.Tensor):
            found.tensors.append(node)
            weight += 512
            storage = node.storage
            if id(storage) not in storages:
                storages.add(id(storage))
                weight += storage.count * storage.itemsize
        elif id(node) not in seen:
            inside = list(_inside(node))
            if inside or isinstance(node, pickle_objects.Placeholder):
                seen.add(id(node))
            if isinstance(node, pickle_objects.Placeholder):
                found.kinds.append(node.kind)
            pending += inside
        if len(seen) + len(pending) > _MAX_NODES:
            return None
    return found._replace(weight=weight, floats=floats)


def _inside(node: Any) -> Iterator[Any]:
    if type(node) is dict:
        yield from node.keys()
        yield from node.values()
    elif type(node) in (list, tuple):
        yield from node
    elif isinstance(node, pickle_objects.Placeholder):
        yield node.state
        yield node.items
    elif hasattr(node, "value"):
        yield node.value
