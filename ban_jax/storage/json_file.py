"""JSON that anybody may have changed: what it says, or one kind of error."""

import json
from typing import Any

_MOST_DIGITS = 20


def load(path: str) -> Any:
    """What a file says.

    Raises:
      OSError: where it cannot be read.
      ValueError: see `loads`.
    """
    with open(path, encoding="utf-8") as file:
        return loads(file.read())


def loads(text: str | bytes) -> Any:
    """What a text says.

    Raises:
      ValueError: for what is no JSON, numbers that are none, whole ones of more than 64
        bits and endless nesting among it.
    """
    try:
        return json.loads(text, parse_constant=_reject_constant, parse_int=_whole)
    except RecursionError as error:
        raise ValueError(f"nests too deep: {error}") from None


def _whole(digits: str) -> int:
    """Of no more digits than 64 bits have: what is larger is no float either."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid in JSON")
