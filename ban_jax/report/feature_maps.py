"""Features of clean images under growing neuron noise, as a map per radius.

The record keeps the points (`info.features`, which `ban-jax report --features` adds). Dots
are images in the colours of their classes, crosses those that are answered with the class
in question although they are of another.
"""

import collections
from typing import NamedTuple

from ban_jax.report import charts, fields, plots
from ban_jax.report.figures import Figure
from ban_jax.report.subject import Subject

MOST_IMAGES, MOST_RADII = 2048, 6
"""A record that claims more is not drawn."""
_SIDE, _GAP, _TOP, _DOT, _CROSS = 150.0, 15.0, 8.0, 3.6, 2.4


class Map(NamedTuple):
    """What a record keeps: R radii, N images.

    Attributes:
      radii: `[R]`.
      labels: `[N]` true classes.
      answers: `[R][N]` classes that are answered.
      points: `[R][N]` places in [0, 1].
    """

    radii: list[float]
    labels: list[int]
    answers: list[list[int]]
    points: list[list[tuple[float, float]]]


def figure(subject: Subject) -> Figure | None:
    """The maps of a candidate side by side; None where it has none."""
    found = map_of(subject.record)
    if found is None:
        return None
    count = subject.record["num_classes"]
    labels, target = subject.labels(count), subject.record.get("target")
    parts, told = [], []
    for place, radius in enumerate(found.radii):
        left = place * (_SIDE + _GAP)
        parts += _panel(found, place, left, target)
        answer, hits = collections.Counter(found.answers[place]).most_common(1)[0]
        share = f"{hits / len(found.labels):.0%}"
        told.append(f"at radius {radius:g} {share} {labels[answer]}")
        for line, words in enumerate((f"ε {radius:g}", f"{share} {labels[answer]}")):
            y = _TOP + _SIDE + 17 + 16 * line
            parts.append(charts.words(left + _SIDE / 2, y, words, "m", "middle"))
    width = len(found.radii) * (_SIDE + _GAP) - _GAP
    title = "Features under growing noise"
    picture = charts.svg(
        width, _TOP + _SIDE + 40, f"{title}, by t-SNE: {'; '.join(told)}", parts
    )
    note = (
        "A dot is a clean image, its colour the class it is of; near dots have like "
        "features. Below each map stands the most frequent answer."
    )
    if type(target) is int and 0 <= target < count:
        note += f" Crosses: images of others that are answered with {labels[target]}."
    return Figure(title, note, picture)


def map_of(record: fields.Record) -> Map | None:
    """The map of a record; None where it has none, or one that does not fit it."""
    told = fields.mapping(fields.mapping(record.get("info")).get("features"))
    radii = fields.numbers(told.get("radii"))
    labels = fields.listed(told.get("labels"))
    answers = [fields.listed(row) for row in fields.listed(told.get("answers"))]
    points = [
        [fields.numbers(point) for point in fields.listed(row)]
        for row in fields.listed(told.get("points"))
    ]
    count, number = record.get("num_classes"), len(labels)
    fits = (
        type(count) is int
        and 0 < number <= MOST_IMAGES
        and 0 < len(radii) == len(answers) == len(points) <= MOST_RADII
        and None not in radii
        and all(len(row) == number for row in (*answers, *points))
        and all(
            type(one) is int and 0 <= one < count
            for row in (labels, *answers)
            for one in row
        )
        and all(
            len(point) == 2 and all(x is not None and 0 <= x <= 1 for x in point)
            for row in points
            for point in row
        )
    )
    return Map(radii, labels, answers, points) if fits else None  # type: ignore[arg-type]


def _panel(found: Map, place: int, left: float, target: object) -> list[str]:
    """Frame, dots and crosses of one radius: a path per class and mark."""
    paths = collections.defaultdict(list)
    for label, answer, (x, y) in zip(
        found.labels, found.answers[place], found.points[place], strict=True
    ):
        across, down = left + 5 + x * (_SIDE - 10), _TOP + 5 + y * (_SIDE - 10)
        is_hit = answer == target and label != target
        colour = label % plots.COLOURS
        if is_hit:
            start = f"M{charts.n(across - _CROSS)} {charts.n(down - _CROSS)}"
            size = charts.n(2 * _CROSS)
            paths[colour, True].append(
                f"{start}l{size} {size}m0 -{size}l-{size} {size}"
            )
        else:
            paths[colour, False].append(f"M{charts.n(across)} {charts.n(down)}h0")
    frame = charts.rectangle(left, _TOP, _SIDE, _SIDE)
    parts = [f'<path class="g" fill="none" d="{frame}"/>']
    for (colour, is_hit), pieces in sorted(paths.items()):
        width = 1.3 if is_hit else _DOT
        parts.append(
            f'<path class="p{colour}" stroke-width="{width}" stroke-linecap="round" '
            f'd="{"".join(pieces)}"/>'
        )
    return parts
