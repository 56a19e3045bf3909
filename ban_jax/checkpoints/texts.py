"""Whether a file is text all through, not in its first lines alone."""

from collections.abc import Iterable

from ban_jax.checkpoints import pickle_walk, watchdog

WHOLE = 2**26
"""Bytes up to which all of a file is looked at."""
PACKED = 2**28
"""The same for what is packed, whose later parts cannot be looked at alone."""
_PIECE = 2**16
_FEW = 8
"""Odd bytes that any piece may have, and one in five hundred."""
_CONTROL = bytes(c for c in range(32) if c not in b"\t\n\r\f\x1b\b")
_LATE = bytes(range(128, 256))
_REPLACED = "\ufffd"


def is_text(read: pickle_walk.Read) -> bool:
    """Whether each piece of a file is text; of long files as many as `WHOLE` holds.

    Those are evenly spaced, the first and the last among them, so that what is hidden
    between them is a thousandth of the file at most.
    """
    size = getattr(read, "size", None)
    if size is not None and size > WHOLE:
        count = WHOLE // _PIECE
        places = ((size - _PIECE) * place // (count - 1) for place in range(count))
        return _are_text(read, (place - place % 2 for place in places))
    most = PACKED if size is None else WHOLE
    return _are_text(read, range(0, most, _PIECE)) and not read(most, 1)


def is_looked_through(read: pickle_walk.Read) -> bool:
    """Whether all of a file is looked at."""
    size = getattr(read, "size", None)
    return size is None or size <= WHOLE


def _are_text(read: pickle_walk.Read, places: Iterable[int]) -> bool:
    encoding = _wide(bytes(read(0, 2)))
    for place in places:
        watchdog.check()
        piece = bytes(read(place, _PIECE))
        if not (_is_wide(piece, encoding) if encoding else _is_piece(piece)):
            return False
        if len(piece) < _PIECE:
            break
    return True


def _wide(start: bytes) -> str:
    """UTF-16 by the mark that it begins with."""
    return {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(start, "")


def _is_wide(piece: bytes, encoding: str) -> bool:
    """Whether half of the characters are ASCII's: weights of two bytes can be letters."""
    text = piece[: len(piece) // 2 * 2].decode(encoding, "replace")
    plain = sum(" " <= sign <= "~" or sign in "\t\n\r\f" for sign in text)
    return plain * 2 >= len(text)


def _is_piece(piece: bytes) -> bool:
    """UTF-8, or an older encoding with few bytes beyond ASCII.

    Logs have odd bytes here and there: of a crash, or of two processes that wrote at once.
    """
    most = max(_FEW, len(piece) // 500)
    odd = len(piece) - len(piece.translate(None, _CONTROL))
    if odd > most:
        return False
    try:
        piece.decode()
        return True
    except UnicodeDecodeError:
        text = piece.decode("utf-8", "replace")
    broken = text.count(_REPLACED) - piece.count(_REPLACED.encode())
    late = len(piece) - len(piece.translate(None, _LATE))
    return odd + broken <= most or late < len(piece) / 10
