"""Tables and plots of `repair_quality`, out of its lines: one per repaired model."""

import collections
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ban_jax.zoo import success
from benchmarks import _plot, _timing, _zoo

HELD_TO = ("badnets", "blend", "wanet", "bpp")
"""Attacks that the bars below are for."""
MOST_SUCCESS, MOST_LOST, MOST_UNRECOVERED = 0.1, 0.03, 0.1
FIGURES = ("clean_accuracy", "asr", "excess", "recovered_accuracy")
PLOTTED = {
    "clean_accuracy": "clean accuracy",
    "asr": "attack success",
    "recovered_accuracy": "recovered",
}
"""Figures in the plots of sweeps, and what they are called there."""

Line = dict[str, Any]


def row(title: dict[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    """Figures of some models under one setting, and whether they reach the bars.

    Lines written before excess was measured are judged by the raw success rate.
    """
    table = {
        f"{name}_{when}": _timing.spread([line[when].get(name) for line in lines])
        for name in FIGURES
        for when in ("before", "after")
    }
    lost = [
        line["before"]["clean_accuracy"] - line["after"]["clean_accuracy"]
        for line in lines
    ]
    after = [{**line["after"], "kind": line["kind"]} for line in lines]
    left = [success.recorded(figures).share for figures in after]
    unrecovered = [
        line["after"]["clean_accuracy"] - line["after"]["recovered_accuracy"]
        for line in lines
    ]
    return {
        **title,
        **table,
        "accuracy_lost": _timing.spread(lost),
        "unrecovered": _timing.spread(unrecovered),
        "epochs": _timing.spread([line["info"]["epochs"] for line in lines]),
        "seconds": _timing.spread([line["seconds"] for line in lines]),
        "cpu_seconds": _timing.spread([line["cpu_seconds"] for line in lines]),
        "success_counted": _zoo.success_counted(after),
        "reached": {
            "success": statistics.fmean(left) < MOST_SUCCESS,
            "accuracy": statistics.fmean(lost) <= MOST_LOST,
            "recovered": statistics.fmean(unrecovered) <= MOST_UNRECOVERED,
        },
    }


def told(line: dict[str, Any]) -> str:
    """A row of the printed table."""
    cells = [
        f"{name.split('_')[0]} {line[f'{name}_before']['mean']:.3f} to "
        f"{line[f'{name}_after']['mean']:.3f}"
        for name in FIGURES
        if line[f"{name}_before"] and line[f"{name}_after"]
    ]
    cells.append(f"{line['seconds']['mean']:.0f} s")
    missed = [name for name, reached in line["reached"].items() if not reached]
    return "  ".join(cells) + (f"  misses {', '.join(missed)}" if missed else "")


def compared(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """A row per method and attack and architecture, and one for all that have bars.

    Args:
      lines: those of the comparison of methods.
    """
    groups = collections.defaultdict(list)
    for line in lines:
        method, kind = line["method"], line["kind"]
        groups[method, kind, line["architecture"]].append(line)
        groups[method, kind, "all"].append(line)
        if kind in HELD_TO:
            groups[method, " ".join(HELD_TO), "all"].append(line)
    return [
        row({"method": method, "attack": kind, "architecture": architecture}, some)
        for (method, kind, architecture), some in sorted(groups.items())
    ]


def plot(name: str, rows: Sequence[dict[str, Any]], folder: str) -> None:
    """One picture per sweep, `NAME_SETTING.svg`."""
    titles = {
        "epsilon": "radius of the neuron noise",
        "robust_weight": "weight of the loss under noise",
        "num_clean": "clean images, a part of them held out",
    }
    for swept, title in titles.items():
        some = [line for line in rows if line["swept"] == swept]
        if len(some) > 1:
            _plot.lines(
                f"{name}_{swept}",
                {
                    label: [
                        (line["value"], line[f"{field}_after"]["mean"]) for line in some
                    ]
                    for field, label in PLOTTED.items()
                },
                x=title,
                y="share of test images",
                folder=folder,
            )
