"""The one loop over many checkpoints, for whatever is done with them.

    read ahead (threads) -> chunks of one kind, stacked and sent (this thread)
      -> device (one thread) -> results, as soon as they are known (this thread)

At most `IN_FLIGHT` chunks are with the device, candidates for `MAX_WAITING_CHUNKS` more are
being gathered, and `READ_AHEAD` files are in memory besides, fewer where files are large
(`HELD_BYTES`): of weights, a scan of a thousand files holds no more than one of a hundred.
When it is interrupted it waits for nothing: what was yielded is the consumer's, the rest is
lost.
"""

import collections
import concurrent.futures
import contextlib
import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ban_jax import checkpoints, population
from ban_jax.checkpoints import part_paths
from ban_jax.scanning import timeline

READ_AHEAD = 8
"""Files read and converted on host threads while the device computes."""
IN_FLIGHT = 2
"""Chunks handed over: one that is computed, one that is ready to be."""
MAX_WAITING_CHUNKS = 4
"""Candidates kept in memory while chunks of their kind fill, in chunks."""

HELD_BYTES = 4 * 2**30
"""Of files that are read ahead, and again of candidates that wait for others of their kind:
eight files of one GiB, or one of each of eight large networks, would fill a machine."""


class Task(Protocol):
    """What is done with candidates, a chunk of one kind at a time.

    `fitted`, `refuse`, `key_of` and `expect` run on the threads that read, `measure` on one
    of its own, everything else on the consumer's.
    """

    def fitted(self, candidate: checkpoints.Candidate) -> checkpoints.Candidate:
        """The candidate as it is to be taken, where its file leaves something open."""

    def key_of(self, candidate: checkpoints.Candidate) -> str:
        """Candidates of one key get one result."""

    def kind_of(self, candidate: checkpoints.Candidate) -> Any:
        """What candidates must share to be in one chunk; hashable."""

    def refuse(self, candidate: checkpoints.Candidate) -> str:
        """Why nothing can be done with a candidate, or an empty string."""

    def expect(self, candidate: checkpoints.Candidate) -> None:
        """Told early of a candidate that is to be measured; begins what takes long."""

    def of_the_file(self, candidate: checkpoints.Candidate) -> Any:
        """What is told of this file alone, whatever others hold the same weights; small:
        it is kept until the result is there."""

    def failure(
        self,
        path: str,
        reason: str,
        candidate: checkpoints.Candidate | None,
        error: checkpoints.CheckpointError | None,
    ) -> Any:
        """The result of a file that cannot be read (`error`), or was refused."""

    def is_lasting(self, result: Any) -> bool:
        """Whether a result serves files of the same key that are read later."""

    def wanted(self, kind: Any) -> int:
        """Candidates the next chunk of a kind should have."""

    def prepare(
        self, kind: Any, candidates: Sequence[checkpoints.Candidate], *, last: bool
    ) -> Any:
        """A chunk on its way to the device; `last` where no more of the kind come."""

    def measure(self, chunk: Any) -> list[Any]:
        """The result of each of a chunk's candidates, in order."""


class Outcome(NamedTuple):
    """What became of one file.

    Attributes:
      path: the file.
      key: of its candidate; None where there is none.
      result: the task's; shared by the files of a key.
      own: the task's, of this file alone; None where there is no key.
      part_of: the file, where that holds several classifiers and this is one of them.
    """

    path: str
    key: str | None
    result: Any
    own: Any = None
    part_of: str | None = None


class Read(NamedTuple):
    """A file that was read.

    Attributes:
      path: its own.
      candidate: None where it cannot be read.
      reason: why nothing can be done with it, or an empty string.
      error: of reading it.
      part_of: as for `Outcome`.
      size: of the file, in bytes.
    """

    path: str
    candidate: checkpoints.Candidate | None
    reason: str
    error: checkpoints.CheckpointError | None = None
    part_of: str | None = None
    size: int = 0


