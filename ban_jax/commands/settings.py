"""Settings classes of a registry as flags: `--NAME.FIELD`, for ours and for plug-ins."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ban_jax.commands import outcome

T = TypeVar("T")


def with_settings(base: type[T], settings: Mapping[str, type]) -> type[T]:
    """The flags of a command with a group for each of several things to choose from.

    Args:
      base: dataclass of the command's own flags.
      settings: name -> dataclass, all of whose fields have defaults; one without fields
        gets no group.

    Raises:
      ValueError: for a name that is another flag's, or none for Python.
    """
    groups = {name: kind for name, kind in settings.items() if dataclasses.fields(kind)}
    taken = {field.name for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    for name in groups:
        if name in taken or not name.replace("-", "_").isidentifier():
            raise ValueError(
                f"{name!r} cannot have flags of its own: expected a Python name that no "
                "other flag has"
            )
    fields = [
        (name.replace("-", "_"), kind, dataclasses.field(default=kind()))
        for name, kind in groups.items()
    ]
    made = dataclasses.make_dataclass(
        base.__name__, fields, bases=(base,), frozen=True, kw_only=True
    )
    made.__doc__ = base.__doc__
    made.__module__ = base.__module__
    return made


def chosen(flags: Any, name: str, settings: type) -> Any:
    """The settings of the thing that was chosen by name.

    Raises:
      ValueError: for a number below what its field allows: 0, or `minimum` in the field's
        metadata.
    """
    found = getattr(flags, name.replace("-", "_"), None) or settings()
    for field in dataclasses.fields(found):
        least = field.metadata.get("minimum", 0)
        value = getattr(found, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float):
                flag = f"--{name}.{field.name}".replace("_", "-")
                outcome.require(number >= least, flag, f"at least {least}", number)
    return found
