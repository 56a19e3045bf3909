"""The pictures of one candidate, from its score down to the vectors that did not decide."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import markupsafe

from ban_jax.report import charts, fields, glossary, judgement, numerals, text
from ban_jax.report.subject import Subject


class Key(NamedTuple):
    """One entry of a legend: the colours of the style sheet it explains, and its text."""

    colours: tuple[str, ...]
    text: str


class Figure(NamedTuple):
    """A picture with its words.

    Attributes:
      title: a few words.
      note: what it shows.
      svg: the picture.
      keys: its legend.
    """

    title: str
    note: str
    svg: markupsafe.Markup
    keys: tuple[Key, ...] = ()


def score(subject: Subject) -> Figure | None:
    """The score with its interval, against what makes it suspicious or backdoored."""
    record = subject.record
    found = fields.number(record.get("score"))
    if found is None:
        return None
    threshold, lower = judgement.limits(record)
    interval = judgement.interval(record)
    note = "Above the threshold a checkpoint is called backdoored"
    note += "." if lower is None else ", in the part before it suspicious."
    if interval:
        # Not of the candidate: the score is the largest of K classes, by choice.
        note += (
            " The whisker holds 95 % of what other clean images would give this class."
        )
    baseline = str(record.get("baseline"))
    if baseline in glossary.BASELINES:
        note += f" Baseline {baseline}: {glossary.BASELINES[baseline]}."
    if record.get("compared_with"):
        note += f" Here: {record['compared_with']}."
    bar = charts.score_bar(found, threshold, interval, lower)
    return Figure("Score against threshold", note, bar)


def distances(subject: Subject) -> Figure | None:
    """The class vector whose largest entry is the score."""
    values = fields.numbers(subject.record.get("z"))
    if not _known(values):
        return None
    title = "How unusual each class is"
    note = (
        "Distance from the baseline, in multiples of the usual spread. The largest is the "
        "score; the dashed line is the threshold."
    )
    decided = [
        glossary.words(subject.record, name).title
        for name in glossary.deciding(subject.record)
    ]
    if decided:
        note += f" Drawn from: {'; '.join(decided)}."
    picture = charts.rows(
        subject.labels(len(values)),
        values,
        show=functools.partial(numerals.show, unit="score"),
        highlight=subject.marked(len(values)),
        line=fields.number(subject.record.get("threshold")),
        description=subject.describe(title, values, numerals.show),
    )
    return Figure(title, note + subject.selection(values), picture)


def deciding(subject: Subject) -> Figure | None:
    """The first vector that decided; the others are among the small pictures."""
    name = glossary.main_vector(subject.record)
    vectors = fields.mapping(subject.record.get("vectors"))
    values = fields.numbers(vectors.get(name)) if name else []
    if name is None or not _known(values):
        return None
    words = glossary.words(subject.record, name)
    show = functools.partial(numerals.show, unit=words.unit)
    picture = charts.rows(
        subject.labels(len(values)),
        values,
        show=show,
        highlight=subject.marked(len(values)),
        description=subject.describe(words.title, values, show),
    )
    return Figure(words.title, words.meaning + subject.selection(values), picture)


def histograms(subject: Subject) -> Figure | None:
    """What clean images are taken for, with and without noise."""
    info = fields.mapping(subject.record.get("info"))
    noisy = fields.numbers(info.get("histogram"))
    if not _known(noisy):
        return None
    still = fields.numbers(info.get("histogram_without_noise"))
    mark = subject.marked(len(noisy))
    keys = [Key(("bar",) if mark is None else ("bar", "hot"), "with noise")]
    if len(still) == len(noisy):
        title = "Predictions with and without noise"
        keys.append(Key(("bar2",), "without"))
    else:
        title = "Predictions under noise"
    # A detector may say more of its own histogram.
    meaning = glossary.words(subject.record, "histogram").meaning
    note = meaning or "Share of clean images answered with each class."
    show = functools.partial(numerals.show, unit="share")
    picture = charts.rows(
        subject.labels(len(noisy)),
        noisy,
        show=show,
        comparison=still,
        highlight=mark,
        description=subject.describe(title, noisy, show),
    )
    return Figure(title, note + subject.selection(noisy), picture, tuple(keys))


def others(subject: Subject) -> Iterator[Figure]:
    """Small pictures of the vectors that are not shown large."""
    vectors = fields.mapping(subject.record.get("vectors"))
    main = glossary.main_vector(subject.record)
    for name in vectors:
        values = fields.numbers(vectors[name])
        known = _known(values)
        if name == main or not known:
            continue
        words = glossary.words(subject.record, name)
        show = functools.partial(numerals.show, unit=words.unit)
        top = max(known, key=lambda k: known[k])
        label = text.shorten(subject.labels(len(values))[top], 10)
        picture = charts.columns(
            values,
            caption=f"largest: {label}, {show(known[top])}",
            highlight=subject.marked(len(values)),
            description=subject.describe(words.title, values, show),
        )
        yield Figure(words.title, words.meaning, picture)


def _known(values: list[float | None]) -> dict[int, float]:
    """The classes that have a value."""
    return {k: value for k, value in enumerate(values) if value is not None}
