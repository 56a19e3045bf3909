"""The section of the report about one candidate."""

import functools
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ban_jax.report import charts, words


class Context(NamedTuple):
    """What the parts of a section share.

    Attributes:
      anchor: the id that links to this section.
      label: the path as the page shows it, without the common folder.
      class_names: names of the classes, if known.
    """

    anchor: str
    label: str
    class_names: Sequence[str] | None


def section(record: words.Record, context: Context, *, is_open: bool = False) -> str:
    """A collapsible section: verdict, pictures, facts. Missing fields are left out."""
    verdict = words.verdict(record)
    target = _target(record, context)
    brief = []
    if verdict == "backdoored" and target:
        brief.append(f"suspected target {target}")
    score = words.number(record.get("score"))
    if score is not None:
        brief.append(f"score {words.score(score)}")
    return (
        f'<details class="candidate"{" open" if is_open else ""}><summary>'
        f"{badge(verdict)}<span class=path>{escape(context.label)}</span>"
        f"<span class=brief>{escape(' · '.join(brief))}</span></summary>"
        f'<div class=body id="{context.anchor}">'
        + "".join(part(record, context) for part in PARTS)
        + "</div></details>"
    )


def escape(text: Any) -> str:
    """Text from a record or a file name, made harmless for the page."""
    return html.escape(words.printable(text), quote=True)


def badge(verdict: str) -> str:
    """The verdict as a sign and a word."""
    sign = words.GLYPHS[verdict]
    return f'<span class="badge {verdict}">{sign} {verdict}</span>'


def message(text: Any) -> str:
    """An error message in full, its own line breaks kept."""
    lines = "\n".join(words.printable(line) for line in str(text).splitlines())
    return f"<code class=error>{html.escape(lines)}</code>"


def _reason(record: words.Record, context: Context) -> str:
    parts = []
    reason, error = record.get("reason"), record.get("error")
    if reason and reason != error:
        parts.append(f"<p>{escape(reason)}</p>")
    if error:
        parts.append(message(error))
    if words.verdict(record) == "inconclusive":
        parts.append(f"<p><b>What to do.</b> {escape(words.advice(record))}</p>")
    return "".join(parts)


def _score(record: words.Record, context: Context) -> str:
    score = words.number(record.get("score"))
    if score is None:
        return ""
    threshold = words.number(record.get("threshold"))
    error = words.number(record.get("standard_error"))
    caption = "The shaded part counts as suspicious."
    if error:
        caption += " The whisker is the 95 % interval of the measurement."
    baseline = str(record.get("baseline"))
    if baseline in words.BASELINES:
        caption += f" Baseline {baseline}: {words.BASELINES[baseline]}."
    return (
        '<figure class="wide">'
        + _caption("Score against threshold", caption)
        + charts.score_bar(score, threshold, error)
        + "</figure>"
    )


def _evidence(record: words.Record, context: Context) -> str:
    """Large charts of what decided and of the histograms, small ones of the rest."""
    figures = [
        _distances(record, context),
        _deciding(record, context),
        _histograms(record, context),
        *_curves(record, context),
    ]
    drawn = [f"<figure>{figure}</figure>" for figure in figures if figure]
    drawn += [others] if (others := _others(record, context)) else []
    return f"<div class=charts>{''.join(drawn)}</div>" if drawn else ""


def _distances(record: words.Record, context: Context) -> str:
    """The class vector the score is the maximum of."""
    values = words.numbers(record.get("z"))
    if not any(value is not None for value in values):
        return ""
    mark = _marked(record, len(values))
    title = "How unusual each class is"
    note = (
        "Distance from the baseline, in multiples of the usual spread. The largest is "
    )
    note += "the score; the dashed line is the threshold."
    decided = [words.vector(name).title for name in words.deciding(record)]
    if decided:
        note += f" Drawn from: {'; '.join(decided)}."
    return _caption(title, note + _selection(values, mark)) + charts.rows(
        _labels(record, context, len(values)),
        values,
        show=functools.partial(words.show, unit="score"),
        highlight=mark,
        line=words.number(record.get("threshold")),
        description=_describe(title, values, words.show, record, context),
    )


