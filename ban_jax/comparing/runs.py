"""One detector over a labelled zoo: the scan's own loop, an architecture at a time.

Each architecture is a scan by itself, so that its time and memory are known apart. Lines
of evidence are appended one by one; what an architecture took is added to `times.json`
when it is through or stopped, so that a run that is started again has both.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ban_jax import records, verdict
from ban_jax.records import Evidence, Job
from ban_jax.scanning import closer, scan, timeline
from ban_jax.storage import atomic, json_file

TIMES = "times.json"
Progress = Callable[[], None]
Times = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Spent:
    """What the candidates that were measured took.

    Attributes:
      candidates: how many.
      device_seconds: of computing, a closer look's included, compilation left out.
      compile_seconds: of compiling.
      chunk_bytes: what the largest chunk takes of a device's memory, as XLA plans it; 0
        where that is not known.
    """

    candidates: int = 0
    device_seconds: float = 0.0
    compile_seconds: float = 0.0
    chunk_bytes: int = 0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(
            self.candidates + other.candidates,
            self.device_seconds + other.device_seconds,
            self.compile_seconds + other.compile_seconds,
            max(self.chunk_bytes, other.chunk_bytes),
        )


class Run(NamedTuple):
    """What a detector found in a zoo.

    Attributes:
      lines: evidence, in the order of the paths.
      spent: architecture -> what its candidates took.
      configs: architecture -> the settings it was measured with.
    """

    lines: list[Evidence]
    spent: dict[str, Spent]
    configs: dict[str, dict[str, Any]]


def run(
    groups: Mapping[str, Sequence[str]],
    jobs: Mapping[str, Job],
    folder: str,
    judge: verdict.Judge,
    *,
    resume: bool = True,
    progress: Progress = lambda: None,
) -> Run:
    """Measures all candidates of one detector, or takes what an earlier run measured.

    Args:
      groups: architecture -> paths.
      jobs: architecture -> what to measure.
      folder: for the lines, `MODE.jsonl`, and `times.json`.
      judge: says where a closer look is worth it.
      resume: whether to go on from what the folder holds.
      progress: called for each candidate that is through.
    """
    (mode,) = {job.settings.mode for job in jobs.values()}
    lines: list[Evidence] = []
    spent: dict[str, Spent] = {}
    path = os.path.join(folder, f"{mode}.jsonl")
    with records.Writer(path, resume=resume) as writer:
        for name, paths in groups.items():
            clocks = timeline.Timeline(), timeline.Timeline()
            key = f"{mode}/{jobs[name].digest}/{name}"
            try:
                lines += _measure(paths, jobs[name], writer, judge, progress, *clocks)
            finally:
                spent[name] = _added(folder, key, _cost(*clocks))
    configs = {name: jobs[name].settings.told_config() for name in groups}
    return Run(lines, spent, configs)


def _measure(
    paths: Sequence[str],
    job: Job,
    writer: records.Writer,
    judge: verdict.Judge,
    progress: Progress,
    first: timeline.Timeline,
    second: timeline.Timeline,
) -> list[Evidence]:
    found: list[Evidence] = []
    for line, is_new in scan.scan(paths, job, known=writer.records, clock=first):
        found.append(line)
        if is_new:
            writer.write(line)
        progress()
    asked = closer.questions(found, job, judge)
    looked = []
    for line in closer.look(found, job, asked, clock=second):
        looked.append(line)
        writer.write(line)
    by_path = {line["path"]: line for line in closer.joined(found, looked)}
    return [by_path.get(path) or _several(path, job) for path in paths]


def _cost(first: timeline.Timeline, second: timeline.Timeline) -> Spent:
    """What both passes took, by their clocks."""
    stages = [clock.summary()["stages"] for clock in (first, second)]
    return Spent(
        candidates=int(_of(stages[0], timeline.DEVICE, "candidates")),
        device_seconds=sum(_of(s, timeline.DEVICE, "seconds") for s in stages),
        compile_seconds=sum(_of(s, "compile", "seconds") for s in stages),
        chunk_bytes=max(first.most_bytes, second.most_bytes),
    )


def _several(path: str, job: Job) -> Evidence:
    """The line of a file that holds several classifiers, of which a label tells one."""
    error = "holds several classifiers, of which compare cannot tell the labelled one"
    return job.failure(path, f"{path}: {error}")


def _of(stages: Mapping[str, Mapping[str, float]], stage: str, name: str) -> float:
    return stages[stage][name] if stage in stages else 0.0


def _added(folder: str, key: str, cost: Spent) -> Spent:
    """What was spent under a key in all runs, this one included.

    A run that measured nothing new adds nothing, its memory neither.
    """
    path = os.path.join(folder, TIMES)
    times = _read(path)
    known = Spent(**times[key]) if key in times else Spent()  # type: ignore[arg-type]
    if not cost.candidates and not cost.device_seconds:
        return known
    total = known.plus(cost)
    times[key] = dataclasses.asdict(total)
    atomic.write(path, json.dumps(times, indent=1).encode() + b"\n")
    return total


def _read(path: str) -> Times:
    """What earlier runs spent; a file that is none of ours is told of.

    Raises:
      ValueError: naming the file.
    """
    if not os.path.exists(path):
        return {}
    names = {field.name for field in dataclasses.fields(Spent)}
    try:
        found = json_file.load(path)
        whole = all(
            set(one) == names and all(isinstance(x, int | float) for x in one.values())
            for one in found.values()
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not whole:
        raise ValueError(f"{path}: expected {', '.join(sorted(names))} for each entry")
    return found
