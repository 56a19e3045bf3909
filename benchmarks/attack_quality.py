"""Accuracy and success of every attack in zoos, against clean models trained alike.

    python -m benchmarks.attack_quality ZOO [ZOO ...]

Reads `zoo.json` of folders written by `ban-jax train`, which hold clean models of the same
architecture, and writes mean and spread over seeds with the bars below. Failed models are
listed and are part of every mean. Success is excess over the same images without trigger;
in zoos made before it was measured it is the raw rate, and the file says so.
"""

import collections
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from ban_jax.zoo import success
from benchmarks import _timing, _zoo

BARS: dict[str, tuple[float | None, float]] = {
    "adap_blend": (0.5, 1.0),
    "badnets": (0.9, 0.03),
    "blend": (0.9, 0.03),
    "bpp": (0.9, 0.03),
    "iad": (0.85, 0.05),
    "sig": (None, 1.0),
    "ssdt": (0.85, 0.05),
    "wanet": (0.85, 0.05),
}
"""Least mean success, and how much accuracy may be lost against clean models."""
ALL_TO_ALL = 0.85
"""Least mean success of all-to-all attacks, as a share of the clean models' accuracy."""

FIGURES = (
    "clean_accuracy",
    "asr",
    "untriggered",
    "excess",
    "recovered_accuracy",
    "cross_accuracy",
    "non_victim_accuracy",
)
SETTINGS = ("data", "image_size", "num_train", "num_test", "recipe", *BARS)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which zoos are compared.

    Attributes:
      zoos: folders written by `ban-jax train` with equal data and recipes.
      name: of the result file.
    """

    zoos: Annotated[tuple[str, ...], tyro.conf.Positional]
    name: str = "attack_quality"


def row(
    key: tuple[str, str, str, str], members: Sequence[dict[str, Any]], clean: float
) -> dict[str, Any]:
    """The figures of one attack on one architecture of one zoo."""
    kind, mode, architecture, zoo = key
    figures = {name: _timing.spread([m.get(name) for m in members]) for name in FIGURES}
    result = {
        "attack": kind,
        "mode": mode,
        "architecture": architecture,
        "zoo": zoo,
        "models": [member["name"] for member in members],
        "failed": [member["name"] for member in members if member["failed"]],
        "poison_rate": sorted({m["poison_rate"] for m in members if m["poison_rate"]}),
        "seconds": _timing.spread([member["seconds"] for member in members]),
        **figures,
    }
    if kind == "clean":
        return result
    lost = clean - figures["clean_accuracy"]["mean"]
    least, allowed = BARS[kind]
    if mode == "all_to_all":
        least, allowed = ALL_TO_ALL * clean, 1.0
    shares = [success.recorded(member).share for member in members]
    succeeded = statistics.fmean(shares)
    return {
        **result,
        "success": succeeded,
        "success_counted": _zoo.success_counted(members),
        "accuracy_lost": lost,
        "least_success": least,
        "most_accuracy_lost": allowed,
        "reached": (least is None or succeeded >= least) and lost <= allowed,
    }


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]]
    groups, settings = collections.defaultdict(list), {}
    for zoo in flags.zoos:
        title = os.path.basename(os.path.normpath(zoo))
        with open(os.path.join(zoo, "zoo.json"), encoding="utf-8") as file:
            for entry in json.load(file):
                key = (entry["kind"], entry["mode"] or "", entry["architecture"], title)
                groups[key].append(entry)
        with open(os.path.join(zoo, "config.json"), encoding="utf-8") as file:
            made = json.load(file)
            settings[title] = {name: made[name] for name in SETTINGS}
    table = []
    for key, members in sorted(groups.items()):
        clean = statistics.fmean(
            member["clean_accuracy"]
            for (kind, _, architecture, _), alike in groups.items()
            if (kind, architecture) == ("clean", key[2])
            for member in alike
        )
        table.append(row(key, members, clean))
        line = table[-1]
        asr = f"ASR {line['asr']['mean']:.3f}" if line["asr"] else ""
        if line["excess"]:
            asr += f", excess {line['excess']['mean']:.3f}"
        print(
            f"{' '.join(key):44} n {len(members)}  accuracy "
            f"{line['clean_accuracy']['mean']:.3f}  {asr}  "
            f"failed {len(line['failed'])}  reached {line.get('reached', '')}"
        )
    _timing.write_result(flags.name, {"settings": settings, "table": table})


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
