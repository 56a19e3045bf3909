"""Functions of one candidate that a CPU computes in parts, one on each of its cores.

One small model does not fill the cores of a CPU, and a chunk may hold fewer models than
there are cores. Parts of one model that need nothing of each other fill them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ban_jax.population import memory, threads
from ban_jax.population.placement import Placement


@dataclasses.dataclass(frozen=True)
class Parted:
    """A function of one candidate that can also be had in parts; called, it is the whole.

    Attributes:
      whole: `(member, shared) -> result`.
      part: `((member, index []), shared) -> found`, leaves with one leading entry.
      join: `((member, found), shared) -> result`, where the leaves of `found` hold those
        of all parts one after another: what `whole` gives.
      count: how many parts there are.
    """

    whole: Callable[[Any, Any], Any]
    part: Callable[[Any, Any], Any]
    join: Callable[[Any, Any], Any]
    count: int

    def __call__(self, member: Any, shared: Any) -> Any:
        return self.whole(member, shared)

    def is_parted(self, placement: Placement) -> bool:
        """Whether a placement computes the parts apart: threads of a CPU do."""
        return placement.on_threads and placement.devices[0].platform == "cpu"


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled programs of a `Parted`; called, those of one candidate.

    Attributes:
      part, join: programs of one candidate.
      count: of parts.
    """

    part: Any
    join: Any
    count: int

    def __call__(self, member: Any, shared: Any) -> Any:
        """The result of one candidate, part after part."""
        (found,) = self.for_each([member], shared, workers=1)
        return found

    @property
    def needed(self) -> int | None:
        """Bytes that one part takes, or joining them; None where XLA does not say."""
        needed = [memory.needed(one) for one in (self.part, self.join)]
        return None if None in needed else max(filter(None, needed), default=0)

    def for_each(self, members: Sequence[Any], shared: Any, workers: int) -> list[Any]:
        """Results of candidates on the host, computed by so many threads at once."""
        jobs = list(itertools.product(range(len(members)), range(self.count)))
        found = threads.side_by_side(
            lambda job: jax.device_get(
                self.part((members[job[0]], np.int32(job[1])), shared)
            ),
            jobs,
            workers,
        )

        def join(index: int) -> Any:
            parts = found[index * self.count : (index + 1) * self.count]
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
            return jax.device_get(self.join((members[index], joined), shared))

        return threads.side_by_side(join, range(len(members)), workers)


def program(
    function: Parted,
    member: Any,
    shared: Any,
    compile: Callable[[Callable[[Any, Any], Any], Any, Any], Any],
) -> Program:
    """The programs of a function's parts, and of joining them.

    Args:
      function: in parts.
      member: any one candidate.
      shared: what all candidates are given.
      compile: `(function, member, shared) -> compiled`, which has `out_info`.
    """
    part = compile(function.part, (member, np.int32(0)), shared)
    joined = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (function.count * leaf.shape[0], *leaf.shape[1:]), leaf.dtype
        ),
        part.out_info,
    )
    join = compile(function.join, (member, joined), shared)
    return Program(part, join, function.count)
