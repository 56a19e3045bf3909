"""How a classifier among several in one file is called: `file.pt#state_dict_ema`."""

import os

from ban_jax.checkpoints import packed

MARK = "#"


def join(path: str, part: str) -> str:
    """The path of a part of a file.

    The mark is doubled as often as a file of that very name is there: no other file can
    take a part's place in a list of results.
    """
    mark = MARK
    while os.path.lexists(f"{path}{mark}{part}"):
        mark += MARK
    return f"{path}{mark}{part}"


def split(path: str) -> tuple[str, str]:
    """The file, and the part of it that is meant; empty where the path is a file's."""
    if MARK not in path or _is_there(path):
        return path, ""
    file, _, part = path.rpartition(MARK)
    while file.endswith(MARK) and not _is_there(file):
        file = file.removesuffix(MARK)
    return (file, part) if part and _is_there(file) else (path, "")


def _is_there(path: str) -> bool:
    """Whether a path is of a file, a folder, or of something in an archive."""
    return os.path.lexists(path) or all(packed.split(path))


def split_name(path: str) -> str:
    """The part's name in a path from `join`."""
    return path.rpartition(MARK)[2]
