"""A scan by the workers of a Ray cluster: who gets which files, and what if one is lost.

    files -> pieces -> workers, a few pieces each -> lines, as soon as a piece is done

Nobody waits for anybody: whoever is done gets the next piece, and pieces become smaller
towards the end. A worker that dies is replaced, and what it had is done again. A piece that
has lost `LOSSES` workers is taken apart, and a file that has lost as many alone gets a line
that says so.
"""

import contextlib
import dataclasses
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np
import ray
from ray import exceptions

import ban_jax
from ban_jax.records import Evidence, Job, seal
from ban_jax.scanning import ray_members, ray_worker, scan, timeline

IN_FLIGHT = 2
"""Pieces with a worker: one that it does, one that it finds ready when that is done."""
LARGEST = 64
"""Files of a piece at most: what is lost with a worker, and what a slow file holds up."""
LOSSES = 2
"""Workers that a piece may take with it before it is suspected."""
FAILED_STARTS = 3
"""Workers in a row that die before they are there, until no more are started."""
TICK_SECONDS = 0.5
"""How often the cluster is looked at while nothing happens."""
SLOW_SECONDS = 2.0
"""After which a piece holds up the next one, if somebody else has nothing to do."""
QUIET_SECONDS = 30.0
"""Without any worker, after which the user is told."""


