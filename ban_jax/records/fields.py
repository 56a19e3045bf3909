"""Whether a line that was read has the fields of its type."""

import functools
from collections.abc import Mapping
from typing import Any

import pydantic

_OPEN = pydantic.ConfigDict(extra="allow", strict=True)
"""Strict: what is read stays as it is, so text that looks like a number must not pass."""
MOST_NESTED = 100
"""Lists and objects within each other: what comes after walks through them by recursion."""


@functools.cache
def reader(kind: Any) -> pydantic.TypeAdapter:
    """Of a TypedDict; fields that are not of it are let through."""
    return pydantic.TypeAdapter(pydantic.with_config(_OPEN)(kind))


def check(line: Mapping[str, Any], kind: Any, command: str) -> None:
    """Checks the fields of a line.

    Args:
      line: what was read.
      kind: a TypedDict.
      command: that writes such lines, such as `scan`.

    Raises:
      ValueError: in one sentence that names the field.
    """
    try:
        reader(kind).validate_python(line)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the line"
        raise ValueError(
            f"the field {name} is not as `ban-jax {command}` writes it: {first['msg']}"
        ) from None
    for name, value in line.items():
        if _is_deep(value):
            raise ValueError(
                f"the field {name} is not as `ban-jax {command}` writes it: it nests "
                f"deeper than {MOST_NESTED} levels"
            )


def _is_deep(value: Any) -> bool:
    """Whether lists and objects lie in each other more often than they may."""
    level = [value]
    for _ in range(MOST_NESTED):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True
