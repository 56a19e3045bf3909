"""Figures of result files as `docs/methods.md` quotes them, for `quoted`."""

import re
from typing import Any

from ban_jax.detectors import directed
from benchmarks import _results
from benchmarks.paper import detection as paper

DETECTION = (
    ("CIFAR-10, 58 models", "CIFAR-10, width 8", "ban", "`ban`, shipped profile"),
    (
        "CIFAR-10, 58 models",
        "CIFAR-10, width 8, without the shipped profile",
        "ban",
        "`ban`, compared with these models alone",
    ),
    ("CIFAR-10, 58 models", "CIFAR-10, width 8", "targeted", ""),
    ("CIFAR-10, 58 models", "CIFAR-10, width 8", "trojan_signatures", ""),
    ("CIFAR-10, 58 models", "CIFAR-10, width 8", "weights", ""),
    ("digits, 12 models", "digits, width 4", "ban", "`ban`, shipped profile"),
    ("digits, 12 models", "digits, width 4", "targeted", ""),
    ("digits, 12 models", "digits, width 4", "mm_bd", ""),
    ("digits, 12 models", "digits, width 4", "trojan_signatures", ""),
    ("digits, 12 models", "digits, width 4", "weights", ""),
    *(
        (f"digits, {paper.FEW_PASSES:,} passes", paper.FEW, name, "")
        for name in paper.INVERSIONS
    ),
)
"""Rows of the tables of what methods found: table, comparison, method, its first cell."""


def work() -> list[str]:
    """The last column of the table of what methods need."""
    found = _results.load("paper_work")["detectors"]
    cells = {name: f"{one['work']['10']:,}" for name, one in found.items()}
    further = cells.pop("directed")
    alone = directed.work(directed.Settings(), 10, 512, ("universal",))
    cells["ban"] += f", then {alone:,} more, in doubt {further}"
    return [
        rf"\| `{name}` \|[^`]*\| {re.escape(cell)} \|" for name, cell in cells.items()
    ]


def _method(comparison: str, name: str) -> dict[str, Any]:
    file = "paper_detection_digits" if comparison == paper.FEW else "paper_detection"
    methods = _results.load(file)[comparison]["comparison"]["methods"]
    (found,) = (one for one in methods if one["name"] == name)
    return found


def detection_table(title: str) -> str:
    """What methods found on one set of models."""
    rows = []
    for table, comparison, name, cell in DETECTION:
        if table != title:
            continue
        found = _method(comparison, name)
        total, auc = found["total"], found["total"]["auc"]
        value = f"{auc['value']:.2f}"
        if auc["low"] < auc["high"]:
            value += f" [{auc['low']:.2f}, {auc['high']:.2f}]"
        counts = [
            f"{one['hits']}/{one['total']}"
            for one in (total["flagged"], total["right_target"], found["false_alarms"])
        ]
        rows.append(
            [cell or f"`{name}`", value, *counts, _results.seconds(found["seconds"])]
        )
    head = [title, "AUC", "flagged", "right target", "false alarms", "s"]
    return _results.table(head, rows)


def detection() -> list[str]:
    """The tables of what methods found, and what is said of them."""
    tables = dict.fromkeys(table for table, *_ in DETECTION)
    found = [re.escape(detection_table(table)) for table in tables]
    digits = "digits, width 4"
    alarms = _method(digits, "targeted")["false_alarms"]
    found.append(rf"flagged \({alarms['hits']} of {alarms['total']} digits models\)")
    total = _method(digits, "mm_bd")["total"]
    flagged, right = total["flagged"]["hits"], total["right_target"]["hits"]
    found.append(f"wrong class for {flagged - right} of the {flagged} digits models")
    none = [
        one["flagged"]["hits"]
        for name in ("trojan_signatures", "weights")
        for one in _method(digits, name)["rows"]
        if one["architecture"] == "preact_resnet18" and one["attack"] != "clean"
    ]
    assert none
    found.append(
        "found none of the four" if not any(none) else "found some of the four"
    )
    return found


def accelerated() -> list[str]:
    """Rows of what methods found on an accelerator: name to false alarms."""
    found = _results.load("paper_detection_h100")["tables"]
    patterns = []
    for title, one in found.items():
        for method in one["comparison"]["methods"]:
            total, auc = method["total"], method["total"]["auc"]
            ends = rf" \[{auc['low']:.2f}, {auc['high']:.2f}\]"
            value = f"{auc['value']:.2f}" + ends * (auc["low"] < auc["high"])
            if title.startswith("digits"):
                hits, of = total["flagged"]["hits"], total["flagged"]["total"]
                patterns.append(f"finds {hits} of the {of} backdoored .* AUC {value}")
                continue
            cells = [
                f"{each['hits']}/{each['total']}"
                for each in (
                    total["flagged"],
                    total["right_target"],
                    method["false_alarms"],
                )
            ]
            row = r" \| ".join([value, *cells])
            patterns.append(rf"`{method['name']}`[^|]* \| {row} \|")
    return patterns


def features() -> list[str]:
    """Answers of two models under noise."""
    found = _results.load("paper_features")
    bad, good = (found["histograms"][kind] for kind in ("backdoored", "clean"))
    target = found["target"]
    return [
        f"at radius {found['radii'][-1]:g} the backdoored one answers "
        f"{bad[-1][target]} of {found['num_images']} clean images with the target, the "
        f"clean one {max(good[-1])} with its most frequent class; without noise "
        f"{bad[0][target]} and {max(good[0])}"
    ]


def lipschitz() -> list[str]:
    """Noise beside Lipschitz constants."""
    summary = _results.load("paper_lipschitz")["summary"]
    rank, overlap = summary["pull_rank"], summary["target_pull_overlap"]
    clean, bad = (rank[kind]["n"] for kind in ("clean", "backdoored"))

    def told(one: dict[str, Any], kind: str) -> str:
        return _results.spread(one[kind], 2)

    def p(one: dict[str, Any]) -> str:
        return f"{one['p']:.2f}".lstrip("0")

    return [
        f"{clean} clean and {bad} backdoored ResNet18",
        f"is {told(rank, 'clean')} and {told(rank, 'backdoored')} "
        rf"\(Mann-Whitney p = {re.escape(p(rank))}\)",
        f"a share of {told(overlap, 'backdoored')} is in the tenth",
        f"{told(overlap, 'clean')}, by chance 0.1 " rf"\(p = {re.escape(p(overlap))},",
    ]


PATTERNS = (work, detection, accelerated, features, lipschitz)
"""Functions that give patterns of what must stand there."""
