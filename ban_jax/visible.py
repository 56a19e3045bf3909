"""Text of strangers in characters that a reader can see and tell apart."""

import re
import unicodedata

MOST_MARKS = 3
"""Combining marks on one letter: Tibetan, Thai and Vietnamese have no more in use."""
_BLANK = re.compile(
    "["
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # Default_Ignorable_Code_Point
    "\u2800\U00016fe4\U0001d159"  # drawn as nothing
    "]"
)
_HIDDEN_SPACES = re.compile("^ +| +$|(?<= ) +")
_READ_AS_ESCAPE = frozenset("\\tnrxuU")


def printable(text: str) -> str:
    """Text with every character spelled out that steers, hides or covers others.

    These are control, bidirectional and unassigned characters, spaces other than the
    plain one, those that are drawn as nothing, and combining marks that stand on no letter
    or are too many for one. Printed twice, a text stays what it was.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(c) if is_hidden else c
        for c, is_hidden in zip(text, _hidden(text), strict=True)
    )


def name(text: str) -> str:
    """A printable name whose spaces at its ends, and beside others, are spelled out.

    For names of files, calls and classes: where they end must be seen.
    """
    return _HIDDEN_SPACES.sub(
        lambda found: _escape(" ") * len(found[0]), printable(text)
    )


def distinct(text: str) -> str:
    r"""Printable text, of which no two texts share one.

    A backslash that would read as the start of an escape is doubled, so that a tab is
    `\t` and a backslash before a `t` is `\\t`.
    """
    hidden = _hidden(text)
    pieces = []
    for place, c in enumerate(text):
        if hidden[place]:
            pieces.append(_escape(c))
        elif c == "\\" and place + 1 < len(text):
            unclear = hidden[place + 1] or text[place + 1] in _READ_AS_ESCAPE
            pieces.append(c * 2 if unclear else c)
        else:
            pieces.append(c)
    return "".join(pieces)


def _hidden(text: str) -> list[bool]:
    """Per character, whether it is to be spelled out."""
    found = []
    marks = MOST_MARKS  # on the letter before; as good as too many where there is none
    for c in text:
        is_mark = unicodedata.category(c) in ("Mn", "Me")
        if not c.isprintable() or _BLANK.match(c):
            found.append(True)
            marks = MOST_MARKS
        elif is_mark:
            found.append(marks >= MOST_MARKS)
            marks += 1
        else:
            found.append(False)
            # Spacing vowel signs (Mc) are letters of Indian scripts, and bear marks.
            bears = c.isalnum() or unicodedata.category(c) == "Mc"
            marks = 0 if bears else MOST_MARKS
    return found


def _escape(c: str) -> str:
    if c == " ":
        return "\\x20"
    return c.encode("unicode_escape", "surrogatepass").decode()
