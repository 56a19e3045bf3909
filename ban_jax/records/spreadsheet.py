"""The results as a table for spreadsheets, safe to open."""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ban_jax import visible
from ban_jax.records.jsonl import PathLike, finite
from ban_jax.storage import atomic

CSV_COLUMNS = (
    "path",
    "verdict",
    "target",
    "score",
    "standard_error",
    "interval_low",
    "interval_high",
    "p_value",
    "p_models",
    "q_value",
    "witnesses",
    "threshold",
    "suspicious_above",
    "baseline",
    "compared_with",
    "architecture",
    "width",
    "num_classes",
    "clean_accuracy",
    "mode",
    "seconds",
    "sha256",
    "calls",
    "other",
    "reason",
    "error",
)


def write_csv(path: PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes the flat columns of each record, sorted by path, for a spreadsheet.

    `interval_low` and `interval_high` are the ends of the interval; `witnesses` is what
    each vector says of the most unusual class, as `name=z` with semicolons between, `calls`
    what the file asks to have called, and `other` what it holds that is no classifier.

    """
    atomic.write(path, csv_text(records).encode(errors="backslashreplace"))


def csv_text(records: Iterable[Mapping[str, Any]]) -> str:
    """The text of that file."""
    ordered = sorted(records, key=lambda record: os.fspath(record["path"]))
    return _table_text(CSV_COLUMNS, (_flat(finite(record)) for record in ordered))


def write_table(
    path: PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes rows of numbers and texts, what a row lacks as an empty cell.

    Text that a spreadsheet would take for a formula (a file may be named `=cmd()`) gets
    a leading apostrophe; all text is quoted, so that a program that splits at
    semicolons cannot make a formula out of the middle of a name. Characters that nobody
    sees are spelled out (`visible.distinct`): different names stay different cells.
    """
    atomic.write(path, _table_text(columns, rows).encode(errors="backslashreplace"))


def _table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    table = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        table.writerow([_cell(row.get(column)) for column in columns])
    return buffer.getvalue()


_RISKY = frozenset("=+-@＝＋－＠'")
"""What formulas start with, and the apostrophe itself: else two names share a cell."""

_UNSEEN = re.compile(
    r"^( |\\[tnr]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})+", re.ASCII
)
"""What may be in front of a formula: a program may drop or read what is spelled out."""


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a number or a text in each column."""
    low, high = (*(record.get("interval") or ()), None, None)[:2]
    target = record.get("target")
    said = [
        f"{name}={z[target]:.4g}"
        for name, z in (record.get("witnesses") or {}).items()
        if target is not None and target < len(z) and z[target] is not None
    ]
    told = {
        "interval_low": low,
        "interval_high": high,
        "witnesses": ";".join(said),
        "calls": ";".join(map(str, record.get("calls") or ())),
    }
    return {**record, **told}


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    # The rule is for what a spreadsheet gets, not for what was there before.
    text = visible.distinct(str(value))
    first = _UNSEEN.sub("", text)[:1]
    return f"'{text}" if first in _RISKY else text
