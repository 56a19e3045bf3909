"""What a scan met that is no classifier, and did not judge: a file beside the results."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ban_jax.checkpoints import Passed
from ban_jax.records import jsonl

NAME = "passed.jsonl"
Line = TypeVar("Line", bound=Mapping[str, Any])


def is_other(line: Mapping[str, Any]) -> bool:
    """Whether a line is of a file that was read, holds no classifier, and asks for nothing.

    Such a line does not count as not judged: there was nothing to judge.
    """
    return bool(line.get("other")) and not line.get("calls")


def divide(judged: Iterable[Line]) -> tuple[list[Line], list[Passed]]:
    """Lines of classifiers and of what may be one; and the others as what was passed."""
    kept: list[Line] = []
    passed = []
    for line in judged:
        if is_other(line):
            passed.append(Passed(line["path"], line["other"]))
        else:
            kept.append(line)
    return kept, passed


def write(path: jsonl.PathLike, passed: Iterable[Passed]) -> None:
    """Replaces the file in one step.

    Raises:
      OutputError: it cannot be written.
    """
    jsonl.rewrite(path, (one._asdict() for one in passed))


def load(paths: Sequence[str]) -> list[Passed]:
    """What such files say, as far as they are there; each path once.

    Raises:
      ResultsError: for a file that is something else.
    """
    found = {
        line["path"]: Passed(line["path"], line["reason"])
        for path in paths
        if os.path.isfile(path)
        for line in jsonl.load(path, _check).records
    }
    return [found[path] for path in sorted(found)]


def _check(line: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(line.get("reason"), str):
        raise ValueError("the field reason is not as `ban-jax scan` writes it: no text")
    return line
