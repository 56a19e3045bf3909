"""What the witnesses of the default mode say of networks without batch statistics.

    python -m benchmarks.families convnext=ZOO:RESULTS.jsonl vit=ZOO:RESULTS.jsonl

ZOO is a labelled folder, RESULTS.jsonl what `ban-jax scan --profile none` (or
`benchmarks.verdict_evidence --cache`) left of its models. Told per family: how often a
witness has its largest value at the target of a backdoored model, how large it is there
and in clean models, what a patch proves, and the verdicts: without a profile, with those
that ship, where one fits, and, where all was measured (`--exhaustive`), beside every other
clean model of the family. Models whose backdoor failed are left out, and so are those
without results.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import tyro

from ban_jax import records, verdict
from ban_jax.detectors import witnesses
from benchmarks import _timing, _zoo

VECTORS = ("untargeted", "last_layer", "patch", "targeted", "universal")
"""Those that networks without batch statistics have."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is told of.

    Attributes:
      families: NAME=ZOO:RESULTS.jsonl each.
      name: of the result file.
      results: its folder.
    """

    families: Annotated[tuple[str, ...], tyro.conf.Positional]
    name: str = "families"
    results: str | None = None


def models_of(zoo: str, results: str) -> list[tuple[dict[str, Any], records.Evidence]]:
    """Entries of `zoo.json` with their evidence; the first look alone."""
    known = {}
    for line in records.load(results).records:
        known.setdefault(os.path.basename(line["path"]), line)
    return [
        (entry, known[os.path.basename(path)])
        for path, entry in sorted(_zoo.labelled(zoo).items())
        if not entry["failed"] and os.path.basename(path) in known
    ]


def witness(
    name: str, models: Sequence[tuple[Mapping[str, Any], records.Evidence]]
) -> dict[str, Any]:
    """What one vector shows of clean and of backdoored models."""
    clean, backdoored, at_target = [], [], 0
    for entry, line in models:
        values = np.asarray(line["vectors"][name], float)
        if entry["kind"] == "clean":
            clean.append(float(values.max()))
            continue
        backdoored.append(float(values.max()))
        at_target += int(values.argmax()) == entry["target"]
    return {
        "largest_of_clean": [round(one, 3) for one in sorted(clean)],
        "largest_of_backdoored": [round(one, 3) for one in sorted(backdoored)],
        "at_target": [at_target, len(backdoored)],
        "auc": _zoo.auc(backdoored, clean),
    }


def family(zoo: str, results: str) -> dict[str, Any]:
    """The figures of one family."""
    models = models_of(zoo, results)
    told: dict[str, Any] = {
        "models": collections.Counter(entry["kind"] for entry, _ in models),
        "witnesses": {
            name: witness(name, models)
            for name in VECTORS
            if all(name in line["vectors"] for _, line in models)
        },
    }
    proofs = collections.Counter(
        (entry["kind"], bool(max(line["vectors"]["patch"]) > witnesses.PROOF))
        for entry, line in models
    )
    told["proved_by_a_patch"] = {
        kind: [proofs[kind, True], proofs[kind, True] + proofs[kind, False]]
        for kind in dict.fromkeys(entry["kind"] for entry, _ in models)
    }
    told["verdicts"] = verdicts(models)
    told["verdicts_by_default"] = verdicts(models, profiles="shipped")
    if "universal" in told["witnesses"]:
        clean = [pair for pair in models if pair[0]["kind"] == "clean"]
        known = [line for _, line in clean[::2]]
        rest = [pair for pair in models if pair not in clean[::2]]
        told["trusted"] = len(known)
        told["verdicts_with_trusted"] = verdicts(rest, trusted=known)
    return told


def verdicts(
    models: Sequence[tuple[dict[str, Any], records.Evidence]],
    *,
    profiles: verdict.Profiles = None,
    trusted: Sequence[records.Evidence] = (),
) -> dict[str, int]:
    """How many models of which kind get which verdict, and whether the target is named."""
    # One at a time: a labelled folder is no crowd that users have.
    judge = verdict.Judge(trusted=trusted, profiles=profiles)
    judged = [judge(line) for _, line in models]
    found: collections.Counter[str] = collections.Counter()
    for (entry, _), one in zip(models, judged, strict=True):
        found[f"{entry['kind']}: {one['verdict']}"] += 1
        if one["verdict"] == "backdoored" and one["target"] == entry["target"]:
            found[f"{entry['kind']}: right target"] += 1
    return dict(sorted(found.items()))


def main(flags: Flags) -> None:
    """Writes the result file."""
    found = {}
    for one in flags.families:
        name, _, places = one.partition("=")
        zoo, _, results = places.partition(":")
        found[name] = family(zoo, results)
        print(name, found[name])
    print(_timing.write_result(flags.name, {"families": found}, folder=flags.results))


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
