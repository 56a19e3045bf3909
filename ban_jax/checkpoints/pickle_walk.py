"""What Python's `pickle.load` would meet in some bytes, whatever they begin with.

Operations are taken apart one by one; none is run, nothing is built. The stack is kept as
far as it says whether an operation can work and what is called, so text and pictures fail
within a few steps, and a pickle goes on. Long strings are skipped, not read. It is more
tolerant than `pickle_reader`, which builds the objects and refuses what it cannot build.
"""

import pickletools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ban_jax.checkpoints import call_names, file_bytes, limits, opcodes, watchdog

Read = Callable[[int, int], bytes | memoryview]
"""`(start, size)`: those bytes, fewer at the end; raises `Beyond` for what is not there
to be looked at."""
OPERATIONS = 20_000
"""Enough to tell a pickle from anything else."""
MOST_OPERATIONS = 1_000_000
"""Looked at for the names of calls."""
_LONGEST = 1024
"""Bytes of a string that may be a name."""
_NUMBER = 4096
_CHUNK = 2**14
_MANY = 20
_NAME = re.compile(r"[\w.]+")
_INTEGER = re.compile(rb"\s*[+-]?\w+\s*")
_MARK = object()
_QUIET = re.compile(r"torch(\.cuda|\.storage)?\.\w+Storage")


class Beyond(Exception):
    """More bytes are needed than may be looked at."""


class _Damage(Exception):
    """`pickle.load` would raise here."""


class Symbol(str):
    """The name of a class or function."""


class Walked(NamedTuple):
    """How far bytes are a sequence of pickles.

    Attributes:
      operations: up to the last STOP, 0 without one.
      tried: all operations that can work.
      named: whether something was imported before a STOP or a call.
      called: whether something imported was called.
      calls: the names of what was called, apart from harmless ones.
      first: what is known of the first object: text, a number or a `Symbol`.
      ended: whether the last STOP is the end of the bytes.
      cut: whether it went on beyond what may be looked at.
    """

    operations: int
    tried: int
    named: bool
    called: bool
    calls: tuple[str, ...]
    first: Any
    ended: bool
    cut: bool

    def is_pickle(self, strict: bool = False) -> bool:
        """Whether the bytes are to be told of as a pickle.

        Args:
          strict: for what is something else by its first bytes: damaged operations
            before any call count for nothing.
        """
        if self.called or self.cut or self.operations > 3:
            return True
        if self.operations and (self.named or (self.ended and self.operations > 1)):
            return True
        return self.tried > _MANY and not strict


def reading(data: file_bytes.Data | bytes, size: int | None = None) -> Read:
    """Reads from the bytes at hand.

    Args:
      data: the start of a file, or all of it.
      size: bytes of the whole file, where that is more.
    """
    whole = len(data) if size is None else size

    def read(start: int, count: int) -> bytes | memoryview:
        if start + min(count, 1) > len(data) and start < whole:
            raise Beyond
        return data[start : start + count]

    read.size = whole  # type: ignore[attr-defined]
    return read


def may_begin(start: bytes) -> bool:
    """Whether the first byte is an operation that can come first."""
    op = opcodes.BY_CODE.get(start[0]) if start else None
    return op is not None and not op.stack_before and op.name not in ("GET", "BINGET")


def walk(read: Read, operations: int = OPERATIONS, until_call: bool = False) -> Walked:
    """Goes through pickles one behind the other until one is damaged.

    Args:
      read: gives the bytes.
      operations: the most that are looked at.
      until_call: whether the first call ends it.
    """
    return _Walker(read).run(operations, until_call)


def calls(read: Read) -> tuple[str, ...]:
    """The names of what pickles ask to have called."""
    return walk(read, MOST_OPERATIONS).calls


