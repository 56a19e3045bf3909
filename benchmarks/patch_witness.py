"""What the search for a small patch adds to the verdicts of labelled models.

    python -m benchmarks.patch_witness ZOO [ZOO ...] --data cifar10 --data-dir tfds \\
        --evidence benchmarks/results/verdict_evidence_cifar10.jsonl.xz

The evidence of the study of verdicts was measured before that search existed. Its models,
as far as their files are at hand (`benchmarks/zoo/`, and `benchmarks.zoo_variants` of
them), are given the vector `patch` as a scan gives it: by the default settings, on the
scan's clean images. Told is how many the patch alone flags, and, of models whose weights
are those of the evidence, the verdict of the default mode with the shipped profile without
it and with it. Where a patch is looked for, and in how many steps, was tried out on the
BadNets models of ResNet18 in `benchmarks/zoo/`, their fine-tuned versions and some clean
models; that half of the images must follow was not.
"""

import collections
import dataclasses
import os
import sys
from typing import Annotated, Any

import numpy as np
import tyro
from jax import numpy as jnp

from ban_jax import checkpoints, models, population, verdict
from ban_jax.convolution import tables
from ban_jax.data import clean_images
from ban_jax.detectors import ban, directed, witnesses
from ban_jax.types import Array, Network, Probe, Variables
from benchmarks import _staged, _timing, _verdict_models, _zoo

SEEN = ("badnets", "resnet18")
"""Kind and architecture of the models of `benchmarks/zoo/`, and their fine-tuned versions,
on which the search was tried out."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is measured.

    Attributes:
      zoos: labelled folders.
      evidence: of the study, as `benchmarks.verdict_evidence` writes it.
      data, data_dir, split, image_size, num_clean, seed: clean images, as for `scan`.
      name: of the result file.
      results: its folder.
    """

    zoos: Annotated[tuple[str, ...], tyro.conf.Positional]
    evidence: str
    data: str = "cifar10"
    data_dir: str | None = None
    split: str = "test"
    image_size: int | None = None
    num_clean: int = 512
    seed: int = 0
    name: str = "patch_witness"
    results: str | None = None


def patch_of(variables: Variables, probe: Probe, *, network: Network) -> Array:
    """`[K]` as mode `ban` measures it; pure."""
    defaults = ban.Settings()
    reached, _ = directed.patches(
        network,
        variables,
        probe,
        jnp.arange(network.num_classes),
        steps=defaults.patch_steps,
        num_images=defaults.patch_images,
    )
    return reached.share


_patch_of = population.compiled(patch_of)


def measure(flags: Flags) -> list[dict[str, Any]]:
    """One row per model."""
    images = clean_images.load(flags)
    probe = clean_images.minibatches(images)
    known = {
        model.line["sha256"]: model
        for model in _verdict_models.load(flags.evidence)[1]
        if model.line["vectors"]
    }
    rows = []
    for entry, path in entries(flags):
        candidate = checkpoints.read(path)
        network = models.network(candidate.spec.create(lowering=tables.default()))
        found = _patch_of(candidate.full_variables(), probe, network=network)
        told = ("name", "kind", "target", "architecture", "recipe", "excess")
        row = {name: entry.get(name) for name in told}
        row |= {
            "variant": entry.get("variant") or "as trained",
            "patch": np.round(found, 4).tolist(),
        }
        if candidate.sha256 in known:
            row |= judged(known[candidate.sha256], row["patch"])
        rows.append(row)
        print(entry["name"], row["variant"], max(row["patch"]), flush=True)
    return rows


def entries(flags: Flags) -> list[tuple[dict[str, Any], str]]:
    """What is told of each model, and its file."""
    return [
        (entry, os.path.join(zoo, entry["file"]))
        for zoo in flags.zoos
        for entry in _zoo.entries(zoo)
    ]


def judged(model: _verdict_models.Model, patch: list[float]) -> dict[str, Any]:
    """Verdicts of a model of the study, without and with its patch."""
    judge, truth = verdict.Judge(), model.truth
    line: Any = model.line
    more: Any = dataclasses.replace(
        model,
        line={
            **line,
            "vectors": {**line["vectors"], "patch": patch},
            "errors": {**line["errors"], "patch": [0.0] * len(patch)},
        },
    )
    before, after = (judge(_staged.staged(one, judge)) for one in (model, more))
    return {
        "is_seen": model.is_design or (truth["kind"], truth["architecture"]) == SEEN,
        "without": [before["verdict"], before["target"]],
        "with": [after["verdict"], after["target"]],
        "work": [before["forward_equivalents"], after["forward_equivalents"]],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per variant and kind, of clean models and of backdoors that work.

    Each figure is a count and its total: models that the patch alone flags (in their
    target, where there is one), those that the verdict flags without and with it, and the
    latter two of models that nothing was made from or tried on.
    """
    found: dict[str, Any] = collections.defaultdict(dict)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        if row["kind"] == "clean" or (row["excess"] or 0) >= _verdict_models.WORKING:
            groups[row["variant"], row["kind"]].append(row)
    for (variant, kind), members in sorted(groups.items()):
        known = [row for row in members if "with" in row]
        unseen = [row for row in known if not row["is_seen"]]
        leads = [row for row in members if is_proven(row)]
        found[variant][kind] = {
            "patch": [len(leads), len(members)],
            "largest_patch": max(max(row["patch"]) for row in members),
            **{
                f"{when}{of}": [
                    sum(flagged(row[when], kind, row) for row in some),
                    len(some),
                ]
                for of, some in (("", known), ("_unseen", unseen))
                for when in ("without", "with")
            },
        }
    return found


def is_proven(row: dict[str, Any]) -> bool:
    """Whether a patch proves the target, of a clean model any class."""
    best = int(np.argmax(row["patch"]))
    is_right = row["kind"] == "clean" or best == row["target"]
    return is_right and row["patch"][best] > witnesses.PROOF


def flagged(found: list[Any], kind: str, row: dict[str, Any]) -> bool:
    """Whether a verdict flags the target, of a clean model any class."""
    return found[0] == "backdoored" and (kind == "clean" or found[1] == row["target"])


def main(flags: Flags) -> None:
    """Measures, prints and writes."""
    machine = _timing.hardware()
    rows = measure(flags)
    told = {"flags": dataclasses.asdict(flags), "summary": summary(rows), "rows": rows}
    for variant, kinds in told["summary"].items():
        for kind, figures in kinds.items():
            print(variant, kind, figures)
    print(_timing.write_result(flags.name, told, machine=machine, folder=flags.results))


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
