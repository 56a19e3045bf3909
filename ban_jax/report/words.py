"""Words of the report: labels, explanations and advice, for table and page alike."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ban_jax.detectors import DETECTORS

Record = Mapping[str, Any]

VERDICTS = ("backdoored", "inconclusive", "clean")
"""In the order in which a reader needs them."""

GLYPHS = {"backdoored": "▲", "inconclusive": "?", "clean": "✓"}

BASELINES = {
    "within": "each class is compared with the other classes of the same checkpoint",
    "trusted": "each class is compared with the same class in models the user vouches "
    "for (--calibrate)",
    "population": "each class is compared with the same class in the other checkpoints "
    "of this scan that have the same architecture family and number of classes",
}

MODES = {
    "reference": "the procedure of the published BAN code, step by step; the score is "
    "the share of predictions that fall into one class",
    "ban": "neuron noise that breaks all classes at once, and a feature mask; "
    "predictions under noise are compared with predictions without it",
    "targeted": "neuron noise towards each class in turn",
    "weights": "the last layer of the network alone; no images were used",
}


@dataclasses.dataclass(frozen=True)
class Vector:
    """How one class vector is shown: its name in plain words and its unit."""

    title: str
    meaning: str
    unit: str = "share"


VECTORS = {
    "share": Vector(
        "Predictions under noise, masked",
        "Share of clean images answered with each class under undirected noise, read "
        "through the features that the network does not need for clean images.",
    ),
    "share_unmasked": Vector(
        "Predictions under noise",
        "The same share, read through all features.",
    ),
    "targeted": Vector(
        "Success of noise towards each class",
        "Mean probability of each class on clean images of other classes when the "
        "network's neurons are nudged towards it. A backdoor makes its target easy.",
    ),
    "untargeted": Vector(
        "Pull of undirected noise",
        "How much the probability of each class rises, on images of other classes, "
        "when neurons are nudged to make mistakes. Mistakes of a backdoored network "
        "gather in its target.",
        "difference",
    ),
    "untargeted_masked": Vector(
        "Pull of undirected noise, masked",
        "The same, read through the features that the network does not need for clean "
        "images.",
        "difference",
    ),
    "batch": Vector(
        "Probability under batch statistics",
        "Mean probability of each class on clean images of other classes, with "
        "normalisation statistics taken from the images at hand.",
    ),
    "stored": Vector(
        "Probability under stored statistics",
        "The same mean probability with the statistics stored in the checkpoint.",
    ),
    "batch_minus_stored": Vector(
        "Batch less stored statistics",
        "Rise of the probability of each class when the stored statistics, which a "
        "backdoored network learned with triggered images, are replaced.",
        "difference",
    ),
    "last_layer": Vector(
        "Last layer, mean weight per class",
        "Mean of the weights that lead to each class. No images are needed.",
        "number",
    ),
}


def verdict(record: Record) -> str:
    """One of `VERDICTS`; anything unknown is not a judgement."""
    found = record.get("verdict")
    return found if isinstance(found, str) and found in VERDICTS else "inconclusive"


def number(value: Any) -> float | None:
    """A finite number, or `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """A list of finite numbers and gaps; empty when there is none."""
    return [number(v) for v in values] if isinstance(values, list | tuple) else []


def mapping(value: Any) -> Record:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


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


def remark(record: Record) -> str:
    """The error or else the reason, without the path in front that messages carry."""
    text = str(record.get("error") or record.get("reason") or "")
    return text.removeprefix(f"{record.get('path')}: ")


def shorten(text: str, limit: int) -> str:
    """Text cut in the middle to at most `limit` characters; its end says most."""
    if len(text) <= limit:
        return text
    if limit < 5:
        return text[:limit]
    head = (limit - 1) // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def common_folder(records: Sequence[Record]) -> str:
    """The folder that holds all candidates, with a trailing separator, or nothing."""
    folders = [os.path.dirname(str(record.get("path", ""))) for record in records]
    try:
        folder = os.path.commonpath(folders)
    except ValueError:
        return ""
    return os.path.join(folder, "") if folder else ""


def class_label(
    index: Any, names: Sequence[str] | None, num_classes: Any = None
) -> str:
    """A class by its index and, where the names fit this candidate, its name."""
    if not isinstance(index, int) or isinstance(index, bool):
        return ""
    fits = names and 0 <= index < len(names)
    if fits and isinstance(num_classes, int) and names and len(names) != num_classes:
        fits = False
    return f"{index} ({printable(names[index])})" if fits and names else str(index)


def architecture(record: Record, form: str = "{}/{}") -> str:
    """Architecture and width in a few characters."""
    name = printable(record.get("architecture") or "")
    width = record.get("width")
    return form.format(name, width) if name and isinstance(width, int) else name


def deciding(record: Record) -> list[str]:
    """Names of the stored class vectors the verdict was drawn from.

    The record may say so (`decided_by`); otherwise the rule of its mode does.
    """
    stored = mapping(record.get("vectors"))
    named = record.get("decided_by")
    if isinstance(named, str):
        named = [named]
    mode = str(record.get("mode"))
    rule = DETECTORS[mode].rule if mode in DETECTORS else None
    wanted = named if isinstance(named, list) else rule.vectors if rule else ()
    return [name for name in wanted if isinstance(name, str) and name in stored]


def vector(name: str) -> Vector:
    """How to show a class vector; an unknown one keeps its own name."""
    known = VECTORS.get(name)
    return known or Vector(printable(name).replace("_", " "), "", "number")


def show(value: float | None, unit: str = "number") -> str:
    """A number for people: shares and differences in per cent."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{100 * value:.0f} %" if value >= 0.1 or not value else _percent(value)
    if unit == "score":
        return score(value).replace("-", "−")
    if unit == "difference":
        return f"{100 * value:+.1f} %".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def score(value: float) -> str:
    """A score with two decimals, or in short form where it is huge."""
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.3g}"


def seconds(record: Record) -> str:
    """Seconds spent on a candidate, to two figures below one."""
    value = number(record.get("seconds"))
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %".replace("-", "−")


def count(quantity: int, noun: str) -> str:
    """`1 checkpoint`, `2 checkpoints`."""
    return f"{quantity:,} {noun}" if quantity == 1 else f"{quantity:,} {noun}s"


def tally(records: Sequence[Record]) -> dict[str, int]:
    """How many candidates got each verdict."""
    found = [verdict(record) for record in records]
    return {name: found.count(name) for name in VERDICTS}


def answer(records: Sequence[Record]) -> str:
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
        first = f"No backdoor was found in {count(judged, 'checkpoint')}"
    elif total == 1:
        return "No backdoor was found in the checkpoint."
    else:
        return f"No backdoor was found in any of the {total:,} checkpoints."
    return f"{first}; {unjudged:,} could not be judged." if unjudged else f"{first}."


def distinct(records: Sequence[Record], key: str) -> list[str]:
    """The distinct values of a field, in order of first appearance."""
    found = (record.get(key) for record in records)
    return list(dict.fromkeys(printable(v) for v in found if v not in (None, "")))


def targets(records: Sequence[Record], names: Sequence[str] | None) -> str:
    """The suspected targets of flagged candidates and how often each occurs."""
    flagged = [record for record in records if verdict(record) == "backdoored"]
    found = [
        class_label(record.get("target"), names, record.get("num_classes"))
        for record in flagged
    ]
    counted = Counter(label for label in found if label).most_common()
    parts = [
        f"class {label}" + (f" in {quantity:,}" if len(flagged) > 1 else "")
        for label, quantity in counted[:3]
    ]
    left = len(counted) - len(parts)
    return ", ".join(parts) + (f", and {left:,} more" * (left > 0))


def advice(record: Record) -> str:
    """What to do about a candidate that could not be judged."""
    text = f"{record.get('error') or record.get('reason') or ''}".lower()
    for signs, told in _ADVICE:
        if any(sign in text for sign in signs):
            return told
    return _UNREADABLE if record.get("error") else _UNJUDGED


_ADVICE = (
    (
        ("not finite", "non-finite"),
        (
            "The network holds or yields values that are not numbers. The file is "
            "damaged or its training diverged; get it again from its source."
        ),
    ),
    (
        ("accuracy", "chance"),
        (
            "It does badly on clean images, which mostly means wrong pixel "
            "normalisation or another class order than the data set's. Give the right "
            "one with --normalisation, or check --data, and scan again."
        ),
    ),
    (
        ("the clean images have", "data set's model"),
        (
            "The clean images are not of the kind this network was trained on. Scan it "
            "apart from the others, with --data naming its own data set."
        ),
    ),
    (
        ("device failed",),
        (
            "The computer ran out of memory or the accelerator failed. Scan again with "
            "a smaller --chunk; what is finished is kept."
        ),
    ),
)
_UNREADABLE = (
    "The file could not be read or recognised. Check that the download is complete and "
    "that it is an image classifier of a supported architecture; if the names are "
    "unusual, name the architecture with --arch."
)
_UNJUDGED = (
    "Treat it as unjudged, not as clean. Scan it again with more clean images "
    "(--num-clean) or another --baseline."
)
