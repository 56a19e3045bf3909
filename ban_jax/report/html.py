"""The report as one HTML page that needs nothing beside itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ban_jax import records
from ban_jax.report import (
    candidate,
    environment,
    fields,
    outcome,
    overview,
    repair_section,
    settings,
)
from ban_jax.report import passed as passed_files
from ban_jax.report.subject import Subject
from ban_jax.storage import atomic

PICTURED = 100
"""Candidates whose evidence is drawn, the most alarming first: a page of 1,000 would take
12 MB otherwise."""
_PIECE = 200
"""Parts of a template joined before they are written: a few per candidate."""


class Told(NamedTuple):
    """What the page is told beside the results.

    Attributes:
      class_names: names of the K classes; used for candidates with K classes.
      settings: what was asked for (data set, split, flags), shown at the end.
      title: the title of the page.
      repaired: lines of a `repairs.jsonl`, told before all else.
      trust: how often such verdicts were right where the truth is known.
      steps: what to do next.
      passed: what was met and is no classifier, with `path` and `reason` each.
      pictured: candidates whose evidence is drawn, the most alarming first.
    """

    class_names: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None
    title: str = "Backdoor scan"
    repaired: Sequence[fields.Record] = ()
    trust: str | None = None
    steps: Sequence[str] = ()
    passed: Sequence[Any] = ()
    pictured: int = PICTURED


def write_html(
    path: records.PathLike, lines: Sequence[fields.Record], **told: Any
) -> None:
    """Writes the report in one atomic step.

    Args:
      path: the file to write, `report.html` in the output folder.
      lines: results as `records.load` gives them, of any mode, in any order.
      told: fields of `Told`.

    Raises:
      OutputError: the file cannot be written.
    """
    pieces = _pieces(lines, Told(**told))
    atomic.write(path, (piece.encode() for piece in pieces))


def render(lines: Sequence[fields.Record], **told: Any) -> str:
    """The whole page as text; see `write_html`."""
    return "".join(_pieces(lines, Told(**told)))


def _pieces(lines: Sequence[fields.Record], told: Told) -> Iterator[str]:
    """The page from top to bottom; a thousand candidates are never there at once."""
    lines = sorted((records.finite(line) for line in lines), key=fields.gravity)
    repaired = [records.finite(line) for line in told.repaired]
    class_names = told.class_names
    folder = fields.common_folder(lines)
    lines = [fields.without_folder(line, folder) for line in lines]
    subjects = [
        Subject(line, f"candidate-{place}", fields.label(line, ""), class_names)
        for place, line in enumerate(lines, start=1)
    ]
    script = environment.static("page.js")
    stream = (
        environment.templates()
        .get_template("page.html.j2")
        .stream(
            title=told.title,
            style=environment.static("page.css"),
            script=script,
            policy=environment.policy(script),
            outcome=repair_section.answer(repaired, lines),
            folder=fields.last_folder(folder),
            suspected=outcome.targets(lines, class_names),
            tally=outcome.tally(lines),
            repairs=repair_section.section(repaired, class_names),
            unjudged=overview.unjudged(subjects),
            most_called_out=overview.MOST_CALLED_OUT,
            explained=overview.explained(lines),
            rows=overview.rows(subjects) if subjects else None,
            candidates=_sections(subjects, told.pictured) if subjects else None,
            pictured=told.pictured if len(subjects) > told.pictured else None,
            panels=settings.panels(lines, records.finite(told.settings or {})),
            limits=outcome.limits(lines),
            baselines=outcome.baselines(lines),
            false_alarms=outcome.false_alarms(lines),
            trust=told.trust or "",
            # A command names whole paths where the scan was given such.
            steps=[*map(fields.told_paths, told.steps)],
            passed=passed_files.groups(told.passed),
            witnesses=list(overview.witnesses(lines).values()),
            score_width=overview.score_width(lines),
            has_p=any(row.get("p_value") is not None for row in lines),
        )
    )
    stream.enable_buffering(_PIECE)
    return stream


def _sections(
    subjects: Sequence[Subject], pictured: int
) -> Iterator[candidate.Section]:
    """The sections in order; those behind the first `pictured` without pictures."""
    for place, subject in enumerate(subjects):
        yield candidate.section(subject, with_pictures=place < pictured)
