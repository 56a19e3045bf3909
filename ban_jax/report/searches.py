"""How the search of each class's trigger went, round by round."""

import functools
from collections.abc import Iterator

from ban_jax.report import charts, fields, glossary, numerals
from ban_jax.report.figures import Figure
from ban_jax.report.subject import Subject

_NOTE = "One line per class; it ends where the search of the class did."
_ALL = "all classes"
"""Label of the line of a method that searches once for all of them."""


def figures(subject: Subject) -> Iterator[Figure]:
    """One picture per curve of `info.search` (`detectors.inversion.told`)."""
    record = subject.record
    search = fields.mapping(fields.mapping(record.get("info")).get("search"))
    rounds = [r for r in fields.numbers(search.get("round")) if r is not None]
    stored = fields.mapping(search.get("curves"))
    for name in stored:
        table = [fields.numbers(row) for row in fields.listed(stored[name])]
        count = len(table[0]) if table else 0
        if len(rounds) < 2 or len(table) != len(rounds) or not count:
            continue
        if rounds != sorted(rounds) or any(len(row) != count for row in table):
            continue
        words = glossary.words(record, name)
        show = functools.partial(numerals.show, unit=words.unit)
        title = f"{words.title}, by round"
        lines = [list(line) for line in zip(*table, strict=True)]
        ends = [
            next((v for v in reversed(line) if v is not None), None) for line in lines
        ]
        is_one = count == 1
        told = f"{title}: ends at {show(ends[0])}"
        picture = charts.curve(
            [r + 1 for r in rounds],
            lines,
            [_ALL] if is_one else subject.labels(count),
            show=show,
            highlight=None if is_one else subject.marked(count),
            description=told if is_one else subject.describe(title, ends, show),
            axis="round",
        )
        note = "" if is_one else _NOTE
        yield Figure(title, f"{words.meaning} {note}".strip(), picture)
