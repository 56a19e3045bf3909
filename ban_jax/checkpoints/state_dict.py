"""A state dict in memory -> one candidate, as `read` makes one of a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ban_jax.checkpoints import (
    candidate,
    classifiers,
    contents,
    errors,
    limits,
    reading,
    tensor,
)

LABEL = "state dict in memory"
"""Path of such a candidate, and how errors begin."""


def read_state_dict(
    state: Mapping[str, Any], *, architecture: str | None = None
) -> candidate.Candidate:
    """Reads a model that another program has loaded already.

    The same tensors give the same weights hash as in a file.

    Args:
      state: name -> tensor: of PyTorch (which is not imported), NumPy or JAX, bfloat16
        among them; or what holds such a mapping, as a loaded checkpoint does
        (`{"state_dict": ..., "epoch": ...}`), or Flax collections of one of our networks.
      architecture: a name known to `models.create`, instead of the recognised one.

    Returns:
      The candidate; its arrays are copies, and its path is `LABEL`.

    Raises:
      CheckpointError: for an architecture that is not known, and for weights that do not
        fit; the message says what was expected and what was found.
    """
    reading.check_architecture(architecture)
    try:
        size, root = _tree(state, 0)
        content = contents.Contents(root, {}, size)
        found = classifiers.first(classifiers.of("", content, architecture))
    except errors.CheckpointError as error:
        raise errors.CheckpointError(f"{LABEL}: {error}") from error
    return dataclasses.replace(found, path=LABEL)


def _tree(node: Any, depth: int) -> tuple[int, Any]:
    """Bytes of all tensors, and the same in dicts, lists and `Tensor`s."""
    if isinstance(node, Mapping | list | tuple):
        if depth > limits.MAX_RANK:
            raise errors.CheckpointError(f"nested deeper than {limits.MAX_RANK}")
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        parts = {name: _tree(value, depth + 1) for name, value in pairs}
        size = sum(bytes_ for bytes_, _ in parts.values())
        values = {name: value for name, (_, value) in parts.items()}
        return size, values if isinstance(node, Mapping) else list(values.values())
    array = _array(node)
    if array is None:
        return 0, node
    return array.nbytes, tensor.from_array(array)


def _array(value: Any) -> np.ndarray | None:
    """A tensor as NumPy's; None for what is none."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        return None
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return None if array.dtype.kind in "OSUMm" else array
    if not all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):
        return None
    value = value.detach().cpu()
    # NumPy knows no bfloat16; float32 holds each of its numbers.
    return (value.float() if str(value.dtype).endswith("bfloat16") else value).numpy()
