"""The verdict table on the terminal."""

import os
from collections.abc import Sequence
from typing import IO

import rich.box
import rich.console
import rich.table
import rich.text

from ban_jax.report import fields, numerals, outcome, text

_STYLES = {"backdoored": "bold red", "inconclusive": "bold yellow", "clean": "green"}
_PLAIN_WIDTH = 120
_GAP = 3
_LEAST_REMARK = 40
_MOST_REMARKS = 12
_NUMERIC = ("score", "accuracy", "seconds")
_ASCII = str.maketrans(
    {"▲": "!", "✓": "+", "≥": ">=", "≤": "<=", "…": "~", "·": "-", "–": "-", "−": "-"}
)


def print_table(
    records: Sequence[fields.Record],
    *,
    class_names: Sequence[str] | None = None,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Prints one row per candidate, sorted by path, and a line that sums them up.

    Colours appear on a terminal only; the verdict is a word and a sign in either case.

    Args:
      records: results as `records.load` gives them.
      class_names: names of the K classes, shown beside the suspected target.
      file: where to print, standard output by default.
      width: columns; by default those of the terminal, or 120 without one.
    """
    console = rich.console.Console(
        file=file, width=width, highlight=False, markup=False, emoji=False
    )
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PLAIN_WIDTH
    ordered = sorted(records, key=lambda record: str(record.get("path", "")))
    if ordered:
        table = _table(ordered, class_names, console)
        console.print(table)
        if table.columns[-1].header != "remark":
            _print_unjudged(ordered, console)
    console.print(
        rich.text.Text(_encodable(summary(ordered), console), style="bold"),
        soft_wrap=True,
    )


def summary(records: Sequence[fields.Record]) -> str:
    """How many candidates got each verdict, in which mode, against which baseline."""
    counts = outcome.tally(records)
    parts = [", ".join(f"{counts[name]} {name}" for name in fields.VERDICTS)]
    for key in ("baseline", "mode"):
        values = fields.distinct(records, key)
        if values:
            parts.append(f"{key} {', '.join(values)}")
    return f"{text.count(len(records), 'checkpoint')}: " + " · ".join(parts)


def _print_unjudged(
    records: Sequence[fields.Record], console: rich.console.Console
) -> None:
    """Why candidates were not judged, where the table has no room to say so."""
    unjudged = [r for r in records if fields.verdict(r) == "inconclusive"]
    folder = fields.common_folder(records)
    for record in unjudged[:_MOST_REMARKS]:
        path = text.printable(str(record.get("path", "")).removeprefix(folder))
        remark = text.sentence(fields.remark(record), 300)
        line = _encodable(f"{fields.GLYPHS['inconclusive']} {path}: {remark}", console)
        console.print(rich.text.Text(line, _STYLES["inconclusive"].split()[-1]))
    left = len(unjudged) - _MOST_REMARKS
    if left > 0:
        console.print(rich.text.Text(f"  and {left:,} more; see the results file"))


def _encodable(line: str, console: rich.console.Console) -> str:
    """The text in characters that the output can carry."""
    if console.encoding.startswith("utf"):
        return line
    plain = line.translate(_ASCII)
    return plain.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _table(
    records: Sequence[fields.Record],
    class_names: Sequence[str] | None,
    console: rich.console.Console,
) -> rich.table.Table:
    """The columns that fit, as wide as they need; path and remark share the rest."""
    width, folder = console.width, fields.common_folder(records)
    wanted = ["verdict", "checkpoint", "target", "score"]
    if width >= 72:
        wanted += ["accuracy", "remark"]
    if width >= 100:
        wanted = wanted[:2] + ["architecture", *wanted[2:5], "seconds", "remark"]
    rows = [
        _cells(record, class_names if width >= 72 else None, folder)
        for record in records
    ]
    if width < 60:
        for row in rows:
            row["score"].plain = row["score"].plain.split(" ")[0]
    for cell in (cell for row in rows for cell in row.values()):
        cell.plain = _encodable(cell.plain, console)
    needed = {
        name: max(len(name), *(row[name].cell_len for row in rows)) for name in wanted
    }
    needed["target"] = min(needed["target"], 18)
    fixed = sum(needed[name] for name in wanted if name not in ("checkpoint", "remark"))
    room = width - fixed - _GAP * (len(wanted) - 1)
    longest = needed["checkpoint"]
    needed["checkpoint"] = min(
        longest, max(room // 2 if "remark" in wanted else room, 8)
    )
    rest = room - needed["checkpoint"]
    if "remark" in wanted:
        if rest < min(_LEAST_REMARK, needed["remark"]):
            wanted.remove("remark")
            needed["checkpoint"] = min(longest, room + _GAP)
        else:
            needed["remark"] = min(needed["remark"], rest)
    utf = console.encoding.startswith("utf")
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in wanted:
        table.add_column(
            name,
            no_wrap=True,
            overflow="ellipsis" if utf else "crop",
            justify="right" if name in _NUMERIC else "left",
            width=needed[name],
        )
    for row in rows:
        path = text.shorten(row["checkpoint"].plain, needed["checkpoint"])
        row["checkpoint"].plain = _encodable(path, console)
        table.add_row(*(row[name] for name in wanted))
    if folder:
        caption = text.shorten(f"in {text.printable(folder)}", width)
        table.caption = rich.text.Text(_encodable(caption, console), style="dim")
        table.caption_justify = "left"
    return table


def _cells(
    record: fields.Record,
    class_names: Sequence[str] | None,
    folder: str,
) -> dict[str, rich.text.Text]:
    """Every cell of one candidate by column name."""
    verdict = fields.verdict(record)
    style, target = _STYLES[verdict], ""
    path = text.printable(str(record.get("path", "")).removeprefix(folder))
    if verdict == "backdoored":
        target = fields.class_label(
            record.get("target"), class_names, record.get("num_classes")
        )
    accuracy = fields.number(record.get("clean_accuracy"))
    return {
        "verdict": rich.text.Text(f"{fields.GLYPHS[verdict]} {verdict}", style),
        "checkpoint": rich.text.Text(path),
        "architecture": rich.text.Text(fields.architecture(record)),
        "target": rich.text.Text(target),
        "score": rich.text.Text(_score(record), style if target else ""),
        "accuracy": rich.text.Text("" if accuracy is None else f"{accuracy:.3f}"),
        "seconds": rich.text.Text(
            numerals.seconds(fields.number(record.get("seconds")))
        ),
        "remark": rich.text.Text(text.sentence(fields.remark(record), 200), "dim"),
    }


def _score(record: fields.Record) -> str:
    """`8.71 > 3.50`: the score and on which side of its threshold it lies."""
    score = fields.number(record.get("score"))
    threshold = fields.number(record.get("threshold"))
    if score is None:
        return ""
    if threshold is None:
        return numerals.score(score)
    relation = ">" if score > threshold else "≤"
    return f"{numerals.score(score)} {relation} {numerals.score(threshold)}"
