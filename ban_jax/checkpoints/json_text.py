"""JSON of untrusted files, within a bound on the objects that it makes."""

import json
from typing import Any

from ban_jax.checkpoints import limits

_COSTS = {b"{": 250, b"[": 90, b",": 60, b":": 60}
"""Bytes that each of these stands for at most: a dict, a list, an item, a value."""


def loads(raw: bytes, *, unique: bool = False) -> Any:
    """What the text says.

    Args:
      raw: UTF-8.
      unique: whether a name may occur only once in an object.

    Raises:
      ValueError: saying what is wrong, for a text that is not JSON or whose brackets
        and commas announce more than `limits.JSON_OBJECTS` bytes of objects.
    """
    announced = 2 * len(raw) + sum(
        cost * raw.count(sign) for sign, cost in _COSTS.items()
    )
    if announced > limits.JSON_OBJECTS:
        raise ValueError(
            f"not read: its {len(raw):,} bytes would become more than "
            f"{limits.JSON_OBJECTS:,} bytes of objects"
        )
    try:
        return json.loads(
            str(raw, "utf-8"), object_pairs_hook=_unique if unique else None
        )
    except _Twice:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None


class _Twice(ValueError):
    """A name that occurs twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Twice("not read: a name occurs twice in one of its objects")
    return made
