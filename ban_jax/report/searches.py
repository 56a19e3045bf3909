"""How the search of each class's trigger went, round by round."""

import functools
from collections.abc import Iterator

from ban_jax.report import charts, fields, glossary, numerals
from ban_jax.report.figures import Figure
from ban_jax.report.subject import Subject

_NOTE = "One line per class; it ends where the search of the class did."


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
        picture = charts.curve(
            [r + 1 for r in rounds],
            lines,
            subject.labels(count),
            show=show,
            highlight=subject.marked(count),
            description=subject.describe(title, ends, show),
            axis="round",
        )
        yield Figure(title, f"{words.meaning} {_NOTE}".strip(), picture)
