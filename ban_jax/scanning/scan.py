"""The evidence of many checkpoints."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

from ban_jax import population
from ban_jax.records import Evidence, Job, record, seal
from ban_jax.scanning import chunks, loop, timeline


class Measured(NamedTuple):
    """The evidence of one file.

    Attributes:
      evidence: a line of the results file, without a verdict.
      is_new: false where the very same evidence was known under this path.
    """

    evidence: Evidence
    is_new: bool


def scan(
    paths: Sequence[str],
    job: Job,
    *,
    known: Iterable[Evidence] = (),
    clock: timeline.Timeline | None = None,
    placement: population.Placement | None = None,
    task: chunks.Scan | None = None,
) -> Iterator[Measured]:
    """Measures every candidate and yields its evidence as soon as it is there.

    Verdicts are drawn from it by `ban_jax.verdict`.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      job: what to measure, on which images.
      known: lines of an earlier run; where their key is the same, their evidence is used
        again, if it was a run of this user (`records.seal`).
      clock: collects where the time goes.
      placement: devices to compute on; None for all of this process.
      task: of this very job, from a call before: what it has planned is used again.

    Yields:
      A line for every path, and for a file that holds several classifiers one for each of
      them. A file that cannot be measured has `error` set; the scan goes
      on.
    """
    known = [line for line in known if line["key"] and seal.is_own(line)]
    lines = {(line["path"], line["key"]) for line in known}
    clock = clock or timeline.Timeline()
    for path, key, evidence, own, part_of in loop.stream(
        paths,
        task or chunks.Scan(job, clock, placement),
        known={
            # Of equal weights the line that knows most, such as of a closer look.
            str(line["key"]): record.evidence_of(line)
            for line in sorted(known, key=lambda line: len(line["vectors"]))
        },
        architecture=job.settings.architecture,
        clock=clock,
    ):
        line = cast(Evidence, {**evidence, "path": path, "part_of": part_of})
        if key is not None:
            line = _of_one_file(line, own)
        told = line["key"] is not None and (path, line["key"]) in lines
        yield Measured(line, not told)


def _of_one_file(shared: Evidence, own: chunks.Own) -> Evidence:
    """A line of measurements that other files may share, with what is this file's."""
    constants = shared["normalisation"]
    if constants is not None and own.source is not None:
        constants = {**constants, "source": own.source}
    line = {**shared, **own.fields, "normalisation": constants}
    return cast(Evidence, seal.sealed(line) if line["key"] else line)
