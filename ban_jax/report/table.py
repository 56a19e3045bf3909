"""The verdict table on the terminal."""

import itertools
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import rich.box
import rich.console
import rich.table
import rich.text

from ban_jax.report import (
    cells,
    fields,
    glossary,
    judgement,
    outcome,
    terminal,
    text,
)
from ban_jax.report import passed as passed_files

_PLAIN_WIDTH = 120
_NARROW = 60
"""Below this width the score stands alone,"""
_NAMED = 72
"""below this one the target is but a number."""
_SCORE = "score ±95 %"
_LEAST_REMARK = 40
_MOST_REMARKS = 12
_LONGEST_TARGET = 18
_COMMAND = ": ban-jax "
"""What a command in a step of `advice` begins with."""


class Column(NamedTuple):
    """A column, and when there is room for it.

    Attributes:
      name: its head.
      room: columns that must be left for paths, unless all paths are shorter.
      right: whether its cells end at the right.
    """

    name: str
    room: int = 0
    right: bool = False


COLUMNS = (
    Column("verdict"),
    Column("checkpoint"),
    Column("architecture", 44),
    Column("target"),
    Column("score"),
    Column("threshold", 24, right=True),
    Column("p", 24, right=True),
    Column("witnesses", 36),
    Column("accuracy", 36, right=True),
    Column("seconds", 44, right=True),
    Column("remark"),
)
"""From left to right."""
_BY_NEED = ("threshold", "p", "witnesses", "accuracy", "architecture", "seconds")
"""Columns that are shown where there is room, the most needed first."""


