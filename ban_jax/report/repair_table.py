"""The table of repairs on the terminal."""

import os
from collections.abc import Sequence
from typing import IO

import rich.box
import rich.console
import rich.table
import rich.text

from ban_jax.report import fields, repairs, text

_PLAIN_WIDTH = 160


def print_repairs(
    repaired: Sequence[fields.Record], file: IO[str] | None = None
) -> None:
    """Prints one row per candidate, before and after, and why some were not repaired.

    Args:
      repaired: lines of a `repairs.jsonl`.
      file: where to print, standard output by default.
    """
    console = rich.console.Console(
        file=file, highlight=False, markup=False, emoji=False
    )
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PLAIN_WIDTH
    done = [record for record in repaired if not record.get("error")]
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for column in repairs.COLUMNS:
        table.add_column(column.title.lower(), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    folder = fields.common_folder(repaired)
    for record in done:
        table.add_row(
            text.printable(fields.label(record, folder)),
            *(repairs.before_and_after(record, column) for column in repairs.COLUMNS),
            text.printable(" → ".join(repairs.verdicts(record))),
        )
    if done:
        console.print(table)
    for record in repaired:
        label = fields.label(record, folder)
        told = [f"· {label}: {note}" for note in fields.listed(record.get("notes"))]
        if record.get("error"):
            told.append(f"? {label}: not repaired: {record['error']}")
        for line in told:
            console.print(rich.text.Text(text.printable(line)), soft_wrap=True)
    console.print(repairs.summary(repaired), soft_wrap=True)
