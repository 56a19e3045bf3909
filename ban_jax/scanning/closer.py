"""A closer look at candidates that a first one left in doubt."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from ban_jax import records
from ban_jax.detectors.witnesses import Question
from ban_jax.records import Evidence, Job, seal
from ban_jax.scanning import scan, timeline

Questions = Mapping[str, Question]
"""Path -> what is asked."""


class Asker(Protocol):
    """Whatever says at which classes a closer look is worth it, as `verdict.Judge`."""

    def asks(self, record: Evidence) -> Question | None: ...


def questions(found: Sequence[Evidence], job: Job, judge: Asker | None) -> Questions:
    """What is asked of which candidates.

    Args:
      found: their lines.
      job: that measured them.
      judge: says where a closer look is worth it; None: everywhere, at all classes.
    """
    if job.settings.closer is None:
        return {}
    asked = {}
    for line in found:
        if judge is not None:
            question = judge.asks(line)
        else:
            question = _missing(line, job)
        if question is not None:
            asked[line["path"]] = question
    return asked


def look(
    found: Sequence[Evidence],
    job: Job,
    asked: Questions,
    *,
    clock: timeline.Timeline | None = None,
    measure: Callable[..., Iterator[scan.Measured]] = scan.scan,
) -> Iterator[Evidence]:
    """The lines that are asked about, with what is found besides; see `scan.scan`.

    Each vector has a program of its own. Those of which more are asked are measured once
    for each, and their line is given each time, so that nothing measured is lost.

    Args:
      found: all lines.
      job: that measured them.
      asked: from `questions`.
      clock: collects where the time goes.
      measure: `scan.scan`, or that of another engine.
    """
    lines, waiting = {line["path"]: line for line in found}, dict(asked)
    for vector in vectors(asked):
        some = {p: one.classes for p, one in waiting.items() if vector in one.vectors}
        if not some:
            continue
        further = job.closer(some, found, (vector,))
        for more in _whole(measure(list(some), further, clock=clock), some, further):
            path = more["path"]
            line = records.merged(lines[path], more)
            lines[path] = seal.sealed(line) if line["key"] else line
            # What failed once is not tried with the next vector: its note would be lost.
            if records.has_failed(line):
                del waiting[path]
            yield lines[path]


def _whole(
    measured: Iterable[scan.Measured], paths: Iterable[str], job: Job
) -> Iterator[Evidence]:
    """One line for each of the paths: a file may hold several classifiers by now."""
    waiting = dict.fromkeys(paths)
    for line, _ in measured:
        if line["path"] in waiting:
            del waiting[line["path"]]
            yield line
    for path in waiting:
        yield job.failure(path, "the file holds other classifiers than before")


def is_through(line: Evidence, asked: Question) -> bool:
    """Whether `look` has nothing more to tell of a line."""
    return records.has_failed(line) or set(asked.vectors) <= set(line["vectors"])


def count(asked: Questions) -> int:
    """Lines that `look` gives where nothing fails."""
    return sum(len(one.vectors) for one in asked.values())


def vectors(asked: Questions) -> list[str]:
    """The vectors that are asked for, each once; of every question in its own order."""
    return list(dict.fromkeys(name for one in asked.values() for name in one.vectors))


def joined(found: Sequence[Evidence], looked: Iterable[Evidence]) -> list[Evidence]:
    """All lines in their order, each with what a closer look found besides."""
    more = {line["path"]: line for line in looked}
    return [more.get(line["path"], line) for line in found]


def _missing(line: Evidence, job: Job) -> Question | None:
    """All classes, and the vectors that do not have all of them."""
    if (
        not line["vectors"]
        or line["num_classes"] is None
        or job.settings.closer is None
    ):
        return None
    wanted = tuple(
        name
        for name in job.settings.closer.detector.rule.vectors
        if None in line["vectors"].get(name, [None])
    )
    return Question(tuple(range(line["num_classes"])), wanted) if wanted else None
