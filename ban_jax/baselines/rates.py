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
    `false_alarms` and `misses`.
    """
    file = importlib.resources.files(__package__) / FILE
    if not file.is_file():
        return ()
    return tuple(json.loads(file.read_text(encoding="utf-8"))["rates"])


def line(mode: str, baseline: str, data: str) -> str | None:
    """The measured rates of a rule against a baseline, in one sentence.

    None where they were not measured: for another detector, baseline or data set.
    """
    for one in measured():
        if (one["mode"], one["baseline"], one["data"]) == (mode, baseline, data):
            return (
                f"measured on {data} models this rule was not made with: "
                f"{one['flagged']} of {one['clean']} clean ones called backdoored "
                f"(95 % interval {_percent(one['false_alarms'])}), {one['missed']} of "
                f"{one['backdoored']} with a working backdoor missed "
                f"({_percent(one['misses'])})"
            )
    return None


def _percent(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"
