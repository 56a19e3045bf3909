"""Which of the files that were met are judged (`--include`, `--exclude`), and which not."""

import fnmatch
import os
from collections.abc import Sequence

from ban_jax import checkpoints


def chosen(
    found: checkpoints.Found,
    include: Sequence[str],
    exclude: Sequence[str],
    data: str | None = None,
) -> checkpoints.Found:
    """The files that the patterns leave; the others are told of as passed.

    A pattern without `/` is compared with every part of a path, so that `*.pt` means all
    files of that ending and `optim` all that lies in such a folder. One with `/` is
    compared with the end of the path; its `*` matches any characters, `/` too. What is
    excluded is not judged even where it is included.

    Args:
      found: of a search.
      include: patterns of which one must match; without any, all files are taken.
      exclude: patterns of which none may match.
      data: name or path of the clean images, which may lie beside the models.
    """
    paths, passed = [], list(found.passed)
    for path in found.paths:
        reason = why_not(path, include, exclude)
        if data and not reason and _is_same(path, data):
            reason = "the clean images (--data)"
        if reason:
            passed.append(checkpoints.Passed(path, reason))
        else:
            paths.append(path)
    return found._replace(paths=paths, passed=sorted(passed))


def met(found: checkpoints.Found) -> list[checkpoints.Passed]:
    """What a search met that is not judged itself."""
    archives = [checkpoints.Passed(path, _OPENED) for path in found.opened]
    return sorted([*found.passed, *archives])


_OPENED = "a zip archive, opened: what it holds is told of by itself"


def why_not(path: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    """Why a file is not judged; empty where it is."""
    for pattern in exclude:
        if _matches(path, pattern):
            return f"left out by --exclude {pattern}"
    if include and not any(_matches(path, pattern) for pattern in include):
        return "left out by --include"
    return ""


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # members of archives, addresses, names of data sets
        return False


def _matches(path: str, pattern: str) -> bool:
    plain = pattern.rstrip("/")
    if "/" in plain:  # a pattern with a folder is meant from any folder on: runs/*.pt
        return any(fnmatch.fnmatchcase(path, one) for one in (plain, f"*/{plain}"))
    return any(fnmatch.fnmatchcase(part, plain) for part in path.split(os.sep))
