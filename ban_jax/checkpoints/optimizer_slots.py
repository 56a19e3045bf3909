"""What an optimizer keeps for each parameter, told from weights under the same names.

A name proves nothing: a second network can lie in a file as `exp_avg`, or in `opt_state`.
What is taken for an optimizer's must be shaped as one keeps it, no more of a shape than
there are parameters of it, and must not have a network's scales. Of the rest nothing is
assumed.

Averages of gradients differ from weights in the scales of normalisation layers. Those of
a network are about as large as those of any other, and of one sign. Measured over 160
steps of ResNet18 on digits (SGD with momentum at rates of 0.1 and 0.01 and weight decay,
Adam; width 8): of the vectors that an optimizer keeps, the larger half has a root mean
square of 0.003 to 0.103 and is -0.19 to 0.20 of one sign (sum over sum of magnitudes),
while scales are about 1. RMSprop's momentum alone is of normalised gradients and larger
than weights (12 steps of a trained ResNet18 of width 16: 2.7 to 8.9), but 7 of its 41
vectors are of one sign where a network's are every second. Kernels and biases tell
nothing: averages of their gradients can be larger than they are.
"""

import collections
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ban_jax.checkpoints import tensor

_SLOTS = re.compile(
    r"step|exp_avg(_sq|_slow|_diff|_var|_inf)?|max_exp_avg_sq|exp_inf|momentum_buffer"
    r"|square_avg|grad_avg|sum|acc_delta|prev|step_size|mu_product|eta|state[12]"
)
"""What PyTorch's optimizers, and those of bitsandbytes, keep for each parameter."""
_FACTORS = re.compile(r"(exp_avg_)?(sq_|v_)?(row|col)(_var)?")
"""Of these some are vectors: an axis of the parameter, or all axes but one."""
_QUANTISED = re.compile(r"qmap[12]|absmax[12]")
"""What the numbers of a quantised slot mean."""
_SQUARES = re.compile(
    r"(max_)?exp_avg_(sq|var)|exp_inf|square_avg|sum|acc_delta|step_size|nu|nu_max"
    r"|v|sum_of_squares|e_[gx]|exp_avg_sq_(row|col)|v_(row|col)"
)
"""Of these no number is negative."""
_SUMS = re.compile(r"sum|step_size|sum_of_squares")
"""These can be of any size."""
_WEIGHTS = re.compile(
    r".*(master|param|weight|slow|ema|model).*|z|ax|old_p|p0", re.IGNORECASE
)
"""Slots that hold weights, whatever their shape: `z` of schedule-free optimizers, `ax` of
ASGD, `old_p` of SAM, `p0` of Prodigy."""
_OPTAX = re.compile(r"opt\w*|tx_state")
_OPTAX_SLOTS = re.compile(
    r"mu|nu|nu_max|trace|v|m|v_row|v_col|sum_of_squares|acc_grads|e_[gx]|count"
)
_OPTAX_WEIGHTS = ("ema", "params_ema", "slow")
_LOOKED_AT = 4096
"""Numbers of a tensor that tell whether any is negative."""
_NORMALISED, _NORMALISED_BY = "momentum_buffer", "square_avg"
"""What RMSprop keeps: the first is of any size where the second is beside it."""
_AS_LARGE = 0.4
"""Share of the size of the file's scales from which on vectors are none of gradients,"""
_LARGE = 0.7
"""where those are at least this large: gradients of scales grow as scales shrink."""
_AS_SMALL = 0.05
"""The same for vectors of one sign: at the end of training averages are of one sign, too,
but of the size of weight decay, 0.04 of the scales at most."""
_ONE_SIGN = 0.7
_OF_SCALES = 0.25
"""Share of such vectors: every second one of a network's is a layer's scales."""
_FEW = 2
"""Tensors of which an optimizer may keep what the file has no more: a last layer."""
_LONG = 4096
"""Numbers in a row from which on they could be all weights of a network."""
_BLOCK = 64
"""Numbers of a tensor for each scale of its quantised numbers, at least,"""
_FEW_MEANINGS = 256
"""and what each of them can mean."""


class Slot(NamedTuple):
    """A tensor in an optimizer's place.

    Attributes:
      optimizer: whatever tells it from others.
      name: such as `exp_avg`.
      value: the tensor.
      origin: whatever the caller knows it by.
    """

    optimizer: Hashable
    name: str
    value: tensor.Tensor
    origin: Any


class Parameters(NamedTuple):
    """What a file holds besides optimizers.

    Attributes:
      shapes: sorted shape -> how many parameters have it; None where nothing is known.
      scale: root mean square of the scales of its normalisation layers.
    """

    shapes: Mapping[tuple[int, ...], int] | None
    scale: float


UNKNOWN = Parameters(None, 1.0)
"""Of a file that holds an optimizer alone."""


