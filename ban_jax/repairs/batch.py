"""Repairs many checkpoints: measure, repair, write, measure again, compare."""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ban_jax import checkpoints, population, records, repairs, verdict
from ban_jax.baselines import usable
from ban_jax.records import Evidence, Job, seal
from ban_jax.repairs import comparison, inputs, writing
from ban_jax.repairs.record import SEALED, RepairRecord, empty
from ban_jax.scanning import chunks, closer, loop, runner, scan, timeline
from ban_jax.storage import run_folder
from ban_jax.types import Network, Variables

_ADVICE = "; if its memory did not suffice, lower --chunk"


class Outcome(NamedTuple):
    """What became of a candidate.

    Attributes:
      record: the line of `repairs.jsonl`.
      rescan: the repaired model's line of a scan; None where nothing was repaired.
      other: what the file holds, where that is no classifier: nothing to repair.
    """

    record: RepairRecord
    rescan: records.Record | None
    other: str | None = None


def repair_all(
    paths: Sequence[str],
    request: inputs.Request,
    images: inputs.Images,
    folder: run_folder.RunFolder,
    *,
    known: Iterable[RepairRecord] = (),
    clock: timeline.Timeline | None = None,
    placement: population.Placement | None = None,
) -> Iterator[Outcome]:
    """Repairs every candidate and yields its outcome as soon as its files are whole.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      request: how.
      images: the clean images.
      folder: receives the repaired models.
      known: records of an earlier run of the same request: what they say was repaired,
        and is still there, is not done again.
      clock: collects where the time goes.
      placement: None for all devices of this process.

    Yields:
      Records have `error` set where a candidate was not repaired; the run goes on. What an
      earlier run told of under this very path is passed over.
    """
    clock = clock or timeline.Timeline()
    whole = [
        record
        for record in known
        if record["key"] and record["output"] and folder.has(record["output"])
        # A folder that came with the models tells of no repair of ours.
        if seal.is_own(record, SEALED)
    ]
    finished = {str(record["key"]): Outcome(record, None) for record in whole}
    lines = {record["path"] for record in whole}
    task = Task(request, images, folder, clock, placement)
    told: set[str] = set()
    for path, key, outcome, notes, _ in loop.stream(
        paths, task, known=finished, architecture=request.arch, clock=clock
    ):
        if key in finished and path in lines:
            continue
        if outcome.record["output"] in told:
            outcome = outcome._replace(rescan=None)
        told.add(outcome.record["output"])
        record = {**outcome.record, "path": path}
        if key is not None and key not in finished:
            # Files of the same weights share the repair, not what is said of each.
            record["notes"] = [*notes, *record["notes"]]
            record = seal.sealed(record, SEALED) if record["key"] else record
        yield outcome._replace(record=record)


class Chunk(NamedTuple):
    """Candidates of one kind."""

    kind: chunks.Kind
    candidates: Sequence[checkpoints.Candidate]
    last: bool


