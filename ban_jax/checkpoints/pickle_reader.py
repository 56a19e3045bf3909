"""A pickle machine that builds data and nothing else.

It interprets the opcodes of protocols 0 to 5 itself. A name found in the file is never
imported, looked up or called: it becomes a `Symbol`, a text. Calling a symbol looks
that text up in `reconstructions.CALLS`, our own functions that make tensors, dicts and
numbers; everything else makes an inert `Placeholder`. There is no other way out of the
file, so there is nothing to forbid.

Promises, each with a test:
  - no code named or contained in the file runs, whatever the opcode;
  - memory is bounded: each object is charged to a `limits.Budget`;
  - work is bounded: each opcode consumes a byte of the file and costs a constant or the
    items it moves, which other opcodes paid for, or is charged for them; never more
    than `limits.MAX_OPERATIONS` opcodes;
  - no recursion: nesting costs stack entries of the machine, not of Python;
  - only text and small numbers become keys of dicts, so neither hashing nested tuples
    nor colliding integers can be made to take long. Each other key is an `OddKey`.
  - what `torch.load(weights_only=True)` makes of the same bytes is made here, or the
    file is refused; `benchmarks/reader_differential.py` compares.

One file of over 400 lines: one machine with one table of opcodes, to be read beside these
promises.
"""

import struct
from collections.abc import Callable
from typing import Any

from ban_jax.checkpoints import (
    call_names,
    errors,
    limits,
    pickle_objects,
    plain_values,
    reconstructions,
    tensor,
    watchdog,
)

MAX_INTEGER = 64
"""Bytes of an integer; PyTorch's magic number has ten."""
_HOLDERS = (
    dict,
    list,
    tuple,
    memoryview,
    tensor.Tensor,
    pickle_objects.Placeholder,
    pickle_objects.EmptyArray,
)
_CHECKED = 4096
"""Operations between two looks at the clock."""