def is_optimizer(node: Any) -> bool:
    """Whether a dict is laid out as PyTorch's optimizers save themselves."""
    return (
        type(node) is dict
        and type(node.get("param_groups")) in (list, dict)
        and type(node.get("state")) is dict
    )


def of_torch(state: Mapping[Any, Any]) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    """`(keys, name, value)` of a state: `name` is a slot's, or empty for what is none.

    Slots lie one below the parameters, or in lists there, as what is kept for each axis;
    anything else there is no slot.
    """
    lists: set[int] = set()
    for number, slots in state.items():
        if not isinstance(number, str | int):
            yield (number,), "", number  # a key may be a container
        if type(slots) is not dict:
            yield (number,), "", slots
            continue
        for name, value in slots.items():
            if not isinstance(name, str | int):
                yield (number, name), "", name
            is_slot = isinstance(value, tensor.Tensor) and type(name) is str
            if type(name) is not str or not _is_list(value):
                yield (number, name), name if is_slot else "", value
            elif id(value) not in lists:
                lists.add(id(value))
                for place, one in enumerate(value):
                    if one:
                        yield (number, name, place), name, one


def _is_list(value: Any) -> bool:
    """Whether a value is a list of tensors, some of them left empty."""
    return type(value) in (list, tuple) and all(
        isinstance(one, tensor.Tensor) or one is None or one == [] for one in value
    )


def weights_of(state: Mapping[Any, Any]) -> dict[str, list[tensor.Tensor]]:
    """Slots that may be copies of weights by their names, in the order of parameters.

    `old_p` of SAM, `slow_buffer` of Lookahead, `ax` of ASGD: a program loads them by the
    numbers of the parameters.
    """
    numbers = sorted(number for number in state if type(number) is int)
    found: dict[str, list[tensor.Tensor]] = {}
    for keys, name, value in of_torch({number: state[number] for number in numbers}):
        if name and len(keys) == 2 and value.size > 1 and not is_known(name):
            found.setdefault(name, []).append(value)
    return found


def is_known(name: str) -> bool:
    """Whether a known optimizer keeps something else than weights under a name."""
    return any(one.fullmatch(name) for one in (_SLOTS, _OPTAX_SLOTS, _QUANTISED))


def of_optax(words: list[str]) -> tuple[tuple[str, ...], str] | None:
    """Optimizer and name of what lies on such a way in optax's state, else None."""
    words = [word for name in words for word in name.split("/")]
    for index, word in enumerate(words):
        if _OPTAX.fullmatch(word):
            below = words[index + 1 :][:6]
            if not set(below).isdisjoint(_OPTAX_WEIGHTS):
                return None
            for depth, name in enumerate(below):
                if _OPTAX_SLOTS.fullmatch(name):
                    return tuple(words[: index + 2 + depth]), name
            return None
    return None


def scale_of(networks: Iterable[Mapping[str, Any]]) -> float:
    """The size of the scales of networks, the least of them; 1 where there are none.

    Args:
      networks: common name -> tensor.
    """
    sizes = []
    for named in networks:
        scales = [
            _size(value)
            for name, value in named.items()
            if name.endswith(".weight") and isinstance(value, tensor.Tensor)
            if len(value.shape) == 1 and value.storage.dtype in tensor.FLOATS
        ]
        if scales:
            sizes.append(float(np.median(scales)))
    return min(sizes, default=UNKNOWN.scale)


def left(slots: Iterable[Slot], known: Parameters) -> list[Slot]:
    """The slots that are not what their names say, or may be weights.

    Args:
      slots: of all optimizers in a file.
      known: what else is in it.
    """
    groups: dict[tuple[Hashable, str], list[Slot]] = {}
    for slot in slots:
        groups.setdefault((slot.optimizer, slot.name), []).append(slot)
    found: list[Slot] = []
    factors = _factors(known.shapes or ())
    for (optimizer, name), group in groups.items():
        of_any_size = name == _NORMALISED and (optimizer, _NORMALISED_BY) in groups
        found += _left(group, known, factors, of_any_size)
    return found


