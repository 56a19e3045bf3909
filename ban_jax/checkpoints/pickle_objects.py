"""What a pickle may hold: names, inert objects, keys."""

from typing import Any

from ban_jax.checkpoints import errors, limits

MAX_KEY = 4096
"""Numbers below are kept as keys of dicts: of models, of clients."""
_MANY = 20_000
"""Objects of attributes that are looked at."""


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
        self.items: dict[Any, Any] | None = None


class OddKey:
    """A key of a dict that is neither text nor a small number, and equal to itself alone.

    What hangs on it is kept, so that it is accounted for.

    Attributes:
      value: the key in the file.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    @property
    def is_number(self) -> bool:
        """Whether it is a large number, as old files number parameters by."""
        return type(self.value) is int

    def __str__(self) -> str:
        return f"<key: {type(self.value).__name__}>"


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


def key(value: Any) -> str | int | OddKey:
    """What a dict keeps of a key: text, or a small number; the rest as an `OddKey`.

    Python takes True for 1 and 1.0 for 1, so this does. Long tuples and colliding numbers
    could be made to take long, so they are not compared.

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
    return OddKey(value)


def odd_array(budget: limits.Budget, data: Any) -> Placeholder:
    """An array of objects, or of records: inert, with what it holds."""
    budget.spend(400)
    made = Placeholder("array")
    made.items = {OddKey(None): data}
    return made


def holds_objects(budget: limits.Budget, root: Any) -> bool:
    """Whether there are tensors or other objects in plain data; true where it is long."""
    pending, steps = [root], 0
    while pending:
        node = pending.pop()
        inside: Any = ()
        if type(node) is dict:
            inside = node.values()
        elif type(node) in (list, tuple):
            inside = node
        elif not isinstance(node, str | int | float | None | Symbol):
            return True
        steps += len(inside)
        budget.spend(8 * len(inside))
        if steps > _MANY:
            return True
        pending += inside
    return False
