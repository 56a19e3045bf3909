"""Whether a line that was read has the fields of its type."""

import functools
from collections.abc import Mapping
from typing import Any

import pydantic

_OPEN = pydantic.ConfigDict(extra="allow", strict=True)
"""Strict: what is read stays as it is, so text that looks like a number must not pass."""


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
