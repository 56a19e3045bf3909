"""Result files, and pieces of a Markdown page that tells them."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
REPOSITORY_RESULTS = "../benchmarks/results"


def load(name: str) -> dict[str, Any]:
    """A result file by its name without `.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def link(name: str) -> str:
    """A link from the page to a result file, with the file's date."""
    date = load(name).get("date")
    return f"[`{name}.json`]({REPOSITORY_RESULTS}/{name}.json), {date}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of(count: int, total: int, interval: Sequence[float]) -> str:
    """`3 of 70 (1–12 %)`; bounds are shares of 0 to 1."""
    low, high = (f"{100 * bound:.0f}" for bound in interval)
    return f"{count} of {total} ({low}–{high} %)" if total else ""


def rates(found: dict[str, Any]) -> list[str]:
    """Of one group of `verdict_study`: clean ones flagged, others found, right targets."""
    alarms, hits, right = (
        found[key] for key in ("false_alarms", "detected", "right_target")
    )
    return [
        of(alarms[0], found["clean"], alarms[1:]),
        of(hits[0], found["backdoored"], hits[1:]),
        f"{right[0]} of {hits[0]}",
    ]


def spread(figure: dict[str, Any] | None, digits: int = 3) -> str:
    """`0.685 ± 0.003` of a mean and a standard deviation, where there is one."""
    if figure is None:
        return ""
    mean = f"{figure['mean']:.{digits}f}"
    return mean if figure["std"] is None else f"{mean} ± {figure['std']:.{digits}f}"


def seconds(value: float) -> str:
    """As few digits as tell methods apart."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.3f}"
