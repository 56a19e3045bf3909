"""Runs a pure function of one candidate over chunks, as many at once as memory holds."""

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax

from ban_jax import population
from ban_jax.population import memory, programs
from ban_jax.scanning import timeline

AHEAD = 2
"""Threads that load programs before they are asked for."""
_ahead = concurrent.futures.ThreadPoolExecutor(AHEAD, "programs")


def finish() -> None:
    """Waits for programs that are being loaded, before the process ends at once: one of
    them may be written to JAX's cache, and half of it would stay there."""
    _ahead.shutdown(wait=True, cancel_futures=True)


class Failed(NamedTuple):
    """In place of the result of a candidate that the device failed on; says why."""

    reason: str


class Placed:
    """The members of a chunk on their way to the device.

    Attributes:
      members: one tree of arrays per candidate.
      size: what they were padded to.
      arrays: see `population.place`; None once they were used, and where there was no room.
    """

    def __init__(self, members: Sequence[Any], size: int, arrays: Any = None):
        self.members = list(members)
        self.size = size
        self.arrays = arrays


class Runner:
    """Knows how many candidates of a kind fit at once, and computes them.

    A kind is whatever candidates must share to be computed by one program; as a text it is
    what a person is told of it. `place` may run
    on one thread while `run` runs on another.

    Args:
      clock: gets the spans `stack`, `compile` and `device`.
      placement: None for all devices of this process.
      chunk: candidates per device; None: planned from its memory.
    """

    def __init__(
        self,
        clock: timeline.Timeline,
        placement: population.Placement | None = None,
        chunk: int | None = None,
    ):
        self.placement = placement or population.default_placement()
        self._clock = clock
        self._chunk = chunk
        # Of kinds whose chunks memory makes smaller.
        self._fits: dict[Hashable, int] = {}
        self._compiled: dict[Hashable, int] = {}
        self._planned: set[tuple[Hashable, int]] = set()
        self._told: set[Hashable] = set()
        self._sizing = threading.Lock()

    def wanted(self, kind: Hashable) -> int:
        """Candidates the next chunk of a kind should have."""
        with self._sizing:
            return self._fits.get(kind, self._largest())

    def expect(
        self,
        kind: Hashable,
        function: Callable[[Any, Any], Any],
        member: Any,
        shared: Any,
        *,
        surely: bool,
    ) -> concurrent.futures.Future[None]:
        """Gets a kind's program on a thread of its own, before a chunk asks for it.

        One that would have to be compiled is left alone where it may not be needed, or not
        at this size.

        Args:
          kind: see `run`.
          function: see `run`.
          member: any one of the kind.
          shared: see `run`.
          surely: whether some candidate of the kind is to be computed.
        """
        size = self.wanted(kind)

        def load() -> None:
            program = (function, self.placement, member, shared, size)
            # What goes wrong here is told where the program is asked for.
            with contextlib.suppress(Exception), self._clock("load"):
                compiles = surely and self.placement.on_threads
                if compiles or population.is_known(*program):
                    self._tell(kind, *program)
                    population.program(*program)

        return _ahead.submit(load)

    def place(
        self, kind: Hashable, members: Sequence[Any], *, last: bool = False
    ) -> Placed:
        """Stacks a chunk and sends it to the device, without waiting for it.

        Args:
          kind: what the members share.
          members: at most as many as are `wanted`.
          last: whether no more of this kind are to come: a kind that never filled a chunk
            is computed at its own size, all others at the size that is compiled. Where
            more come all the same, a chunk that is larger than that is compiled for.
        """
        own = self.placement.rounded(len(members))
        size = self.wanted(kind)
        with self._sizing:
            compiled = self._compiled.get(kind, own if last else size)
            if own <= compiled and not self.placement.on_threads:
                size = min(size, compiled)  # on threads no program hangs on the size
            self._compiled[kind] = size
        placed = Placed(members, size)
        if len(members) <= size:
            # Where there is no room yet, `run` tries again once there is.
            with contextlib.suppress(jax.errors.JaxRuntimeError, MemoryError):
                placed.arrays = self._arrays(members, size)
        return placed

    def run(
        self,
        kind: Hashable,
        function: Callable[[Any, Any], Any],
        placed: Placed,
        shared: Any,
    ) -> list[Any]:
        """`function(member, shared)` of each member, in order, on the host.

        Where memory runs out, half as many candidates are computed at once, now and from
        then on. A candidate that fails alone gets a `Failed`.

        Args:
          kind: what the members share.
          function: pure and hashable, of one candidate.
          placed: from `place`; used up.
          shared: what all candidates are given.
        """
        found: list[Any] = []
        while len(found) < len(placed.members):
            found += self._next(kind, function, placed, shared, len(found))
        return found

    def _next(
        self,
        kind: Hashable,
        function: Callable[[Any, Any], Any],
        placed: Placed,
        shared: Any,
        first: int,
    ) -> list[Any]:
        """Results of the next members of a chunk; none where memory ran out."""
        size = min(placed.size, self.wanted(kind))
        part = placed.members[first:]
        # So that memory is not held twice while a smaller part is placed.
        arrays, placed.arrays = placed.arrays, None
        try:
            size = self._plan(kind, function, part[0], shared, size)
            part = part[:size]
            if arrays is None or size != placed.size:
                arrays = None
                arrays = self._arrays(part, size)
            program = self._program(kind, function, part[0], shared, size)
            taken = self._bytes(program, size) or 0
            self._clock.most_bytes = max(self._clock.most_bytes, taken)
            with self._clock(timeline.DEVICE, len(part)):
                return population.for_each(
                    program, self.placement, arrays, shared, len(part), size
                )
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            halved = self.placement.rounded(size // 2) if size > 1 else size
            if memory.exhausted(error) and halved < size:
                with self._sizing:
                    self._fits[kind] = halved
                return []
            reason = f"the device failed: {str(error).partition(chr(10))[0]}"
            return [Failed(reason)] * len(part)

    def _largest(self) -> int:
        backend = self.placement.devices[0].platform
        each = self._chunk or population.default_chunk(backend)
        return each * len(self.placement.devices)

    def _plan(
        self,
        kind: Hashable,
        function: Callable[[Any, Any], Any],
        member: Any,
        shared: Any,
        size: int,
    ) -> int:
        """The size of a kind's chunk, made smaller where it would not fit the memory.

        What is planned with is the program that will run where it fits, so that planning
        compiles nothing more then.
        """
        if self._chunk is not None or (kind, size) in self._planned:
            return size
        self._planned.add((kind, size))
        devices = self.placement.devices
        needed = self._bytes(self._program(kind, function, member, shared, size), size)
        each = size // len(devices)
        fit = memory.fitting(each, needed, memory.free(devices[0]))
        if fit < each:
            with self._sizing:
                self._fits[kind] = fit * len(devices)
        return fit * len(devices)

    def _bytes(self, program: programs.Program, size: int) -> int | None:
        """What a chunk of a size takes on a device; None where XLA does not say."""
        needed = memory.needed(program)
        return needed and (needed * size if self.placement.on_threads else needed)

    def _program(
        self,
        kind: Hashable,
        function: Callable[[Any, Any], Any],
        member: Any,
        shared: Any,
        size: int,
    ) -> programs.Program:
        program = (function, self.placement, member, shared, size)
        with self._clock("compile"):
            self._tell(kind, *program)
            return population.program(*program)

    def _tell(self, kind: Hashable, *program: Any) -> None:
        """Says once of a kind that it is compiled, which takes long, unless an earlier
        process kept the program."""
        with self._sizing:
            is_new = kind not in self._told
            self._told.add(kind)
        if is_new and not population.is_known(*program):
            self._clock.say(f"compiling {kind} ...")

    def _arrays(self, members: Sequence[Any], size: int) -> Any:
        with self._clock("stack", len(members)):
            return population.place(members, self.placement, size)
