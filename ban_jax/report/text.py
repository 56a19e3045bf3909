"""Text for people, made of paths and messages that may be hostile."""

from typing import Any


def printable(text: Any) -> str:
    """Text with every control, bidirectional and invisible character spelled out.

    Paths and messages come from untrusted files: they must not steer a terminal, break
    a line or reverse what the reader sees.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


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


def count(quantity: int, noun: str) -> str:
    """`1 checkpoint`, `2 checkpoints`."""
    return f"{quantity:,} {noun}" if quantity == 1 else f"{quantity:,} {noun}s"