def _deciding(record: words.Record, context: Context) -> str:
    """The first vector that decided; the others are among the small charts."""
    name = _main(record)
    vectors = words.mapping(record.get("vectors"))
    values = words.numbers(vectors.get(name)) if name else []
    if name is None or not any(value is not None for value in values):
        return ""
    vector = words.vector(name)
    show = functools.partial(words.show, unit=vector.unit)
    mark = _marked(record, len(values))
    return _caption(
        vector.title, vector.meaning + _selection(values, mark)
    ) + charts.rows(
        _labels(record, context, len(values)),
        values,
        show=show,
        highlight=mark,
        description=_describe(vector.title, values, show, record, context),
    )


def _main(record: words.Record) -> str | None:
    vectors = words.mapping(record.get("vectors"))
    return next(iter(words.deciding(record)), next(iter(vectors), None))


def _histograms(record: words.Record, context: Context) -> str:
    noisy = words.numbers(record.get("histogram"))
    if not any(value is not None for value in noisy):
        return ""
    still = words.numbers(record.get("histogram_without_noise"))
    show = functools.partial(words.show, unit="share")
    mark = _marked(record, len(noisy))
    title = "Predictions with and without noise"
    marked = '<i class="key kh"></i>' * (mark is not None)
    keys = f'<i class="key kb"></i>{marked} with noise'
    if len(still) == len(noisy):
        keys += ' &nbsp; <i class="key ko"></i> without'
    else:
        title = "Predictions under noise"
    note = "Share of clean images answered with each class."
    if record.get("mode") == "targeted":
        note += " The noise is the one towards the class that gave way most."
    note += _selection(noisy, mark)
    return _caption(title, note, keys) + charts.rows(
        _labels(record, context, len(noisy)),
        noisy,
        show=show,
        comparison=still,
        highlight=mark,
        description=_describe(title, noisy, show, record, context),
    )


def _curves(record: words.Record, context: Context) -> list[str]:
    drawn = []
    decided = _main(record)
    curves = words.mapping(record.get("curves"))
    for name in sorted(curves, key=lambda name: name != decided):
        radii, table = _curve_table(record, curves[name])
        if len(radii) < 2 or not table[0]:
            continue
        vector = words.vector(name)
        lines = [list(line) for line in zip(*table, strict=True)]
        mark = _marked(record, len(lines))
        show = functools.partial(words.show, unit=vector.unit)
        title = f"{vector.title}, by noise radius"
        note = "One line per class. A backdoor's target leaves the others early."
        drawn.append(
            _caption(title, note)
            + charts.curve(
                radii,
                lines,
                _labels(record, context, len(lines)),
                show=show,
                highlight=mark,
                description=_describe(title, table[-1], show, record, context),
            )
        )
    return drawn


