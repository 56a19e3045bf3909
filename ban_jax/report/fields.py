"""The fields of a record, read so that nothing missing or odd stops a report.

A results file may come from another program, an older version or a scan that was stopped:
a field that is absent, null or of another kind is left out of the report.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ban_jax.report import text

Record = Mapping[str, Any]

VERDICTS = ("backdoored", "suspicious", "inconclusive", "clean")
"""In the order in which a reader needs them."""
FLAGGED = VERDICTS[:2]
"""Those that name a target."""

GLYPHS = {"backdoored": "▲", "suspicious": "◆", "inconclusive": "?", "clean": "✓"}


def verdict(record: Record) -> str:
    """One of `VERDICTS`; anything unknown is not a judgement."""
    found = record.get("verdict")
    return found if isinstance(found, str) and found in VERDICTS else "inconclusive"


def gravity(record: Record) -> tuple[int, float, str]:
    """What records are sorted by: grade, then score, the most alarming one first."""
    score = number(record.get("score"))
    return (
        VERDICTS.index(verdict(record)),
        math.inf if score is None else -score,
        str(record.get("path", "")),
    )


def files(records: Sequence[Record]) -> list[Record]:
    """Without the lines of classifiers whose file has a line of its own, the worst."""
    told = {record.get("path") for record in records if record.get("parts")}
    return [record for record in records if record.get("part_of") not in told]


def measured(records: Sequence[Record]) -> list[Record]:
    """Without the lines that repeat what another says of a file's worst classifier."""
    return [record for record in records if not record.get("parts")]


def number(value: Any) -> float | None:
    """A finite number, or `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """A list of finite numbers and gaps; empty when there is none."""
    return [number(v) for v in values] if isinstance(values, list | tuple) else []


def mapping(value: Any) -> Record:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def label(record: Record, folder: str) -> str:
    """The path without the folder that all candidates share, as it can be shown."""
    path = str(record.get("path", "")).removeprefix(folder)
    return text.name(path) or "(no path)"


def common_folder(records: Sequence[Record]) -> str:
    """The folder that holds all candidates, with a trailing separator, or nothing.

    Of addresses nothing is left out: they say where a model is, for readers elsewhere too.
    """
    folders = [os.path.dirname(str(record.get("path", ""))) for record in records]
    if any("://" in folder for folder in folders):
        return ""
    try:
        folder = os.path.commonpath(folders)
    except ValueError:
        return ""
    return os.path.join(folder, "") if folder else ""


def last_folder(folder: str) -> str:
    """A folder by its own name alone: a page is handed on, and where it was made is not
    for its readers."""
    name = os.path.basename(os.path.dirname(folder))
    return name or folder


_WHOLE_PATH = re.compile(r"(?<!\S)/\S+|(?<=\s')/[^']+")


def told_path(path: str) -> str:
    """A path as a page tells it: of a whole one its own name alone."""
    if not os.path.isabs(path):
        return path
    return f"…/{os.path.basename(os.path.normpath(path))}"


def told_paths(text: str) -> str:
    """A text with `told_path` for each whole path that is a word of it, quoted or not."""
    return _WHOLE_PATH.sub(lambda found: told_path(found[0]), text)


def without_folder(record: Record, folder: str) -> Record:
    """The record with the candidates' folder left out of its path and its messages.

    In messages only a whole path is: `a/` may be a part of any word.
    """

    def told(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [told(name, one) for one in value]
        if not isinstance(value, str):
            return value
        if name in ("path", "part_of"):
            return value.removeprefix(folder)
        return value.replace(folder, "") if os.path.isabs(folder) else value

    names = ("path", "part_of", "error", "reason", "notes")
    return {**record, **{n: told(n, record[n]) for n in names if n in record}}


def remark(record: Record) -> str:
    """The error or else the reason, without the path in front that messages carry."""
    found = str(record.get("error") or record.get("reason") or "")
    return found.removeprefix(f"{record.get('path')}: ")


def calls(record: Record) -> list[str]:
    """What the file asks to have called when it is loaded by pickle, to be shown."""
    return [text.name(name) for name in listed(record.get("calls"))]


def class_label(
    index: Any, names: Sequence[str] | None, num_classes: Any = None
) -> str:
    """A class by its index and, where the names fit this candidate, its name.

    A name that is but the number is not said twice.
    """
    if not isinstance(index, int) or isinstance(index, bool):
        return ""
    fits = not isinstance(num_classes, int) or len(names or ()) == num_classes
    if names and fits and 0 <= index < len(names) and names[index] != str(index):
        return f"{index} ({text.name(names[index])})"
    return f"class {index}"  # a number alone could be anything


def architecture(record: Record, form: str = "{}/{}") -> str:
    """Architecture and width in a few characters."""
    name = text.printable(record.get("architecture") or "")
    width = record.get("width")
    return form.format(name, width) if name and isinstance(width, int) else name


def distinct(records: Sequence[Record], key: str) -> list[str]:
    """The distinct values of a field, in order of first appearance."""
    found = (record.get(key) for record in records)
    return list(dict.fromkeys(text.printable(v) for v in found if v not in (None, "")))


def flat(settings: Record, prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