def stream(
    paths: Sequence[str],
    task: Task,
    *,
    known: Mapping[str, Any] | None = None,
    architecture: str | None = None,
    clock: timeline.Timeline | None = None,
) -> Iterator[Outcome]:
    """Does a task with every checkpoint and yields what came of it as soon as it is there.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      task: what to do.
      known: results of an earlier run, by key: they are used again.
      architecture: of every candidate, instead of recognising it.
      clock: collects where the time goes.

    Yields:
      One outcome per path, in the order in which they become known; one per classifier
      of a file that holds several.
    """
    clock = clock or timeline.Timeline()
    finished = dict(known or {})
    waiting: dict[str, list[tuple[str, Any, str | None]]] = collections.defaultdict(
        list
    )
    filling: dict[Hashable, list[checkpoints.Candidate]] = collections.defaultdict(list)
    held: dict[Hashable, int] = collections.defaultdict(int)
    pending: collections.deque[
        tuple[list[str], concurrent.futures.Future[list[Any]]]
    ] = collections.deque()
    device = concurrent.futures.ThreadPoolExecutor(1, "device")

    def deliver(key: str, result: Any) -> Iterator[Outcome]:
        """An outcome for every file of these weights."""
        for path, own, part_of in waiting.pop(key):
            yield Outcome(path, key, result, own, part_of)

    def hand_over(kind: Hashable, *, last: bool = False) -> None:
        candidates = filling.pop(kind)
        del held[kind]
        keys = [task.key_of(candidate) for candidate in candidates]
        chunk = task.prepare(kind, candidates, last=last)
        pending.append((keys, device.submit(task.measure, chunk)))

    def results(most: int) -> Iterator[Outcome]:
        """What is done, in order; waits until at most so many chunks are left."""
        while pending and (len(pending) > most or pending[0][1].done()):
            keys, future = pending.popleft()
            with clock("wait"):
                measured = population.result_of(future)
            for key, result in zip(keys, measured, strict=True):
                if task.is_lasting(result):
                    finished[key] = result
                yield from deliver(key, result)

    try:
        for path, candidate, reason, error, part_of, size in _read_ahead(
            paths, task, architecture, clock, finished
        ):
            if candidate is None or reason:
                failed = task.failure(path, reason, candidate, error)
                yield Outcome(path, None, failed, None, part_of)
                continue
            key = task.key_of(candidate)
            waiting[key].append((path, task.of_the_file(candidate), part_of))
            if key in finished:
                yield from deliver(key, finished[key])
            elif len(waiting[key]) == 1:
                kind = task.kind_of(candidate)
                filling[kind].append(candidate)
                held[kind] += size
                wanted = task.wanted(kind)
                if sum(map(len, filling.values())) > MAX_WAITING_CHUNKS * wanted:
                    kind = max(filling, key=lambda kind: len(filling[kind]))
                    wanted = 0
                elif sum(held.values()) > HELD_BYTES:
                    kind, wanted = max(held, key=lambda kind: held[kind]), 0
                if len(filling[kind]) >= wanted:
                    yield from results(IN_FLIGHT - 1)
                    hand_over(kind)
            yield from results(IN_FLIGHT)
        for kind in list(filling):
            yield from results(IN_FLIGHT - 1)
            hand_over(kind, last=True)
        yield from results(0)
    finally:
        device.shutdown(wait=False, cancel_futures=True)


def _read_ahead(
    paths: Sequence[str],
    task: Task,
    architecture: str | None,
    clock: timeline.Timeline,
    finished: Collection[str] = (),
) -> Iterator[Read]:
    """Reads files on host threads, a few ahead of the consumer, in the given order.

    Each classifier of a file that holds several is one of its own. The task expects those
    whose keys are not `finished`.
    """

    def read(path: str, size: int) -> list[Read]:
        with clock("read"):
            try:
                parts = checkpoints.read_all(path, architecture=architecture)
            except checkpoints.CheckpointError as error:
                return [Read(path, None, str(error), error)]
            part_of = path if len(parts) > 1 else None
            found = []
            for one, candidate, fault in parts:
                reason = str(fault or "")
                if candidate is not None:
                    candidate = task.fitted(candidate)
                    reason = task.refuse(candidate)
                    if not reason and task.key_of(candidate) not in finished:
                        task.expect(candidate)
                each = size // len(parts)
                found.append(Read(one, candidate, reason, fault, part_of, each))
            return found

    pool = concurrent.futures.ThreadPoolExecutor(READ_AHEAD // 2, "read")
    ahead: collections.deque[tuple[int, concurrent.futures.Future[list[Read]]]]
    ahead = collections.deque()

    try:
        for path in paths:
            size = _size(path)
            while ahead and (
                len(ahead) > READ_AHEAD or size + sum(n for n, _ in ahead) > HELD_BYTES
            ):
                yield from population.result_of(ahead.popleft()[1])
            ahead.append((size, pool.submit(read, path, size)))
        while ahead:
            yield from population.result_of(ahead.popleft()[1])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _size(path: str) -> int:
    """Bytes of a file, or of all in a folder; 0 where nobody can tell."""
    file, _ = part_paths.split(path)
    places = [file]
    if os.path.isdir(file):
        places = [
            os.path.join(at, one) for at, _, some in os.walk(file) for one in some
        ]
    found = 0
    for place in places:
        with contextlib.suppress(OSError):
            found += os.path.getsize(place)
    return found
