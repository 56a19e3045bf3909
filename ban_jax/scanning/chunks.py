"""Evidence of chunks of candidates: what a scan does with what its loop has read."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ban_jax import checkpoints, population, records, verdict
from ban_jax.data import normalisation
from ban_jax.records import Evidence, Job, Settings
from ban_jax.records.record import Normalisation
from ban_jax.scanning import examination, fitness, runner, stems, timeline


class Kind(NamedTuple):
    """What candidates must share to be computed by one program.

    Attributes:
      spec: their architecture.
      given: whether their pixel constants are known, so that none are tried.
      asked: how many classes are asked about; None: all.
    """

    spec: checkpoints.ModelSpec
    given: bool
    asked: int | None = None

    def __str__(self) -> str:
        return f"{self.spec.architecture}/{self.spec.width}"


class Chunk(NamedTuple):
    """Candidates of one kind, placed for the device; `Scan.measure` empties it."""

    kind: Kind
    candidates: tuple[checkpoints.Candidate, ...]
    placed: runner.Placed


class Own(NamedTuple):
    """What a line says of its file alone.

    Attributes:
      fields: of the line.
      source: of its pixel constants, where they need no trying.
    """

    fields: dict[str, Any]
    source: str | None


class Scan:
    """Measures candidates: the `loop.Task` of `ban-jax scan`.

    `prepare` may run on one thread while `measure` runs on another.

    Args:
      job: what to measure, on which images.
      clock: gets the spans `stack`, `compile` and `device`.
      placement: None for all devices of this process.
    """

    def __init__(
        self,
        job: Job,
        clock: timeline.Timeline,
        placement: population.Placement | None = None,
    ):
        self._job = job
        self._clock = clock
        self._expected: set[Kind] = set()
        self._expecting = threading.Lock()
        settings = job.settings
        self._runner = runner.Runner(clock, placement, settings.chunk)
        everywhere = self._runner.placement.everywhere()
        self._tried = {}
        if job.probe is not None:
            channels = job.probe.images.shape[-1]
            self._tried = normalisation.options(settings.dataset, channels)
        # Numbers of the config stay as they are: each is copied with its call.
        self._common = examination.Common(
            jax.device_put(job.probe, everywhere),
            jax.device_put(jax.random.key(settings.seed), everywhere),
            settings.config,
        )

    def key_of(self, candidate: checkpoints.Candidate) -> str:
        """See `loop.Task`."""
        return self._job.key_of(candidate)

    def fitted(self, candidate: checkpoints.Candidate) -> checkpoints.Candidate:
        """With the stem that suits the clean images, and a note on how these were made;
        see `loop.Task`."""
        if how := self._job.preparation:
            note = f"clean images are made as the model's own config says: {how}"
            candidate = dataclasses.replace(candidate, notes=(*candidate.notes, note))
        given = self._given(candidate)
        known = [(tuple(given["mean"]), tuple(given["std"]))] if given else []
        constants = known or list(self._tried.values())
        return stems.fitted(candidate, self._job.settings, self._job.probe, constants)

    def kind_of(self, candidate: checkpoints.Candidate) -> Kind:
        """See `loop.Task`."""
        known = self._given(candidate) is not None or self._job.probe is None
        asked = self._job.asked.get(candidate.path)
        return Kind(candidate.spec, known, len(asked.classes) if asked else None)

    def of_the_file(self, candidate: checkpoints.Candidate) -> Own:
        """See `loop.Task`."""
        given = self._given(candidate)
        source = given["source"] if given else None
        return Own(records.of_the_file(candidate), source)

    def failure(
        self,
        path: str,
        reason: str,
        candidate: checkpoints.Candidate | None,
        error: checkpoints.CheckpointError | None = None,
    ) -> Evidence:
        """See `loop.Task`."""
        return self._job.failure(path, reason, candidate, error)

    def refuse(self, candidate: checkpoints.Candidate) -> str:
        """Why a candidate cannot be measured with these images, or an empty string."""
        return unfit(candidate, self._job)

    def expect(self, candidate: checkpoints.Candidate) -> None:
        """Has the programs of its kind loaded: its own, and that of a closer look."""
        kind, spec = self.kind_of(candidate), candidate.spec
        with self._expecting:
            if kind in self._expected:
                return
            self._expected.add(kind)
        settings, member = self._job.settings, self._member(candidate, kind)
        function = _examined(settings, spec)
        self._runner.expect(kind, function, member, self._common, surely=True)
        if settings.closer is None:
            return
        # As many as `verdict.Judge` asks about.
        count = min(spec.num_classes, verdict.MOST_CLASSES)
        known = np.zeros((1, spec.in_channels), np.float32)
        member = member._replace(
            means=known, stds=known, classes=np.zeros(count, np.int32)
        )
        common = self._common._replace(config=settings.closer.config)
        kind = Kind(spec, True, count)
        for vector in settings.closer.detector.rule.vectors:
            closer = dataclasses.replace(settings.closer, vectors=(vector,))
            function = _examined(closer, spec)
            self._runner.expect(kind, function, member, common, surely=False)

    def is_lasting(self, result: Evidence) -> bool:
        """A failure is tried again."""
        return result["key"] is not None

    def wanted(self, kind: Kind) -> int:
        """See `loop.Task`."""
        return self._runner.wanted(kind)

    def prepare(
        self,
        kind: Kind,
        candidates: Sequence[checkpoints.Candidate],
        *,
        last: bool = False,
    ) -> Chunk:
        """Stacks a chunk and sends it to the device; see `runner.Runner.place`."""
        members = [self._member(candidate, kind) for candidate in candidates]
        placed = self._runner.place(kind, members, last=last)
        return Chunk(kind, tuple(candidates), placed)

    def measure(self, chunk: Chunk) -> list[Evidence]:
        """Evidence of a chunk's candidates, in order.

        A candidate on which the device fails gets a line that says why.
        """
        began = time.perf_counter()
        function = _examined(self._job.settings, chunk.kind.spec)
        found = self._runner.run(chunk.kind, function, chunk.placed, self._common)
        seconds = (time.perf_counter() - began) / len(chunk.candidates)
        lines = [
            self._job.failure(candidate.path, one.reason, candidate)
            if isinstance(one, runner.Failed)
            else self._line(candidate, one)
            for candidate, one in zip(chunk.candidates, found, strict=True)
        ]
        return [{**line, "seconds": seconds} for line in lines]

    def _member(
        self, candidate: checkpoints.Candidate, kind: Kind
    ) -> examination.Member:
        """What is stacked of a candidate."""
        given = self._given(candidate)
        constants: list[Any] = list(self._tried.values())
        channels = candidate.spec.in_channels
        if kind.given and given and len(given["mean"]) in (1, channels):
            constants = [(given["mean"], given["std"])]
        elif self._job.probe is None:
            constants = [((0.0,), (1.0,))]  # there are no images to try others on
        means, stds = (
            np.stack([np.full(channels, one[i], np.float32) for one in constants])
            for i in range(2)
        )
        words = population.identity_words(candidate.sha256)
        asked = self._job.asked.get(candidate.path)
        classes = np.array(asked.classes, np.int32) if asked else None
        return examination.Member(candidate.variables, means, stds, words, classes)

    def _line(
        self, candidate: checkpoints.Candidate, one: examination.Found
    ) -> Evidence:
        given, tried = self._given(candidate), 0
        if given is None and self._job.probe is not None:
            name = list(self._tried)[int(one.choice)]
            mean, std = self._tried[name]
            given = {"mean": list(mean), "std": list(std), "source": f"tried: {name}"}
            tried = examination.tried_work(self._job.probe, len(self._tried))
        return self._job.measured(candidate, one.evidence, given, tried)

    def _given(self, candidate: checkpoints.Candidate) -> Normalisation | None:
        """Constants that need no trying: those it was measured with before, the flag's,
        the checkpoint's own."""
        asked = self._job.asked.get(candidate.path)
        if asked and asked.normalisation:
            return asked.normalisation
        if self._job.settings.normalisation is not None:
            (mean, std), source = self._job.settings.normalisation, "flag"
        elif candidate.normalisation is not None:
            mean, std = candidate.normalisation
            source = str(candidate.normalisation_source)
        else:
            return None
        return {"mean": list(mean), "std": list(std), "source": source}


