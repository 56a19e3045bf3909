"""Files that hold several classifiers: one line each, and one with the file's verdict.

The line of the file is made with the verdicts, from its parts; it is never evidence.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ban_jax.records.record import Grade, Record

Line = TypeVar("Line", bound=Mapping[str, Any])

GRAVITY: tuple[Grade, ...] = ("backdoored", "suspicious", "inconclusive", "clean")
"""The gravest first: what was not judged is graver than what was found clean."""


def evidence(lines: Iterable[Line]) -> list[Line]:
    """The lines that tell of something measured: without those of whole files."""
    return [line for line in lines if not line.get("parts")]


def with_files(judged: Sequence[Record]) -> list[Record]:
    """Judged lines, each file's before those of its parts."""
    of_file: dict[str, list[Record]] = collections.defaultdict(list)
    for line in judged:
        if line["part_of"] is not None:
            of_file[line["part_of"]].append(line)
    found = []
    for line in judged:
        whole = of_file.pop(line["part_of"] or "", None)
        if whole is not None:
            found.append(_of_file(str(line["part_of"]), whole))
        found.append(line)
    return found


def files(judged: Sequence[Record]) -> list[Record]:
    """The lines of the files alone."""
    return [line for line in with_files(judged) if line["parts"]]


def _of_file(path: str, parts: Sequence[Record]) -> Record:
    """The line of a file: the worst of its parts."""

    def gravity(line: Record) -> tuple[int, float]:
        score = line["score"]
        return GRAVITY.index(line["verdict"]), float("inf") if score is None else -score

    worst = min(parts, key=gravity)
    told = ", ".join(f"{name_of(line)} {line['verdict']}" for line in parts[:20])
    more = f" and {len(parts) - 20} more" if len(parts) > 20 else ""
    reason = f"the worst of {len(parts)} classifiers ({told}{more}): {worst['reason']}"
    line = {
        **worst,
        "path": path,
        "part_of": None,
        "parts": [line["path"] for line in parts],
        "key": None,
        "seal": None,
        "images": {},
        "seconds": 0.0,
        "forward_equivalents": 0,
        "reason": reason,
    }
    return cast(Record, line)


def name_of(line: Mapping[str, Any]) -> str:
    """What a part is called inside its file."""
    return str(line["path"]).removeprefix(str(line["part_of"])).lstrip("#")