def _left(
    group: list[Slot],
    known: Parameters,
    factors: set[tuple[int, ...]],
    of_any_size: bool,
) -> list[Slot]:
    name = group[0].name
    large = [one for one in group if one.value.size > 1]
    if _WEIGHTS.fullmatch(name) and not is_known(name):
        return large
    if _QUANTISED.fullmatch(name):
        most = max(_FEW_MEANINGS, _largest(known.shapes) // _BLOCK)
        return [one for one in large if one.value.size > most]
    odd = [
        one
        for one in _beyond(large, known.shapes)
        if (shape := _long_axes(one.value.shape)) not in factors
        if not (_FACTORS.fullmatch(name) and _is_vector(shape, known.shapes))
    ]
    if odd and not (
        is_known(name) and (_is_layer(odd, known.shapes) or _is_quantised(odd))
    ):
        return odd
    floats = [one.value for one in large if one.value.storage.dtype in tensor.FLOATS]
    return large if _are_weights(name, floats, known.scale, of_any_size) else []


def _beyond(
    group: list[Slot], shapes: Mapping[tuple[int, ...], int] | None
) -> list[Slot]:
    """Those of a shape that no parameter has, or fewer; of unknown ones, long rows."""
    if shapes is None:
        return [
            one
            for one in group
            if len(one.value.shape) == 1 and one.value.size > _LONG
            if not is_known(one.name)
        ]
    count = collections.Counter(tuple(sorted(one.value.shape)) for one in group)
    return [
        one
        for one in group
        if count[tuple(sorted(one.value.shape))]
        > shapes.get(tuple(sorted(one.value.shape)), 0)
    ]


def _factors(shapes: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """What is kept of parameters in place of numbers of their shape, without short axes.

    Factors, which lack an axis or have one of length 1 (Adafactor), and a square of each
    axis (Shampoo, SOAP); vectors are not among them.
    """
    found: set[tuple[int, ...]] = set()
    for shape in map(_long_axes, shapes):
        found |= {(size, size) for size in shape}
        if len(shape) > 2:
            found |= {(*shape[:i], *shape[i + 1 :]) for i in range(len(shape))}
    return found


def _is_vector(
    shape: tuple[int, ...], shapes: Mapping[tuple[int, ...], int] | None
) -> bool:
    """Whether a shape is of a vector that a factor of some parameter may be."""
    if len(shape) > 1 or shapes is None:
        return len(shape) <= 1
    return not shape or any(
        shape[0] in (size, math.prod(one) // size)
        for one in map(_long_axes, shapes)
        for size in one
    )


def _long_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in sorted(shape) if size != 1)


def _is_layer(group: list[Slot], shapes: Mapping[tuple[int, ...], int] | None) -> bool:
    """Whether slots may be those of one layer, no larger than the file's layers."""
    most = _largest(shapes)
    return len(group) <= _FEW and all(
        one.value.size <= (_LONG if len(one.value.shape) == 1 else most)
        for one in group
    )


def _largest(shapes: Iterable[tuple[int, ...]] | None) -> int:
    """Numbers of the largest parameter; 0 where none is known."""
    return max(map(math.prod, shapes or ()), default=0)


def _is_quantised(group: list[Slot]) -> bool:
    return all(one.value.storage.dtype == "uint8" for one in group)


def _are_weights(
    name: str, values: list[tensor.Tensor], scale: float, of_any_size: bool
) -> bool:
    """Whether tensors of one name are as a network's are, or not as the name says."""
    if _SQUARES.fullmatch(name) and any(_has_negative(value) for value in values):
        return True
    if _SUMS.fullmatch(name):
        return False
    vectors = [_numbers(value) for value in values if len(value.shape) == 1]
    if not vectors:
        return False
    vectors.sort(key=_square, reverse=True)
    larger = vectors[: -(-len(vectors) // 2)]
    size = float(np.sqrt(np.median([_square(one) for one in larger])))
    if not of_any_size and not size < _AS_LARGE * scale and scale >= _LARGE:
        return True
    kernels = [value for value in values if len(value.shape) > 1]
    of_scales = [
        one
        for one in vectors
        if not _square(one) < (_AS_SMALL * scale) ** 2 and not _sign(one) < _ONE_SIGN
    ]
    is_share = len(of_scales) >= _OF_SCALES * len(vectors)
    return is_share and any(_has_negative(value) for value in kernels)


def _numbers(value: tensor.Tensor) -> np.ndarray:
    """`[N]` float32."""
    view = value.view().reshape(-1)
    if value.storage.dtype == tensor.BFLOAT16:
        return (view.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return view.astype(np.float32)


def _square(numbers: np.ndarray) -> float:
    """The mean square; what is no number counts as large."""
    mean = float(np.mean(np.square(numbers, dtype=np.float64)))
    return mean if np.isfinite(mean) else float("inf")


def _size(value: tensor.Tensor) -> float:
    return float(np.sqrt(_square(_numbers(value)))) if value.size else 0.0


def _sign(numbers: np.ndarray) -> float:
    """1 where all have one sign, about 0 where signs are mixed."""
    total = float(np.abs(numbers).sum())
    return abs(float(numbers.sum())) / total if total else 0.0


def _has_negative(value: tensor.Tensor) -> bool:
    """Whether the first numbers have a negative one among them, or one that is none."""
    dense = value.last - value.offset + 1 == value.size
    if dense and value.size > _LOOKED_AT:
        value = tensor.Tensor(value.storage, (_LOOKED_AT,), (1,), value.offset)
    return bool(value.size) and not (_numbers(value) >= 0).all()