class Task:
    """Repairs candidates: the `loop.Task` of `ban-jax repair`.

    Args:
      request: how.
      images: the clean images.
      folder: receives the repaired models.
      clock: gets the spans.
      placement: None for all devices of this process.
    """

    def __init__(
        self,
        request: inputs.Request,
        images: inputs.Images,
        folder: run_folder.RunFolder,
        clock: timeline.Timeline,
        placement: population.Placement | None = None,
    ):
        self._request, self._images, self._folder = request, images, folder
        settings = inputs.scan_settings(request, images)
        self._job = Job(settings, images.probe, preparation=images.preparation)
        self._digest = inputs.digest(inputs.making(request, images))
        self._scan = chunks.Scan(self._job, clock, placement)
        self._runner = runner.Runner(clock, placement, request.chunk)
        self._clock, self._placement = clock, placement

    def key_of(self, candidate: checkpoints.Candidate) -> str:
        """See `loop.Task`."""
        return records.key_of(candidate, self._digest)

    def fitted(self, candidate: checkpoints.Candidate) -> checkpoints.Candidate:
        """As it is scanned; see `loop.Task`."""
        return self._scan.fitted(candidate)

    def kind_of(self, candidate: checkpoints.Candidate) -> chunks.Kind:
        """See `loop.Task`."""
        return self._scan.kind_of(candidate)

    def refuse(self, candidate: checkpoints.Candidate) -> str:
        """Why a candidate cannot be repaired with these images, or an empty string."""
        return self._scan.refuse(candidate)

    def expect(self, candidate: checkpoints.Candidate) -> None:
        """Nothing is begun early: a repair takes far longer than its program's loading."""

    def of_the_file(self, candidate: checkpoints.Candidate) -> tuple[str, ...]:
        """Notes of this file; see `loop.Task`."""
        return candidate.notes

    def failure(
        self,
        path: str,
        reason: str,
        candidate: checkpoints.Candidate | None,
        error: checkpoints.CheckpointError | None = None,
    ) -> Outcome:
        """See `loop.Task`."""
        failed = empty(path, self._request, candidate, error=reason)
        return Outcome(failed, None, error.other if error else None)

    def is_lasting(self, result: Outcome) -> bool:
        """A failure is tried again."""
        return result.record["key"] is not None

    def wanted(self, kind: chunks.Kind) -> int:
        """See `loop.Task`."""
        return self._runner.wanted(kind)

    def prepare(
        self,
        kind: chunks.Kind,
        candidates: Sequence[checkpoints.Candidate],
        *,
        last: bool,
    ) -> Chunk:
        """Nothing is sent ahead: what is stacked depends on what the scan chooses."""
        return Chunk(kind, candidates, last)

    def measure(self, chunk: Chunk) -> list[Outcome]:
        """Repairs a chunk: the outcome of each candidate, in order."""
        scanned = self._measured(chunk.candidates, last=chunk.last)
        pairs = zip(chunk.candidates, scanned, strict=True)
        reasons = [self._unfit(*pair) for pair in pairs]
        fit = [index for index, reason in enumerate(reasons) if not reason]
        repaired = self._repair(chunk, [(chunk.candidates[i], scanned[i]) for i in fit])
        outcomes = dict(zip(fit, repaired, strict=True))
        return [
            outcomes.get(index)
            or self.failure(candidate.path, reasons[index], candidate)
            for index, candidate in enumerate(chunk.candidates)
        ]

    def _measured(
        self, candidates: Sequence[checkpoints.Candidate], *, last: bool
    ) -> list[Evidence]:
        """Evidence of candidates of one architecture, in order.

        In two passes, as a scan measures them.
        """
        lines = _of_all_kinds(self._scan, candidates, last=last)
        asked = closer.questions(lines, self._job, verdict.Judge())
        by_path = {one.path: one for one in candidates}

        def measure(
            paths: Sequence[str], job: Job, clock: timeline.Timeline | None = None
        ) -> Iterator[scan.Measured]:
            further = chunks.Scan(job, self._clock, self._placement)
            doubtful = [by_path[path] for path in paths]
            for line in _of_all_kinds(further, doubtful, last=last):
                yield scan.Measured(line, is_new=True)

        looked = closer.look(lines, self._job, asked, measure=measure)
        return closer.joined(lines, looked)

    def _unfit(self, candidate: checkpoints.Candidate, scanned: Evidence) -> str:
        """Why the evidence forbids a repair, or an empty string."""
        # As against a crowd: two classes are too few for a verdict, not for a repair.
        if reason := usable.why_inconclusive(scanned, crowd_like=True):
            return reason
        why = repairs.METHODS[self._request.method].unfit(candidate.variables)
        told, known = candidate.spec.num_classes, self._images.num_classes
        if known > told:
            why = f"tells {told} classes apart, the clean images have {known}: "
            why += "this is another data set's model"
        return why and f"{candidate.path}: {why}"

    def _repair(
        self,
        chunk: Chunk,
        pairs: Sequence[tuple[checkpoints.Candidate, Evidence]],
    ) -> list[Outcome]:
        """Repairs candidates of one kind; `pairs` has the evidence of each."""
        if not pairs:
            return []
        request = self._request
        network = self._job.settings.network(chunk.kind.spec)
        members = []
        for candidate, scanned in pairs:
            constants = scanned["normalisation"]
            assert constants is not None
            given = tuple(constants["mean"]), tuple(constants["std"])
            key = population.identity_key(request.seed, candidate.sha256)
            members.append((candidate.full_variables(given), key))
        began = time.perf_counter()
        done = self._runner.run(
            chunk.kind,
            _bound(request.method, network),
            self._runner.place(chunk.kind, members, last=chunk.last),
            (self._images.clean, request.settings),
        )
        seconds = (time.perf_counter() - began) / len(pairs)

        def finish(index: int) -> Outcome:
            candidate, scanned = pairs[index]
            if isinstance(done[index], runner.Failed):
                reason = done[index].reason + _ADVICE
                return self.failure(candidate.path, reason, candidate)
            before, (after, info) = members[index][0], done[index]
            return self._compare(
                candidate, scanned, before, after, info, names[index], seconds
            )

        names = [
            None
            if isinstance(one, runner.Failed)
            else writing.write(
                self._folder, candidate, self._digest, one[0], one[1], request
            )
            for (candidate, _), one in zip(pairs, done, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(population.cores()) as pool:
            outcomes = list(pool.map(finish, range(len(pairs))))
        return self._rescan(outcomes, last=chunk.last)

    def _compare(
        self,
        candidate: checkpoints.Candidate,
        scanned: Evidence,
        before: Variables,
        after: Variables,
        info: repairs.RepairInfo,
        name: str | None,
        seconds: float,
    ) -> Outcome:
        """A repaired model against what it was, but for its scan."""
        request = self._request
        told = comparison.measure(
            candidate,
            before,
            after,
            network=self._job.settings.network(candidate.spec),
            images=self._images,
        )
        record = empty(
            candidate.path,
            request,
            candidate,
            key=self.key_of(candidate),
            output=f"{name}.safetensors",
            orbax=f"orbax/{name}" if request.orbax else None,
            attack=told.attack,
            before={**_judged(verdict.Judge()(scanned)), **told.before},
            after=told.after,
            info=records.finite(info),
            shown=told.shown,
            seconds=seconds,
            notes=[*told.notes, *writing.remarks(info, request)],
        )
        return Outcome(record, None)

    def _rescan(self, outcomes: Sequence[Outcome], *, last: bool) -> list[Outcome]:
        """Scans the written files of repaired candidates, which proves that they read."""
        written = {
            index: self.fitted(
                checkpoints.read(
                    self._folder.file(one.record["output"]),
                    architecture=self._request.arch,
                )
            )
            for index, one in enumerate(outcomes)
            if one.record["output"]
        }
        if not written:
            return list(outcomes)
        lines = self._measured(list(written.values()), last=last)
        judge, found = verdict.Judge(), list(outcomes)
        for index, line in zip(written, lines, strict=True):
            record, judged = found[index].record, judge(line)
            after = {**_judged(judged), **(record["after"] or {})}
            found[index] = Outcome({**record, "after": after}, judged)
        return found


def repair_population(
    network: Network,
    variables: Sequence[Variables],
    keys: Sequence[jax.Array],
    clean: repairs.CleanSet,
    method: str,
    settings: Any,
    *,
    size: int,
    placement: population.Placement | None = None,
) -> list[tuple[Variables, repairs.RepairInfo]]:
    """Repairs models of one architecture side by side.

    Args:
      network: their architecture.
      variables: of each, with its pixel normalisation.
      keys: of each.
      clean: what all of them learn from.
      method: a name in `repairs.METHODS`.
      settings: of the method.
      size: models that share a compiled program; at least as many as there are.
      placement: None for all devices of this process.

    Returns:
      The repaired variables and the info of each, NumPy leaves.
    """
    placement = placement or population.default_placement()
    members = list(zip(variables, keys, strict=True))
    return population.run(
        _bound(method, network),
        placement,
        members,
        (clean, settings),
        placement.rounded(size),
    )


def _of_all_kinds(
    task: chunks.Scan, candidates: Sequence[checkpoints.Candidate], *, last: bool
) -> list[Evidence]:
    """Evidence of candidates of several kinds, in order."""
    found: dict[int, Evidence] = {}
    kinds = [task.kind_of(candidate) for candidate in candidates]
    for kind in dict.fromkeys(kinds):
        places = [index for index, other in enumerate(kinds) if other == kind]
        chunk = task.prepare(kind, [candidates[index] for index in places], last=last)
        found |= zip(places, task.measure(chunk), strict=True)
    return [found[index] for index in range(len(candidates))]


@functools.lru_cache(maxsize=64)
def _bound(method: str, network: Network) -> Callable[[Any, Any], Any]:
    def call(member: Any, shared: Any) -> Any:
        (variables, key), (clean, settings) = member, shared
        return repairs.METHODS[method].repair(
            network, variables, clean, key=key, config=settings
        )

    return call


_JUDGED = ("verdict", "score", "threshold", "standard_error", "target", "reason")


def _judged(found: Any) -> dict[str, Any]:
    """The verdict alone; accuracy is that on the test images."""
    return {name: found[name] for name in _JUDGED}