class PickleMachine:
    """Reads one pickle from `data` at `position`; afterwards `position` is behind it.

    Args:
      data: the bytes; looked at fastest as `bytes`.
      budget: what the objects may cost.
      persistent: called with each persistent id, as data; returns the value for it.
      position: where the pickle starts.
    """

    def __init__(
        self,
        data: memoryview | bytes,
        budget: limits.Budget,
        persistent: Callable[[Any], Any] | None = None,
        position: int = 0,
    ):
        self.data = data
        self.view = memoryview(data)
        self.end = len(data)
        self.position = position
        self.budget = budget
        self.persistent = persistent or (
            lambda _: pickle_objects.Placeholder("persistent id")
        )
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.floor = 0  # the last mark: what lies below it is out of reach
        self.memo: list[Any] = []
        self.calls = call_names.Calls(budget)
        self.symbols: dict[tuple[bytes, bytes], pickle_objects.Symbol] = {}

    def load(self) -> Any:
        """The object.

        Raises:
          CheckpointError: for a pickle that is damaged or costs too much. It tells what
            is asked for before: whoever unpickles it has called that by then.
        """
        try:
            return self._load()
        except errors.CheckpointError as error:
            calls = self.calls.told
            raise errors.CheckpointError(str(error), calls=calls) from error
        except Exception as error:
            if not self.calls.told:
                raise
            told = f"damaged: {type(error).__name__}: {errors.show(str(error), 300)}"
            calls = self.calls.told
            raise errors.CheckpointError(told, calls=calls) from error

    def _load(self) -> Any:
        data, table = self.data, _TABLE
        try:
            for _ in range(limits.MAX_OPERATIONS // _CHECKED):
                watchdog.check()
                for _ in range(_CHECKED):
                    opcode = data[self.position]
                    self.position += 1
                    if opcode == _STOP:
                        return self.finish()
                    table[opcode](self)
        except IndexError as error:
            raise errors.CheckpointError("the pickle ends before its STOP") from error
        raise errors.CheckpointError(
            f"the pickle has more than {limits.MAX_OPERATIONS:,} operations"
        )

    def finish(self) -> Any:
        if self.marks:
            raise errors.CheckpointError("the pickle stops inside an unfinished object")
        return self.pop()

    # The machine's parts.

    def push(self, value: Any, cost: int = 40) -> None:
        self.budget.spend(cost)
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= self.floor:
            raise errors.CheckpointError("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= self.floor:
            raise errors.CheckpointError("the pickle looks at an empty stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise errors.CheckpointError("the pickle closes what it never opened")
        self.marks.pop()
        items = self.stack[self.floor :]
        del self.stack[self.floor :]
        self.floor = self.marks[-1] if self.marks else 0
        return items

    def take(self, count: int) -> memoryview:
        start = self.position
        if count > self.end - start:
            raise errors.CheckpointError(
                f"the pickle announces {count:,} bytes, {self.end - start:,} remain"
            )
        self.position = start + count
        return self.view[start : start + count]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self, limit: int = 4096) -> bytes:
        start = self.position
        if type(self.data) is bytes:
            end = self.data.find(b"\n", start, start + limit)
            if end < 0:
                raise errors.CheckpointError("a line of the pickle does not end")
            self.position = end + 1
            return self.data[start:end]
        # Looks a little further each time: a line costs what it is long, not `limit`.
        size = 64
        while True:
            chunk = bytes(self.data[start : start + min(size, limit)])
            length = chunk.find(b"\n")
            if length >= 0:
                self.position += length + 1
                return chunk[:length]
            if size >= limit or len(chunk) < size:
                raise errors.CheckpointError("a line of the pickle does not end")
            size *= 4

    def push_text(self, raw: memoryview, encoding: str = "utf-8") -> None:
        self.push(str(raw, encoding, "surrogatepass"), 64 + 4 * len(raw))

    def push_python2_text(self, size: int) -> None:
        raw = self.take(size)
        self.budget.spend(4 * size)
        try:
            text = str(raw, "utf-8")  # as torch.load reads it
        except UnicodeDecodeError:
            text = str(raw, "latin-1")  # bytes; Python 2 wrote them alike
        self.push(text, 64)

    def push_integer(self, size: int) -> None:
        raw = self.take(size)
        if size > MAX_INTEGER:
            held = pickle_objects.Placeholder("long integer")
            held.state = bytes(raw)  # which may be anything
            self.push(held, 96 + size)
        else:
            self.push(int.from_bytes(raw, "little", signed=True), 40 + size)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise errors.CheckpointError("the pickle sets a key without a value")
        if isinstance(target, pickle_objects.Placeholder):
            if target.items is None:
                target.items = {}
                self.budget.spend(232)
            target = target.items
        if type(target) is not dict:
            raise errors.CheckpointError(
                f"the pickle sets items of {errors.show(type(target).__name__)}"
            )
        self.budget.spend(60 * (len(items) // 2))
        for index in range(0, len(items), 2):
            key = items[index]
            if type(key) is not str:
                key = pickle_objects.key(key)
                if type(key) is pickle_objects.OddKey:
                    self.budget.spend(80)
            target[key] = items[index + 1]

    def extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is list:
            self.budget.spend(10 * len(items))
            target.extend(items)
        elif isinstance(target, pickle_objects.Placeholder):
            self.keep(target, items)
        else:
            raise errors.CheckpointError(
                f"the pickle appends to {errors.show(type(target).__name__)}"
            )

    def keep(self, target: pickle_objects.Placeholder, parts: Any) -> None:
        """What an inert object was made of or given, where that can hold tensors."""
        if not any(isinstance(one, _HOLDERS) or _is_long(one) for one in parts):
            return
        self.budget.spend(400 + 8 * len(parts))
        if target.items is None:
            target.items = {}
        target.items[pickle_objects.OddKey(None)] = parts

    def store(self, index: int) -> None:
        # Every pickler numbers its memo 0, 1, 2, ... (Python 2: from 1), so a list
        # does, and a file cannot ask for room it does not fill.
        memo = self.memo
        if index == len(memo):
            self.budget.spend(20)
            memo.append(self.top())
        elif index < len(memo):
            memo[index] = self.top()
        elif index == len(memo) + 1:
            self.budget.spend(40)
            memo += [None, self.top()]
        else:
            raise errors.CheckpointError(
                f"the pickle's memo jumps to {index} from {len(memo)}"
            )

    def fetch(self, index: int) -> None:
        if index >= len(self.memo):
            raise errors.CheckpointError(f"the pickle's memo has no entry {index}")
        self.push(self.memo[index], 8)

    def push_symbol(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise errors.CheckpointError("a pickled name that is not text")
        if len(module) + len(name) > 1024:
            raise errors.CheckpointError("a pickled name of more than 1024 characters")
        symbol = pickle_objects.Symbol(f"{module}.{name}")
        self.calls.imports(symbol.text)
        self.push(symbol, 160 + 4 * (len(module) + len(name)))

    def make(self, function: Any, arguments: Any, new: bool = False) -> None:
        """REDUCE, INST and OBJ, and NEWOBJ: data for the names we know, else inert."""
        if not isinstance(function, pickle_objects.Symbol):
            made = pickle_objects.Placeholder("result of a call")
            self.push(made, 96)
            self.keep(made, (function, arguments))
            return
        name = function.text
        if name not in call_names.QUIET:
            self.calls.note(name, arguments, new)
            if name in call_names.NEW_OBJECT and arguments and not new:
                return self.make(arguments[0], arguments[1:], new=True)
        call = reconstructions.CALLS.get(name)
        if new:
            call = reconstructions.NEW.get(name, call)
        if call is None or type(arguments) is not tuple:
            made = pickle_objects.Placeholder(name)
            self.push(made, 96)
            self.keep(made, arguments if type(arguments) is tuple else (arguments,))
        else:
            self.push(call(self.budget, arguments), 120)

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        reconstructions.build(self.budget, target, state)
        if isinstance(target, pickle_objects.Symbol):
            self.calls.note(target.text, ())  # attributes of a module or class


def _is_long(value: Any) -> bool:
    """Whether a text may be bytes in disguise: `bytearray(text, "latin-1")`."""
    return type(value) is str and len(value) >= plain_values.SHORT


# The five commonest operations are written out: most of a pickle is made of them.


def _op_byte(machine: PickleMachine) -> None:
    machine.budget.spend(8)
    machine.stack.append(machine.data[machine.position])
    machine.position += 1


def _op_fetch(machine: PickleMachine) -> None:
    position = machine.position
    index = machine.data[position]
    machine.position = position + 1
    if index >= len(machine.memo):
        raise errors.CheckpointError(f"the pickle's memo has no entry {index}")
    machine.budget.spend(8)
    machine.stack.append(machine.memo[index])


def _op_store(machine: PickleMachine) -> None:
    index = machine.data[machine.position]
    machine.position += 1
    stack, memo = machine.stack, machine.memo
    if index == len(memo) and len(stack) > machine.floor:
        machine.budget.spend(20)
        memo.append(stack[-1])
    else:
        machine.store(index)


def _op_long_store(machine: PickleMachine) -> None:
    position = machine.position
    raw = machine.data[position : position + 4]
    index = int.from_bytes(raw, "little")
    stack, memo = machine.stack, machine.memo
    if index == len(memo) and len(raw) == 4 and len(stack) > machine.floor:
        machine.position = position + 4
        machine.budget.spend(20)
        memo.append(stack[-1])
    else:
        machine.store(machine.number(4))


def _op_text(machine: PickleMachine) -> None:
    start = machine.position + 4
    length = int.from_bytes(machine.data[start - 4 : start], "little")
    end = start + length
    if end > machine.end:
        machine.take(4)
        machine.take(length)  # raises
    machine.position = end
    machine.budget.spend(64 + 4 * length)
    machine.stack.append(str(machine.data[start:end], "utf-8", "surrogatepass"))


def _op_unknown(machine: PickleMachine) -> None:
    opcode = machine.data[machine.position - 1]
    raise errors.CheckpointError(f"no pickle opcode {opcode:#04x}")


def _op_mark(machine: PickleMachine) -> None:
    machine.budget.spend(16)
    machine.floor = len(machine.stack)
    machine.marks.append(machine.floor)


def _op_pop(machine: PickleMachine) -> None:
    if machine.marks and machine.floor == len(machine.stack):
        machine.pop_to_mark()
    else:
        machine.pop()


def _op_list(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    machine.push(items, 96 + 8 * len(items))


def _op_tuple(machine: PickleMachine) -> None:
    items = tuple(machine.pop_to_mark())
    machine.budget.spend(72 + 8 * len(items))
    machine.stack.append(items)


def _op_tuple_of(count: int) -> Callable[[PickleMachine], None]:
    def operation(machine: PickleMachine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)), 72 + 8 * count)

    return operation


def _op_dict(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    made: dict[str, Any] = {}
    machine.set_items(made, items)
    machine.push(made, 80)


def _op_set_item(machine: PickleMachine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.top(), [key, value])


def _op_set_items(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    machine.set_items(machine.top(), items)


def _op_append(machine: PickleMachine) -> None:
    value = machine.pop()
    machine.extend(machine.top(), [value])


def _op_appends(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    machine.extend(machine.top(), items)


def _op_add_items(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    target = machine.top()
    if isinstance(target, pickle_objects.Placeholder):
        machine.keep(target, items)


def _op_frozen_set(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    made = pickle_objects.Placeholder("frozenset")
    machine.push(made, 96)
    machine.keep(made, items)


def _op_text_integer(machine: PickleMachine) -> None:
    line = machine.line()
    if line in (b"00", b"01"):
        machine.push(line == b"01")
    elif len(line) > 2 * MAX_INTEGER:
        held = pickle_objects.Placeholder("long integer")
        held.state = bytes(line)  # which may be anything
        machine.push(held, 96 + len(line))
    else:
        machine.push(int(line.removesuffix(b"L")), 100)


def _op_text_string(machine: PickleMachine) -> None:
    line = machine.line(2**20)
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise errors.CheckpointError("a pickled string without quotes")
    machine.push_text(memoryview(line)[1:-1], "latin-1")


def _op_text_unicode(machine: PickleMachine) -> None:
    machine.push_text(memoryview(machine.line(2**20)), "raw-unicode-escape")


def _op_float(machine: PickleMachine) -> None:
    machine.push(struct.unpack(">d", machine.take(8))[0])


_PYTHON2_MODULES = dict.fromkeys(
    (b"UserDict", b"UserList", b"UserString"), b"collections"
)
"""Modules whose names lead to a known one when Python 3 reads them."""


def _op_global(machine: PickleMachine) -> None:
    lines = machine.line(), machine.line()
    if known := machine.symbols.get(lines):
        machine.push(known, 160)
        return
    module, name = lines
    module = _PYTHON2_MODULES.get(module, module)
    machine.push_symbol(str(module, "utf-8"), str(name, "utf-8"))
    if len(machine.symbols) < call_names.MAX_CALLS:
        machine.symbols[lines] = machine.stack[-1]


def _op_stack_global(machine: PickleMachine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_symbol(module, name)


def _op_extension(size: int) -> Callable[[PickleMachine], None]:
    def operation(machine: PickleMachine) -> None:
        # The number indexes a registry of the reading process: no registry, no meaning.
        machine.push_symbol("copyreg", f"extension_{machine.number(size)}")

    return operation


def _op_reduce(machine: PickleMachine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.make(function, arguments)


def _op_new_object(machine: PickleMachine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.make(function, arguments, new=True)


def _op_new_object_keywords(machine: PickleMachine) -> None:
    keywords = machine.pop()
    _op_new_object(machine)
    made = machine.top()
    if isinstance(made, pickle_objects.Placeholder):
        machine.keep(made, (keywords,) if keywords else ())


def _op_instance(machine: PickleMachine) -> None:
    arguments = machine.pop_to_mark()
    _op_global(machine)
    machine.make(machine.pop(), tuple(arguments))


def _op_object(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    if not items:
        raise errors.CheckpointError("the pickle makes an object of nothing")
    machine.make(items[0], tuple(items[1:]))


def _op_persistent(machine: PickleMachine) -> None:
    machine.push(machine.persistent(machine.pop()), 200)


def _op_text_persistent(machine: PickleMachine) -> None:
    machine.push(machine.persistent(str(machine.line(), "latin-1")), 200)


_OPCODES: dict[int, Callable[[PickleMachine], Any]] = {
    ord(code): operation
    for code, operation in {
        "\x80": lambda m: m.take(1),  # PROTO
        "\x95": lambda m: m.take(8),  # FRAME: only a hint for buffering
        "(": _op_mark,
        "0": _op_pop,
        "1": lambda m: m.pop_to_mark(),
        "2": lambda m: m.push(m.top(), 8),
        "N": lambda m: m.push(None, 8),
        "\x88": lambda m: m.push(True, 8),
        "\x89": lambda m: m.push(False, 8),
        "I": _op_text_integer,
        "L": _op_text_integer,
        "J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
        "K": _op_byte,
        "M": lambda m: m.push(m.number(2)),
        "\x8a": lambda m: m.push_integer(m.number(1)),
        "\x8b": lambda m: m.push_integer(m.number(4)),
        "F": lambda m: m.push(float(m.line())),
        "G": _op_float,
        "S": _op_text_string,
        "T": lambda m: m.push_python2_text(m.number(4)),
        "U": lambda m: m.push_python2_text(m.number(1)),
        "V": _op_text_unicode,
        "X": _op_text,
        "\x8c": lambda m: m.push_text(m.take(m.number(1))),
        "\x8d": lambda m: m.push_text(m.take(m.number(8))),
        "B": lambda m: m.push(m.take(m.number(4)), 200),
        "C": lambda m: m.push(m.take(m.number(1)), 200),
        "\x8e": lambda m: m.push(m.take(m.number(8)), 200),
        "\x96": lambda m: m.push(m.take(m.number(8)), 200),
        "\x97": lambda m: m.push(
            pickle_objects.Placeholder("buffer outside the file"), 96
        ),
        "\x98": lambda m: m.top(),
        "]": lambda m: m.push([], 80),
        "a": _op_append,
        "e": _op_appends,
        "l": _op_list,
        ")": lambda m: m.push((), 8),
        "t": _op_tuple,
        "\x85": _op_tuple_of(1),
        "\x86": _op_tuple_of(2),
        "\x87": _op_tuple_of(3),
        "}": lambda m: m.push({}, 80),
        "d": _op_dict,
        "s": _op_set_item,
        "u": _op_set_items,
        "\x8f": lambda m: m.push(pickle_objects.Placeholder("set"), 96),
        "\x90": _op_add_items,
        "\x91": _op_frozen_set,
        "g": lambda m: m.fetch(pickle_objects.count(int(m.line()))),
        "h": _op_fetch,
        "j": lambda m: m.fetch(m.number(4)),
        "p": lambda m: m.store(pickle_objects.count(int(m.line()))),
        "q": _op_store,
        "r": _op_long_store,
        "\x94": lambda m: m.store(len(m.memo)),
        "\x82": _op_extension(1),
        "\x83": _op_extension(2),
        "\x84": _op_extension(4),
        "c": _op_global,
        "\x93": _op_stack_global,
        "R": _op_reduce,
        "b": PickleMachine.build,
        "i": _op_instance,
        "o": _op_object,
        "\x81": _op_new_object,
        "\x92": _op_new_object_keywords,
        "P": _op_text_persistent,
        "Q": _op_persistent,
    }.items()
}
_STOP = ord(".")
_TABLE = [_OPCODES.get(opcode, _op_unknown) for opcode in range(256)]