def _curve_table(
    record: words.Record, curve: Any
) -> tuple[list[float], list[list[float | None]]]:
    """Radii `[R]`, ascending, and their vectors `[R][K]`; rows of odd length dropped.

    A curve is such a table itself, at the radii of the settings (shares of ε), or names
    its own in `epsilon` beside `vectors`.
    """
    vectors, radii = curve, []
    if isinstance(curve, Mapping):
        vectors, radii = curve.get("vectors"), words.numbers(curve.get("epsilon"))
    elif (epsilon := words.number(record.get("epsilon"))) is not None:
        shares = words.numbers(words.mapping(record.get("config")).get("radii"))
        radii = [None if share is None else share * epsilon for share in shares]
    rows = [words.numbers(row) for row in vectors] if isinstance(vectors, list) else []
    longest = max((len(row) for row in rows), default=0)
    pairs = [
        (radius, row)
        for radius, row in zip(radii, rows, strict=False)
        if radius is not None and len(row) == longest
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [radius for radius, _ in pairs], [row for _, row in pairs]


def _others(record: words.Record, context: Context) -> str:
    """Small charts of the vectors that did not decide."""
    vectors = words.mapping(record.get("vectors"))
    decided = _main(record)
    figures = []
    for name in vectors:
        values = words.numbers(vectors[name])
        known = {k: value for k, value in enumerate(values) if value is not None}
        if name == decided or not known:
            continue
        vector = words.vector(name)
        show = functools.partial(words.show, unit=vector.unit)
        top = max(known, key=lambda k: known[k])
        label = _labels(record, context, len(values))[top]
        figures.append(
            f'<figure title="{escape(vector.meaning)}">'
            f"<figcaption><b>{escape(vector.title)}</b></figcaption>"
            + charts.columns(
                values,
                caption=f"largest: {words.shorten(label, 10)}, {show(known[top])}",
                highlight=_marked(record, len(values)),
                description=_describe(vector.title, values, show, record, context),
            )
            + "</figure>"
        )
    if not figures:
        return ""
    return (
        "<div><h3>Other evidence, class by class</h3>"
        f'<div class="charts small">{"".join(figures)}</div></div>'
    )


def _facts(record: words.Record, context: Context) -> str:
    def field(name: str, form: str = "{}") -> str:
        value = record.get(name)
        return "" if value in (None, "") else form.format(value)

    def measured(name: str, form: str) -> str:
        value = words.number(record.get(name))
        return "" if value is None else form.format(value)

    source = field("threshold_source")
    facts: dict[str, str] = {
        "Suspected target"
        if words.verdict(record) == "backdoored"
        else "Most unusual class": _target(record, context),
        "Score": measured("score", "{:.3f}")
        + measured("standard_error", " ± {:.3f} (standard error)"),
        "Threshold": measured("threshold", "{:.3f}") + (f" ({source})" * bool(source)),
        "Baseline": field("baseline"),
        "Mode": field("mode"),
        "Noise radius ε": measured("epsilon", "{:g}"),
        "Clean accuracy": measured("clean_accuracy", "{:.1%}").replace("%", " %"),
        "Architecture": words.architecture(record, "{}, width {}"),
        "Classes": field("num_classes"),
        "Pixel normalisation": _normalisation(record),
        "Work": measured("forward_equivalents", "{:,.0f} image forward passes"),
        "Time": measured("seconds", "{:.2f} s"),
        "Seed": field("seed"),
    }
    long_facts = {
        "File": str(record.get("path", "")),
        "SHA-256 of the weights": field("sha256"),
        "Hash of the settings": field("config_hash"),
    }
    items = [
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
        if value
    ] + [
        f'<div class=full><dt>{name}</dt><dd class="hash">{escape(value)}</dd></div>'
        for name, value in long_facts.items()
        if value
    ]
    return f"<dl class=facts>{''.join(items)}</dl>"


def _notes(record: words.Record, context: Context) -> str:
    notes = record.get("notes")
    if not isinstance(notes, list | tuple) or not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul class=notes>{items}</ul>"


PARTS: tuple[Callable[[words.Record, Context], str], ...] = (
    _reason,
    _score,
    _evidence,
    _notes,
    _facts,
)
"""What a section is made of, in order; a part returns nothing where it has no data."""


def _target(record: words.Record, context: Context) -> str:
    return words.class_label(
        record.get("target"), context.class_names, record.get("num_classes")
    )


def _normalisation(record: words.Record) -> str:
    found = words.mapping(record.get("normalisation"))
    parts = [
        ", ".join(f"{v:.3g}" for v in words.numbers(found.get(key)) if v is not None)
        for key in ("mean", "std")
    ]
    if not all(parts):
        return str(found.get("source") or "")
    source = f" (from {found['source']})" if found.get("source") else ""
    return f"mean {parts[0]}; std {parts[1]}{source}"


def _marked(record: words.Record, num_classes: int) -> int | None:
    """The suspected class, marked in the charts of flagged candidates alone."""
    target = record.get("target")
    if words.verdict(record) != "backdoored" or not isinstance(target, int):
        return None
    return target if 0 <= target < num_classes else None


def _labels(record: words.Record, context: Context, num_classes: int) -> list[str]:
    names = context.class_names
    if names and len(names) == num_classes:
        return [words.printable(name) for name in names]
    return [f"class {k}" for k in range(num_classes)]


def _selection(values: Sequence[float | None], mark: int | None) -> str:
    shown = len(charts.choose(values, mark))
    if shown == len(values):
        return ""
    return f" The largest {shown} of {len(values)} classes."


def _describe(
    title: str,
    values: Sequence[float | None],
    show: Callable[[float | None], str],
    record: words.Record,
    context: Context,
) -> str:
    """The picture in one sentence, for readers who do not see it."""
    known = {k: value for k, value in enumerate(values) if value is not None}
    if not known:
        return title
    labels = _labels(record, context, len(values))
    top = max(known, key=lambda k: known[k])
    text = f"{title}: largest is {labels[top]} with {show(known[top])}"
    mark = _marked(record, len(values))
    if mark is not None and mark != top and mark in known:
        text += f"; suspected target {labels[mark]} has {show(known[mark])}"
    return text


def _caption(title: str, note: str, keys: str = "") -> str:
    legend = f"<span>{keys}</span>" if keys else ""
    return (
        f"<figcaption><b>{escape(title)}</b><span>{escape(note)}</span>{legend}"
        "</figcaption>"
    )
