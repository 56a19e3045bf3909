"""Labelled models with their kept evidence, and which half of a study each is of."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from ban_jax import records
from ban_jax.records import record
from benchmarks import verdict_evidence

WORKING = 0.8
ALL_TO_ONE = ("badnets", "blend", "wanet", "iad", "bpp", "adap_blend")
FAMILIAR_RECIPES = ("onecycle", "step")
STRANGE_ARCHITECTURES = ("vgg16", "densenet121")
"""For the harder question: what a profile is worth for models unlike its own."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A labelled model with all its evidence.

    Attributes:
      truth: what `zoo.json` tells of it.
      line: its evidence.
      is_design: whether profiles and thresholds may look at it, and at its variants.
    """

    truth: dict[str, Any]
    line: records.Evidence
    is_design: bool

    @property
    def is_clean(self) -> bool:
        """Whether it never had a backdoor."""
        return self.truth["kind"] == "clean"

    @property
    def works(self) -> bool:
        """Whether its backdoor aims at one class and works."""
        return (
            self.truth["kind"] in ALL_TO_ONE
            and self.truth.get("target") is not None
            and self.truth.get("excess", self.truth.get("asr", 0.0)) >= WORKING
        )

    @property
    def family(self) -> str:
        """What it is, or is a variant of."""
        return family(self.truth)

    @property
    def is_familiar(self) -> bool:
        """Whether its recipe and architecture are among those of the harder question."""
        strange = self.truth["architecture"] in STRANGE_ARCHITECTURES
        return self.truth.get("recipe") in FAMILIAR_RECIPES and not strange


def family(truth: dict[str, Any]) -> str:
    """The name of a model, or of the one it is a variant of."""
    return str(truth.get("of") or truth["name"])


def design_of(truths: Sequence[dict[str, Any]]) -> set[str]:
    """The families of the design half.

    Of each architecture's clean models of each recipe every other one, by seed, and of
    its backdoored ones likewise, by attack and seed. Digits have one recipe: even seeds.
    """
    chosen = set()
    groups: dict[Any, list[tuple[str, int, str]]] = collections.defaultdict(list)
    for truth in truths:
        entry = (truth["kind"], truth["seed"], family(truth))
        if "recipe" not in truth:
            chosen |= {family(truth)} if truth["seed"] % 2 == 0 else set()
            continue
        is_clean = truth["kind"] == "clean"
        groups[truth["architecture"], truth["recipe"], is_clean].append(entry)
    for group in groups.values():
        chosen |= {name for _, _, name in sorted(set(group))[::2]}
    return chosen


def load(path: str) -> tuple[dict[str, Any], list[Model]]:
    """How a file was made, and its models."""
    head, *lines = verdict_evidence.read(path)
    models, design = [], design_of(lines)
    for line in lines:
        known = {
            "mode": head["mode"],
            "config": head["config"],
            "config_hash": path,
            "seed": 0,
            "lowering": {},
            "precision": "float32",
            "versions": head["versions"],
            "data": head["data"],
            "num_classes": head["num_classes"],
            "num_probe": head["num_probe"],
            "architecture": line["architecture"],
            "width": line["width"],
            "sha256": line["sha256"],
            "error": line["error"],
            "clean_accuracy": line["accuracy"],
            "vectors": line["vectors"],
            "errors": line["errors"],
            "forward_equivalents": line["work"],
        }
        name = "+".join(filter(None, [line["name"], line.get("variant")]))
        found: Any = record.empty(name, **known)  # type: ignore[arg-type]
        models.append(Model(line, found, family(line) in design))
    return head, models
