"""Labelled models with their kept evidence, and which half of a study each is of."""

import dataclasses
from typing import Any

from ban_jax import records
from ban_jax.records import record
from benchmarks import verdict_evidence

WORKING = 0.8
ALL_TO_ONE = ("badnets", "blend", "wanet", "iad", "bpp", "adap_blend")
DESIGN_RECIPES = ("onecycle", "step")
"""Of CIFAR-10; the others are reported on. Digits have one recipe: seeds decide there."""
REPORT_ARCHITECTURES = ("vgg16", "densenet121")


@dataclasses.dataclass(frozen=True)
class Model:
    """A labelled model with all its evidence.

    Attributes:
      truth: what `zoo.json` tells of it.
      line: its evidence.
    """

    truth: dict[str, Any]
    line: records.Evidence

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
    def is_design(self) -> bool:
        """Whether profiles and thresholds may look at it, and at its variants."""
        if (recipe := self.truth.get("recipe")) is None:
            return self.truth["seed"] % 2 == 0
        known = recipe in DESIGN_RECIPES
        return known and self.truth["architecture"] not in REPORT_ARCHITECTURES


def load(path: str) -> tuple[dict[str, Any], list[Model]]:
    """How a file was made, and its models."""
    head, *lines = verdict_evidence.read(path)
    models = []
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
        models.append(Model(line, record.empty(name, **known)))  # type: ignore[arg-type]
    return head, models
