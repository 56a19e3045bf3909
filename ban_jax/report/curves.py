"""How class vectors change with the radius of the noise."""

import functools
from collections.abc import Iterator
from typing import Any

from ban_jax.report import charts, fields, glossary, numerals
from ban_jax.report.figures import Figure
from ban_jax.report.subject import Subject

_NOTE = "One line per class. A backdoor's target leaves the others early."


def figures(subject: Subject) -> Iterator[Figure]:
    """One picture per curve of two radii or more, that of the main vector first."""
    record = subject.record
    main = glossary.main_vector(record)
    stored = fields.mapping(fields.mapping(record.get("info")).get("curves"))
    for name in sorted(stored, key=lambda name: name != main):
        radii, table = _table(record, stored[name])
        if len(radii) < 2 or not table[0]:
            continue
        words = glossary.words(record, name)
        show = functools.partial(numerals.show, unit=words.unit)
        title = f"{words.title}, by noise radius"
        lines = [list(line) for line in zip(*table, strict=True)]
        picture = charts.curve(
            radii,
            lines,
            subject.labels(len(lines)),
            show=show,
            highlight=subject.marked(len(lines)),
            description=subject.describe(title, table[-1], show),
        )
        yield Figure(title, _NOTE, picture)


def _table(
    record: fields.Record, curve: Any
) -> tuple[list[float], list[list[float | None]]]:
    """Radii `[R]`, ascending, and the vectors `[R][K]` there; rows of odd length dropped.

    The settings of the detector say the radii, as shares of its `epsilon`.
    """
    config = fields.mapping(record.get("config"))
    epsilon = fields.number(config.get("epsilon"))
    if epsilon is None:
        return [], []
    rows = [fields.numbers(row) for row in fields.listed(curve)]
    longest = max((len(row) for row in rows), default=0)
    pairs = [
        (share * epsilon, row)
        for share, row in zip(fields.numbers(config.get("radii")), rows, strict=False)
        if share is not None and len(row) == longest
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [radius for radius, _ in pairs], [row for _, row in pairs]
