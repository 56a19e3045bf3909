"""The same time, or the same work, for every method: step counts that fit it.

    1. All counts of a detector (`Detector.counts`) are multiplied by one factor, each
       kept at the least it allows.
    2. A short run gives forward-equivalents per second: as many candidates at once as a
       scan takes, compiled before, the second of two runs counts. The least counts are run
       first; what they tell makes the work (`Detector.work`) of the run that counts half
       of the budget, or a twentieth of the documented work where that is less.
    3. The factor that is used is the largest whose work, at that rate, fits the budget.

Work that is told in forward-equivalents needs no short run, and the counts are the same on
every machine.

A closer look counts as if it were needed at all classes. A method without counts, or one
whose least work exceeds the budget, takes the time it takes; the figures say so. Methods
that stop early spend less than their budget.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from ban_jax import checkpoints
from ban_jax.detectors import Detector
from ban_jax.records import Job
from ban_jax.scanning import chunks, timeline

SHORT = 1 / 20
"""Of the documented work, at most."""
HALF = 1 / 2
"""Of the budget, at most: the documented work of some methods takes days."""
LARGEST = 1000.0
"""Times the documented counts, at most."""
HALVINGS = 40


class Fitted(NamedTuple):
    """A job whose work fits a budget, and how that came about.

    Attributes:
      job: with its counts changed.
      factor: that the counts were multiplied by; 1 where there are none, 0 where even
        the least counts exceed the budget.
      rate: forward-equivalents per second of the short run; None where none was needed.
      work: image forward-equivalents of a candidate at most.
      allowed: what fits the budget; None where the counts stay as they are.
    """

    job: Job
    factor: float
    rate: float | None
    work: int
    allowed: float | None = None

    def in_words(self) -> str:
        """What became of the counts, and the work that follows."""
        work = f"{self.work:,} forward-equivalents"
        if self.allowed is None:
            return f"counts as they are, {work}"
        if self.factor:
            return f"counts times {self.factor:.3g}, {work}"
        return (
            f"counts at their least, {work}: more than the {self.allowed:,.0f} allowed"
        )

    def told(self) -> dict[str, Any]:
        """For the figures."""
        names = ("factor", "rate", "work", "allowed")
        return {name: getattr(self, name) for name in names}


def rate(
    job: Job, paths: Sequence[str], num_classes: int, seconds: float
) -> float | None:
    """Forward-equivalents per second of a short run; None where none is needed or read.

    Args:
      job: at the settings that were asked for.
      paths: candidates of one architecture; the first chunk of them is measured.
      num_classes: of the candidates.
      seconds: the budget of a candidate.
    """
    if not has_counts(job.settings.detector, job.settings.config):
        return None
    least = scaled(job, 0.0)
    crude = measured_rate(least, paths)
    if crude is None:
        return None
    work = min(SHORT * _work(job, num_classes), HALF * seconds * crude)
    short = scaled(job, _factor(job, work, num_classes))
    same = short.settings == least.settings
    return crude if same else measured_rate(short, paths)


def fitted(
    job: Job, work: float | None, num_classes: int, rate: float | None = None
) -> Fitted:
    """Changes a job's counts so that a candidate takes so much work.

    Args:
      job: at the settings that were asked for.
      work: forward-equivalents per candidate; without them the counts stay.
      num_classes: of the candidates.
      rate: that the work follows from, see `rate`.
    """
    if work is None or not has_counts(job.settings.detector, job.settings.config):
        return Fitted(job, 1.0, rate, _work(job, num_classes))
    factor = _factor(job, work, num_classes)
    found = scaled(job, factor)
    return Fitted(found, factor, rate, _work(found, num_classes), work)


def _factor(job: Job, work: float, num_classes: int) -> float:
    """The largest factor whose work is at most so much; the smallest if none is."""
    low, high = 0.0, LARGEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _work(scaled(job, middle), num_classes) <= work
        low, high = (middle, high) if fits else (low, middle)
    return low


def has_counts(detector: Detector, config: Any) -> bool:
    """Whether a detector can be given more or less time."""
    return any(hasattr(config, name) for name in detector.counts)


def scaled(job: Job, factor: float) -> Job:
    """The job with the counts of its detector, and of a closer look, times a factor."""
    settings = job.settings
    changed = dataclasses.replace(
        settings, config=with_counts(settings.detector, settings.config, factor)
    )
    if (closer := settings.closer) is not None:
        further = with_counts(closer.detector, closer.config, factor)
        changed = dataclasses.replace(changed, further=further)
    return dataclasses.replace(job, settings=changed)


def with_counts(detector: Detector, config: Any, factor: float) -> Any:
    """Settings whose counts are multiplied, none below what it allows or below 1."""
    changes = {}
    for field in dataclasses.fields(config):
        if field.name in detector.counts:
            least = max(field.metadata.get("minimum", 0), 1)
            value = getattr(config, field.name)
            changes[field.name] = max(round(value * factor), min(least, value))
    return dataclasses.replace(config, **changes)


def measured_rate(job: Job, paths: Sequence[str]) -> float | None:
    """Forward-equivalents per second of a chunk of candidates; None if none is read."""
    task = chunks.Scan(job, timeline.Timeline())
    members: list[checkpoints.Candidate] = []
    kind: Any = None
    for path in paths:
        try:
            one = checkpoints.read(path)
        except checkpoints.CheckpointError:
            continue
        if not task.refuse(one) and kind in (None, task.kind_of(one)):
            kind = task.kind_of(one)
            members.append(one)
        if members and len(members) >= task.wanted(kind):
            break
    if not members:
        return None
    for _ in range(2):  # the first run compiles, and warms up
        clock = timeline.Timeline()
        task = chunks.Scan(job, clock)
        lines = task.measure(task.prepare(kind, members, last=True))
    seconds = clock.summary()["stages"][timeline.DEVICE]["seconds"]
    work = sum(line["forward_equivalents"] for line in lines)
    return work / seconds if seconds > 0 and work > 0 else None


def _work(job: Job, num_classes: int) -> int:
    """Image forward-equivalents of a candidate, a closer look at all classes included."""
    settings = job.settings
    images = 0 if job.probe is None else job.probe.labels.size
    total = settings.detector.work(settings.config, num_classes, images)
    if (closer := settings.closer) is not None:
        total += closer.detector.work(closer.config, num_classes, images)
    return total
