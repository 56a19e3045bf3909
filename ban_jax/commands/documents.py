"""What a command gives to other programs: `--format`, `-o` and `--quiet`.

Standard output carries the document alone, so that it can be piped; what is told to a
person meanwhile goes to standard error, or with `--quiet` nowhere.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

import ban_jax
from ban_jax import checkpoints, records
from ban_jax.commands import outcome, replacing
from ban_jax.records import passed as passed_files
from ban_jax.report import fields, sarif, terminal
from ban_jax.report import outcome as tally
from ban_jax.storage import atomic

Format = Literal["table", "json", "jsonl", "csv", "sarif"]


class Outlet:
    """Where a command's document goes.

    Args:
      form: of the document; `table` is what a person reads.
      path: of a file, or `-`: standard output, as it was before anything was redirected.
      stream: that standard output.
    """

    def __init__(self, form: Format, path: str, stream: IO[str]):
        self.form, self.path, self.stream = form, path, stream
        to_file = form == "table" and path != "-"
        self.table: io.StringIO | None = io.StringIO() if to_file else None
        """What the table is printed to where that is a file, else None."""

    def write(
        self,
        judged: Sequence[records.Record],
        passed: Sequence[checkpoints.Passed] = (),
    ) -> None:
        """Writes the document; the table must have been printed.

        Args:
          judged: results.
          passed: what else was met, and holds no classifier.

        Raises:
          OutputError: it cannot be written.
        """
        if self.form != "table":
            told = render(self.form, judged, passed)
        elif self.table is not None:
            told = self.table.getvalue()
        else:
            return  # it was printed
        if self.path != "-":
            atomic.write(self.path, told.encode(errors="backslashreplace"))
            return
        coding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(told.encode(coding, "backslashreplace").decode(coding))
        self.stream.flush()


@contextlib.contextmanager
def outlet(form: Format, path: str, quiet: bool) -> Iterator[Outlet]:
    """While the body runs, what is printed leaves standard output to the document."""
    found = Outlet(form, path, terminal.bare(sys.stdout))
    with contextlib.ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(outcome.without_progress())
        elif form != "table" and path == "-":
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield found


def check(path: str, flags: Any, out: str) -> None:
    """Refuses a place for the document before the work.

    Args:
      path: of the file, or `-`.
      flags: of the command.
      out: its folder of results.

    Raises:
      ValueError: for what is no file, for a file in a folder that is not there, and for
        one that must stay as it is (`replacing.check`).
    """
    if path != "-":
        expected = "a file, or - for standard output (--out names the folder)"
        outcome.require_file("--output", path, expected)
        folder = os.path.dirname(path) or "."
        outcome.require(
            os.path.isdir(folder), "--output", "in a folder that exists", path
        )
        replacing.check("--output", path, flags, out)


def render(
    form: Format,
    judged: Sequence[records.Record],
    passed: Sequence[checkpoints.Passed] = (),
) -> str:
    """The document as text that ends in a newline; every form holds every file.

    Raises:
      ValueError: for the table, which is drawn elsewhere.
    """
    if form == "jsonl":
        return "".join(records.encode(line).decode() for line in judged)
    if form == "csv":
        return records.csv_text(judged)
    kept, others = passed_files.divide(judged)
    skipped = sorted([*passed, *others])
    if form == "json":
        return _json(
            {
                "tool": "ban-jax",
                "version": ban_jax.__version__,
                "schema_version": records.SCHEMA_VERSION,
                "summary": tally.tally(fields.files(kept)),
                "results": kept,
                "skipped": [one._asdict() for one in skipped],
            }
        )
    if form == "sarif":
        return _json(sarif.document(kept, skipped))
    raise ValueError(f"{form} is not a document")


def _json(told: Any) -> str:
    return json.dumps(records.finite(told), indent=1, allow_nan=False) + "\n"
