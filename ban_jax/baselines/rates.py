"""How often verdicts are wrong, as it was measured: what a user is told under the table."""

import functools
import importlib.resources
import json
from typing import Any

FILE = "rates.json"
"""Written by `python -m benchmarks.verdict_study`; ships with the package."""


@functools.cache
def measured() -> tuple[dict[str, Any], ...]:
    """One entry per detector, data set and baseline that was measured.

    Each has `mode`, `data`, `baseline`, `clean` and `flagged` (clean models, and how many
    of them were called backdoored), `backdoored` and `missed`, and the 95 % bounds
    `false_alarms` and `misses`; how many models there are when variants of one count once
    (`clean_originals`, `backdoored_originals`); what they are (`architectures`, `widths`),
    how many clean images they were measured with (`num_probe`) and how many clean models
    the profile was made from, or were trusted (`trusted`).
    """
    file = importlib.resources.files(__package__) / FILE
    if not file.is_file():
        return ()
    return tuple(json.loads(file.read_text(encoding="utf-8"))["rates"])


def find(mode: str, baseline: str, data: str) -> dict[str, Any] | None:
    """One of those `measured`; None where a rule was not."""
    for one in measured():
        if (one["mode"], one["baseline"], one["data"]) == (mode, baseline, data):
            return one
    return None


def line(one: dict[str, Any]) -> str:
    """Measured rates in one sentence."""
    widths = " and ".join(map(str, one["widths"]))
    with_trusted = (
        f", {one['trusted']} clean ones trusted" if one["baseline"] == "trusted" else ""
    )
    return (
        f"measured on other {one['data']} models (width {widths}{with_trusted}): "
        f"{one['flagged']} of {one['clean']} clean ones called backdoored (95 % interval "
        f"{_percent(one['false_alarms'])}), {one['missed']} of {one['backdoored']} with a "
        f"working backdoor missed ({_percent(one['misses'])}); "
        f"{one['clean_originals']} and {one['backdoored_originals']} are originals, the "
        "others variants of theirs"
    )


def _percent(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"
