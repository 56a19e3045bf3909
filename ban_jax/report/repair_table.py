"""The table of repairs on the terminal."""

from collections.abc import Sequence
from typing import IO, Literal

import rich.box
import rich.table
import rich.text

from ban_jax.report import fields, repairs, terminal, text

_PLAIN_WIDTH = 160
_LEAST_PATH = 12


def print_repairs(
    repaired: Sequence[fields.Record], file: IO[str] | None = None
) -> None:
    """Prints one row per candidate, before and after, and why some were not repaired.

    Args:
      repaired: lines of a `repairs.jsonl`.
      file: where to print, standard output by default.
    """
    console = terminal.console(file, _PLAIN_WIDTH)

    def printable(line: str) -> str:
        return terminal.encodable(text.printable(line), console)

    done = [record for record in repaired if not record.get("error")]
    heads = [*(column.title.lower() for column in repairs.COLUMNS), "verdict"]
    folder = fields.common_folder(repaired)
    rows = [
        [
            printable(cell)
            for cell in (
                *(repairs.before_and_after(record, one) for one in repairs.COLUMNS),
                " → ".join(repairs.verdicts(record)),
            )
        ]
        for record in done
    ]
    names = [terminal.encodable(fields.label(r, folder), console) for r in done]
    if terminal.fits(heads, rows, console.width - _LEAST_PATH - terminal.GAP):
        if done:
            console.print(_table(heads, names, rows, console.width))
    else:
        for name, row in zip(names, rows, strict=True):
            console.print(name, soft_wrap=True)
            console.print(printable(terminal.in_lines(heads, row)))
    for record in repaired:
        label = fields.label(record, folder)
        told = [f"· {label}: {note}" for note in fields.listed(record.get("notes"))]
        if record.get("error"):
            told.append(f"? {label}: not repaired: {record['error']}")
        for line in told:
            console.print(rich.text.Text(printable(line)), soft_wrap=True)
    console.print(printable(repairs.summary(repaired)), soft_wrap=True)


def _table(
    heads: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("checkpoint", no_wrap=True)
    room = width
    for place, head in enumerate(heads):
        needed = max([len(head), *(len(row[place]) for row in rows)])
        room -= needed + terminal.GAP
        justify: Literal["left", "right"] = "left" if head == "verdict" else "right"
        table.add_column(head, justify=justify, no_wrap=True, width=needed)
    for name, row in zip(names, rows, strict=True):
        table.add_row("\n".join(text.fold(name, max(room, _LEAST_PATH))), *row)
    return table
