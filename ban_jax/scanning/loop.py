"""The host loop of a scan: files are read and stacked while the device computes.

    read ahead (threads) -> chunks of one kind, stacked and sent (this thread)
      -> device (one thread) -> lines, as soon as they are known (this thread)

At most `IN_FLIGHT` chunks are with the device, candidates for `FILLING` more are being
gathered, and `READ_AHEAD` files are in memory besides: of weights, a scan of a thousand
files holds no more than one of a hundred.
"""

import collections
import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from ban_jax import checkpoints, population, records, verdict
from ban_jax.records import Record, Settings
from ban_jax.scanning import chunks, timeline
from ban_jax.types import Probe

READ_AHEAD = 8
"""Files read and converted on host threads while the device computes."""
IN_FLIGHT = 2
"""Chunks handed over: one that is computed, one that is ready to be."""
FILLING = 4
"""Chunks' worth of candidates of all kinds that wait for others of their kind."""


class Found(NamedTuple):
    """A file that was read.

    Attributes:
      path: its own.
      candidate: None where it cannot be read.
      reason: why it cannot be measured, or an empty string.
    """

    path: str
    candidate: checkpoints.Candidate | None
    reason: str


def scan(
    paths: Sequence[str],
    probe: Probe | None,
    settings: Settings,
    *,
    known: Iterable[Record] = (),
    clock: timeline.Spans | None = None,
    placement: population.Placement | None = None,
) -> Iterator[tuple[Record, bool]]:
    """Measures every candidate and yields its record as soon as it is there.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      probe: clean images `[T, B, H, W, C]`; None for a mode that needs none.
      settings: what to measure, and how.
      known: records of an earlier run; where their key is the same, their evidence is
        used again.
      clock: collects where the time goes.
      placement: devices to compute on; None for all of this process.

    Yields:
      `(record, new)`: the record carries the verdict against the candidate's own classes
      (`verdict.judge_all` draws others from the same evidence); `new` is false where the
      very same line was known. A file that cannot be judged has `error` set and is
      `inconclusive`; the scan goes on.
    """
    clock = clock or timeline.Spans()
    digest = settings.digest(probe)
    finished = {record["key"]: record for record in known if record.get("key")}
    lines = {(record["path"], record.get("key")) for record in known}
    waiting: dict[str, list[str]] = collections.defaultdict(list)
    filling: dict[checkpoints.ModelSpec, list[checkpoints.Candidate]] = (
        collections.defaultdict(list)
    )
    pending: collections.deque[
        tuple[list[str], concurrent.futures.Future[list[Record]]]
    ] = collections.deque()
    machine = chunks.Engine(probe, settings, digest, clock, placement)
    device = concurrent.futures.ThreadPoolExecutor(1, "device")

    def deliver(key: str, record: Record) -> Iterator[tuple[Record, bool]]:
        """A line for every file of these weights."""
        for path in waiting.pop(key):
            line = {**record, "path": path}
            yield verdict.judge(line), (path, record["key"]) not in lines

    def hand_over(kind: checkpoints.ModelSpec, *, last: bool = False) -> None:
        candidates = filling.pop(kind)
        keys = [records.key_of(candidate, digest) for candidate in candidates]
        chunk = machine.prepare(kind, candidates, last=last)
        pending.append((keys, device.submit(machine.measure, chunk)))

    def results(most: int) -> Iterator[tuple[Record, bool]]:
        """What is done, in order; waits until at most so many chunks are left."""
        while pending and (len(pending) > most or pending[0][1].done()):
            keys, future = pending.popleft()
            with clock("wait"):
                measured = future.result()
            for key, record in zip(keys, measured, strict=True):
                if record["key"]:
                    finished[key] = record
                yield from deliver(key, record)

    try:
        for path, candidate, reason in _read_ahead(paths, probe, settings, clock):
            if candidate is None or reason:
                record = records.failure(path, reason, settings, digest, candidate)
                yield verdict.judge(record), True
                continue
            key = records.key_of(candidate, digest)
            waiting[key].append(path)
            if key in finished:
                yield from deliver(key, finished[key])
            elif len(waiting[key]) == 1:
                kind = candidate.spec
                filling[kind].append(candidate)
                wanted = machine.wanted(kind)
                if sum(map(len, filling.values())) > FILLING * wanted:
                    kind = max(filling, key=lambda kind: len(filling[kind]))
                    wanted = 0
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
    paths: Sequence[str], probe: Probe | None, settings: Settings, clock: timeline.Spans
) -> Iterator[Found]:
    """Reads files on host threads, a few ahead of the consumer, in the given order."""

    def read(path: str) -> Found:
        with clock("read"):
            try:
                found = checkpoints.read(path, architecture=settings.architecture)
            except checkpoints.CheckpointError as error:
                return Found(path, None, str(error))
            return Found(path, found, _unfit(found, probe, settings))

    with concurrent.futures.ThreadPoolExecutor(READ_AHEAD // 2, "read") as pool:
        ahead: collections.deque[concurrent.futures.Future[Found]] = collections.deque()
        try:
            for path in paths:
                ahead.append(pool.submit(read, path))
                if len(ahead) > READ_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _unfit(
    candidate: checkpoints.Candidate, probe: Probe | None, settings: Settings
) -> str:
    """Why this candidate cannot be measured with these images, or an empty string."""
    broken = [
        name
        for name, leaf in traverse_util.flatten_dict(
            candidate.variables, sep="/"
        ).items()
        if not np.all(np.isfinite(leaf))
    ]
    if broken:
        return f"{candidate.path}: weights are not finite in {', '.join(broken[:5])}"
    if probe is None:
        return ""
    spec = candidate.spec
    height, width, channels = probe.images.shape[2:]
    if spec.in_channels != channels:
        return (
            f"{candidate.path}: takes images of {spec.in_channels} channels, the clean "
            f"images have {channels}"
        )
    smallest = spec.create().minimum_size
    if min(height, width) < smallest:
        return (
            f"{candidate.path}: {spec.architecture} needs images of at least {smallest}x"
            f"{smallest} pixels, the clean images have {height}x{width}"
        )
    names = settings.class_names
    classes = len(names) if names else int(probe.labels.max()) + 1
    if classes > spec.num_classes or (names and classes != spec.num_classes):
        return (
            f"{candidate.path}: tells {spec.num_classes} classes apart, the clean images "
            f"have {classes}: this is another data set's model"
        )
    return ""
