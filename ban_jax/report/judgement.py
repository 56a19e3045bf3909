"""What a verdict says beyond its grade: interval, p-value, witnesses."""

from collections.abc import Sequence

from ban_jax.report import fields, numerals

NORMAL = 1.96
"""Standard errors on either side that hold 95 %."""


def interval(record: fields.Record) -> tuple[float, float] | None:
    """95 % around the score; from its standard error where the record has no other."""
    score = fields.number(record.get("score"))
    if score is None:
        return None
    low, high = (*fields.numbers(record.get("interval")), None, None)[:2]
    if low is not None and high is not None:
        return min(low, high), max(low, high)
    error = fields.number(record.get("standard_error"))
    return (score - NORMAL * error, score + NORMAL * error) if error else None


def spread(record: fields.Record) -> str:
    """The interval in few characters: `±0.82`, or its ends where it is lopsided."""
    score, ends = fields.number(record.get("score")), interval(record)
    if score is None or ends is None or ends[0] == ends[1]:
        return ""
    below, above = score - ends[0], ends[1] - score
    if abs(above - below) <= 0.1 * max(above, below):
        return numerals.half_width((above + below) / 2)
    return f"({numerals.score(ends[0])}–{numerals.score(ends[1])})"


def p_value(record: fields.Record) -> str:
    """`.12`, or `≤.04` where it is the smallest that so many models can give."""
    found = fields.number(record.get("p_value"))
    if found is None:
        return ""
    return f"≤{numerals.share(found)}" if is_smallest(record) else numerals.share(found)


def is_smallest(record: fields.Record) -> bool:
    """Whether no model that the p-value comes from scores as high."""
    found = fields.number(record.get("p_value"))
    models = fields.number(record.get("p_models"))
    return bool(found is not None and models and found <= 1.0001 / (models + 1))


def limits(record: fields.Record) -> tuple[float | None, float | None]:
    """The scores above which a candidate is backdoored, and suspicious."""
    threshold, lower = (
        fields.number(record.get(name)) for name in ("threshold", "suspicious_above")
    )
    return threshold, lower


def witnesses(record: fields.Record) -> dict[str, list[float | None]]:
    """Name of a vector -> what it alone says of every class, as far as it says anything."""
    found = fields.mapping(record.get("witnesses"))
    values = {str(name): fields.numbers(found[name]) for name in found}
    return {
        name: row for name, row in values.items() if any(v is not None for v in row)
    }


def at_target(record: fields.Record) -> dict[str, float]:
    """What each witness says of the most unusual class, where it was measured."""
    target = record.get("target")
    if not isinstance(target, int) or isinstance(target, bool):
        return {}
    return {
        name: value
        for name, row in witnesses(record).items()
        if 0 <= target < len(row) and (value := row[target]) is not None
    }


def speaking(record: fields.Record) -> dict[str, bool]:
    """Which witnesses alone exceed, at the target, the limit that the score exceeds.

    Empty for candidates that are not flagged.
    """
    threshold, lower = limits(record)
    edge = {"backdoored": threshold, "suspicious": lower}.get(fields.verdict(record))
    if edge is None:
        return {}
    return {name: value > edge for name, value in at_target(record).items()}


def void(record: fields.Record) -> dict[str, str]:
    """Name of a vector -> why it was left out."""
    found = fields.mapping(record.get("void"))
    return {str(name): str(found[name]) for name in found if found[name]}


def names(records: Sequence[fields.Record]) -> list[str]:
    """The witnesses that occur, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in witnesses(record)))