class Pool:
    """The workers of a cluster; an `engines.Engine`.

    Args:
      cpus: of each worker.
      files: that are to come; workers for them are started at once.
      worker: what a worker is; tests have some that die.
    """

    def __init__(self, cpus: int = 1, files: int = 0, worker: type = ray_worker.Worker):
        everything = ray.cluster_resources()
        resource = next((r for r in ("GPU", "TPU") if everything.get(r, 0) >= 1), "")
        self.share = ray_members.Share(resource, cpus)
        if not self._room():
            what = f"a {resource} and {cpus} CPUs" if resource else f"{cpus} CPUs"
            raise ValueError(
                f"--engine ray: no machine of the cluster has {what} for a worker; it "
                f"has {ray_members.listed(everything)}. See --worker-cpus"
            )
        self.members: list[ray_members.Member] = []
        self.gone: list[ray_members.Member] = []
        self._kind = ray.remote(worker)
        self._started = self._failed = self._jobs = 0
        self._piece: deque[ray_members.Piece] = deque()
        self._fresh: deque[str] = deque()
        self._known: dict[str, list[Evidence]] = {}
        self._job: Job | None = None
        self._sent: list[Any] = []
        self._alone = time.monotonic()
        self._recruit(files)  # They start while this process reads clean images.

    def adapted(self, job: Job) -> Job:
        """With the convolutions of the workers' device: this process has none."""
        while not (ready := self._ready()):
            self._recruit(1)
            self._wait()
        precision = job.settings.precision
        lowering = ray.get(ready[0].actor.lowering.remote(precision))
        settings = dataclasses.replace(job.settings, lowering=lowering)
        return dataclasses.replace(job, settings=settings)

    def measure(
        self,
        paths: Sequence[str],
        job: Job,
        *,
        known: Iterable[Evidence] = (),
        clock: timeline.Timeline | None = None,
    ) -> Iterator[scan.Measured]:
        """As `scan.scan`; a piece's lines come together.

        Files of the same weights are measured each by itself, and lines of an earlier run
        serve the files of their own path only.
        """
        self._begin(paths, job, known)
        while self._left():
            self._recruit(self._left())
            self._feed()
            self._rebalance()
            yield from self._wait()

    def summary(self) -> list[str]:
        """What each worker has done, a line for each."""
        lines = []
        for member in sorted([*self.gone, *self.members], key=lambda one: one.number):
            rate = member.files / member.busy if member.busy else 0.0
            lost = f", lost: {member.lost}" if member.lost else ""
            lines.append(
                f"{member.name}: {member.files} candidates in {member.busy:.1f} s, "
                f"{rate:.2f} per second{lost}"
            )
        return lines

    def close(self) -> None:
        """Ends all workers."""
        for member in self.members:
            ray.kill(member.actor)

    def _begin(self, paths: Sequence[str], job: Job, known: Iterable[Evidence]) -> None:
        self._piece.clear()
        self._fresh = deque(paths)
        self._known = {}
        for line in known:
            if line["key"] and seal.is_own(line):
                path = line["part_of"] or line["path"]
                self._known.setdefault(path, []).append(line)
        self._jobs += 1
        self._job = job
        probe = jax.tree.map(np.asarray, job.probe)
        # In a list a reference stays one: a worker fetches each job once.
        relative = not all(map(os.path.isabs, paths))
        folder = os.getcwd() if relative else None
        self._sent = [ray.put(dataclasses.replace(job, probe=probe)), folder]

    def _left(self) -> int:
        """Files that have no line yet."""
        pieces = [*self._piece, *(p for m in self.members for p in m.pieces.values())]
        return len(self._fresh) + sum(len(piece.paths) for piece in pieces)

    def _ready(self) -> list[ray_members.Member]:
        return [member for member in self.members if member.told]

    def _room(self) -> int:
        """Workers that the machines of the cluster hold together."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(map(self.share.fits, alive))

    def _recruit(self, wanted: int) -> None:
        """Starts as many workers as there is room and work for."""
        missing = min(self._room(), wanted) - len(self.members)
        if self._failed >= FAILED_STARTS:
            if self.members:
                return
            raise ValueError(
                f"--engine ray: {self._failed} workers in a row failed to start and none "
                f"is left; the last: {self.gone[-1].lost}. On every machine of the "
                f"cluster there must be ban_jax {ban_jax.__version__} with its extra ray"
            )
        for _ in range(missing):
            self._started += 1
            actor = self._kind.options(**self.share.options()).remote(
                self.share.cpus, bool(self.share.resource)
            )
            self.members.append(
                ray_members.Member(self._started, actor, actor.hello.remote())
            )

    def _next(self) -> ray_members.Piece | None:
        """The next piece: what was lost first, then files nobody has had."""
        if self._piece:
            return self._piece.popleft()
        size = min(self._next_size(), len(self._fresh))
        paths = tuple(self._fresh.popleft() for _ in range(size))
        return ray_members.Piece(paths) if paths else None

    def _next_size(self) -> int:
        """Files of the next piece: fewer towards the end, so that all end together."""
        shares = 2 * IN_FLIGHT * max(len(self.members), 1)
        return min(max(len(self._fresh) // shares, 1), LARGEST)

    def _feed(self) -> None:
        """Gives every worker that is there something to do, those with least first."""
        for depth in range(IN_FLIGHT):
            for member in self._ready():
                suspected = bool(self._piece) and self._piece[0].is_suspected
                if len(member.pieces) > (0 if suspected else depth):
                    continue
                if any(piece.is_suspected for piece in member.pieces.values()):
                    continue
                if (piece := self._next()) is None:
                    return
                known = [
                    line for path in piece.paths for line in self._known.get(path, ())
                ]
                reference = member.actor.measure.remote(
                    self._jobs, self._sent, piece.paths, known
                )
                if not member.pieces:
                    member.since = time.monotonic()
                member.pieces[reference] = piece

    def _rebalance(self) -> None:
        """Takes back what waits behind a slow piece, where others have nothing to do."""
        if self._fresh or self._piece:
            return
        ready = self._ready()
        if all(member.pieces for member in ready):
            return
        for member in ready:
            waited = time.monotonic() - member.since
            if len(member.pieces) > 1 and waited > SLOW_SECONDS:
                reference, piece = member.pieces.popitem()
                # Ray tells of it only when the worker is free: nobody waits for that, and
                # whatever comes of it nonetheless is not listened to.
                ray.cancel(reference)
                self._piece.append(piece)
        self._feed()

    def _wait(self) -> Iterator[scan.Measured]:
        """Lines of the pieces that are done; waits a little where none is."""
        references = {m.greeting: m for m in self.members if not m.told}
        references |= {r: m for m in self.members for r in m.pieces}
        if references:
            done, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
            if not done:
                done, _ = ray.wait(list(references), timeout=TICK_SECONDS)
        else:
            done = []
            time.sleep(TICK_SECONDS)
        self._complain()
        found: list[scan.Measured] = []
        for reference in done:
            member = references[reference]
            if member.lost:
                continue  # all it had was settled with the first
            if reference == member.greeting:
                self._welcome(member)
            else:
                found += self._land(member, reference)
        return iter(found)

    def _welcome(self, member: ray_members.Member) -> None:
        """A worker is there, or has failed to start."""
        try:
            told = ray.get(member.greeting)
        except exceptions.RayError as error:
            self._failed += 1
            self._lose(member, error)
            print(f"note: {member.name} did not start ({member.lost})", file=sys.stderr)
            return
        if told.version != ban_jax.__version__:
            raise ValueError(
                f"--engine ray: {told.host} has ban_jax {told.version}, this machine "
                f"{ban_jax.__version__}; install the same version on all machines"
            )
        member.told = told
        self._failed = 0

    def _land(self, member: ray_members.Member, reference: Any) -> list[scan.Measured]:
        """The lines of a piece, or of all that a lost worker had finished."""
        try:
            done = ray.get(reference)
        except exceptions.RayTaskError as error:
            raise (error.cause or error) from None  # as it would be in this process
        except exceptions.RayError as error:
            return self._settle(member, error)
        return self._finished(member, reference, done)

    def _finished(
        self, member: ray_members.Member, reference: Any, done: ray_worker.Done
    ) -> list[scan.Measured]:
        del member.pieces[reference]
        member.since = time.monotonic()
        member.files += len(done.measured)
        member.busy += done.seconds
        return [
            scan.Measured(seal.sealed(line) if line["key"] else line, is_new)
            for line, is_new in done.measured
        ]

    def _settle(
        self, member: ray_members.Member, error: Exception
    ) -> list[scan.Measured]:
        """What a lost worker has left: lines of what it had done, work for others.

        The oldest piece is the one that it was doing; the others only waited for it.
        """
        found: list[scan.Measured] = []
        left: list[ray_members.Piece] = []
        for reference, piece in list(member.pieces.items()):
            try:
                done = ray.get(reference, timeout=TICK_SECONDS)
            except exceptions.RayError:
                left.append(piece)
            else:
                found += self._finished(member, reference, done)
        member.pieces.clear()
        self._lose(member, error)
        if left:
            left[0].losses += 1
            again = sum(len(piece.paths) for piece in left)
            print(
                f"note: {member.name} was lost ({member.lost}); {again} of its files "
                "are given to others",
                file=sys.stderr,
            )
            found += self._suspect(left[0], member)
            self._piece.extend(left[1:])
        return found

    def _suspect(
        self, piece: ray_members.Piece, member: ray_members.Member
    ) -> list[scan.Measured]:
        """A piece that lost its worker: again, taken apart, or given up."""
        if piece.losses < LOSSES:
            self._piece.append(piece)
            return []
        if len(piece.paths) > 1:
            self._piece.extend(
                ray_members.Piece((path,), is_suspected=True) for path in piece.paths
            )
            return []
        if not piece.is_suspected:
            self._piece.append(ray_members.Piece(piece.paths, is_suspected=True))
            return []
        path = piece.paths[0]
        reason = (
            f"{path}: {piece.losses} workers were lost while they measured this file "
            f"alone; the last, {member.name}: {member.lost}"
        )
        line = cast(Job, self._job).failure(path, reason)
        return [scan.Measured(line, True)]

    def _lose(self, member: ray_members.Member, error: Exception) -> None:
        member.lost = ray_members.first_line(error)
        self.members.remove(member)
        self.gone.append(member)
        with contextlib.suppress(exceptions.RayError):
            ray.kill(member.actor)

    def _complain(self) -> None:
        """Says that nothing goes on, where there is nobody to do it."""
        now = time.monotonic()
        if self._ready():
            self._alone = now
        elif now - self._alone > QUIET_SECONDS:
            self._alone = now
            print(
                f"note: waiting for a worker; the cluster has room for {self._room()}, "
                f"{len(self.members)} are starting",
                file=sys.stderr,
            )


@contextlib.contextmanager
def started(address: str | None, cpus: int, files: int) -> Iterator[Pool]:
    """A pool of workers while the body runs; says in the end what each has done.

    Args:
      address: see `engines.started`.
      cpus: of each worker.
      files: that are to come.

    Raises:
      ValueError: where the cluster cannot be reached or has no room for a worker.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect(address or os.environ.get("RAY_ADDRESS", "local"))
    try:
        pool = Pool(cpus, files)
        if pool.share.resource:
            # The devices of this machine are its workers'.
            jax.config.update("jax_platforms", "cpu")
        try:
            yield pool
        finally:
            pool.close()
            for line in pool.summary():
                print(line, file=sys.stderr)
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str) -> None:
    """Joins a cluster, or starts one here."""
    told: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        # What workers print may hold names that strangers chose.
        ray.init(address, log_to_driver=False, logging_level="ERROR", **told)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--address {address}: no Ray cluster can be joined there "
            f"({ray_members.first_line(error)})"
        ) from error
