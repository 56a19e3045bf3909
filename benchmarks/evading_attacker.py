"""An attacker who knows the detector trains his backdoor not to answer to neuron noise.

    python -m benchmarks.evading_attacker

Trains small clean and backdoored models of the digits, then goes on with each backdoored
one on its own poisoned images: cross-entropy + strength * mean probability of the target
on the batch's clean images of other classes, under the noise that the detector's search
towards the target finds on that batch. The noise is held constant while the weights
descend, as in adversarial training. Strength 0 is the same further training without the
penalty. All models are then judged as a user would, with the profile that ships. The
penalty names the noise alone: no other witness is part of it.
"""

import collections
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import jax
import tyro
from jax import numpy as jnp

import ban_jax
from ban_jax import attacks, checkpoints, data, models, population, verdict
from ban_jax.convolution import tables
from ban_jax.detectors import witnesses
from ban_jax.training import model_plan, one_model
from ban_jax.zoo import success
from benchmarks import _noise_penalty, _timing

SPEAKS = witnesses.SUSPICIOUS["profile"]
"""z from which on a witness is counted as one that still speaks."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is trained, and for how long.

    Attributes:
      attacks: kinds of backdoor.
      targets: of each kind.
      num_clean: clean models, for comparison.
      strengths: of the penalty.
      epochs: of the models before the attacker goes on.
      further: epochs of going on after which models are judged.
      width: of ResNet18.
      batch_size: images per step.
      rate: poison rate.
      learning_rate: of the going on, the same throughout.
      first_seed: of the models.
      num_train: training images; None: all.
      results: folder of the result file; None: `benchmarks/results`.
    """

    attacks: tuple[str, ...] = ("badnets", "blend")
    targets: tuple[int, ...] = (1, 4, 7)
    num_clean: int = 6
    strengths: tuple[float, ...] = (0.0, 0.3, 1.0, 3.0)
    epochs: int = 15
    further: tuple[int, ...] = (3, 10)
    width: int = 4
    batch_size: int = 64
    rate: float = 0.1
    learning_rate: float = 0.02
    first_seed: int = 5000
    num_train: int | None = None
    results: str | None = None


def row_of(stage: _noise_penalty.Stage, lab: _noise_penalty.Lab) -> dict[str, Any]:
    """A model's figures, its verdict as `ban_jax.judge` gives it, and all witnesses.

    `asked` is whether that took a closer look. `asked_verdict`, `asked_score` and `z` are
    what all witnesses say, asked in any case; `z` at the target, of a clean model at the
    class it is judged by.
    """
    plan = stage.trained.plan
    metrics = success.measure(
        jax.tree.map(jnp.asarray, stage.variables),
        lab.test,
        network=lab.network,
        kernel=_noise_penalty.kernel_of(plan, lab),
        attack=jax.tree.map(jnp.asarray, stage.trained.attack),
        spec=plan.spec,
        policy=plan.attack.policy,
        key=model_plan.keys_for(plan).metrics,
    )
    images = data.load("digits", num=512)
    subject = (lab.module, stage.variables, images.images, images.labels)
    judged = ban_jax.judge(*subject, dataset="digits")
    found = ban_jax.evidence(*subject, dataset="digits")
    whole = verdict.Judge()(found)
    if "profile" not in (judged["baseline"], whole["baseline"]):
        raise ValueError(f"{plan.name}: no profile fits: {judged['notes']}")
    target = plan.spec.target
    at = judged["target"] if target is None else target
    return {
        "name": plan.name,
        "attack": attacks.kind(plan.attack),
        "target": target,
        "strength": stage.strength,
        "further_epochs": stage.further,
        **_rounded(success.as_json(metrics)),
        "verdict": judged["verdict"],
        "score": round(judged["score"], 3),
        "judged_target": judged["target"],
        "asked": "targeted" in judged["vectors"],
        "asked_verdict": whole["verdict"],
        "asked_score": round(whole["score"], 3),
        "z": _rounded({name: z[at] for name, z in whole["witnesses"].items()}),
        "void": sorted(whole["void"]),
        "reached_by_noise": round(found["vectors"]["targeted"][at], 4),
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: None if v is None else round(v, 4) for k, v in figures.items()}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What models of one strength and stage have in common."""
    names = list(dict.fromkeys(name for row in rows for name in row["z"]))
    told = {
        name: [row["z"][name] for row in rows if row["z"].get(name) is not None]
        for name in names
    }
    return {
        "strength": rows[0]["strength"],
        "further_epochs": rows[0]["further_epochs"],
        "models": len(rows),
        "clean": rows[0]["attack"] == "clean",
        "clean_accuracy": _timing.spread([row["clean_accuracy"] for row in rows]),
        "excess": _timing.spread([row["excess"] for row in rows]),
        "reached_by_noise": _timing.spread([row["reached_by_noise"] for row in rows]),
        "verdicts": dict(collections.Counter(row["verdict"] for row in rows)),
        "asked_verdicts": dict(
            collections.Counter(row["asked_verdict"] for row in rows)
        ),
        "right_target": sum(
            row["verdict"] != "clean" and row["judged_target"] == row["target"]
            for row in rows
        ),
        "median_z": {name: statistics.median(z) for name, z in told.items() if z},
        "speaking": {name: sum(one > SPEAKS for one in z) for name, z in told.items()},
    }


def main(flags: Flags) -> None:
    """Trains, judges, prints and writes."""
    machine = _timing.hardware()
    train = data.load("digits", split="train", num=flags.num_train)
    test = data.load("digits")
    made: dict[str, Any] = {
        "epochs": flags.epochs, "batch_size": flags.batch_size, "crop": 0, "flip": False
    }  # fmt: skip
    spec = checkpoints.ModelSpec("resnet18", test.num_classes, flags.width, 1)
    module = spec.create(lowering=tables.default())
    network = models.network(module)
    recipe = one_model.Recipe(**made)
    optimizer = one_model.sgd(flags.learning_rate, recipe.momentum, recipe.weight_decay)
    lab = _noise_penalty.Lab(module, network, train, test, recipe, optimizer)

    def trained(kind: str, target: int, count: int = 1, **settings: Any) -> Any:
        yield from ban_jax.train(
            train, test, width=flags.width, attack=kind, target=target, models=count,
            first_seed=flags.first_seed, attack_settings=settings, **made,
        )  # fmt: skip

    backdoored = [
        one
        for kind in flags.attacks
        for target in flags.targets
        for one in trained(kind, target, rate=flags.rate)
    ]
    clean = trained("clean", 0, flags.num_clean)
    settings = dataclasses.asdict(flags)
    del settings["results"]
    rows, table = [], []

    def tell(stages: Sequence[_noise_penalty.Stage]) -> None:
        """Judges models that are to be compared; the file is whole after each strength."""
        alike = [row_of(stage, lab) for stage in stages]
        rows.extend(alike)
        table.append(summary(alike))
        print(table[-1], flush=True)
        _timing.write_result(
            "evading_attacker",
            {"settings": settings, "speaks": SPEAKS, "table": table, "models": rows},
            machine=machine,
            folder=flags.results,
        )

    tell([_noise_penalty.Stage(one, None, None, one.variables) for one in clean])
    tell([_noise_penalty.Stage(one, None, None, one.variables) for one in backdoored])
    for strength in flags.strengths:
        done = population.side_by_side(
            lambda one: _noise_penalty.go_on(one, strength, lab, flags.further),  # noqa: B023
            backdoored,
            population.cores(),
        )
        for stages in zip(*done, strict=True):
            tell(stages)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
