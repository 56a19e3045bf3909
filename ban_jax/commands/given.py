"""What a command is given to read: models, results, profiles, clean images."""

import os
from typing import Any

from ban_jax.checkpoints import packed, part_paths

STRANGERS = (
    "paths", "zoos", "calibrate", "sources", "results", "trusted", "from_scan", "null",
)  # fmt: skip
"""Flags of models and results, which may have come from anywhere."""
OWN = ("data", "profile")
"""Flags of files that are the user's own, or names of what is no file."""


def paths(flags: Any, names: tuple[str, ...] = STRANGERS) -> list[str]:
    """Paths that these flags of a command name."""
    given = [getattr(flags, name, None) or () for name in names]
    return [
        one for some in given for one in ([some] if isinstance(some, str) else some)
    ]


def file_of(path: str) -> str:
    """The file or folder behind a path, be it of an archive's entry or a file's part."""
    return packed.split(part_paths.split(path)[0])[0]


def folder_of(path: str) -> str:
    """The folder that a path is, or the one that its file lies in; no link."""
    there = os.path.realpath(file_of(path))
    return there if os.path.isdir(there) else os.path.dirname(there)
