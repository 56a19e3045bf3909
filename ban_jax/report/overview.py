"""What the page says of all candidates together: files not judged, modes, verdicts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import markupsafe

from ban_jax.report import advice, charts, fields, glossary, numerals, text
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
      score: as text.
      bar: score and threshold as a picture.
      accuracy: on clean images.
      architecture: with its width.
      seconds: of computing.
    """

    anchor: str
    label: str
    verdict: str
    sort_verdict: int
    target: str
    score: str
    sort_score: str
    bar: markupsafe.Markup
    accuracy: str
    sort_accuracy: str
    architecture: str
    seconds: str
    sort_seconds: str


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
    top = _right_end([subject.record for subject in subjects])
    for subject in subjects:
        yield _row(subject, top)


def _right_end(records: Sequence[fields.Record]) -> float:
    """The largest score of the small bars: one extreme score must not flatten the rest."""
    scores = [fields.number(record.get("score")) or 0.0 for record in records]
    thresholds = [fields.number(record.get("threshold")) or 0.0 for record in records]
    largest = max(scores, default=0.0)
    return min(largest, 5.0 * max(thresholds, default=0.0) or largest)


def _row(subject: Subject, top: float) -> Row:
    record = subject.record
    score = fields.number(record.get("score"))
    threshold = fields.number(record.get("threshold"))
    accuracy = fields.number(record.get("clean_accuracy"))
    seconds = fields.number(record.get("seconds"))
    bar = markupsafe.Markup()
    if score is not None and threshold is not None:
        bar = charts.mini_score(score, threshold, top)
    return Row(
        anchor=subject.anchor,
        label=subject.label,
        verdict=subject.verdict,
        sort_verdict=len(fields.VERDICTS) - fields.VERDICTS.index(subject.verdict),
        target=subject.target if subject.is_flagged else "",
        score="" if score is None else numerals.score(score),
        sort_score=_sort_key(score),
        bar=bar,
        accuracy="" if accuracy is None else f"{100 * accuracy:.1f} %",
        sort_accuracy=_sort_key(accuracy),
        architecture=fields.architecture(record),
        seconds=numerals.seconds(seconds),
        sort_seconds=_sort_key(seconds),
    )


def _sort_key(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
