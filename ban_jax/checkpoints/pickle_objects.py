"""What a pickle may hold: names, inert objects, keys."""

from typing import Any

from ban_jax.checkpoints import errors

MAX_KEY = 4096
"""Numbers below are kept as keys of dicts: of models, of clients."""


class Symbol:
    """A name found in a file: `module.name`. Inert."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Placeholder:
    """An object that is not a tensor or plain data; remembers what was put into it.

    Attributes:
      kind: the name of its class in the file.
      state: what BUILD gave it: the `__dict__` of an instance, as plain data.
      items: what SETITEMS gave it, for subclasses of dict.
    """

    __slots__ = ("items", "kind", "state")

    def __init__(self, kind: str):
        self.kind = kind
        self.state: Any = None
        self.items: dict[str, Any] | None = None


class Dtype:
    """A NumPy dtype named in the file."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code = code
        self.order = "<"


class EmptyArray:
    """A NumPy array before BUILD gave it its content."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


def count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise errors.CheckpointError(f"{errors.show(value)} is not a size")
    return value


def key(value: Any) -> str | int | None:
    """What a dict keeps of a key: text, or a small number; None for the rest.

    Python takes True for 1 and 1.0 for 1, so this does. Other keys name no tensor, and
    long tuples and colliding numbers could be made to take long.

    Raises:
      CheckpointError: for a complex number, which could equal another key.
    """
    kind = type(value)
    if kind is str:
        return value
    if kind in (int, bool, float) and 0 <= value < MAX_KEY and value == int(value):
        return int(value)
    if kind is Placeholder and value.kind in (
        "builtins.complex",
        "__builtin__.complex",
    ):
        raise errors.CheckpointError("a complex number is the key of a dict")
    return None
