"""A model's trigger on disk: what success is measured with after training."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from ban_jax.attacks.types import Attack, AttackState
from ban_jax.storage import atomic

SUFFIX = ".trigger"
"""A safetensors file by another name, so that no scan takes it for a model."""


def save(path: str, state: AttackState) -> None:
    """Writes a trigger; the file appears whole or not at all.

    Raises:
      OSError: when the disk refuses.
    """
    # Not `ascontiguousarray`, which gives scalars an axis.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _named(state)}
    with atomic.replacing(path) as temporary:
        safetensors_numpy.save_file(arrays, temporary)


def load(path: str, attack: Attack, image_shape: tuple[int, int, int]) -> AttackState:
    """Reads the trigger that `save` wrote.

    Args:
      path: the file.
      attack: with the settings the trigger was made with.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: when the file is not a trigger of this attack for such images.
    """
    like = jax.eval_shape(lambda: attack.init(jax.random.key(0), image_shape))
    try:
        found = safetensors_numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable trigger: {error}") from error
    wanted = dict(_named(like))
    for name, leaf in wanted.items():
        expected = f"{leaf.dtype} of shape {leaf.shape}"
        there = "nothing"
        if name in found:
            there = f"{found[name].dtype} of shape {found[name].shape}"
        if there != expected:
            raise ValueError(
                f"{path}: expected {name} as {expected} for images of {image_shape}, "
                f"found {there}"
            )
    leaves = [jnp.asarray(found[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state: AttackState) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
