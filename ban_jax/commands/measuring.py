"""The middle of commands that measure: lines are written as they come, behind a bar."""

import functools
import sys
from collections.abc import Sequence
from typing import Any

from ban_jax import records, verdict
from ban_jax.baselines import usable
from ban_jax.commands import outcome
from ban_jax.records import Evidence, Job, seal
from ban_jax.scanning import closer, engines, timeline
from ban_jax.storage import state


def say_whose(lines: str, writer: records.Writer) -> None:
    """Says which of the results there will not be used again."""
    if told := state.secret().note:
        print(f"note: {told}", file=sys.stderr)
    if others := seal.strangers(writer.records):
        what = "they are measured again"
        print(f"note: {seal.note(len(others), lines, what)}", file=sys.stderr)


def collect(
    paths: Sequence[str],
    job: Job,
    workers: engines.Engine,
    writer: records.Writer,
    title: str,
    clock: timeline.Timeline,
) -> list[Evidence]:
    """Measures, and writes each new line at once."""
    found = []
    with outcome.progress() as progress:
        task = progress.add_task(title, total=len(paths))
        clock.say = functools.partial(outcome.say, progress)
        told: set[str] = set()
        for line, is_new in workers.measure(
            paths, job, known=writer.records, clock=clock
        ):
            found.append(line)
            if is_new:
                with clock("write"):
                    writer.write(line)
            # A file that holds several classifiers has a line for each.
            told.add(line["part_of"] or line["path"])
            progress.update(task, completed=len(told))
    return found


def look_closer(
    found: list[Evidence],
    job: Job,
    workers: engines.Engine,
    writer: records.Writer,
    clock: timeline.Timeline,
    judge: verdict.Judge | None,
    exhaustive: bool,
) -> list[Evidence]:
    """Measures the rest, where it can change the verdict or everywhere.

    Returns:
      The evidence in the same order.
    """
    asked = closer.questions(found, job, None if exhaustive else judge)
    with outcome.progress() as progress:
        task = progress.add_task(
            "Looking closer", total=closer.count(asked), visible=bool(asked)
        )
        clock.say = functools.partial(outcome.say, progress)
        looked = []
        for line in closer.look(
            found, job, asked, clock=clock, measure=workers.measure
        ):
            looked.append(line)
            with clock("write"):
                writer.write(line)
            progress.advance(task)
    return closer.joined(found, looked)


def trusted(
    paths: Sequence[str] | None,
    flags: Any,
    lines: str,
    job: Job,
    workers: engines.Engine,
) -> list[Evidence]:
    """Evidence of the models in `--calibrate`, kept beside the results.

    Args:
      paths: of these models; None where none are given.
      flags: of `scan`.
      lines: the file that keeps it.
      job: what is measured.
      workers: who measures.

    Raises:
      ValueError: where there is no checkpoint.
    """
    if paths is None:
        return []
    if not paths:
        raise ValueError(f"--calibrate {flags.calibrate}: no checkpoint there")
    found = whole(paths, lines, job, workers, "Calibrating", resume=flags.resume)
    for line in found:
        if reason := usable.why_no_yardstick(line):
            note = f"note: {line['path']} is left out of --calibrate: {reason}"
            print(note, file=sys.stderr)
    return found


def whole(
    paths: Sequence[str],
    lines: str,
    job: Job,
    workers: engines.Engine,
    title: str,
    *,
    resume: bool = True,
) -> list[Evidence]:
    """All evidence of models, written as it comes.

    Args:
      paths: of the models.
      lines: the file that keeps it, so that a stopped run goes on.
      job: what is measured.
      workers: who measures.
      title: what is done, for the bar.
      resume: goes on from what the file holds.
    """
    with records.Writer(lines, resume=resume) as writer:
        say_whose(lines, writer)
        clock = timeline.Timeline()
        found = collect(paths, job, workers, writer, title, clock)
        return look_closer(found, job, workers, writer, clock, None, exhaustive=True)
