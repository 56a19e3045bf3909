"""Settings and versions of a scan, told once each however many candidates share them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ban_jax.report import fields, text


class Panel(NamedTuple):
    """A title and its pairs of name and value."""

    title: str
    pairs: Sequence[tuple[str, str]]


def panels(lines: Sequence[fields.Record], asked: fields.Record) -> list[Panel]:
    """Settings of the scan, then what the lines say of their own.

    Args:
      lines: results.
      asked: flags of the scan.
    """
    found = [
        Panel("What was asked for", pairs(asked)),
        *_shared("Detection settings", "config", lines),
        *_shared("Versions", "versions", lines),
    ]
    return [panel for panel in found if panel.pairs]


def _shared(title: str, field: str, lines: Sequence[fields.Record]) -> Iterator[Panel]:
    """One panel per different content of a field; several say how often each occurs."""
    groups: dict[str, int] = {}
    for record in lines:
        found = fields.mapping(record.get(field))
        if found:
            key = json.dumps(found, sort_keys=True)
            groups[key] = groups.get(key, 0) + 1
    for key, times in groups.items():
        often = f", {text.count(times, 'checkpoint')}" if len(groups) > 1 else ""
        yield Panel(title + often, pairs(json.loads(key)))


def pairs(settings: fields.Record) -> list[tuple[str, str]]:
    """Settings as text, groups of them flat."""
    return [(name, _told(value)) for name, value in fields.flat(settings).items()]


def _told(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_told, value)) or "none"
    if isinstance(value, str):
        return fields.told_path(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
