"""The outcome of a whole scan, in sentences."""

import re
from collections import Counter
from collections.abc import Sequence

from ban_jax.report import fields, numerals, text

_MOST_BASELINES = 3
_COUNTED = re.compile(r"(\d{1,9}) (.+)", re.ASCII | re.DOTALL)


def tally(records: Sequence[fields.Record]) -> dict[str, int]:
    """How many files got each verdict; one that holds several classifiers counts once."""
    found = [fields.verdict(record) for record in fields.files(records)]
    return {name: found.count(name) for name in fields.VERDICTS}


def answer(records: Sequence[fields.Record]) -> str:
    """The outcome of a scan in one sentence; a file that holds several counts once."""
    records = fields.files(records)
    counts, total = tally(records), len(records)
    unjudged = counts["inconclusive"]
    judged = total - unjudged
    if not total:
        return "Nothing was scanned."
    if total == 1:
        return _OF_ONE[next(name for name in counts if counts[name])]
    if not judged:
        return f"None of the {total:,} checkpoints could be judged."
    told = [
        f"{counts[name]:,} {_verb(counts[name], *verbs)}"
        for name, verbs in _VERBS.items()
        if counts[name]
    ]
    if told:
        quantity, rest = told[0].split(" ", 1)
        told[0] = f"{quantity} of {total:,} checkpoints {rest}"
    elif unjudged:
        told = [f"No backdoor was found in {text.count(judged, 'checkpoint')}"]
    else:
        told = [f"No backdoor was found in any of the {total:,} checkpoints"]
    if unjudged:
        told.append(f"{unjudged:,} could not be judged")
    return "; ".join(told) + "."


_VERBS = {
    "backdoored": ("appears to carry a backdoor", "appear to carry a backdoor"),
    "suspicious": ("is suspicious", "are suspicious"),
}
_OF_ONE = {
    "backdoored": "The checkpoint appears to carry a backdoor.",
    "suspicious": "The checkpoint is suspicious: it may carry a backdoor.",
    "inconclusive": "The checkpoint could not be judged.",
    "clean": "No backdoor was found in the checkpoint.",
}


def _verb(quantity: int, one: str, many: str) -> str:
    return one if quantity == 1 else many


def targets(records: Sequence[fields.Record], names: Sequence[str] | None) -> str:
    """The targets of backdoored files and how often each occurs."""
    flagged = [
        record
        for record in fields.files(records)
        if fields.verdict(record) == "backdoored"
    ]
    found = [
        fields.class_label(record.get("target"), names, record.get("num_classes"))
        for record in flagged
    ]
    counted = Counter(label for label in found if label).most_common()
    parts = [
        label + (f" in {quantity:,}" if len(flagged) > 1 else "")
        for label, quantity in counted[:3]
    ]
    left = len(counted) - len(parts)
    return ", ".join(parts) + (f", and {left:,} more" * (left > 0))


def limits(records: Sequence[fields.Record]) -> str:
    """The scores from which on candidates are called what they are."""
    told = []
    for grade, field in (
        ("backdoored", "threshold"),
        ("suspicious", "suspicious_above"),
    ):
        found = [
            value
            for record in records
            if fields.number(record.get("score")) is not None
            and (value := fields.number(record.get(field))) is not None
        ]
        if found:
            ends = dict.fromkeys(map(numerals.score, _ends(found)))
            told.append(f"{grade} above {' to '.join(ends)}")
    return ", ".join(told)


def baselines(records: Sequence[fields.Record]) -> str:
    """What candidates were compared with: the very models where they are told of."""
    models = _spans(fields.distinct(records, "compared_with"))
    rest = [record for record in records if not record.get("compared_with")]
    kinds = fields.distinct(rest, "baseline")
    told = []
    if models:
        left = len(models) - _MOST_BASELINES
        more = [f"{left:,} more"] * (left > 0)
        told.append(f"compared with {'; '.join(models[:_MOST_BASELINES] + more)}")
    if kinds:
        told.append(f"baseline {', '.join(kinds)}")
    return "; ".join(told)


def _spans(names: Sequence[str]) -> list[str]:
    """`4 trusted models` and `3 trusted models` are told as `3 to 4 trusted models`."""
    counts: dict[str, list[int]] = {}
    for name in names:
        match = _COUNTED.fullmatch(name)
        known = counts.setdefault(match[2] if match else name, [])
        known += [int(match[1])] if match else []
    return [
        f"{' to '.join(f'{end:,}' for end in _ends(found))} {what}" if found else what
        for what, found in counts.items()
    ]


def _ends(numbers: Sequence[float]) -> list[float]:
    """The least and the largest, once where they are the same."""
    return list(dict.fromkeys((min(numbers), max(numbers))))


def false_alarms(records: Sequence[fields.Record]) -> str:
    """How many flagged candidates are expected to be clean; nothing without q-values.

    Of the candidates up to a q-value, that share at most is expected to be clean. So the
    largest q-value of the flagged ones times their number bounds how many are.
    """
    records = fields.measured(records)
    counts, told = tally(records), []
    if counts["backdoored"]:
        told.append(_expected(records, fields.FLAGGED[:1], "backdoored"))
    if counts["suspicious"]:
        both = "backdoored or suspicious" if counts["backdoored"] else "suspicious"
        told.append(_expected(records, fields.FLAGGED, both))
    known = [one for one in told if one]
    if not known:
        return ""
    quantity, first = known[0]
    what = _verb(
        quantity, "is expected to be a false alarm", "are expected to be false alarms"
    )
    sentence = "; ".join([f"{first} {what}", *(other for _, other in known[1:])])
    return sentence[:1].upper() + sentence[1:]


def _expected(
    records: Sequence[fields.Record], grades: Sequence[str], called: str
) -> tuple[int, str] | None:
    """How many are called so and have a q-value, and how many of them may be clean."""
    flagged = [record for record in records if fields.verdict(record) in grades]
    shares = [fields.number(record.get("q_value")) for record in flagged]
    known = [share for share in shares if share is not None]
    if not known:
        return None
    expected = max(known) * len(known)
    about = f"{expected:.2g}" if expected < 0.1 else f"{expected:.1f}"
    which = f"of the {len(known):,} called {called}"
    which += " with a p-value" * (len(known) < len(flagged))
    return len(known), f"{which} at most about {about}"
