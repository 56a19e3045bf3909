"""Named things of one kind: ours, a user's own, and those other packages bring.

A package that is installed beside this one names what it brings in its metadata, under an
entry-point group such as `ban_jax.detectors`; a user's own code calls `register`.
"""

import dataclasses
import importlib.metadata
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

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


def check_settings(settings: Any, prefix: str = "") -> None:
    """Refuses numbers and names that settings do not allow.

    A number is finite and not below 0, or `minimum` in its field's metadata; a tuple may
    not be empty; a `Literal` is one of its values.

    Args:
      settings: a dataclass.
      prefix: put before a field's name in messages, such as `--ban.`.

    Raises:
      ValueError: naming the field, what it allows and what was found.
    """
    kinds = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, least = getattr(settings, field.name), field.metadata.get("minimum", 0)
        name = prefix + (field.name.replace("_", "-") if prefix else field.name)
        if get_origin(kinds[field.name]) is Literal:
            known = get_args(kinds[field.name])
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(str, known))}, got {value!r}"
                )
        if value == ():
            raise ValueError(f"{name} must be at least one value, got none")
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, int | float):
                continue
            if not number >= least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
            if number == math.inf:
                raise ValueError(f"{name} must be finite, got {number}")


def at_least(least: float, default: Any) -> Any:
    """A field of settings with a smallest value of its own (`check_settings`)."""
    return dataclasses.field(default=default, metadata={"minimum": least})
