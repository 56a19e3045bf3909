"""The models of a zoo in one table: a row for each kind of attack and architecture."""

import collections
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

from ban_jax.zoo import success

COLUMNS = (
    ("accuracy", "clean_accuracy"),
    ("ASR", "asr"),
    ("excess ASR", "excess"),
    ("recovered", "recovered_accuracy"),
    ("cross", "cross_accuracy"),
    ("non-victim", "non_victim_accuracy"),
)
LEAST = ("asr", "excess")
"""Fields whose smallest value is told."""
EXCESS = (
    "  excess ASR: ASR less the share of the same images that count as a success without "
    "the trigger"
)


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over the models of each kind.

    Args:
      entries: of `zoo.json`.

    Returns:
      Plain text. ASR and its excess have their smallest values beside them; failed
      backdoors are counted and are part of every figure. Models listed before excess was
      measured are part of all other figures, and a line tells their number.
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
            _cell([entry.get(field) for entry in members], least=field in LEAST)
            for _, field in COLUMNS
        ]
        seconds = statistics.fmean(entry["seconds"] for entry in members)
        grid.add_row(
            *key, str(len(members)), str(failed or ""), *cells, f"{seconds:.1f}"
        )
    text = io.StringIO()
    rich.console.Console(file=text, width=200).print(grid)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    if any(success.recorded(entry).is_excess for entry in entries):
        lines.append(EXCESS)
    if older := len(success.without_excess(entries)):
        lines.append(
            f"  {older} of the backdoored models were listed before excess was measured: "
            "whether they failed was decided on ASR"
        )
    return "\n".join(lines) + "\n"


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
