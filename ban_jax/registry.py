"""Named things of one kind: ours, a user's own, and those other packages bring.

A package that is installed beside this one names what it brings in its metadata, under an
entry-point group such as `ban_jax.detectors`; a user's own code calls `register`.
"""

import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError, ValueError):
    """A name that nothing is known by; the message lists the known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name.

    Args:
      noun: what they are, for messages: `detector`.
      own: those of this package.
      group: entry-point group under which other packages name theirs, each entry being the
        thing itself.
    """

    def __init__(self, noun: str, own: Mapping[str, T], group: str):
        self.noun = noun
        self._things = dict(own)
        self._group = group
        self._failures: dict[str, str] = {}
        self._searched = False

    def register(self, name: str, thing: T) -> None:
        """Adds a thing under a name of its own.

        Raises:
          ValueError: when the name is taken by something else.
        """
        if self._things.setdefault(name, thing) is not thing:
            raise ValueError(f"the {self.noun} {name!r} is known already")

    def __getitem__(self, name: str) -> T:
        """The thing of a name.

        Raises:
          UnknownNameError: a `KeyError` and a `ValueError`, for a name that is not known
            or whose package cannot be loaded.
        """
        if name not in self._things:
            self._search()
        try:
            return self._things[name]
        except KeyError:
            reason = self._failures.get(name, f"known: {', '.join(sorted(self))}")
            raise UnknownNameError(f"unknown {self.noun} {name!r}; {reason}") from None

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(self._things)

    def __len__(self) -> int:
        self._search()
        return len(self._things)

    def _search(self) -> None:
        """Loads what other packages bring, once; one that fails takes no other with it."""
        if self._searched:
            return
        self._searched = True
        for point in importlib.metadata.entry_points(group=self._group):
            try:
                self.register(point.name, point.load())
            except Exception as error:  # another package's code may raise anything
                reason = f"{point.value} cannot be loaded: {error}"
                self._failures[point.name] = reason
                warnings.warn(f"{self.noun} {point.name!r}: {reason}", stacklevel=3)
