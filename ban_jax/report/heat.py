"""What each witness says of each class: a table whose cells are as warm as they are odd."""

from collections.abc import Sequence
from typing import NamedTuple

from ban_jax.report import charts, fields, glossary, judgement, numerals
from ban_jax.report.subject import Subject


class Cell(NamedTuple):
    """What one witness says of one class.

    Attributes:
      value: as text.
      warmth: `alarm` above the threshold, `doubt` where it is suspicious, `half` above
        half the threshold, or nothing.
      glyph: that of the grade, for those who do not see the colour.
    """

    value: str
    warmth: str = ""
    glyph: str = ""


class Row(NamedTuple):
    """One class; its last cell is the class's score."""

    label: str
    is_target: bool
    cells: Sequence[Cell]


class Heat(NamedTuple):
    """What the template shows: a column for each witness, and the score."""

    title: str
    note: str
    heads: Sequence[str]
    rows: Sequence[Row]


def heat(subject: Subject) -> Heat | None:
    """Classes by witnesses; None without any."""
    record = subject.record
    read = judgement.witnesses(record)
    witnesses = glossary.witnesses(read)
    columns = {one.name: read[name] for name, one in witnesses.items()}
    count = max((len(values) for values in read.values()), default=0)
    if not count:
        return None
    scores = fields.numbers(record.get("z"))
    if len(scores) == count:
        columns["score"] = scores
    table = [
        [values[k] if k < len(values) else None for values in columns.values()]
        for k in range(count)
    ]
    mark = subject.marked(count)
    shown = charts.choose([_largest(row) for row in table], mark)
    labels = subject.labels(count)
    rows = [
        Row(labels[k], k == mark, [_cell(value, record) for value in table[k]])
        for k in shown
    ]
    return Heat(
        "What each witness says of each class",
        _note(record) + (len(shown) < count) * f" {len(shown)} of {count} classes.",
        list(columns),
        rows,
    )


def left_out(subject: Subject) -> list[str]:
    """Why witnesses say nothing, in a sentence each."""
    found = judgement.void(subject.record)
    names = glossary.witnesses(found)
    return [f"Left out: {names[name].name}: {why}" for name, why in found.items()]


def _note(record: fields.Record) -> str:
    note = (
        "How far a class stands out in one vector read by itself, in standard deviations. "
        "A clean model has an odd class here and there; a backdoor's target is odd to "
        "several witnesses at once."
    )
    for grade, limit in zip(fields.FLAGGED, judgement.limits(record), strict=True):
        if limit is not None:
            note += f" {fields.GLYPHS[grade]} above {numerals.score(limit)}."
    return f"{note} –: not measured."


def _cell(value: float | None, record: fields.Record) -> Cell:
    told = numerals.show(value, "score")
    threshold, lower = judgement.limits(record)
    if value is None or threshold is None:
        return Cell(told)
    if value > threshold:
        return Cell(told, "alarm", fields.GLYPHS["backdoored"])
    if lower is not None and value > lower:
        return Cell(told, "doubt", fields.GLYPHS["suspicious"])
    return Cell(told, "half" if value > threshold / 2 > 0 else "")


def _largest(values: Sequence[float | None]) -> float | None:
    """What classes are chosen by where there are too many."""
    return max((value for value in values if value is not None), default=None)
