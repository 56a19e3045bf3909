"""The models of a zoo in one table: a row for each kind of attack and architecture."""

import collections
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

COLUMNS = (
    ("accuracy", "clean_accuracy"),
    ("ASR", "asr"),
    ("recovered", "recovered_accuracy"),
    ("cross", "cross_accuracy"),
    ("non-victim", "non_victim_accuracy"),
)


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over the models of each kind.

    Args:
      entries: of `zoo.json`.

    Returns:
      Plain text. ASR has its smallest value beside it; failed backdoors are counted and
      are part of every figure.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]]
    groups = collections.defaultdict(list)
    for entry in entries:
        mode = "all to all" if entry.get("mode") == "all_to_all" else ""
        groups[(entry["kind"], mode, entry["architecture"])].append(entry)
    grid = rich.table.Table(box=rich.box.SIMPLE)
    for name in ("attack", "", "architecture"):
        grid.add_column(name)
    for name in ("models", "failed", *(name for name, _ in COLUMNS), "s/model"):
        grid.add_column(name, justify="right", no_wrap=True)
    for key, members in sorted(groups.items()):
        failed = sum(entry["failed"] for entry in members)
        cells = [
            _cell([entry.get(field) for entry in members], least=field == "asr")
            for _, field in COLUMNS
        ]
        seconds = statistics.fmean(entry["seconds"] for entry in members)
        grid.add_row(
            *key, str(len(members)), str(failed or ""), *cells, f"{seconds:.1f}"
        )
    text = io.StringIO()
    rich.console.Console(file=text, width=200).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _cell(values: Sequence[float | None], *, least: bool) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    cell = f"{statistics.fmean(known):.3f}"
    if len(known) > 1:
        cell += f" ± {statistics.stdev(known):.3f}"
        if least:
            cell += f" (≥ {min(known):.3f})"
    return cell
