"""Pictures of several detectors in one frame: curves of errors, cost against worth.

Each detector has a colour of its own from the style sheet (`p0` to `p9`), a dash pattern
and its name in the picture, so that colour is never all that tells them apart.
"""

import math
from collections.abc import Mapping, Sequence

import markupsafe

from ban_jax.report import charts, numerals

Point = tuple[float, float]
COLOURS = 10
_WIDTH, _HEIGHT = 480.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 330.0, 26.0, 296.0


def roc(curves: Mapping[str, Sequence[Point]]) -> markupsafe.Markup:
    """One stepped line per detector: false alarms to the right, detections upwards.

    Args:
      curves: name -> points from (0, 0) to (1, 1); one without points is left out.
    """

    def x(share: float) -> float:
        return _LEFT + share * (_RIGHT - _LEFT)

    def y(share: float) -> float:
        return _BOTTOM - share * (_BOTTOM - _TOP)

    parts = [_frame(), f'<path class="g d" d="M{_at(x(0), y(0))}L{_at(x(1), y(1))}"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_tick(x(tick), numerals.share(tick)))
        parts.append(
            charts.words(_LEFT - 6, y(tick) + 4, numerals.share(tick), "m", "end")
        )
    parts += _titles("false alarms", "detected")
    drawn = [name for name, points in curves.items() if points]
    for name in drawn:
        place = _place(curves, name)
        path = "".join(
            f"{'L' if at else 'M'}{_at(x(a), y(b))}"
            for at, (a, b) in enumerate(curves[name])
        )
        parts.append(f'<path class="p{place} line" d="{path}"/>')
    parts += _legend(curves, drawn)
    return charts.svg(
        _WIDTH, _HEIGHT, f"ROC curves of {', '.join(drawn) or 'nothing'}", parts
    )


def scatter(found: Mapping[str, Point | None]) -> markupsafe.Markup:
    """A dot per detector: seconds per candidate to the right (logarithm), AUC upwards.

    Args:
      found: name -> seconds, above 0, and AUC; one without them is left out.
    """
    points = {name: point for name, point in found.items() if point is not None}
    if not points:
        return charts.svg(_WIDTH, 20, "Time against AUC: nothing was measured", [])
    seconds = [math.log10(point[0]) for point in points.values()]
    low, high = math.floor(min(seconds)), math.ceil(max(seconds) + 1e-9)
    high = max(high, low + 1)
    least = min(0.5, *(point[1] for point in points.values()))
    ticks = [t for t in charts.round_values(least, 1.0) if t <= 1.0]
    least = min(least, ticks[0])

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - low) / (high - low) * (_RIGHT - _LEFT)

    def y(value: float) -> float:
        return _BOTTOM - (value - least) / (1.0 - least) * (_BOTTOM - _TOP)

    parts = [_frame()]
    grid = "".join(f"M{_at(_LEFT, y(tick))}H{charts.n(_RIGHT)}" for tick in ticks)
    parts.append(f'<path class="g" d="{grid}"/>')
    parts += [
        charts.words(_LEFT - 6, y(tick) + 4, numerals.share(tick), "m", "end")
        for tick in ticks
    ]
    parts += [_tick(x(10.0**e), f"{10.0**e:g}") for e in range(low, high + 1)]
    parts += _titles("seconds per candidate", "AUC")
    for name, (value, worth) in points.items():
        parts.append(
            f'<circle class="p{_place(found, name)} spot" cx="{charts.n(x(value))}" '
            f'cy="{charts.n(y(worth))}" r="6"/>'
        )
    parts += _legend(found, list(points), of_spots=True)
    told = "; ".join(f"{n} {s:.3g} s, {a:.2f}" for n, (s, a) in points.items())
    return charts.svg(_WIDTH, _HEIGHT, f"Time against AUC: {told}", parts)


def _place(names: Mapping[str, object], name: str) -> int:
    """The colour of a detector: the same in every picture of the page."""
    return list(names).index(name) % COLOURS


def _frame() -> str:
    corner = f"{_at(_LEFT, _TOP)}V{charts.n(_BOTTOM)}H{charts.n(_RIGHT)}"
    return f'<path class="g" d="M{corner}"/>'


def _tick(x: float, told: str) -> str:
    return charts.words(x, _BOTTOM + 16, told, "m", "middle")


def _titles(below: str, above: str) -> list[str]:
    middle = (_LEFT + _RIGHT) / 2
    return [
        charts.words(middle, _BOTTOM + 34, below, "m", "middle"),
        charts.words(_LEFT - 6, _TOP - 12, above, "m"),
    ]


def _legend(
    names: Mapping[str, object], drawn: Sequence[str], *, of_spots: bool = False
) -> list[str]:
    """A line or a dot and a name for each, beside the frame."""
    parts = []
    for row, name in enumerate(drawn):
        y, mark = _TOP + 8 + 19.0 * row, f"p{_place(names, name)}"
        if of_spots:
            x = charts.n(_RIGHT + 21)
            parts.append(
                f'<circle class="{mark} spot" cx="{x}" cy="{charts.n(y)}" r="5"/>'
            )
        else:
            parts.append(f'<path class="{mark} line" d="M{_at(_RIGHT + 12, y)}h18"/>')
        parts.append(charts.words(_RIGHT + 35, y + 4, name))
    return parts


def _at(x: float, y: float) -> str:
    return f"{charts.n(x)} {charts.n(y)}"
