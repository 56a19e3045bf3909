"""A device that only counts: programs that are neither compiled nor run."""

import types

import jax

from ban_jax import population


class Device:
    """Stands in for compiling and running; fails above `room` candidates per program.

    Args:
      monkeypatch: pytest's.
      result: `member` of one candidate, as NumPy arrays -> what the program finds.
      room: candidates that fit at once.
      error: what the device says when more come.
      need: bytes a program needs per candidate.

    Attributes:
      sizes: candidates of each program that was run, padding included.
    """

    def __init__(
        self,
        monkeypatch,
        result,
        *,
        room=99,
        error="RESOURCE_EXHAUSTED: oh",
        need=0,
    ):
        self.sizes, self.need = [], need
        self.room, self.error, self.result = room, error, result
        monkeypatch.setattr(population, "program", self.program)
        monkeypatch.setattr(population, "for_each", self.for_each)

    def program(self, function, placement, member, shared, size):
        """A compiled program, as far as its memory goes."""
        analysis = types.SimpleNamespace(
            argument_size_in_bytes=0,
            output_size_in_bytes=0,
            temp_size_in_bytes=self.need * size,
            alias_size_in_bytes=0,
        )
        return types.SimpleNamespace(memory_analysis=lambda: analysis)

    def for_each(self, program, placement, placed, shared, count, size=None):
        """What each of the first `count` candidates gives."""
        del size  # a program in parts alone asks for it
        size = len(jax.tree.leaves(placed)[0])
        self.sizes.append(size)
        if size > self.room:
            raise jax.errors.JaxRuntimeError(self.error)
        return [
            self.result(jax.tree.map(lambda leaf, i=i: leaf[i], placed))
            for i in range(count)
        ]
