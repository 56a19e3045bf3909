"""The section of the page about one candidate: verdict, pictures, facts."""

from collections.abc import Sequence
from typing import NamedTuple

from ban_jax.report import (
    advice,
    curves,
    facts,
    feature_maps,
    fields,
    figures,
    found_patch,
    heat,
    images,
    numerals,
    searches,
)
from ban_jax.report.subject import Subject


class Section(NamedTuple):
    """What the template `candidate` shows; an empty part is left out.

    Attributes:
      anchor: the id that links to it.
      label: the path as the page shows it.
      verdict: one of `fields.VERDICTS`.
      brief: suspected target and score, for the closed section.
      reason: of the verdict, in one sentence.
      error: in full.
      advice: what to do where there is no verdict.
      left_out: witnesses that say nothing, and why.
      notes: what a reader should know.
      facts: names and values.
      score: the picture of score and threshold.
      heat: what each witness says of each class.
      large: pictures of what decided.
      small: pictures of the other evidence.
      galleries: recovered images.
    """

    anchor: str
    label: str
    verdict: str
    brief: str
    reason: str
    error: str
    advice: str
    left_out: Sequence[str]
    notes: Sequence[str]
    facts: Sequence[facts.Fact]
    score: figures.Figure | None
    heat: heat.Heat | None
    large: Sequence[figures.Figure]
    small: Sequence[figures.Figure]
    galleries: Sequence[images.Gallery]


def section(subject: Subject, *, with_pictures: bool = True) -> Section:
    """Everything about one candidate, or only its words."""
    record, verdict = subject.record, subject.verdict
    reason, error = record.get("reason"), record.get("error")
    words = Section(
        anchor=subject.anchor,
        label=subject.label,
        verdict=verdict,
        brief=_brief(subject),
        reason=str(reason) if reason and reason != error else "",
        error=str(error) if error else "",
        advice=advice.advice(record) if verdict == "inconclusive" else "",
        left_out=heat.left_out(subject),
        notes=[str(note) for note in fields.listed(record.get("notes"))],
        facts=facts.facts(subject),
        score=None,
        heat=None,
        large=(),
        small=(),
        galleries=(),
    )
    if not with_pictures:
        return words
    large = (
        figures.distances(subject),
        figures.deciding(subject),
        figures.histograms(subject),
        feature_maps.figure(subject),
        *curves.figures(subject),
        *searches.figures(subject),
    )
    return words._replace(
        score=figures.score(subject),
        heat=heat.heat(subject),
        large=[figure for figure in large if figure],
        small=list(figures.others(subject)),
        galleries=[*found_patch.galleries(subject), *images.galleries(subject)],
    )


def _brief(subject: Subject) -> str:
    parts = []
    if subject.is_flagged and subject.target:
        parts.append(f"suspected target {subject.target}")
    score = fields.number(subject.record.get("score"))
    if score is not None:
        parts.append(f"score {numerals.score(score)}")
    return " · ".join(parts)
