"""What was met and is no classifier, in lines for the terminal and a part of the page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ban_jax.report import fields, text

QUIET = (
    "text",
    "an image",
    "an empty file",
    "of no known format",
    "no model: a document, a medium or a program",
)
"""Reasons that are only counted: nobody takes such files for checkpoints."""
_MOST_REASONS = 12
_MOST_NAMES = 12
MOST_ON_PAGE = 500


class Group(NamedTuple):
    """Files that were passed for one reason.

    Attributes:
      reason: in a few words.
      names: their paths without the folder all share, as far as they are shown.
      quantity: of all.
    """

    reason: str
    names: Sequence[str]
    quantity: int


def groups(passed: Sequence[Any], most: int = MOST_ON_PAGE) -> list[Group]:
    """Those that could be taken for checkpoints first, then the most frequent.

    Args:
      passed: with `path` and `reason` each.
      most: names of a group that are shown.
    """
    told: list[Mapping[str, str]] = [{"path": one.path} for one in passed]
    folder = fields.common_folder(told)
    found: dict[str, list[str]] = {}
    for one, shown in zip(passed, told, strict=True):
        found.setdefault(one.reason, []).append(fields.label(shown, folder))
    made = [Group(r, names[:most], len(names)) for r, names in found.items()]
    return sorted(made, key=lambda g: (g.reason in QUIET, -g.quantity, g.reason))


def lines(passed: Sequence[Any], *, whole: bool = False) -> list[str]:
    """What is printed below the table.

    Args:
      passed: with `path` and `reason` each.
      whole: a line for each, instead of counts.
    """
    if not passed:
        return []
    if whole:
        each = [f"  {text.name(one.path)}: {text.name(one.reason)}" for one in passed]
        return [f"{text.count(len(passed), 'file')} met and not judged:", *each]
    found = groups(passed, _MOST_NAMES)
    told = [
        f"{text.count(len(passed), 'file')} met and not judged (--show-skipped lists them):"
    ]
    for group in found[:_MOST_REASONS]:
        line = f"  {text.name(group.reason)}: {text.count(group.quantity, 'file')}"
        if group.reason not in QUIET:
            left = group.quantity - len(group.names)
            more = f" and {left:,} more" if left else ""
            line += f", {', '.join(group.names)}{more}"
        told.append(line)
    rest = sum(group.quantity for group in found[_MOST_REASONS:])
    return told + [f"  other reasons: {text.count(rest, 'file')}"] * (rest > 0)
