"""What the page says of all candidates together: files not judged, modes, verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import markupsafe

from ban_jax.report import (
    advice,
    charts,
    fields,
    glossary,
    judgement,
    numerals,
    text,
)
from ban_jax.report.subject import Subject

MOST_CALLED_OUT = 12
_MESSAGE = 400


class Unjudged(NamedTuple):
    """A candidate without a verdict.

    Attributes:
      anchor: of its section.
      label: its path as the page shows it.
      message: why, on one line.
      advice: what to do.
    """

    anchor: str
    label: str
    message: str
    advice: str


class Explained(NamedTuple):
    """A mode or baseline that occurs, and what it means."""

    kind: str
    name: str
    meaning: str


class Row(NamedTuple):
    """One row of the table of verdicts; a `sort_` field is what its column sorts by.

    Attributes:
      anchor: of the candidate's section.
      label: its path as the page shows it.
      verdict: one of `fields.VERDICTS`.
      sort_verdict: the most alarming one is the largest.
      target: the suspected class of a flagged candidate.
      score: as text, with its interval.
      bar: score and threshold as a picture.
      p: the p-value as text.
      witnesses: those that speak, by letter and by name.
      accuracy: on clean images.
      architecture: with its width.
    """

    anchor: str
    label: str
    verdict: str
    sort_verdict: int
    target: str
    score: str
    sort_score: str
    bar: markupsafe.Markup
    p: str
    sort_p: str
    witnesses: Sequence[glossary.Witness]
    accuracy: str
    sort_accuracy: str
    architecture: str


def unjudged(subjects: Sequence[Subject]) -> list[Unjudged]:
    """The candidates without a verdict."""
    return [
        Unjudged(
            subject.anchor,
            subject.label,
            text.sentence(
                fields.remark(subject.record) or "No reason is recorded.", _MESSAGE
            ),
            advice.advice(subject.record),
        )
        for subject in subjects
        if subject.verdict == "inconclusive"
    ]


def explained(records: Sequence[fields.Record]) -> list[Explained]:
    """The modes and baselines that occur, as far as they are known here."""
    found = [
        *(
            Explained("Mode", name, glossary.summary(name))
            for name in fields.distinct(records, "mode")
        ),
        *(
            Explained("Baseline", name, glossary.BASELINES.get(name, ""))
            for name in fields.distinct(records, "baseline")
        ),
    ]
    return [one for one in found if one.meaning]


def rows(subjects: Sequence[Subject]) -> Iterator[Row]:
    """The table of verdicts, row by row."""
    records = [subject.record for subject in subjects]
    top, known = _right_end(records), witnesses(records)
    for subject in subjects:
        yield _row(subject, top, known)


def witnesses(records: Sequence[fields.Record]) -> dict[str, glossary.Witness]:
    """The witnesses that occur."""
    return glossary.witnesses(judgement.names(records))


def score_width(records: Sequence[fields.Record]) -> int:
    """Characters of the longest score with its interval: all bars begin behind it."""
    return max((len(_score(record)) for record in records), default=0)


def _score(record: fields.Record) -> str:
    score = fields.number(record.get("score"))
    if score is None:
        return ""
    return f"{numerals.score(score)} {judgement.spread(record)}".rstrip()


def _right_end(records: Sequence[fields.Record]) -> float:
    """The largest score of the small bars: one extreme score must not flatten the rest."""
    scores = [fields.number(record.get("score")) or 0.0 for record in records]
    thresholds = [fields.number(record.get("threshold")) or 0.0 for record in records]
    largest = max(scores, default=0.0)
    return min(largest, 5.0 * max(thresholds, default=0.0) or largest)


def _row(subject: Subject, top: float, known: Mapping[str, glossary.Witness]) -> Row:
    record = subject.record
    score = fields.number(record.get("score"))
    threshold, lower = judgement.limits(record)
    accuracy = fields.number(record.get("clean_accuracy"))
    bar, speaking = markupsafe.Markup(), judgement.speaking(record)
    if score is not None and threshold is not None:
        bar = charts.mini_score(score, threshold, top, lower)
    return Row(
        anchor=subject.anchor,
        label=subject.label,
        verdict=subject.verdict,
        sort_verdict=len(fields.VERDICTS) - fields.VERDICTS.index(subject.verdict),
        target=subject.target if subject.is_flagged else "",
        score=_score(record),
        sort_score=_sort_key(score),
        bar=bar,
        p=judgement.p_value(record),
        sort_p=_sort_key(fields.number(record.get("p_value"))),
        witnesses=[known[name] for name, speaks in speaking.items() if speaks],
        accuracy="" if accuracy is None else f"{100 * accuracy:.1f} %",
        sort_accuracy=_sort_key(accuracy),
        architecture=fields.architecture(record),
    )


def _sort_key(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
