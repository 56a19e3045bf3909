"""Settings classes of a registry as flags: `--NAME.FIELD`, for ours and for plug-ins."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import tyro

from ban_jax.registry import check_settings

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


def names(what: str, known: Mapping[str, Any]) -> Any:
    """A flag that chooses by name; its help tells of each what it is.

    Args:
      what: is chosen.
      known: name -> anything with a `summary`.
    """
    told = [f"{name}: {one.summary}" for name, one in known.items()]
    return tyro.conf.arg(metavar="NAME", help="\n".join([f"{what}, one of", *told]))


def warn_of_idle(flags: Any, chosen: str, flag: str, *besides: str) -> None:
    """Tells of settings that were given for what was not chosen.

    Args:
      flags: made by `with_settings`.
      chosen: the name of what was.
      flag: that chose it, such as `--mode`.
      besides: what is at work with it.
    """
    at_work = {one.replace("-", "_") for one in (chosen, *besides)}
    for field in dataclasses.fields(flags):
        value, name = getattr(flags, field.name), field.name.replace("_", "-")
        if not dataclasses.is_dataclass(value) or value == field.default:
            continue
        if field.name not in at_work:
            print(
                f"note: --{name}.* has no effect with {flag} {chosen}; did you mean "
                f"{flag} {name}?",
                file=sys.stderr,
            )


def given(flags: Any, name: str, settings: type) -> Any:
    """The settings that flags have for something by name, else the documented ones."""
    found = getattr(flags, name.replace("-", "_"), None)
    return found if isinstance(found, settings) else settings()


def chosen(flags: Any, name: str, settings: type) -> Any:
    """The settings of the thing that was chosen by name.

    Raises:
      ValueError: for a number below what its field allows (`registry.check_settings`).
    """
    found = given(flags, name, settings)
    check_settings(found, f"--{name}.")
    return found
