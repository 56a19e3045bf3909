"""Clean images for each model as its own config says, where flags say nothing of sizes.

A model of 224 pixels in a folder of models of 32 is judged on images of 224. Files with one
preparation are measured together, one group after the other, by the same engine: each group
is a job with clean images of its own, so that lines and their keys say what was measured.
"""

import collections
import dataclasses
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ban_jax import checkpoints
from ban_jax.data import clean_images, preparation, probe
from ban_jax.records import Evidence, Job
from ban_jax.scanning import engines, scan, timeline
from ban_jax.types import Probe

Way = preparation.Preparation | None
"""How images are prepared; None: as the flags say."""


def told(way: Way) -> str:
    """A way in words; empty for that of the flags."""
    return preparation.told(way) if way else ""


class Ways:
    """Which files of a scan get which clean images.

    Args:
      flags: of `scan` or `repair`. Where they say a size, all files get the same.
      paths: of the files, on this machine.

    Attributes:
      usual: of the scan's own job: a model's, where every file brings one, so that clean
        images of many sizes need no flag.
    """

    def __init__(self, flags: Any, paths: Iterable[str]):
        self._flags = flags
        self._said: set[Way] = set()
        self._last: tuple[Way, Probe] | None = None
        ways = [self._of(path) for path in paths]
        self.usual: Way = ways[0] if ways and None not in ways else None

    def engine(self, engine: engines.Engine) -> engines.Engine:
        """An engine that measures each file on images prepared for it."""
        return _Preparing(engine, self) if self._flags.image_size is None else engine

    def groups(self, paths: Sequence[str]) -> dict[Way, list[str]]:
        """Paths by the way of their images, in the order in which ways are met."""
        found: dict[Way, list[str]] = collections.defaultdict(list)
        for path in paths:
            found[self._of(path)].append(path)
        return found

    def is_usual(self, way: Way, images: Probe) -> bool:
        """Whether files of a way take the images of `usual`, which these are."""
        return way == self.usual or (self.usual is None and _is_made(images, way))

    def job(self, job: Job, way: Way) -> Job:
        """A job with the images of a way.

        Args:
          job: with those of `usual`, perhaps of a closer look.
          way: of a group.
        """
        assert job.probe is not None
        if self.is_usual(way, job.probe):
            return job
        if self._last is None or self._last[0] != way:
            self._last = None  # of two sizes of images one is held besides the usual
            self._last = way, self._probe(way)
        return dataclasses.replace(job, probe=self._last[1], preparation=told(way))

    def say(self, way: Way, count: int) -> None:
        """Tells once how images of a group are prepared."""
        if way is not None and way not in self._said:
            self._said.add(way)
            print(
                f"note: {count} of the files take other clean images, as the config beside "
                f"them says: {told(way)}. --image-size N gives all files the same",
                file=sys.stderr,
            )

    def _of(self, path: str) -> Way:
        if self._flags.image_size is not None:
            return None
        return checkpoints.preparation(path)

    def _probe(self, way: Way) -> Probe:
        dataset = clean_images.load(self._flags, way)
        # The labels are those of the usual images, of which it was said.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return probe.minibatches(dataset.images, dataset.labels)


def _is_made(images: Probe, way: Way) -> bool:
    """Whether images already have the size: then they are taken as they are."""
    return way is not None and images.images.shape[2:4] == (way.size, way.size)


class _Preparing:
    """See `Ways.engine` and `engines.Engine`."""

    def __init__(self, engine: engines.Engine, ways: Ways):
        self._engine, self._ways = engine, ways

    def adapted(self, job: Job) -> Job:
        return self._engine.adapted(job)

    def measure(
        self,
        paths: Sequence[str],
        job: Job,
        *,
        known: Iterable[Evidence] = (),
        clock: timeline.Timeline | None = None,
    ) -> Iterator[scan.Measured]:
        if job.probe is None:
            yield from self._engine.measure(paths, job, known=known, clock=clock)
            return
        known = list(known)
        for way, some in self._ways.groups(paths).items():
            own = self._ways.job(job, way)
            if own.preparation:
                self._ways.say(way, len(some))
            yield from self._engine.measure(some, own, known=known, clock=clock)
