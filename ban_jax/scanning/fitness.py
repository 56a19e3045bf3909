"""Whether a model can be judged at all, seen from its weights and the size of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from ban_jax import checkpoints
from ban_jax.data import probe

SMALLEST = 1e-6
"""Difference between the weights of two classes in the last layer up to which nothing can
be told of them: the probabilities of features of order one are then equal to within
float32, and every vector is rounding."""
_HUGE = 1e4
"""Those of the models in benchmarks/zoo are below 4; statistics may be as large."""
_STATISTICS = ("mean", "var")
_FEW = 10
"""Times as many classes as the images show, from where on they are not a choice of them."""


def degenerate(variables: Mapping[str, Any], classifier: Any) -> str:
    """Why weights cannot be judged in any mode, or an empty string.

    Args:
      variables: collections of one model; variances of normalisation layers are the
        leaves that are called `var`.
      classifier: `[F, K]` weights of its last linear layer.
    """
    leaves = {
        name: np.asarray(leaf)
        for name, leaf in traverse_util.flatten_dict(dict(variables), sep="/").items()
    }
    negative = [
        name
        for name, leaf in leaves.items()
        if _last(name) == "var" and np.any(leaf < 0)
    ]
    if negative:
        return f"variances are negative in {', '.join(negative[:5])}"
    learned = [leaf for name, leaf in leaves.items() if _last(name) not in _STATISTICS]
    if told := _lost(learned):
        return told
    weights = np.asarray(classifier, np.float64)
    apart = float(np.max(np.ptp(weights, axis=-1), initial=0.0))
    if apart <= SMALLEST:
        return (
            "the last layer does not tell classes apart: their weights differ by at "
            f"most {apart:.1e}"
        )
    return ""


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _lost(weights: Sequence[np.ndarray]) -> str:
    """Why a network computes one thing here and another in PyTorch, or an empty string.

    XLA's CPU backend counts subnormal numbers as 0, of which channels that died in
    training have many. Weights far beyond what training makes can raise them again to
    features that decide.
    """
    largest = max(
        (float(max(one.max(), -one.min())) for one in weights if one.size), default=0.0
    )
    if not _HUGE <= largest < np.inf:  # what is not finite is told as such
        return ""
    tiny = np.finfo(np.float32).tiny
    lost = sum(int(np.sum((one != 0) & (np.abs(one) < tiny))) for one in weights)
    if not lost:
        return ""
    return (
        f"{lost:,} weights are below {tiny:.1e}, which a CPU counts as 0 here and PyTorch "
        f"does not, beside weights up to {largest:.1e}, which could raise them again"
    )


def wrong_size(spec: checkpoints.ModelSpec, size: tuple[int, ...]) -> str:
    """Why a network takes no images of `(height, width)`, or an empty string."""
    height, width = size
    module = spec.create()
    if misfit := getattr(module, "misfit", None):  # where several sizes may fit
        return str(misfit(height, width))
    exact, smallest = module.exact_size, module.minimum_size
    if exact and size != (exact, exact):
        return (
            f"this {spec.architecture} takes images of {exact}x{exact} pixels alone, the "
            f"clean images have {height}x{width} (--image-size {exact} resizes them)"
        )
    if min(size) < smallest:
        return (
            f"{spec.architecture} needs images of at least {smallest}x{smallest} pixels, "
            f"the clean images have {height}x{width}"
        )
    return ""


def other_classes(num_classes: int, labels: np.ndarray) -> str:
    """Why clean images without names of classes are another data set's, or nothing.

    Images of ten classes fit a network of a thousand by their labels, and what it makes
    of them is no accuracy. So many random images would show most of its classes.

    Args:
      num_classes: K of the network.
      labels: `[...]` of the images.
    """
    seen = len(np.unique(labels))
    expected = probe.expected_classes(num_classes, labels.size)
    if _FEW * seen > num_classes or expected < 2 * seen:
        return ""
    return (
        f"tells {num_classes} classes apart, the {labels.size} clean images show {seen} "
        f"of them where as many random ones show about {expected:.0f}: this is another "
        "data set's model"
    )