def _examined(settings: Settings, spec: checkpoints.ModelSpec) -> Any:
    """What is computed of each candidate of an architecture."""
    return examination.examiner(settings.network(spec), settings.detect)


def unfit(candidate: checkpoints.Candidate, job: Job) -> str:
    """Why a candidate cannot be measured with a job's images, or an empty string."""
    broken = [
        name
        for name, leaf in traverse_util.flatten_dict(
            candidate.variables, sep="/"
        ).items()
        if not np.all(np.isfinite(leaf))
    ]
    if broken:
        return f"{candidate.path}: weights are not finite in {', '.join(broken[:5])}"
    network = job.settings.network(candidate.spec)
    classifier = network.classifier(candidate.variables)
    if reason := fitness.degenerate(candidate.variables, classifier):
        return f"{candidate.path}: {reason}"
    if job.probe is None:
        return ""
    spec = candidate.spec
    height, width, channels = job.probe.images.shape[2:]
    if spec.in_channels != channels:
        return (
            f"{candidate.path}: takes images of {spec.in_channels} channels, the clean "
            f"images have {channels}"
        )
    if reason := fitness.wrong_size(spec, (height, width)):
        return f"{candidate.path}: {reason}"
    names = job.settings.class_names
    classes = len(names) if names else int(job.probe.labels.max()) + 1
    if classes > spec.num_classes or (names and classes != spec.num_classes):
        return (
            f"{candidate.path}: tells {spec.num_classes} classes apart, the clean images "
            f"have {classes}: this is another data set's model"
        )
    labels = np.asarray(job.probe.labels)
    if not names and (reason := fitness.other_classes(spec.num_classes, labels)):
        return f"{candidate.path}: {reason}"
    return ""
