"""Chunks of candidates in, records of their evidence out, whatever the memory allows."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ban_jax import checkpoints, detectors, population, records
from ban_jax.data import normalisation as normalisations
from ban_jax.detectors import evidence
from ban_jax.population import memory
from ban_jax.records import Record, Settings
from ban_jax.scanning import examination, timeline
from ban_jax.types import Probe


class Chunk:
    """Candidates of one kind, placed for the device; the engine empties it.

    Attributes:
      kind: their architecture: what they must share to be computed by one program.
      candidates: in order.
      size: what they were padded to.
      placed: see `population.place`; None once it was used.
    """

    def __init__(
        self,
        kind: checkpoints.ModelSpec,
        candidates: Sequence[checkpoints.Candidate],
        size: int = 0,
        placed: Any = None,
    ):
        self.kind = kind
        self.candidates = list(candidates)
        self.size = size
        self.placed = placed


class Engine:
    """Computes the evidence of chunks; knows how many candidates fit at once.

    `prepare` may run on one thread while `measure` runs on another.

    Args:
      probe: clean images; None for a mode that needs none.
      settings: what to measure, and how.
      digest: of settings and probe.
      clock: gets the spans `stack`, `compile` and `device`.
      placement: None for all devices of this process.
    """

    def __init__(
        self,
        probe: Probe | None,
        settings: Settings,
        digest: str,
        clock: timeline.Spans,
        placement: population.Placement | None = None,
    ):
        self._settings = settings
        self._digest = digest
        self._clock = clock
        self._detector = detectors.DETECTORS[settings.mode]
        self._placement = placement or population.default_placement()
        self._sizes: dict[checkpoints.ModelSpec, int] = {}
        self._planned: set[checkpoints.ModelSpec] = set()
        self._sizing = threading.Lock()
        self._tried: dict[str, tuple[tuple, tuple]] = {}
        self._common: examination.Common | None = None
        if probe is not None and self._detector.needs_images:
            self._tried = normalisations.options(
                settings.dataset, probe.images.shape[-1]
            )
            common = examination.Common(
                probe, jax.random.key(settings.seed), settings.config
            )
            # Numbers of the config stay as they are: each is copied with its call.
            self._common = common._replace(
                probe=jax.device_put(probe, self._placement.everywhere()),
                key=jax.device_put(common.key, self._placement.everywhere()),
            )

    def wanted(self, kind: checkpoints.ModelSpec) -> int:
        """Candidates the next chunk of a kind should have."""
        with self._sizing:
            return self._sizes.get(kind, self._largest())

    def prepare(
        self,
        kind: checkpoints.ModelSpec,
        candidates: Sequence[checkpoints.Candidate],
        *,
        last: bool = False,
    ) -> Chunk:
        """Stacks a chunk and sends it to the device, without waiting for it.

        Args:
          kind: theirs.
          candidates: at most as many as are `wanted`.
          last: whether no more of this kind are to come: a kind that never filled a chunk
            is computed at its own size, all others at the size that is compiled.
        """
        if self._common is None:
            return Chunk(kind, candidates)
        size = self._placement.rounded(len(candidates)) if last else self._largest()
        with self._sizing:
            size = self._sizes.setdefault(kind, size)
        chunk = Chunk(kind, candidates, size)
        if len(candidates) <= size:
            # Where there is no room yet, `measure` tries again once there is.
            with contextlib.suppress(jax.errors.JaxRuntimeError, MemoryError):
                chunk.placed = self._place(candidates, size)
        return chunk

    def measure(self, chunk: Chunk) -> list[Record]:
        """Evidence of a chunk's candidates, as records without a verdict, in order.

        Where memory runs out, half as many candidates are computed at once, now and from
        then on. A candidate that fails alone gets a record that says why.
        """
        began = time.perf_counter()
        if self._common is None:
            found = [self._from_weights(candidate) for candidate in chunk.candidates]
        else:
            found = []
            while len(found) < len(chunk.candidates):
                found += self._next(chunk, len(found))
        seconds = (time.perf_counter() - began) / len(chunk.candidates)
        return [{**record, "seconds": seconds} for record in found]

    def _next(self, chunk: Chunk, first: int) -> list[Record]:
        """Records of the next candidates of a chunk; none where memory ran out."""
        kind, size = chunk.kind, self.wanted(chunk.kind)
        part: list[checkpoints.Candidate] = []
        # So that memory is not held twice while a smaller part is placed.
        placed, chunk.placed = chunk.placed, None
        try:
            size = self._plan(kind, chunk.candidates[first])
            part = chunk.candidates[first : first + size]
            if placed is None or size != chunk.size:
                placed = None
                placed = self._place(part, size)
            return self._run(kind, part, placed, size)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            halved = self._placement.rounded(size // 2) if size > 1 else size
            if memory.exhausted(error) and halved < size:
                with self._sizing:
                    self._sizes[kind] = halved
                return []
            reason = f"the device failed: {str(error).partition(chr(10))[0]}"
            part = part or chunk.candidates[first:]
            return [
                records.failure(c.path, reason, self._settings, self._digest, c)
                for c in part
            ]

    def _largest(self) -> int:
        most = self._settings.chunk
        each = most or population.default_chunk(self._placement.devices[0].platform)
        return each * len(self._placement.devices)

    def _plan(self, kind: checkpoints.ModelSpec, one: checkpoints.Candidate) -> int:
        """The size of a kind's chunks, made smaller where it would not fit the memory.

        What is planned with is the program that will most likely run, so that planning
        compiles nothing more where it fits.
        """
        size = self.wanted(kind)
        if self._settings.chunk is not None or kind in self._planned:
            return size
        self._planned.add(kind)
        needed = memory.needed(self._examine(kind, one, size))
        devices = self._placement.devices
        if self._placement.on_threads:
            needed = needed and needed * size
        fit = memory.fitting(size // len(devices), needed, memory.free(devices[0]))
        with self._sizing:
            self._sizes[kind] = fit * len(devices)
            return self._sizes[kind]

    def _examine(
        self, kind: checkpoints.ModelSpec, one: checkpoints.Candidate, size: int
    ) -> jax.stages.Compiled:
        member, _ = self._member(one, tried=False)
        return self._program(
            examination.examine, kind, member, size, detect=self._detector.detect
        )

    def _program(
        self,
        function: Callable[..., Any],
        kind: checkpoints.ModelSpec,
        one: Any,
        size: int,
        **static: Any,
    ) -> jax.stages.Compiled:
        network = self._settings.network(kind)
        with self._clock("compile"):
            return population.program(
                examination.bound(function, network=network, **static),
                self._placement,
                one,
                self._common,
                size,
            )

    def _place(self, part: Sequence[checkpoints.Candidate], size: int) -> Any:
        with self._clock("stack", len(part)):
            tried = self._try(part)
            members = [self._member(one, tried=tried) for one in part]
            return population.place(members, self._placement, size)

    def _try(self, part: Sequence[checkpoints.Candidate]) -> bool:
        return any(_given(candidate, self._settings) is None for candidate in part)

    def _member(
        self, candidate: checkpoints.Candidate, *, tried: bool
    ) -> tuple[examination.Member, examination.Options | None]:
        """What is stacked of a candidate; with `tried`, constants to choose from."""
        given = _given(candidate, self._settings)
        constants = list(self._tried.values())
        if given is not None:
            constants = [(given["mean"], given["std"])] * len(constants)
        channels = candidate.spec.in_channels
        means, stds = (
            np.stack([np.full(channels, one[i], np.float32) for one in constants])
            for i in range(2)
        )
        words = population.identity_words(candidate.sha256)
        member = examination.Member(candidate.variables, means[0], stds[0], words)
        if not tried:
            return member, None
        # The weights go to the device once; `_run` puts them in.
        return member, examination.Options({}, means, stds)

    def _run(
        self,
        kind: checkpoints.ModelSpec,
        part: Sequence[checkpoints.Candidate],
        placed: Any,
        size: int,
    ) -> list[Record]:
        assert self._common is not None
        detect = self._examine(kind, part[0], size)
        member, options = self._member(part[0], tried=self._try(part))
        if options is not None:
            options = options._replace(variables=member.variables)
            choose = self._program(examination.choose, kind, options, size)

        def step(one: Any, common: examination.Common) -> Any:
            member, options = one
            if options is None:
                return detect(member, common), None
            choice = choose(options._replace(variables=member.variables), common)
            member = member._replace(mean=choice.mean, std=choice.std)
            return detect(member, common), choice.which

        with self._clock(timeline.DEVICE, len(part)):
            measured = population.for_each(
                step, self._placement, placed, self._common, len(part)
            )
        return [
            self._record(candidate, one, choice)
            for candidate, (one, choice) in zip(part, measured, strict=True)
        ]

    def _record(
        self, candidate: checkpoints.Candidate, one: evidence.Evidence, choice: Any
    ) -> Record:
        assert self._common is not None
        labels = self._common.probe.labels
        work = self._detector.work(
            self._settings.config, candidate.spec.num_classes, labels.size
        )
        given = _given(candidate, self._settings)
        if given is None:
            name = list(self._tried)[int(choice)]
            mean, std = self._tried[name]
            given = {"mean": mean, "std": std, "source": f"tried: {name}"}
            work += labels[: examination.TRIED_MINIBATCHES].size * len(self._tried)
        return {
            **records.identity(candidate, self._settings, self._digest),
            "normalisation": given,
            **records.plain(one),
            "num_probe": labels.size,
            "forward_equivalents": work,
        }

    def _from_weights(self, candidate: checkpoints.Candidate) -> Record:
        network = self._settings.network(candidate.spec)
        return {
            **records.identity(candidate, self._settings, self._digest),
            "normalisation": _given(candidate, self._settings),
            **records.plain(self._detector.detect(network, candidate.variables)),
            "num_probe": 0,
            "forward_equivalents": 0,
        }


def _given(candidate: checkpoints.Candidate, settings: Settings) -> Record | None:
    """The pixel constants that need no trying: the flag's, else the checkpoint's own."""
    if settings.normalisation is not None:
        (mean, std), source = settings.normalisation, "flag"
    elif candidate.normalisation is not None:
        (mean, std), source = (
            candidate.normalisation,
            str(candidate.normalisation_source),
        )
    else:
        return None
    return {"mean": list(mean), "std": list(std), "source": source}
