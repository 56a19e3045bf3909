"""The outcome of a whole scan, in a sentence."""

from collections import Counter
from collections.abc import Sequence

from ban_jax.report import fields, text


def tally(records: Sequence[fields.Record]) -> dict[str, int]:
    """How many candidates got each verdict."""
    found = [fields.verdict(record) for record in records]
    return {name: found.count(name) for name in fields.VERDICTS}


def answer(records: Sequence[fields.Record]) -> str:
    """The outcome of a scan in one sentence."""
    counts, total = tally(records), len(records)
    flagged, unjudged = counts["backdoored"], counts["inconclusive"]
    judged = total - unjudged
    if not total:
        return "Nothing was scanned."
    if not judged:
        if total == 1:
            return "The checkpoint could not be judged."
        return f"None of the {total:,} checkpoints could be judged."
    if flagged:
        if total == 1:
            return "The checkpoint appears to carry a backdoor."
        verb = "appears" if flagged == 1 else "appear"
        first = f"{flagged:,} of {total:,} checkpoints {verb} to carry a backdoor"
    elif unjudged:
        first = f"No backdoor was found in {text.count(judged, 'checkpoint')}"
    elif total == 1:
        return "No backdoor was found in the checkpoint."
    else:
        return f"No backdoor was found in any of the {total:,} checkpoints."
    return f"{first}; {unjudged:,} could not be judged." if unjudged else f"{first}."


def targets(records: Sequence[fields.Record], names: Sequence[str] | None) -> str:
    """The suspected targets of flagged candidates and how often each occurs."""
    flagged = [record for record in records if fields.verdict(record) == "backdoored"]
    found = [
        fields.class_label(record.get("target"), names, record.get("num_classes"))
        for record in flagged
    ]
    counted = Counter(label for label in found if label).most_common()
    parts = [
        f"class {label}" + (f" in {quantity:,}" if len(flagged) > 1 else "")
        for label, quantity in counted[:3]
    ]
    left = len(counted) - len(parts)
    return ", ".join(parts) + (f", and {left:,} more" * (left > 0))
