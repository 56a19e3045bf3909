"""`ban-jax.toml` in the folder where a command starts: flags that need no typing.

A section per command, a key per flag, tables for the flags of a detector:

    [scan]
    data = "cifar10"
    fail-on = "backdoored"
    exclude = ["optim", "*.tmp"]

    [scan.ban]
    steps = 8

What stands on the command line wins, and what the file adds is told. A file that lies in
or beside what is judged, or beside results that are read, may be a stranger's, who could
have everything excluded: it is refused. Profiles and clean images are the user's own, and
may lie beside it.
"""

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pydantic
import tyro

from ban_jax.commands import given

NAME = "ban-jax.toml"


def refuse_among(paths: Sequence[str]) -> None:
    """Refuses a settings file in a folder that is given, or beside a file that is.

    Raises:
      ValueError: naming that folder or file.
    """
    here = os.path.realpath(".")
    for path in paths:
        for folder in _folders(path):
            if os.path.commonpath([here, folder]) == folder:
                raise ValueError(
                    f"{NAME} lies with {path}, which is to be judged or read, and may "
                    "have come with it: start the command in another folder, or remove "
                    "the file"
                )


def _folders(path: str) -> tuple[str, str]:
    """Of the file or folder behind a path, and of the link to a file."""
    file, there = given.file_of(path), given.folder_of(path)
    if os.path.isdir(file):
        return there, there
    return there, os.path.realpath(os.path.dirname(file) or ".")


def section(command: str, commands: Collection[str]) -> dict[str, Any]:
    """Flag without dashes -> value, of a command; empty without a file.

    Raises:
      ValueError: for a file that is no TOML, and a section that is no command's.
    """
    if not os.path.isfile(NAME):
        return {}
    try:
        with open(NAME, "rb") as file:
            found = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{NAME} cannot be read: {error}") from None
    for name, value in found.items():
        if name not in commands or not isinstance(value, Mapping):
            raise ValueError(
                f"{NAME}: {name!r} is not a section; expected one of "
                f"{', '.join(f'[{one}]' for one in commands)}"
            )
    return dict(_flat(found.get(command, {})))


def more_arguments(
    command: str, flags: Any, told: Mapping[str, Any], arguments: Sequence[str]
) -> list[str]:
    """What the file adds to a command line.

    Args:
      command: its name.
      flags: dataclass of its flags.
      told: flag -> value, of the file.
      arguments: of the command line; a flag that stands there is not added.

    Raises:
      ValueError: for a key that is no flag of the command, and for a value of another
        type than the flag's.
    """
    known = {flag: (names, kind) for flag, names, kind in _names(flags)}
    there = set()
    for argument in arguments:
        long = argument.startswith("--")
        name = argument.partition("=")[0].replace("_", "-")
        there.add(name if long else argument[:2])  # -oFILE
    added: list[str] = []
    for key, value in told.items():
        flag = f"--{key.replace('_', '-')}"
        if flag not in known:
            raise ValueError(
                f"{NAME}: {key!r} in [{command}] is no flag of `ban-jax {command}`"
            )
        names, kind = known[flag]
        if expected := _why_not(value, kind):
            raise ValueError(
                f"{NAME}: {key!r} in [{command}] must be {expected}, got {value!r}"
            )
        if there.isdisjoint(names):
            added += _as_arguments(flag, value, names)
    return added


def names_of(flags: Any) -> list[str]:
    """Every name of every flag of a dataclass, without positional arguments."""
    return [one for _, names, _ in _names(flags) for one in names]


def _why_not(value: Any, kind: Any) -> str:
    """What a flag of this type takes, where a value is none such; else empty."""
    if isinstance(value, bool) != (kind is bool):
        return "true or false" if kind is bool else "a value"
    if not _is_plain(kind):
        return ""
    several = typing.get_origin(kind) is tuple
    if several:  # one value is a list of one
        value = tuple(value) if isinstance(value, list) else (value,)
    try:
        pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Input should be ")
        return f"{said} each" * several or said
    return ""


def _is_plain(kind: Any) -> bool:
    """Whether a type is of text and numbers: plug-ins may have others, read from text."""
    origin = typing.get_origin(kind)
    if origin in (tuple, typing.Union, types.UnionType):
        return all(map(_is_plain, typing.get_args(kind)))
    plain = (str, int, float, bool, types.NoneType, ...)
    return origin is typing.Literal or kind in plain


def _names(flags: Any, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Every flag that is no positional argument: all its names, the type of its value."""
    for name, hint in typing.get_type_hints(flags, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        kind = typing.get_args(hint)[0] if marks else hint
        if any(one in marks for one in _POSITIONAL):
            continue
        named = [one.name for one in marks if getattr(one, "name", None) is not None]
        told = named[0] if named else name.replace("_", "-")
        if dataclasses.is_dataclass(kind):
            yield from _names(kind, f"{prefix}{told}." if told else prefix)
            continue
        aliases = [a for one in marks for a in getattr(one, "aliases", None) or ()]
        paired = kind is bool and _SET_ONLY.isdisjoint(map(id, marks))
        negated = [f"--{prefix}no-{told}"] if paired else []
        names = (f"--{prefix}{told}", *aliases, *negated)
        listed = any(isinstance(one, _LISTED) for one in marks)  # one text of several
        yield f"--{prefix}{told}", names, str | int if listed else kind


_SET_ONLY = {
    id(one)
    for one in getattr(tyro.conf.FlagCreatePairsOff[bool], "__metadata__")  # noqa: B009
}
_LISTED = tyro.constructors.PrimitiveConstructorSpec
_POSITIONAL = getattr(tyro.conf.Positional[str], "__metadata__")  # noqa: B009


def _as_arguments(flag: str, value: Any, names: Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        negated = [name for name in names if name.rpartition(".")[2].startswith("no-")]
        negated += [name for name in names if name.startswith("--no-")]
        return [flag] if value else negated[:1]  # some can only be set
    if not isinstance(value, list):
        return [f"{flag}={value}"]
    if flag in ("--include", "--exclude"):  # given once for each
        return [f"{flag}={one}" for one in value]
    return [flag, *map(str, value)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
