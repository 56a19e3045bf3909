"""Where tables are printed: its width, and the characters it can carry."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import rich.cells
import rich.console

from ban_jax.report import text

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


class Guarded:
    """A text stream on which nothing that is printed can steer a terminal.

    File names, fields of records and names of classes come from strangers: of what they
    hold, control, invisible and bidirectional characters are spelled out. Consoles, whose
    own control sequences must pass, take the stream below (`bare`).

    Args:
      stream: such as `sys.stdout`.
    """

    def __init__(self, stream: IO[str]):
        self.bare = stream

    def write(self, line: str) -> int:
        """Writes text; line ends and tabs stay what they are."""
        told = "".join(
            part if part in ("\n", "\t") else text.printable(part)
            for part in _SPLIT.split(line)
        )
        return self.bare.write(told)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


_SPLIT = re.compile("([\n\t])")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While the body runs, what is printed goes through `Guarded`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Guarded, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def bare(stream: IO[str]) -> IO[str]:
    """The stream below a guard."""
    return stream.bare if isinstance(stream, Guarded) else stream


class _Console(rich.console.Console):
    """One that leaves it to the program what becomes of a broken pipe."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while it is handled; rich exits with 1, "flagged"


def console(
    file: IO[str] | None, plain_width: int, width: int | None = None
) -> rich.console.Console:
    """A console that shows text as it is; colours appear on a terminal only.

    Args:
      file: where to print, standard output by default.
      plain_width: columns where there is no terminal.
      width: columns; by default those of the terminal.
    """
    found = _Console(
        file=bare(file or sys.stdout),
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if width is None and not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = plain_width
    return found


def fits(heads: Iterable[str], rows: Iterable[Sequence[str]], width: int) -> bool:
    """Whether a table of these cells is at most so wide."""
    columns = zip(heads, *rows, strict=True)
    needed = [max(map(rich.cells.cell_len, column)) for column in columns]
    return sum(needed) + GAP * (len(needed) - 1) <= width


def in_lines(heads: Sequence[str], row: Sequence[str]) -> str:
    """A row of a table that is wider than the terminal: `head cell · head cell`."""
    told = (f"{head} {cell}" for head, cell in zip(heads, row, strict=True) if cell)
    return "  " + " · ".join(told)


def encodable(line: str, output: rich.console.Console) -> str:
    """The text in characters that the output can carry."""
    if output.encoding.startswith("utf"):
        return line
    plain = line.translate(_ASCII)
    return plain.encode(output.encoding, "backslashreplace").decode(output.encoding)
