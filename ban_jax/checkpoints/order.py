"""Whether a list of tensors without names is in the order of a network's.

Averages are kept in the order in which a program made its parameters, which a file need not
keep: state dicts can be sorted, or have two layers of one shape exchanged. Shapes alone
would then match wrongly and give another network, perhaps a clean one. So each average must
be nearer to the weights it is taken for than to any others of their shape.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from ban_jax.checkpoints import limits, tensor

_LOOKED_AT = 4096
"""Numbers of a tensor that are compared."""


def agrees(values: Sequence[tensor.Tensor], weights: Sequence[Any]) -> bool:
    """Whether `values` are averages of `weights`, one by one.

    Args:
      values: without names.
      weights: as many, of the same shapes.
    """
    if [one.shape for one in values] != [one.shape for one in weights]:
        return False
    places = collections.defaultdict(list)
    for place, value in enumerate(values):
        places[value.shape].append(place)
    for same in places.values():
        if len(same) < 2:
            continue
        theirs = np.stack([_start(weights[place]) for place in same])
        for row, place in enumerate(same):
            distances = np.square(theirs - _start(values[place])).sum(1)
            if not distances[row] <= distances.min():
                return False
    return True


def _start(value: Any) -> np.ndarray:
    """The first numbers of a tensor, `[N]`."""
    budget = limits.Budget(4 * value.size, "a tensor that is compared")
    if getattr(value, "mask", None) is not None:
        budget = limits.Budget(8 * value.size, "a tensor that is compared")
    return value.float32(budget).reshape(-1)[:_LOOKED_AT].astype(np.float64)
