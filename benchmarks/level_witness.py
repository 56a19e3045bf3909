"""The level of universal perturbations in labelled models, and their verdicts.

    python -m benchmarks.level_witness ZOO[,ZOO...]:RESULTS.jsonl --name level_unseen

ZOO is a labelled folder, RESULTS.jsonl what `ban-jax scan` left of its models. Told of each
model: the verdict, whether the target is named, and, where it was searched for, the largest
logarithm of the odds ratio to the shipped profile's clean models (`readings.above`) with
its class. `level_unseen` is of models trained after the line was drawn: recipe `onecycle`
of `benchmarks/zoo/train.sh`, clean and Blend, seeds 970 and 971, targets 3 and 7, and what
`benchmarks.zoo_variants --kinds finetuned` made of them.
"""

import dataclasses
import sys
from typing import Annotated, Any

import numpy as np
import tyro

from ban_jax import records, verdict
from ban_jax.baselines import profile
from ban_jax.detectors import readings
from benchmarks import _timing, families


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is told of.

    Attributes:
      models: ZOO[,ZOO...]:RESULTS.jsonl.
      profile: of clean models.
      name: of the result file.
      results: its folder.
    """

    models: Annotated[str, tyro.conf.Positional]
    profile: str = "cifar10"
    name: str = "level_witness"
    results: str | None = None


def told(
    entry: dict[str, Any], line: records.Evidence, centre: np.ndarray
) -> dict[str, Any]:
    """What is told of one model."""
    one = verdict.Judge("profile")(line)
    found = {
        "name": entry["name"],
        "variant": entry.get("variant"),
        "excess": entry.get("excess"),
        "verdict": one["verdict"],
        "score": one["score"],
        "target": [one["target"], entry["target"]],
        "work": line["forward_equivalents"],
    }
    if "universal" not in line["vectors"]:
        return found
    beyond = readings.above(np.array(line["vectors"]["universal"], float), centre)
    return found | {
        "level": float(np.nanmax(beyond)),
        "class": int(np.nanargmax(beyond)),
    }


def main(flags: Flags) -> None:
    """Prints and writes."""
    zoos, _, results = flags.models.rpartition(":")
    centre = profile.baseline(profile.load(flags.profile)).centre["universal"]
    rows = [
        told(entry, line, centre)
        for zoo in zoos.split(",")
        for entry, line in families.models_of(zoo, results)
    ]
    for row in rows:
        print(row)
    _timing.write_result(
        flags.name, {"profile": flags.profile, "models": rows}, folder=flags.results
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
