"""Saves of models in training: a killed run goes on from the last one."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from orbax.checkpoint import v1 as ocp

from ban_jax.storage import atomic

FOLDER = ".progress"
"""Hidden, so that no scan takes an unfinished model for a candidate."""
_ADVICE = "delete the folder to train it from the start"


class SaveError(ValueError):
    """A save failed; the one before is still there."""


class Progress:
    """The saves of one model, of which the newest counts.

    Written by Orbax, which lets a save appear whole or not at all.
    """

    def __init__(self, folder: str, name: str) -> None:
        """Nothing is written yet; `name` must tell this model from all others.

        Raises:
          SaveError: where saves would be written, and removed, through a link.
        """
        try:
            atomic.refuse_links(folder, [os.path.join(FOLDER, name)])
        except atomic.OutputError as error:
            raise SaveError(str(error)) from error
        self.path = os.path.join(folder, FOLDER, name)

    def save(self, epoch: int, state: Any) -> None:
        """Keeps the state after `epoch` epochs, and drops older saves.

        Raises:
          SaveError: when the disk refuses; older saves stay.
        """
        leaves = {
            f"{index:05d}": np.asarray(leaf)
            for index, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))
        }
        older = self._epochs()
        try:
            os.makedirs(self.path, exist_ok=True)
            ocp.save(os.path.abspath(self._at(epoch)), leaves, overwrite=True)
        except (OSError, ValueError) as error:  # a full disk is Orbax's ValueError
            raise SaveError(
                f"{self._at(epoch)}: the training state could not be saved: {error}; "
                "the same command goes on from "
                + (f"epoch {older[-1]}" if older else "the start")
                + " of this model"
            ) from error
        for other in older:
            if other != epoch:
                shutil.rmtree(self._at(other), ignore_errors=True)

    def load(self, like: Any) -> tuple[int, Any]:
        """The newest save, or `(0, like)` where there is none.

        Raises:
          SaveError: when the save is of another model than `like`, or damaged.
        """
        epochs = self._epochs()
        if not epochs:
            return 0, like
        path = self._at(epochs[-1])
        leaves, structure = jax.tree.flatten(like)
        wanted = {f"{index:05d}": leaf for index, leaf in enumerate(leaves)}
        try:
            saved = ocp.load(os.path.abspath(path))
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise SaveError(
                f"{path}: not a readable save: {reason}; {_ADVICE}"
            ) from error
        # Not left to Orbax, which takes NumPy arrays of any shape for what was wanted.
        if _forms(saved) != _forms(wanted):
            raise SaveError(f"{path}: not a save of this model; {_ADVICE}")
        leaves = [jnp.asarray(saved[name]) for name in wanted]
        return epochs[-1], jax.tree.unflatten(structure, leaves)

    def latest(self) -> int:
        """Epochs that the newest save has behind it, 0 without one."""
        return max(self._epochs(), default=0)

    def clear(self) -> None:
        """Forgets the saves, once the model is written; a leftover does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.path))

    def _at(self, epoch: int) -> str:
        return os.path.join(self.path, f"epoch_{epoch:05d}")

    def _epochs(self) -> list[int]:
        """Finished saves, oldest first; Orbax names unfinished ones otherwise."""
        if not os.path.isdir(self.path):
            return []
        numbers = (name.removeprefix("epoch_") for name in os.listdir(self.path))
        return sorted(int(number) for number in numbers if number.isdigit())


def _forms(leaves: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
