"""The pictures of the report: small inline SVG without scripts or outside files.

Colours come from the classes of the style sheet, so that they follow light and dark:
`h` the suspected class, `b` the other classes, `o` the comparison, `g` grid lines, `m`
muted text. Every series is one path, which keeps hundreds of candidates in one page
small.

What is drawn is marked as markup; the text inside it is escaped here.
"""

import math
from collections.abc import Callable, Sequence

import markupsafe

from ban_jax.report import numerals, text

Values = Sequence[float | None]

MOST_ROWS = 20
"""With more classes than this, a chart shows the largest `TOP_ROWS`."""
TOP_ROWS = 12
_MOST_LINES = 12
_MOST_DOTS = 12
_LETTER = 7.0
"""Width of a letter, about."""


def score_bar(
    score: float,
    threshold: float | None,
    interval: tuple[float, float] | None = None,
    suspicious_above: float | None = None,
) -> markupsafe.Markup:
    """The score on a line, with the parts that raise suspicion or alarm shaded.

    Args:
      score: of a candidate.
      threshold: the score above which it is backdoored.
      interval: ends of the whisker.
      suspicious_above: the score above which it is suspicious.
    """
    width, left, right, y = 480.0, 8.0, 472.0, 48.0
    ends = interval or (score, score)
    known = [limit for limit in (threshold, suspicious_above) if limit is not None]
    low = min(0.0, score, *ends, *known)
    high = max(low + 1e-9, score, *ends, *(1.6 * limit for limit in known))
    high += 0.06 * (high - low)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = [f'<path class="g" d="M{n(left)} {n(y)}H{n(right)}"/>']
    label = f"score {numerals.score(score)}"
    # From the mildest zone on: each reaches to the next, and its words to a line above.
    end, line, is_beyond = right, 12, False
    for limit, zone, called in (
        (threshold, "zone", "threshold"),
        (suspicious_above, "doubt", "suspicious above"),
    ):
        if limit is None:
            continue
        edge = at(limit)
        told = f"{called} {numerals.score(limit)}"
        label += f", {told}"
        is_beyond |= score > limit
        parts.append(
            f'<rect class="{zone}" x="{n(edge)}" y="{n(y - 11)}" '
            f'width="{n(max(end - edge, 0.0))}" height="22" rx="3"/>'
            f'<path class="cut" d="M{n(edge)} {n(y - 15)}V{n(y + 15)}"/>'
            + words(edge, line, told, "m", anchor(edge, width, told))
        )
        end, line = edge, line + 14
    mark = "h" if is_beyond else "b"
    x = at(score)
    parts.append(f'<path class="{mark} s" d="M{n(at(max(low, 0.0)))} {n(y)}H{n(x)}"/>')
    if ends[0] != ends[1]:
        first, last = n(at(ends[0])), n(at(ends[1]))
        parts.append(
            f'<path class="{mark} w" d="M{first} {n(y)}H{last}'
            f'M{first} {n(y - 5)}v10M{last} {n(y - 5)}v10"/>'
        )
        label += f", 95 % from {numerals.score(ends[0])} to {numerals.score(ends[1])}"
    parts.append(f'<circle class="{mark} dot" cx="{n(x)}" cy="{n(y)}" r="6"/>')
    told = f"score {numerals.score(score)}"
    parts.append(words(x, 76, told, "v", anchor(x, width, told)))
    return svg(width, 82, label, parts)


def mini_score(
    score: float, threshold: float, top: float, suspicious_above: float | None = None
) -> markupsafe.Markup:
    """A bar for the verdict table; `top` is the largest score that fits."""
    width = 96.0
    top = max(top, threshold * 1.25, 1e-9)
    length = max(min(score / top, 1.0), 0.0) * width
    edge = min(max(threshold / top, 0.0), 1.0) * width
    limits = [limit for limit in (threshold, suspicious_above) if limit is not None]
    mark = "h" if score > min(limits) else "b"
    return markupsafe.Markup(
        f'<svg class="mini" viewBox="0 0 96 12" aria-hidden="true">'
        f'<path class="track" d="M0 6H96"/>'
        f'<path class="{mark} s" d="M0 6H{n(length)}"/>'
        f'<path class="cut" d="M{n(edge)} 0V12"/></svg>'
    )


