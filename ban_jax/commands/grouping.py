"""How flags are read and shown: in groups by what they are for.

The flags of a command are one flat dataclass. For the command line they are laid out in
groups, the same for every command, and laid flat again once they are read.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro
from tyro import constructors

GROUPS = {
    "input": (
        "What is read.",
        "data data_dir split image_size crop_pct interpolation num_clean num_train "
        "num_test held_out include exclude cache_dir cache_limit from_scan arch width "
        "normalisation in_channels start_from null",
    ),
    "measurement": (
        "What is measured or done.",
        "mode method exhaustive detectors budget passes seed precision repeats tune "
        "candidates attacks targets cycle_targets victim seeds first_seed clean_seeds "
        "poison_rate poison_mode bar",
    ),
    "verdict": (
        "What makes it a verdict.",
        "baseline calibrate trusted profile threshold fail_on",
    ),
    "output": (
        "What is written and printed.",
        "out format output quiet show_skipped name note class_names pictures orbax "
        "features table trace",
    ),
    "machine": (
        "What computes, and how work goes on.",
        "chunk resume shard engine address worker_cpus save_minutes",
    ),
}
"""Group -> what it is for, and names of flags; a name means the same in every command."""

_SAME = "as for `scan`."


def read(flags: Any, prog: str, arguments: Sequence[str]) -> Any:
    """The flags that a command line gives.

    Args:
      flags: their dataclass, flat.
      prog: what stands before them.
      arguments: the words.

    Raises:
      SystemExit: where help was asked for or the usage is wrong.
      ValueError: for values that do not fit together.
    """
    parsed = tyro.cli(
        grouped(flags),
        prog=prog,
        args=list(arguments),
        config=(
            tyro.conf.DisallowNone,  # a flag is left out instead
            tyro.conf.HelptextFromCommentsOff,  # which takes apart all sources anew
        ),
        registry=_metavars(),
    )
    found: dict[str, Any] = {}
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        found |= vars(value) if field.name in GROUPS else {field.name: value}
    return flags(**found)


@functools.cache
def grouped(flags: Any) -> Any:
    """A dataclass with a field per group, which holds flags, and one per other flag.

    Args:
      flags: a flat dataclass.
    """
    told = explained(flags)
    hints = typing.get_type_hints(flags, include_extras=True)
    fields = {
        field.name: _field(field, hints[field.name], told.get(field.name))
        for field in dataclasses.fields(flags)
    }
    groups: dict[str, Any] = {}
    for group, (what, names) in GROUPS.items():
        inside = [fields.pop(name) for name in names.split() if name in fields]
        if inside:
            made = _dataclass(group, inside, what)
            groups[group] = (group, Annotated[made, tyro.conf.OmitArgPrefixes])
    summary = inspect.cleandoc(flags.__doc__).partition("Attributes:")[0].strip()
    positional = [fields.pop(one) for one in list(fields) if _is_positional(hints[one])]
    return _dataclass(
        flags.__name__, [*positional, *groups.values(), *fields.values()], summary
    )


def explained(flags: Any) -> dict[str, str]:
    """Flag -> what it is for, out of the `Attributes:` of a docstring.

    Args:
      flags: a dataclass; what it says is "as for `scan`" is what `scan` says.
    """
    text = inspect.cleandoc(flags.__doc__).partition("Attributes:\n")[2]
    found = {}
    for names, what in re.findall(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", text, re.M):
        for name in names.split(", "):
            found[name] = " ".join(what.split())
    if _SAME in found.values():
        others = explained(importlib.import_module("ban_jax.commands.scan").Flags)
        return {k: others[k] if what == _SAME else what for k, what in found.items()}
    return found


def _field(field: Any, hint: Any, told: str | None) -> tuple[Any, ...]:
    """Name, type and default of a flag, for `dataclasses.make_dataclass`."""
    if dataclasses.is_dataclass(typing.get_args(hint)[0] if _marks(hint) else hint):
        if any(getattr(mark, "name", None) == "" for mark in _marks(hint)):
            hint = Annotated[typing.get_args(hint)[0], tyro.conf.OmitArgPrefixes]
    else:
        hint = Annotated[hint, tyro.conf.arg(help=told, help_behavior_hint=_default)]
    if field.default is dataclasses.MISSING:
        return field.name, hint
    return field.name, hint, dataclasses.field(default=field.default)


def _default(value: str) -> str:
    """What is told of a default; where there is none the help itself says what is done."""
    return "" if value in ("", "''", "None", "False") else f"(default: {value})"


def _dataclass(name: str, fields: Sequence[Any], doc: str) -> Any:
    made = dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True)
    made.__doc__ = doc
    return made


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _is_positional(hint: Any) -> bool:
    positional = _marks(tyro.conf.Positional[str])
    return any(mark in positional for mark in _marks(hint))


def _metavars() -> constructors.ConstructorRegistry:
    """Whole numbers are shown as N, others as X, words as TEXT."""
    shown: Mapping[Any, str] = {int: "N", float: "X", str: "TEXT"}
    registry = constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: Any) -> constructors.PrimitiveConstructorSpec | None:
        kind = info.type
        if kind not in shown:
            return None
        return constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=shown[kind],
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: [str(value)],
        )

    return registry