def print_table(
    records: Sequence[fields.Record],
    *,
    class_names: Sequence[str] | None = None,
    trust: str | None = None,
    steps: Sequence[str] = (),
    passed: Sequence[Any] = (),
    show_skipped: bool = False,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Prints one row per candidate, the most alarming first, and lines that sum them up.

    Colours appear on a terminal only; the verdict is a word and a sign in either case.

    Args:
      records: results as `records.load` gives them.
      class_names: names of the K classes, shown beside the suspected target.
      trust: how often such verdicts were right where the truth is known.
      steps: what to do next.
      passed: what was met and holds no classifier, with `path` and `reason` each.
      show_skipped: prints each of these.
      file: where to print, standard output by default.
      width: columns; by default those of the terminal, or 120 without one.
    """
    console = terminal.console(file, _PLAIN_WIDTH, width)

    def show(line: str, style: str = "", *, whole: bool = False) -> None:
        line = terminal.encodable(text.printable(line), console)
        console.print(rich.text.Text(line, style), soft_wrap=whole)

    ordered = sorted(records, key=fields.gravity)
    if ordered:
        table = _table(*_each_once(ordered), class_names, console)
        shown = {str(column.header) for column in table.columns}
        console.print(table)
        room = next((c.width for c in table.columns if c.header == "remark"), 0) or 0
        for line in _unjudged(ordered, room):
            show(line, cells.STYLES["inconclusive"].split()[-1])
        for line in _calling(ordered):
            show(line, cells.STYLES["suspicious"])
        if "witnesses" in shown:
            show(_legend(ordered), "dim")
    show(summary(ordered), "bold")
    # A terminal would break lines in the middle of a word; programs read whole lines.
    whole = not console.is_terminal
    for told in (outcome.false_alarms(ordered), trust):
        if told:
            show(told)
    for line in steps:
        said, mark, command = line.partition(_COMMAND)
        if whole or not mark:
            show(line, whole=whole)
            continue
        show(f"{said}:")
        show(f"  {(mark + command).lstrip(': ')}", whole=True)  # so it can be copied
    for line in passed_files.lines(passed, whole=show_skipped):
        show(line, whole=whole)


def print_passed(passed: Sequence[Any], *, show_skipped: bool = False) -> None:
    """Prints what was met and holds no classifier; see `print_table`."""
    console = terminal.console(None, _PLAIN_WIDTH)
    for line in passed_files.lines(passed, whole=show_skipped):
        told = terminal.encodable(text.printable(line), console)
        console.print(rich.text.Text(told), soft_wrap=True)


def summary(records: Sequence[fields.Record]) -> str:
    """How many files got each verdict, from what score on, and by what comparison."""
    files = fields.files(records)
    counts = outcome.tally(files)
    parts = [", ".join(f"{counts[name]} {name}" for name in fields.VERDICTS)]
    modes = ", ".join(fields.distinct(records, "mode"))
    for told, value in (
        ("{}", outcome.limits(records)),
        ("{}", outcome.baselines(records)),
        ("mode {}", modes),
    ):
        if value:
            parts.append(told.format(value))
    inside = len(fields.measured(records)) - len(files)
    more = f" and {text.count(inside, 'further classifier')} inside" if inside else ""
    return f"{text.count(len(files), 'checkpoint')}{more}: " + " · ".join(parts)


def _unjudged(records: Sequence[fields.Record], room: int) -> list[str]:
    """Why candidates were not judged, where the table's column has no room to say so."""
    unjudged = [
        record
        for record in records
        if fields.verdict(record) == "inconclusive"
        and len(fields.remark(record)) > room
    ]
    folder, glyph = fields.common_folder(records), fields.GLYPHS["inconclusive"]
    lines = [
        f"{glyph} {fields.label(record, folder)}: "
        + text.sentence(fields.remark(record), 300)
        for record in unjudged[:_MOST_REMARKS]
    ]
    left = len(unjudged) - _MOST_REMARKS
    return lines + [f"  and {left:,} more; see the results file"] * (left > 0)


def _calling(records: Sequence[fields.Record]) -> list[str]:
    """What files ask to have called, whatever columns there is room for."""
    found = [(record, fields.calls(record)) for record in records]
    calling = [(record, calls) for record, calls in found if calls]
    folder, glyph = fields.common_folder(records), fields.GLYPHS["suspicious"]
    lines = [
        f"{glyph} {fields.label(record, folder)} asks to call "
        + text.sentence(", ".join(calls), 300)
        + " when loaded by pickle"
        for record, calls in calling[:_MOST_REMARKS]
    ]
    left = len(calling) - _MOST_REMARKS
    return lines + [f"  and {left:,} more; see the results file"] * (left > 0)


def _legend(records: Sequence[fields.Record]) -> str:
    found = glossary.witnesses(judgement.names(records)).values()
    told = ", ".join(f"{one.letter} {one.name}" for one in found)
    return (
        f"witnesses that find the target odd enough by themselves: {told}; "
        "· does not, blank: not measured"
    )


Also = Mapping[str, Sequence[fields.Record]]
"""Path -> further records of the same weights."""


def _each_once(
    records: Sequence[fields.Record],
) -> tuple[list[fields.Record], Also]:
    """One record of those whose files hold the same weights and got the same verdict."""
    found: dict[str, fields.Record] = {}
    also: dict[str, list[fields.Record]] = {}
    for place, record in enumerate(records):
        weights, part = record.get("sha256"), record.get("part_of")
        alone = not weights or part or record.get("parts") or fields.calls(record)
        told = [record.get(name) for name in ("sha256", "verdict", "score", "target")]
        first = found.setdefault(repr(place if alone else told), record)
        if first is not record:
            also.setdefault(str(first.get("path")), []).append(record)
    return list(found.values()), also


def _table(
    records: Sequence[fields.Record],
    also: Also,
    class_names: Sequence[str] | None,
    console: rich.console.Console,
) -> rich.table.Table:
    """The columns that fit, as wide as they need; paths and remarks share the rest."""
    width = console.width
    folder = fields.common_folder([*records, *itertools.chain(*also.values())])

    def encode(line: str) -> str:
        return terminal.encodable(line, console)

    rows = cells.rows(
        records,
        class_names if width >= _NAMED else None,
        folder,
        with_spread=width >= _NARROW,
        encode=encode,
    )
    heads = {column.name: column.name for column in COLUMNS}
    if width >= _NARROW and any(map(judgement.spread, records)):
        heads["score"] = encode(_SCORE)
    needed = {
        name: max(len(head), *(row[name].cell_len for row in rows))
        for name, head in heads.items()
    }
    others = {
        path: [f"also as {fields.label(one, folder)}" for one in same]
        for path, same in also.items()
    }
    longest = max((len(told) for same in others.values() for told in same), default=0)
    needed["checkpoint"] = max(needed["checkpoint"], longest)
    needed["target"] = min(needed["target"], _LONGEST_TARGET)
    empty = _empty(records, rows)
    widths = _widths(needed, empty, width)
    names = [row["checkpoint"].plain for row in rows]
    ends = ("", "")
    if max(map(len, names)) > widths["checkpoint"]:
        ends = text.in_common(names)
    if any(ends):
        names = [_without(name, ends) for name in names]
        needed["checkpoint"] = max(len("checkpoint"), longest, *map(len, names))
        widths = _widths(needed, empty, width)
    utf = console.encoding.startswith("utf")
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in COLUMNS:
        if column.name in widths:
            table.add_column(
                heads[column.name],
                no_wrap=True,
                overflow="ellipsis" if utf else "crop",
                justify="right" if column.right else "left",
                width=widths[column.name],
            )
    for record, row, name in zip(records, rows, names, strict=True):
        lines = text.fold(name, widths["checkpoint"])
        for told in others.get(str(record.get("path")), ()):
            lines += text.fold(told, widths["checkpoint"])
        row["checkpoint"].plain = encode("\n".join(lines))
        table.add_row(*(row[c.name] for c in COLUMNS if c.name in widths))
    captions = [text.shorten(f"in {text.name(folder)}", width)] if folder else []
    for place, end in zip(("in front", "at the end"), ends, strict=True):
        if end:
            captions.append(text.shorten(f"… {place}: {end}", width))
    if captions:
        caption = "\n".join(captions)
        table.caption = rich.text.Text(encode(caption), style="dim")
        table.caption_justify = "left"
    return table


def _without(name: str, ends: tuple[str, str]) -> str:
    """A name whose ends, which all share, are left out."""
    prefix, suffix = ends
    middle = name[len(prefix) : len(name) - len(suffix)]
    return f"{'…' * bool(prefix)}{middle}{'…' * bool(suffix)}"


def _empty(records: Sequence[fields.Record], rows: Sequence[cells.Row]) -> set[str]:
    """Columns that would say nothing, or of every candidate the same."""
    found = {name for name in _BY_NEED if not any(row[name].plain for row in rows)}
    if not judgement.names(records):
        found.add("witnesses")
    if len({row["threshold"].plain for row in rows} - {""}) < 2:
        found.add("threshold")  # the summary tells it
    return found


def _widths(needed: Mapping[str, int], empty: set[str], width: int) -> dict[str, int]:
    """Width per column that is shown."""
    shown = {name: needed[name] for name in ("verdict", "target", "score")}
    room = width - sum(shown.values()) - terminal.GAP * len(shown)
    longest = needed["checkpoint"]
    least = {column.name: min(column.room, longest) for column in COLUMNS}
    for name in _BY_NEED:
        cost = needed[name] + terminal.GAP
        if name not in empty and room - cost >= least[name]:
            shown[name] = needed[name]
            room -= cost
    rest = room - longest - terminal.GAP
    if rest >= min(_LEAST_REMARK, needed["remark"]):
        shown["remark"] = min(needed["remark"], rest)
    return {**shown, "checkpoint": max(min(longest, room), 8)}