def rows(
    labels: Sequence[str],
    values: Values,
    *,
    show: Callable[[float | None], str],
    description: str,
    comparison: Values = (),
    highlight: int | None = None,
    line: float | None = None,
) -> markupsafe.Markup:
    """Horizontal bars, one per class, with an optional thinner bar to compare with.

    Args:
      labels: `[K]` names of the classes.
      values: `[K]` lengths; a gap is drawn as a dash.
      show: turns a value into text.
      description: what the picture shows, for readers who do not see it.
      comparison: `[K]` second series, or nothing.
      highlight: the class to mark, always shown.
      line: a value to draw a dashed line at.
    """
    shown = choose(values, highlight)
    pair = len(comparison) == len(values)
    step = 24.0 if pair else 19.0
    widest = max((len(labels[k]) for k in shown), default=1)
    left = min(max(22 + _LETTER * widest, 40), 138)
    room = max(
        46.0, 15 + _LETTER * max((len(show(values[k])) for k in shown), default=0)
    )
    width, height = 400.0, step * len(shown) + 2
    drawn = [values[k] for k in shown] + [comparison[k] for k in shown if pair]
    known = [v for v in [*drawn, line] if v is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    scale = (width - left - room) / ((high - low) or 1.0)
    zero = left - low * scale
    paths: dict[str, list[str]] = {"b": [], "h": [], "o": []}
    texts = []
    for place, k in enumerate(shown):
        y, value, marked = 1 + place * step, values[k], k == highlight
        thick = 11.0 if pair else 13.0
        if value is not None:
            paths["h" if marked else "b"].append(
                rectangle(zero, y + 2, value * scale, thick)
            )
        other = comparison[k] if pair else None
        if other is not None:
            paths["o"].append(rectangle(zero, y + 2 + thick, other * scale, 6.0))
        middle = y + 3 + thick / 2 + 4
        name = labels[k] if len(labels[k]) <= 16 else labels[k][:15] + "…"
        texts.append(
            words(
                left - 6, middle, f"▸ {name}" if marked else name, "v" * marked, "end"
            )
        )
        end = zero + max(value or 0.0, other or 0.0, 0.0) * scale
        texts.append(words(end + 5, middle, show(value), "v" if marked else "m"))
    parts = [
        f'<path class="{name}" d="{"".join(path)}"/>'
        for name, path in paths.items()
        if path
    ]
    parts.append(f'<path class="g" d="M{n(zero)} 0V{n(height)}"/>')
    if line is not None:
        parts.append(
            f'<path class="cut d" d="M{n(zero + line * scale)} 0V{n(height)}"/>'
        )
    return svg(width, height, description, parts + texts)


def columns(
    values: Values, *, caption: str, description: str, highlight: int | None = None
) -> markupsafe.Markup:
    """Small upright bars in class order, without labels: the shape of a vector."""
    width, height, foot = 170.0, 70.0, 18.0
    known = [v for v in values if v is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    scale = (height - foot - 4) / ((high - low) or 1.0)
    zero = 2 + high * scale
    step = width / max(len(values), 1)
    thick = max(step * 0.74, 0.6)
    paths: dict[str, list[str]] = {"b": [], "h": []}
    for k, value in enumerate(values):
        if value is None:
            continue
        top = zero - max(value, 0.0) * scale
        box = rectangle(k * step, top, thick, abs(value) * scale)
        paths["h" if k == highlight else "b"].append(box)
    parts = [f'<path class="g" d="M0 {n(zero)}H{n(width)}"/>']
    parts += [f'<path class="{c}" d="{"".join(p)}"/>' for c, p in paths.items() if p]
    parts.append(words(0, height - 4, caption, "m"))
    return svg(width, height, description, parts)


def curve(
    positions: Sequence[float],
    lines: Sequence[Values],
    labels: Sequence[str],
    *,
    show: Callable[[float | None], str],
    description: str,
    highlight: int | None = None,
    axis: str = "noise radius ε",
) -> markupsafe.Markup:
    """One line per class over the noise radius, or another axis; the marked one in front.

    Args:
      positions: `[R]` radii, ascending.
      lines: `[K][R]` values.
      labels: `[K]` names of the classes.
      show: turns a value into text.
      description: what the picture shows, for readers who do not see it.
      highlight: the class to mark.
      axis: what the positions are.
    """
    width, height = 400.0, 190.0
    left, right, top, bottom = 44.0, 312.0, 10.0, 158.0
    known = [v for line in lines for v in line if v is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    ticks = round_values(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    span = (positions[-1] - positions[0]) or 1.0

    def x(position: float) -> float:
        return left + (position - positions[0]) / span * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / ((high - low) or 1.0) * (bottom - top)

    def trace(line: Values) -> str:
        path, pen = "", "M"
        for position, value in zip(positions, line, strict=True):
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{n(x(position))} {n(y(value))}"
            pen = "L"
        return path

    last = [next((v for v in reversed(line) if v is not None), None) for line in lines]
    order = choose(last, highlight, most=_MOST_LINES)
    grid = "".join(f"M{n(left)} {n(y(tick))}H{n(right)}" for tick in ticks)
    parts = [f'<path class="g" d="{grid}"/>']
    parts += [words(left - 6, y(tick) + 4, show(tick), "m", "end") for tick in ticks]
    for position in _apart(positions, x):
        parts.append(words(x(position), bottom + 16, f"{position:.3g}", "m", "middle"))
    parts.append(words((left + right) / 2, height - 1, axis, "m", "middle"))
    others = "".join(trace(lines[k]) for k in order if k != highlight)
    if others:
        parts.append(f'<path class="b line" d="{others}"/>')
    if highlight is not None and highlight in order:
        parts.append(f'<path class="h line" d="{trace(lines[highlight])}"/>')
        few = len(positions) <= _MOST_DOTS
        dots = "".join(
            f'<circle class="h" cx="{n(x(p))}" cy="{n(y(v))}" r="3"/>'
            for p, v in zip(positions, lines[highlight], strict=True)
            if few and v is not None
        )
        parts.append(dots)
    ends = [(k, end) for k in order if (end := last[k]) is not None]
    ends.sort(key=lambda pair: (pair[0] != highlight, -pair[1]))
    taken: list[float] = []
    for k, value in ends[:4]:
        place_y = y(value) + 4
        if all(abs(place_y - other) >= 13 for other in taken):
            taken.append(place_y)
            name = labels[k] if len(labels[k]) <= 13 else labels[k][:12] + "…"
            parts.append(
                words(right + 7, place_y, name, "v" if k == highlight else "m")
            )
    return svg(width, height, description, parts)


def _apart(positions: Sequence[float], x: Callable[[float], float]) -> list[float]:
    """Ascending positions whose numbers do not touch, the first and the last included."""
    first, last = positions[0], positions[-1]
    kept = [first]
    for position in positions[1:-1]:
        if min(x(position) - x(kept[-1]), x(last) - x(position)) >= 24:
            kept.append(position)
    return [*kept, last] if last != first else kept


def choose(values: Values, highlight: int | None, most: int = MOST_ROWS) -> list[int]:
    """The classes a chart shows: all in class order, or the largest ones first."""
    if len(values) <= most:
        return list(range(len(values)))
    ranked = sorted(
        range(len(values)), key=lambda k: -math.inf if (v := values[k]) is None else v
    )[::-1]
    top = ranked[: min(TOP_ROWS, most)]
    if highlight is not None and highlight < len(values) and highlight not in top:
        top[-1] = highlight
    return top


def round_values(low: float, high: float) -> list[float]:
    """Three to six round values that cover the range."""
    span = (high - low) or 1.0
    rough = span / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def svg(
    width: float, height: float, description: str, parts: Sequence[str]
) -> markupsafe.Markup:
    """A picture of so many units, with words for readers who do not see it."""
    label = markupsafe.escape(text.printable(description))
    return markupsafe.Markup(
        f'<svg viewBox="0 0 {n(width)} {n(height)}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def words(x: float, y: float, told: str, style: str = "", anchor: str = "start") -> str:
    """Text in a picture; `style` is a class of the style sheet."""
    styled = f' class="{style}"' if style else ""
    placed = f' text-anchor="{anchor}"' if anchor != "start" else ""
    safe = markupsafe.escape(text.printable(told))
    return f'<text x="{n(x)}" y="{n(y)}"{styled}{placed}>{safe}</text>'


def anchor(x: float, width: float, told: str) -> str:
    """Where text at `x` begins or ends so that all of it is in the picture."""
    half = _LETTER * len(told) / 2
    if x < half:
        return "start"
    return "end" if x > width - half else "middle"


def rectangle(x: float, y: float, width: float, height: float) -> str:
    """As a piece of a path; sizes may be negative."""
    return f"M{n(x)} {n(y)}h{n(width)}v{n(height)}h{n(-width)}z"


def n(value: float) -> str:
    """A coordinate in as few characters as a picture needs."""
    return f"{round(value, 1):g}"