class _Walker:
    def __init__(self, read: Read):
        self.read = read
        self.size = getattr(read, "size", None)
        self.position = 0
        self.window: tuple[int, bytes] = (0, b"")
        self.scanned = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.symbols: dict[str, None] = {}
        self.lines_seen: dict[tuple[bytes, bytes], Symbol] = {}
        self.called: dict[str, None] = {}

    def run(self, operations: int, until_call: bool) -> Walked:
        tried, stopped, named, ended, cut = 0, 0, False, False, False
        first: Any = None
        try:
            while tried < operations:
                if not tried % 4096:
                    watchdog.check()
                code = self.take(1)
                op = opcodes.BY_CODE.get(code[0])
                if op is None:
                    break
                if op.name == "STOP":
                    value = self.pop()
                    first = first if stopped else value
                    stopped = tried = tried + 1
                    named = named or bool(self.symbols)
                    self.stack, self.memo = [], {}
                    chunk, place = self.look()
                    ended = place >= len(chunk)
                    if ended:
                        break
                    continue
                self.step(op)
                tried += 1
                ended = False
                if until_call and self.called:
                    break
            else:
                cut = True
        except Beyond:
            cut = True
        except _Damage:
            pass
        named = named or bool(self.called)
        called = bool(self.called)
        told = self.told()
        return Walked(stopped, tried, named, called, told, first, ended, cut)

    def told(self) -> tuple[str, ...]:
        """What is worth telling; of what calls others, all names that it may be given."""
        calling = any(name in call_names.CALLING for name in self.called)
        names = self.symbols if calling else self.called
        given = [n for n in names if not call_names.is_inert(n) and not _QUIET.match(n)]
        return tuple(given[: call_names.MAX_CALLS])

    def step(self, op: pickletools.OpcodeInfo) -> None:
        value = self.argument(op) if op.arg is not None else None
        name = op.name
        if name in opcodes.PLAIN:
            self.plain(*opcodes.PLAIN[name], value)
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "POP":
            if not self.stack:
                raise _Damage
            self.stack.pop()
        elif name == "DUP":
            self.stack.append(self.top())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[value or 0] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if value not in self.memo:
                raise _Damage
            self.stack.append(self.memo[value])
        elif name == "STACK_GLOBAL":
            last, module = self.pop(), self.pop()
            self.stack.append(self.symbol(module, last))
        else:
            self.other(op, value)

    def other(self, op: pickletools.OpcodeInfo, value: Any) -> None:
        before = op.stack_before
        if op.name in opcodes.CALLING:
            self.call(self.below(opcodes.CALLING[op.name]), op.name)
        if pickletools.markobject in before:
            items = self.to_mark()
            if op.name == "OBJ":
                if not items:
                    raise _Damage
                self.call(items[0], op.name)
            before = before[: before.index(pickletools.markobject)]
        if op.name == "INST":
            self.call(value, op.name)
            value = None
        if op.name.startswith("EXT"):
            value = self.symbol("copyreg", f"extension_{value}")
        self.plain(len(before), len(op.stack_after), value)

    def plain(self, taken: int, made: int, value: Any) -> None:
        """Of what is made of nothing the value is kept, of the rest that it is there."""
        for _ in range(taken):
            self.pop()
        if made:
            known = not taken and isinstance(value, str | int)
            self.stack.append(value if known else None)

    def call(self, function: Any, operation: str) -> None:
        if isinstance(function, Symbol):
            self.called[str(function)] = None
        elif function is not None and operation != "BUILD":
            raise _Damage  # text and numbers cannot be called

    def symbol(self, module: Any, name: Any) -> Symbol:
        if module is None or name is None:
            module, name = module or "?", name or "?"
        elif not (isinstance(module, str) and isinstance(name, str)):
            raise _Damage
        found = Symbol(f"{module}.{name}")
        self.symbols[str(found)] = None
        return found

    def top(self) -> Any:
        return self.below(1)

    def below(self, depth: int) -> Any:
        if len(self.stack) < depth or _MARK in self.stack[-depth:]:
            raise _Damage
        return self.stack[-depth]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise _Damage

    def argument(self, op: pickletools.OpcodeInfo) -> Any:
        """A short text or a number; None for what is not kept.

        `n` of `pickletools` is a width, or which kind of width is told by the bytes.
        """
        kind: Any = op.arg
        if kind.n == pickletools.UP_TO_NEWLINE:
            return self.lines(op)
        if kind.n >= 0:
            raw = self.take(kind.n)
            value = int.from_bytes(raw, "little", signed=op.name == "BININT")
            if op.name == "PROTO" and value > 5:
                raise _Damage
            return None if op.name == "BINFLOAT" else value
        width = {
            pickletools.TAKEN_FROM_ARGUMENT1: 1,
            pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4,
            pickletools.TAKEN_FROM_ARGUMENT8U: 8,
        }[kind.n]
        signed = kind.n == pickletools.TAKEN_FROM_ARGUMENT4
        length = int.from_bytes(self.take(width), "little", signed=signed)
        if length < 0:
            raise _Damage
        if length > _LONGEST:
            return self.skip(length)
        raw = self.take(length)
        if op.name.startswith("LONG"):
            return int.from_bytes(raw, "little", signed=True)
        if "BYTE" in op.name:
            return None
        try:
            is_python2 = op.name in ("BINSTRING", "SHORT_BINSTRING")
            return str(raw, "latin-1" if is_python2 else "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise _Damage from None

    def lines(self, op: pickletools.OpcodeInfo) -> Any:
        """The argument of an operation of protocol 0."""
        line = self.line()
        if op.name in ("GLOBAL", "INST"):
            return self.imported(line, self.line())
        if op.name in ("INT", "LONG", "PUT", "GET"):
            if not _INTEGER.fullmatch(line):
                raise _Damage
            return self.integer(line)
        if op.name == "FLOAT":
            try:
                float(line)
            except ValueError:
                raise _Damage from None
            return None
        if op.name == "STRING":
            line = line.rstrip()
            if line[:1] not in (b"'", b'"'):
                raise _Damage
            if len(line) < _LONGEST and (len(line) < 2 or line[-1:] != line[:1]):
                raise _Damage
            line = line[1:-1]
        return str(line, "latin-1") if len(line) < _LONGEST else None

    def imported(self, module: bytes, name: bytes) -> Symbol:
        """What the two lines name; the same names come again and again."""
        if (found := self.lines_seen.get((module, name))) is None:
            words = [str(one, "utf-8", "replace") for one in (module, name)]
            if not all(map(_NAME.fullmatch, words)):
                raise _Damage
            found = self.symbol(*words)
            if len(self.lines_seen) < call_names.MAX_CALLS:
                self.lines_seen[module, name] = found
        return found

    def integer(self, line: bytes) -> int | None:
        if len(line) > _LONGEST:
            return None
        try:
            text = line.strip().removesuffix(b"L")
            return int(text, 10) if text.isdigit() else int(text, 0)
        except ValueError:
            raise _Damage from None

    def look(self, count: int = 1) -> tuple[bytes, int]:
        """Bytes in which `count` from here on are, unless they end; and where."""
        start, chunk = self.window
        place = self.position - start
        if not 0 <= place <= len(chunk) - count:
            chunk = bytes(self.read(self.position, max(count, _CHUNK)))
            self.window, place = (self.position, chunk), 0
        return chunk, place

    def take(self, count: int) -> bytes:
        chunk, place = self.look(count)
        if len(chunk) - place < count:
            if self.size is not None and self.position + count <= self.size:
                raise Beyond
            raise _Damage
        self.position += count
        return chunk[place : place + count]

    def skip(self, count: int) -> None:
        """Goes past a string, whose last byte must be there."""
        end = self.position + count
        if self.size is not None and end > self.size:
            raise _Damage
        self.position = end - 1
        self.take(1)

    def line(self) -> bytes:
        """Up to the next line feed; of a long one the beginning."""
        start, chunk = self.window
        place = self.position - start
        end = chunk.find(b"\n", place) if 0 <= place else -1
        if 0 <= end <= place + _NUMBER:
            self.position += end + 1 - place
            self.scanned += end - place
            return chunk[place:end]
        kept = b""
        while True:
            chunk, place = self.look()
            if place >= len(chunk):
                raise _Damage
            end = chunk.find(b"\n", place)
            last = len(chunk) if end < 0 else end
            kept += chunk[place : min(last, place + _NUMBER - len(kept))]
            self.position += last - place
            self.scanned += last - place
            if end >= 0:
                self.position += 1
                return kept
            if self.scanned > limits.MAX_PICKLE:
                raise Beyond
