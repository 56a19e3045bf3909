"""The table of detectors side by side, on the terminal, and its figures as text."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

import rich.box
import rich.table
import rich.text

from ban_jax import records
from ban_jax.report import fields, numerals, terminal

_PLAIN_WIDTH = 160
HEADS = (
    "detector",
    "AUC",
    "Bd.",
    "false alarms",
    "right target",
    "Acc.",
    "?",
    "s",
    "passes",
    "memory",
)
MEANINGS = {
    "AUC": "probability that a backdoored model scores above a clean one",
    "Bd.": "backdoored models that are flagged",
    "false alarms": "clean models that are",
    "right target": "flagged, and the target named",
    "Acc.": "judged correctly, of all models",
    "?": "not judged, which counts as neither found nor clean",
    "s": "seconds of computing per model, compilation left out",
    "passes": "forward passes of one image, or their equivalent, per model",
    "memory": "of a device, that the largest chunk takes as XLA plans it",
}
"""Of a column, for a legend."""
NARROW = ("detector", "AUC", "Bd.", "false alarms", "right target", "Acc.", "s")


def print_methods(
    methods: Sequence[Mapping[str, Any]], file: IO[str] | None = None
) -> None:
    """Prints a row per detector.

    Args:
      methods: `comparing.figures.Method`.
      file: where to print, standard output by default.
    """
    console = terminal.console(file, _PLAIN_WIDTH)
    found = [
        {
            head: terminal.encodable(cell, console)
            for head, cell in cells(records.finite(method)).items()
        }
        for method in methods
    ]
    for heads in (HEADS, NARROW):
        rows = [[row[head] for head in heads] for row in found]
        if terminal.fits(heads, rows, console.width):
            console.print(_table(heads, rows))
            break
    else:
        heads = HEADS
        for name, *row in ([row[head] for head in heads] for row in found):
            console.print(rich.text.Text(name))
            console.print(rich.text.Text(terminal.in_lines(heads[1:], row)))
    told = [f"{head}: {meaning}" for head, meaning in MEANINGS.items() if head in heads]
    legend = "; ".join([*told, "in brackets: 95 % intervals"])
    console.print(rich.text.Text(terminal.encodable(legend, console), "dim"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        right = head != "detector"
        table.add_column(head, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(rich.text.Text, row))
    return table


def method_line(method: fields.Record) -> str:
    """A detector's figures in a line: `mm_bd: 6/8 backdoored ones flagged, ...`."""
    method = records.finite(method)
    bad, good = method["total"]["flagged"], method["false_alarms"]
    told = [f"{bad['hits']}/{bad['total']} backdoored ones flagged"]
    told.append(f"{good['hits']}/{good['total']} clean ones")
    if method["seconds"] is not None:
        told.append(f"{numerals.seconds(method['seconds'])} s per model")
    return f"{method['name']}: {', '.join(told)}"


def cells(method: fields.Record) -> dict[str, str]:
    """The figures of a detector as text, by the head of the column."""
    total = method["total"]
    return {
        "detector": str(method["name"]),
        "AUC": area(total["auc"]),
        "Bd.": share(total["flagged"]),
        "false alarms": share(method["false_alarms"]),
        "right target": share(total["right_target"]),
        "Acc.": percent(total["right"]),
        "?": str(total["inconclusive"] or ""),
        "s": numerals.seconds(method["seconds"]),
        "passes": passes(method["forward_equivalents"]),
        "memory": memory(method["chunk_bytes"]),
    }


def share(found: fields.Record | None) -> str:
    """`15/18 [.59, .96]`; a dash of none."""
    if found is None or found["value"] is None:
        return "–"
    low, high = numerals.share(found["low"]), numerals.share(found["high"])
    return f"{found['hits']}/{found['total']} [{low}, {high}]"


def percent(found: fields.Record) -> str:
    """`83 %`; a dash of none."""
    return "–" if found["value"] is None else f"{100 * found['value']:.0f} %"


def area(found: fields.Record | None) -> str:
    """`.93 [.84, 1]`; a dash where there is none."""
    if found is None:
        return "–"
    value, low, high = (numerals.share(found[n]) for n in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def passes(count: float | None) -> str:
    """Forward-equivalents in thousands or millions."""
    if count is None:
        return "–"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f}"


def memory(count: int | None) -> str:
    """Bytes in MiB or GiB."""
    if count is None:
        return "–"
    mib = count / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
