"""Which files and folders of a list of paths are checkpoints."""

import os
from collections.abc import Iterable

from ban_jax.checkpoints import errors, orbax_reader

SUFFIXES = (
    ".pt",
    ".pth",
    ".th",
    ".tar",
    ".bin",
    ".ckpt",
    ".safetensors",
    ".npz",
    ".msgpack",
)
NOT_MODELS = ("trigger_info.th",)
"""Written beside each model by the BAN programs: the trigger, no weights."""


def find(paths: Iterable[str | os.PathLike[str]] | str) -> list[str]:
    """Checkpoint files and Orbax folders, sorted, each once.

    Folders are walked: hidden entries and files without a known suffix are passed over,
    an Orbax checkpoint is one candidate and not descended into, links to folders are
    not followed. What is named explicitly is always taken; its content decides what it
    is.

    Raises:
      CheckpointError: for a path that does not exist.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: set[str] = set()
    for given in paths:
        path = os.fspath(given)
        if not os.path.lexists(path):
            raise errors.CheckpointError(f"{path}: no such file or folder")
        if os.path.isdir(path) and not orbax_reader.is_checkpoint(path):
            found.update(_walk(path))
        else:
            found.add(os.path.normpath(path))
    return sorted(found)


def _walk(top: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise errors.CheckpointError(
            f"{error.filename}: cannot be listed: {error.strerror}"
        )

    found = []
    for parent, folders, files in os.walk(top, onerror=refuse):
        kept = []
        for name in sorted(folders):
            path = os.path.join(parent, name)
            if name.startswith(".") or os.path.islink(path) or _unfinished(name):
                continue
            if orbax_reader.is_checkpoint(path):
                found.append(os.path.normpath(path))
            else:
                kept.append(name)
        folders[:] = kept
        found += [
            os.path.normpath(os.path.join(parent, name))
            for name in files
            if name.lower().endswith(SUFFIXES)
            and not name.startswith(".")
            and name not in NOT_MODELS
        ]
    return found


def _unfinished(name: str) -> bool:
    """Folders Orbax has not finished writing."""
    return ".orbax-checkpoint-tmp" in name


def stem(name: str) -> str:
    """A file's name without its suffixes: `a.pt.tar` -> `a`."""
    while name.lower().endswith(SUFFIXES):
        name = os.path.splitext(name)[0]
    return name
