"""How often verdicts are right, on a labelled zoo: each mode against each baseline.

    python -m benchmarks.detection_quality --zoo ZOO [ZOO ...] --trusted ZOO \
        --data cifar10 --data-dir DIR --cache DIR

A zoo is a folder written by `ban-jax train`, with `zoo.json` as ground truth. Models whose
backdoor failed in training are left out and listed. Thresholds are those of the package:
nothing is fitted here. Intervals are 95 %: Wilson's for shares, 2,000 bootstrap draws over
models for the AUC.
"""

import dataclasses
import os
import sys
import time
from typing import Any

import numpy as np
import tyro

from ban_jax import detectors, records, verdict
from ban_jax.commands import scan as scan_command
from ban_jax.scanning import scan
from benchmarks import _timing, _zoo

Record = records.Record


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    zoo: labelled folders to judge.
    trusted: labelled folders whose clean models are the trusted ones.
    name: of the result file.
    results: its folder.
    modes: detectors to run.
    cache: folder for evidence, so that a stopped run goes on.
    """

    zoo: tuple[str, ...]
    trusted: tuple[str, ...]
    cache: str
    name: str = "detection_quality"
    results: str | None = None
    modes: tuple[str, ...] = ("targeted", "ban", "weights")
    data: str = "cifar10"
    data_dir: str | None = None
    split: str = "test"
    num_clean: int = 512
    seed: int = 0


def evidence(flags: Flags, mode: str, paths: list[str]) -> dict[str, records.Evidence]:
    """Lines by path; kept in the cache folder one by one."""
    told = scan_command.Flags(
        paths=tuple(paths),
        data=flags.data,
        data_dir=flags.data_dir,
        split=flags.split,
        num_clean=flags.num_clean,
        mode=mode,
        seed=flags.seed,
        out=flags.cache,
    )
    job = scan_command.prepare(told)
    found = {}
    with records.Writer(os.path.join(flags.cache, f"{mode}.jsonl")) as writer:
        for line, is_new in scan.scan(paths, job, known=writer.records):
            found[line["path"]] = line
            if is_new:
                writer.write(line)
    return found


def measure(judged: list[Record], truth: dict[str, dict]) -> dict[str, Any]:
    """The figures of one mode and baseline."""
    usable = [record for record in judged if record["score"] is not None]
    bad = [r for r in usable if truth[r["path"]]["kind"] != "clean"]
    good = [r for r in usable if truth[r["path"]]["kind"] == "clean"]
    scores = [np.array([r["score"] for r in group]) for group in (bad, good)]
    right = [r for r in bad if r["target"] == truth[r["path"]]["target"]]
    flagged = {r["path"] for r in judged if r["verdict"] == "backdoored"}
    named = [r for r in right if r["path"] in flagged]
    return {
        "clean": len(good),
        "backdoored": len(bad),
        "inconclusive": sum(r["verdict"] == "inconclusive" for r in judged),
        "auc": _zoo.auc_interval(*scores),
        "false_positive_rate": _zoo.share(
            sum(r["path"] in flagged for r in good), len(good)
        ),
        "detection_rate": _zoo.share(sum(r["path"] in flagged for r in bad), len(bad)),
        "target_accuracy": _zoo.share(len(right), len(bad)),
        "detected_with_right_target": _zoo.share(len(named), len(bad)),
        "fell_back_to_within": sum(
            note.startswith(verdict.FALLBACK) for r in judged for note in r["notes"]
        ),
        "largest_clean_score": float(scores[1].max()),
        "smallest_backdoored_score": float(scores[0].min()),
        "forward_equivalents": int(max(r["forward_equivalents"] for r in judged)),
    }


def row(mode: str, baseline: str, figures: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    cells = [mode, baseline]
    for name in ("auc", "false_positive_rate", "detection_rate", "target_accuracy"):
        value, low, high = figures[name]
        cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
    return "| " + " | ".join([*cells, str(figures["inconclusive"])]) + " |"


def main(flags: Flags) -> None:
    """Measures every mode and baseline and writes the result file."""
    truth = {p: e for folder in flags.zoo for p, e in _zoo.labelled(folder).items()}
    failed = [path for path, entry in truth.items() if _zoo.has_failed(entry)]
    counted = _zoo.success_counted(list(truth.values()))
    truth = {path: entry for path, entry in truth.items() if path not in failed}
    vouched = [
        path
        for folder in flags.trusted
        for path, entry in _zoo.labelled(folder).items()
        if entry["kind"] == "clean"
    ]
    began, machine = time.time(), _timing.hardware()
    table, figures = [], {}
    for mode in flags.modes:
        found = evidence(flags, mode, [*sorted(truth), *vouched])
        measured = [found[path] for path in sorted(truth)]
        trusted = [found[path] for path in vouched]
        for baseline in ("within", "trusted", "population"):
            judged = verdict.judge_all(measured, baseline=baseline, trusted=trusted)
            figures[f"{mode}/{baseline}"] = measure(judged, truth)
            table.append(row(mode, baseline, figures[f"{mode}/{baseline}"]))
            print(table[-1], flush=True)
    _timing.write_result(
        flags.name,
        {
            "figures": figures,
            "table": table,
            "trusted": len(vouched),
            "success_counted": counted,
            "failed_backdoors_left_out": [truth_name(path) for path in failed],
            "models": [
                {name: entry.get(name) for name in KEPT} for entry in truth.values()
            ],
            "rules": {
                mode: dataclasses.asdict(detectors.DETECTORS[mode].rule)
                for mode in flags.modes
            },
            "seed": flags.seed,
            "num_clean": flags.num_clean,
            "seconds": time.time() - began,
        },
        machine=machine,
        folder=flags.results,
    )


KEPT = (
    "name",
    "kind",
    "target",
    "architecture",
    "width",
    "clean_accuracy",
    "asr",
    "untriggered",
    "excess",
    "seed",
)


def truth_name(path: str) -> str:
    """Folder and file, without the machine's own part of the path."""
    return "/".join(path.split(os.sep)[-2:])


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
