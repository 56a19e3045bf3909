"""Text for people, made of paths and messages that may be hostile."""

import os
import re
from collections.abc import Sequence
from typing import Any

from ban_jax import visible


def printable(text: Any) -> str:
    """Text with every control, bidirectional and invisible character spelled out.

    Paths and messages come from untrusted files: they must not steer a terminal, break
    a line or reverse what the reader sees; see `visible.printable`.
    """
    return visible.printable(str(text))


def name(text: Any) -> str:
    """The same of a name, whose ends must be seen; see `visible.name`."""
    return visible.name(str(text))


def sentence(text: Any, limit: int) -> str:
    """Printable text on one line, cut at the end to at most `limit` characters."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= limit else line[: max(limit - 1, 0)].rstrip() + "…"


def shorten(text: str, limit: int) -> str:
    """Text cut in the middle to at most `limit` characters; its end says most."""
    if len(text) <= limit:
        return text
    if limit < 5:
        return text[:limit]
    head = (limit - 1) // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def in_common(names: Sequence[str], least: int = 6) -> tuple[str, str]:
    """What all of several names begin with and end with, up to a seam.

    Args:
      names: such as paths without their folder.
      least: characters; what is shorter is not worth leaving out.

    Returns:
      Both ends; empty where there is nothing to leave out.
    """
    if len(set(names)) < 2:
        return "", ""
    shared = os.path.commonprefix(list(names))
    prefix = shared[: len(shared) - len(re.split("[/_.-]", shared)[-1])]
    rests = [name[len(prefix) :][::-1] for name in names]
    shared = os.path.commonprefix(rests)[::-1]
    seam = re.search("[/_.-]", shared)
    suffix = shared[seam.start() :] if seam else ""
    if any(len(name) == len(prefix) + len(suffix) for name in names):
        suffix = ""  # something of each name must be left
    return (
        prefix if len(prefix) >= least else "",
        suffix if len(suffix) >= least else "",
    )


_SEAMS = re.compile(r"(?<=[/_.\-])(?=[^/_.\-])")


def parts(path: str) -> list[str]:
    """A path in the pieces between which it may be broken: after `/`, `_`, `-` and `.`."""
    return _SEAMS.split(path)


def fold(path: str, width: int, most: int = 3) -> list[str]:
    """A path in at most `most` lines of at most `width` characters.

    Lines end where a name has a seam; a piece that no line holds is cut anywhere. What
    is too long even so is shortened in the middle.
    """
    limit = most * width
    lines = _lines(path, width)
    while len(lines) > most:
        lines = _lines(shorten(path, limit), width)
        limit -= 1
    return lines


def _lines(path: str, width: int) -> list[str]:
    lines = [""]
    for part in parts(path):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines


def count(quantity: int, noun: str) -> str:
    """`1 checkpoint`, `2 checkpoints`."""
    return f"{quantity:,} {noun}" if quantity == 1 else f"{quantity:,} {noun}s"
