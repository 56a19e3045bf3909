"""Bytes, texts and numbers in a file: what may be weights without being tensors.

`torch.save` into a buffer gives bytes, which programs keep in dicts; base64 makes text of
them, `int.from_bytes` one number, `tolist()` many. None of it is opened here: it is
told of, with what it looks like.
"""

import re
from typing import Any, NamedTuple

from ban_jax.checkpoints import pickle_walk, sniffing, unknown

FLOATS = 50_000
"""Plain numbers in a file that losses and metrics of long trainings come to."""
INDEX = 10**7
"""Whole numbers below count and index; the bits of a float32 of usual size do not."""
SHORT = 64
"""Characters of texts that are names and sentences."""
_LOOKED_AT = 1024
_SPELLED = re.compile(r"[A-Za-z0-9+/=_-]+")
"""Base64 and hexadecimal: one word of many letters."""
_NUMBERS = re.compile(r"[0-9eE.,;:+\-\[\]()\s]+")
_LOOKS = (
    ((b"PK\3\4",), "like a PyTorch file or another zip archive"),
    ((b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"), "like a pickle or a PyTorch file"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"), "packed"),
    ((b"\x93NUMPY",), "like a NumPy array"),
    ((b"\x89HDF",), "like an HDF5 file"),
)


MAGIC = 8
"""Bytes by which a file's kind is known."""


class Piece(NamedTuple):
    """Bytes or a text that may hold weights.

    Attributes:
      origin: whatever the caller knows it by.
      size: bytes or characters.
      looks: what it looks like, in words.
    """

    origin: Any
    size: int
    looks: str


def piece(origin: Any, value: Any, strict: bool = False) -> Piece | None:
    """Bytes or a text; None where it is recognisably something else, or another value.

    Args:
      origin: kept in the piece.
      value: any.
      strict: whether bytes count whatever they look like.
    """
    if isinstance(value, str):
        looks = _looks_of_text(value) if len(value) >= SHORT else ""
    elif isinstance(value, bytes | memoryview):
        looks = _looks(value, strict)
    else:
        return None
    return Piece(origin, len(value), looks) if looks else None


def is_number(value: Any) -> bool:
    """Whether a value may be a weight: no whole number that counts or indexes."""
    return type(value) is float or (type(value) is int and not -1 <= value < INDEX)


def are_many(pieces: list[Piece]) -> bool:
    """Whether a network has room in them."""
    return sum(one.size for one in pieces) >= unknown.SMALL


def told(pieces: list[Piece], most: int = 8) -> str:
    """The largest of them, in words."""
    largest = sorted(pieces, key=lambda one: -one.size)[:most]
    parts = [f"{one.size:,} {one.looks}" for one in largest]
    more = len(pieces) - len(largest)
    return ", ".join(parts) + (f" and {more:,} more" if more else "")


def begins_a_file(start: bytes) -> bool:
    """Whether bytes are the first ones of what may hold weights."""
    return any(start.startswith(starts) for starts, _ in _LOOKS)


def _looks(value: bytes | memoryview, strict: bool) -> str:
    head = bytes(value[: sniffing.HEAD])
    for starts, words in _LOOKS:
        if head.startswith(starts):
            return f"bytes {words}"
    if not strict:
        found = sniffing.no_model(head, "", lambda: pickle_walk.reading(value))
        if found == "text":
            return _looks_of_text(str(head, "latin-1"))
        if found and not found.endswith(unknown.NOTHING):
            return ""
    return "bytes that may be anything"


def _looks_of_text(value: str) -> str:
    head = value[:_LOOKED_AT]
    if _SPELLED.fullmatch(head.replace("\n", "")):
        return "characters of one word, as base64 and hexadecimal are"
    if _NUMBERS.fullmatch(head):
        return "characters of numbers"
    try:
        raw = head.encode("latin-1")
    except UnicodeEncodeError:
        return ""
    # Bytes that were read as Latin-1 have control characters, texts have not.
    is_text = not any(c < 32 and c not in b"\t\n\r\f\x1b\b" for c in raw)
    return "" if is_text else "characters that are bytes"
