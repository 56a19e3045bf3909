"""Where tables are printed: its width, and the characters it can carry."""

import os
from typing import IO

import rich.console

GAP = 3
"""Columns between two columns of a table."""
_ASCII = str.maketrans(
    {
        "▲": "!",
        "◆": "*",
        "✓": "+",
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
        "…": "~",
        "·": "-",
        "–": "-",
        "−": "-",
        "→": "->",
    }
)


def console(
    file: IO[str] | None, plain_width: int, width: int | None = None
) -> rich.console.Console:
    """A console that shows text as it is; colours appear on a terminal only.

    Args:
      file: where to print, standard output by default.
      plain_width: columns where there is no terminal.
      width: columns; by default those of the terminal.
    """
    found = rich.console.Console(
        file=file, width=width, highlight=False, markup=False, emoji=False
    )
    if width is None and not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = plain_width
    return found


def encodable(line: str, output: rich.console.Console) -> str:
    """The text in characters that the output can carry."""
    if output.encoding.startswith("utf"):
        return line
    plain = line.translate(_ASCII)
    return plain.encode(output.encoding, "backslashreplace").decode(output.encoding)
