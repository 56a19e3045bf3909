"""One real `ban-jax scan` of a labelled zoo: verdicts per attack, and wall time.

    python -m benchmarks.zoo_scan ZOO --data digits --out FOLDER

Runs the command in a process of its own, its start and its compilations included, and
compares `results.jsonl` with the zoo's ground truth. Models whose backdoor failed in
training have rows of their own; the file says what success they were judged by.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from ban_jax import records, verdict
from benchmarks import _command, _timing, _zoo

Record = records.Record


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is scanned, with the defaults of `ban-jax scan`.

    Attributes:
      zoo: folder written by `ban-jax train`.
      out: the scan's folder; what it holds already is not scanned again, and then no
        time is reported.
      data: clean images.
      data_dir: TFDS's folder.
      image_size: side the images are resized to.
      mode: detector.
      name: of the result file.
      results: its folder.
    """

    zoo: Annotated[str, tyro.conf.Positional]
    out: str
    data: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    mode: str = "targeted"
    name: str = "zoo_scan"
    results: str | None = None


def scan(flags: Flags, paths: Sequence[str]) -> float:
    """Wall seconds of the command."""
    command = ["scan", *paths]
    for flag in ("out", "data", "data_dir", "image_size", "mode"):
        value = getattr(flags, flag)
        if value is not None:
            command += [f"--{flag.replace('_', '-')}", str(value)]
    return _command.ban_jax(command, fine=_command.JUDGED, log=None).seconds


def row(judged: Sequence[Record], truth: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one group, all clean or all backdoored."""
    count = len(judged)
    flagged = [r for r in judged if r["verdict"] == "backdoored"]
    named = [r for r in flagged if r["target"] == truth[r["path"]]["target"]]
    figures = {
        "models": count,
        "inconclusive": sum(r["verdict"] == "inconclusive" for r in judged),
        "flagged": _zoo.share(len(flagged), count),
    }
    if truth[judged[0]["path"]]["kind"] != "clean":
        figures["flagged_with_right_target"] = _zoo.share(len(named), count)
    return figures


def main(flags: Flags) -> None:
    """Scans, prints and writes the tables."""
    machine = _timing.hardware()
    truth = _zoo.labelled(flags.zoo)
    path = os.path.join(flags.out, "results.jsonl")
    fresh = not os.path.exists(path)
    seconds = scan(flags, sorted(truth))
    found = {record["path"]: record for record in records.load(path).records}
    tables = {}
    for baseline in ("within", "population"):
        judged = verdict.judge_all(
            [found[name] for name in sorted(truth)], baseline=baseline
        )
        groups = collections.defaultdict(list)
        for record in judged:
            entry = truth[record["path"]]
            failed = _zoo.has_failed(entry)
            kind = f"{entry['kind']}{', failed' if failed else ''}"
            groups[(kind, entry["architecture"])].append(record)
            groups[(kind, "all")].append(record)
            if entry["kind"] != "clean" and not failed:
                groups[("all that worked", "all")].append(record)
        tables[baseline] = [
            {"attack": kind, "architecture": arch, **row(members, truth)}
            for (kind, arch), members in sorted(groups.items())
        ]
        print(f"baseline {baseline}")
        for line in tables[baseline]:
            share, low, high = line["flagged"]
            print(
                f"  {line['attack']:24} {line['architecture']:18} {line['models']:4} "
                f"flagged {share:.2f} ({low:.2f}-{high:.2f})"
            )
    timing = (
        {
            "wall_seconds": round(seconds, 1),
            "candidates_per_minute": round(60 * len(truth) / seconds, 1),
        }
        if fresh
        else {"wall_seconds": None, "candidates_per_minute": None}
    )
    print(timing)
    _timing.write_result(
        flags.name,
        {
            "candidates": len(truth),
            **timing,
            "mode": flags.mode,
            "tables": tables,
            "success_counted": _zoo.success_counted(list(truth.values())),
            "failed_backdoors": [
                entry["name"] for entry in truth.values() if _zoo.has_failed(entry)
            ],
        },
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
