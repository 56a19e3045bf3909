"""The results file: one line of valid JSON per candidate, safe to interrupt.

A scan appends a line as soon as a candidate is measured and flushes it, so that a scan
that was stopped has lost at most the line it was writing. When it ends, the file is
written again, sorted by path, in one atomic step.
"""

import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import IO, Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from ban_jax.storage import atomic, json_file

PathLike = atomic.PathLike
Line = TypeVar("Line", bound=Mapping[str, Any])
Check = Callable[[dict[str, Any]], Line]
"""Brings a line that was read to today's form; a `ValueError` says what is wrong."""


class ResultsError(ValueError):
    """A results file or folder that cannot be read or written; says what to do."""


class Loaded(NamedTuple, Generic[Line]):
    """What a results file holds.

    Attributes:
      records: one per path; where a path occurs twice, the later line.
      torn: whether the last line was cut short and therefore dropped.
    """

    records: list[Line]
    torn: bool


def finite(value: Any) -> Any:
    """Plain JSON values: NumPy and JAX numbers unwrapped, non-finite ones `None`.

    Lists that are plain already are returned as they are, not copied.
    Numbers of less than 64 bits get the shortest decimal that reads back as the same
    number (0.1, not 0.10000000149011612).
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and not isinstance(value, np.floating):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return finite(value._asdict())
    if isinstance(value, list | tuple):
        items = [finite(item) for item in value]
        # Thousands of records pass here, most of them plain already: no second copy.
        unchanged = isinstance(value, list) and all(map(operator.is_, items, value))
        return value if unchanged else items
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value))
    raise TypeError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def _plain(array: np.ndarray) -> Any:
    if array.ndim:
        return [_plain(item) for item in array]
    if np.issubdtype(array.dtype, np.complexfloating) or array.dtype.kind == "O":
        raise TypeError(f"a record cannot hold an array of {array.dtype}")
    if array.dtype.kind in "biuUS":
        item = array.item()
        return item.decode() if isinstance(item, bytes) else item
    number = float(array)
    if not math.isfinite(number):
        return None
    return float(str(array)) if array.dtype.itemsize < 8 else number


def encode(record: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON that ends in a newline."""
    path = record.get("path")
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f'a record needs a "path" that is text, found {path!r}')
    return json.dumps(finite(record), allow_nan=False).encode() + b"\n"


def append(file: IO[bytes], record: Mapping[str, Any], *, sync: bool = False) -> None:
    """Writes one line to a file opened for bytes, and flushes it.

    Args:
      file: opened for appending in binary mode.
      record: any mapping with a `path`; see `finite` for its values.
      sync: also wait until the line is on the disk (survives a power cut).
    """
    line = memoryview(encode(record))
    try:
        while line:
            line = line[file.write(line) :]
        file.flush()
        if sync:
            os.fsync(file.fileno())
    except OSError as error:
        name = getattr(file, "name", "the results file")
        raise ResultsError(
            f"{name}: a result could not be written ({_why(error)}). Make room, then "
            "start the same command again: it goes on where it stopped"
        ) from error


def load(
    path: PathLike,
    check: Check[Line],
) -> Loaded[Line]:
    """Reads a file of lines.

    A last line that was cut short is dropped and reported as `torn`; an invalid line
    anywhere else is an error that names file and line. The file is not changed.

    Raises:
      ResultsError: the file is missing, unreadable or not a results file.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ResultsError(
            f"{os.fspath(path)}: there is no such results file; "
            "`ban-jax scan` writes one as results.jsonl in its --out folder"
        ) from None
    except OSError as error:
        raise ResultsError(
            f"{os.fspath(path)}: cannot be read ({_why(error)})"
        ) from error
    records, end = _parse(data, os.fspath(path), check)
    return Loaded(records, torn=end < len(data))


def _parse(data: bytes, name: str, check: Check[Line]) -> tuple[list[Line], int]:
    """The records, and how many leading bytes of `data` hold them."""
    records: dict[str, Line] = {}
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    end = 0
    for number, line in enumerate(lines, start=1):
        start, end = end, min(end + len(line) + 1, len(data))
        if not line.strip():
            continue
        try:
            record = json_file.loads(line)
        except ValueError as error:
            # Our own lines open with a brace; a disk that lost power leaves zeros.
            cut_short = line[:1] in (b"{", b"\0")
            if number == len(lines) and cut_short:
                return list(records.values()), start
            raise ResultsError(
                f"{name}: line {number} is not valid JSON ({error}); expected one "
                "JSON object per line as written by `ban-jax scan`. Remove that line, "
                "or scan again with --no-resume"
            ) from None
        if not isinstance(record, dict) or not isinstance(record.get("path"), str):
            raise ResultsError(
                f"{name}: line {number} is not a result; expected a JSON object with a "
                f'"path", found {_found(record)}'
            )
        try:
            checked = check(record)
        except ValueError as error:
            raise ResultsError(f"{name}: line {number}: {error}") from None
        records.pop(record["path"], None)
        records[record["path"]] = checked
    return list(records.values()), len(data)


def _found(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(value)[:5]) or 'no entries'}"
    return f"a {type(value).__name__}"


class Writer(Generic[Line]):
    """Appends records to a results file; a context manager.

    With `resume`, lines already there are kept, offered as `records`, and a torn last
    line is cut off (`torn` says so). Without, the file starts empty.

    Usage:
      with results.Writer(path) as writer:
          done = {record["path"] for record in writer.records}
          writer.write(record)
    """

    def __init__(
        self,
        path: PathLike,
        check: Check[Line],
        *,
        resume: bool = True,
        sync: bool = False,
    ):
        self.path = os.fspath(path)
        self.records: list[Line] = []
        self.torn = False
        self._sync = sync
        atomic.prepare_folder(os.path.dirname(self.path) or ".")
        data = b""
        if resume and os.path.lexists(self.path):
            with atomic.explaining(self.path):
                with open(self.path, "rb", opener=atomic.own_file) as file:
                    data = file.read()
            self.records, end = _parse(data, self.path, check)
            self.torn = end < len(data)
            data = data[:end]
        with atomic.explaining(self.path):
            # What a full disk refuses must not wait in a buffer for the file's end.
            self._file = open(self.path, "ab", buffering=0, opener=atomic.own_file)
            self._file.truncate(len(data))
            if data and not data.endswith(b"\n"):
                self._file.write(b"\n")
                self._file.flush()

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record and flushes it."""
        append(self._file, record, sync=self._sync)

    def close(self) -> None:
        """Closes the file; writing is over."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def rewrite(path: PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a results file in one step by these records, sorted by path."""
    ordered = sorted(records, key=lambda record: os.fspath(record["path"]))
    atomic.write(path, (encode(record) for record in ordered))


def _why(error: OSError) -> str:
    return error.strerror or str(error)
