"""The header of a single NumPy array: what its numbers are, or that they are objects."""

import ast
import math
import re
from typing import Any, NamedTuple

import numpy as np

from ban_jax.checkpoints import file_bytes

MAGIC = b"\x93NUMPY"
MOST = 2**16
"""Bytes of a header that are looked at; NumPy reads 10,000 unless pickles are allowed."""
_FLAT = 4096
"""Numbers in a row from which on they could be all weights of a network."""
_NUMBERS = re.compile(r"[<>|=]?([biufcmM]\d{1,2}(\[\w+\])?|[SUV]\d+|\?)")


class Header(NamedTuple):
    """A header.

    Attributes:
      descr: the description of the elements; None for a header that is damaged.
      shape: of the array, None where it is damaged.
      start: where the elements, or the pickle of them, begin.
    """

    descr: Any
    shape: Any
    start: int

    @property
    def end(self) -> int:
        """Where an array of numbers ends in its file; 0 for one of no known size."""
        try:
            return self.start + np.dtype(self.descr).itemsize * math.prod(self.shape)
        except (TypeError, ValueError):
            return 0


def read(data: file_bytes.Data | bytes) -> Header:
    """The header, whose length is in front of it."""
    width = 2 if data[6] == 1 else 4
    begin = 8 + width
    start = begin + int.from_bytes(bytes(data[8:begin]), "little")
    if start > MOST:
        return Header(None, None, start)
    text = str(bytes(data[begin:start]), "utf-8", "replace").strip()
    try:
        header = ast.literal_eval(text)
        shape = header["shape"]
        if type(shape) is not tuple or not all(type(size) is int for size in shape):
            return Header(None, None, start)
        return Header(header["descr"], shape, start)
    except (SyntaxError, MemoryError, RecursionError, LookupError):
        return Header(None, None, start)
    except (TypeError, ValueError):
        return Header(None, None, start)


def holds_numbers(descr: Any) -> bool:
    """Whether the elements are numbers or characters, none of them Python objects.

    What is not known to be is not: NumPy understands many more descriptions.
    """
    pending, seen = [descr], 0
    while pending:
        part = pending.pop()
        seen += 1
        if seen > 10_000:
            return False
        if type(part) is str:
            if not _NUMBERS.fullmatch(part):
                return False
        elif type(part) is list:  # of fields
            pending += [_of_field(field) for field in part]
        elif type(part) is tuple and len(part) == 2:  # of an array in a field
            pending.append(part[0])
        else:
            return False
    return True


def is_row(header: Header) -> bool:
    """Whether all weights of a network could lie in it, in a row or in named fields."""
    if type(header.descr) is not str:
        return True
    sizes = [size for size in header.shape if size != 1]
    is_float = header.descr[1:2] in ("f", "V")
    return is_float and len(sizes) == 1 and sizes[0] > _FLAT


def _of_field(field: Any) -> Any:
    return field[1] if type(field) is tuple and len(field) in (2, 3) else None
