"""A closer look at candidates that a first one left in doubt."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from ban_jax import records
from ban_jax.records import Evidence, Job, seal
from ban_jax.scanning import scan, timeline

Questions = Mapping[str, tuple[int, ...]]
"""Path -> the classes that are asked about."""


class Asker(Protocol):
    """Whatever says at which classes a closer look is worth it, as `verdict.Judge`."""

    def asks(self, record: Evidence) -> tuple[int, ...]: ...


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
            classes = judge.asks(line)
        else:
            classes = _missing(line, job)
        if classes:
            asked[line["path"]] = classes
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

    Args:
      found: all lines.
      job: that measured them.
      asked: from `questions`.
      clock: collects where the time goes.
      measure: `scan.scan`, or that of another engine.
    """
    if not asked:
        return
    lines = {line["path"]: line for line in found}
    further = job.closer(asked, found)
    for more, _ in measure(list(asked), further, clock=clock):
        line = records.merged(lines[more["path"]], more)
        yield seal.sealed(line) if line["key"] else line


def joined(found: Sequence[Evidence], looked: Iterable[Evidence]) -> list[Evidence]:
    """All lines in their order, each with what a closer look found besides."""
    more = {line["path"]: line for line in looked}
    return [more.get(line["path"], line) for line in found]


def _missing(line: Evidence, job: Job) -> tuple[int, ...]:
    """All classes, where not all of them were searched towards."""
    if (
        not line["vectors"]
        or line["num_classes"] is None
        or job.settings.closer is None
    ):
        return ()
    wanted = job.settings.closer.detector.rule.vectors
    known = [line["vectors"].get(name, [None]) for name in wanted]
    whole = all(None not in values for values in known)
    return () if whole else tuple(range(line["num_classes"]))
