"""How much work `targeted` needs: fewer sign steps, fewer counted images, what they change.

    python -m benchmarks.targeted_work --zoo ZOO [ZOO ...] --cache DIR

For a zoo to choose on, never one that is reported. Every model is searched with each number
of steps, noise towards a class is counted image by image, and each variant's verdicts are
drawn with the thresholds in force from the same forward passes. The rule, written down
before a variant was judged: against the first one (most steps, most images), under every
baseline, AUC may be lower by `AUC_LOSS` at most, no more verdicts may be wrong, and a
verdict may change only within two standard errors of the threshold; the cheapest of these
variants is taken.
"""

import dataclasses
import functools
import itertools
import os
import sys
from typing import Any, cast

import jax
import numpy as np
import tyro
from jax import numpy as jnp

from ban_jax import checkpoints, models, perturb, population, records, verdict
from ban_jax.commands import scan as scan_command
from ban_jax.detectors import evidence, rules, targeted
from ban_jax.records import record
from ban_jax.types import Array, Network, Probe, Variables
from benchmarks import _timing, _zoo

AUC_LOSS = 0.005
BASELINES: tuple[rules.BaselineKind, ...] = ("within", "trusted", "population")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    zoo: labelled folders; their clean models are the trusted ones, too.
    cache: folder for what was measured, so that a stopped run goes on.
    steps: numbers of sign steps, the most first.
    minibatches: numbers of counted minibatches, the most first.
    data: clean images.
    num_clean: how many.
    name: of the result file.
    results: its folder.
    """

    zoo: tuple[str, ...]
    cache: str
    steps: tuple[int, ...] = (4, 3, 2)
    minibatches: tuple[int, ...] = (3, 2, 1)
    data: str = "digits"
    num_clean: int = 512
    name: str = "targeted_work"
    results: str | None = None


@functools.partial(jax.jit, static_argnames=("network", "steps"))
def towards_each(
    network: Network, variables: Variables, probe: Probe, key: Array, steps: int
) -> Array:
    """`[K, T - 1, B]`: each class's probability under noise towards it, image by image."""
    apply_fn = evidence.logits_of(network, "batch")
    labels = probe.labels[0]
    key = jax.random.fold_in(key, 0)

    def one(target: Array) -> Array:
        noisy, _ = perturb.perturb_params(
            apply_fn,
            variables,
            probe.images[0],
            jnp.full(labels.shape, target),
            key=jax.random.fold_in(key, target),
            epsilon=targeted.Settings.epsilon,
            steps=steps,
            start=0.0,
            towards=True,
            weights=(labels != target).astype(jnp.float32),
        )
        logits = evidence.over_minibatches(network, noisy, probe.images[1:], "batch")
        return jax.nn.softmax(logits)[..., target]

    return jax.lax.map(one, jnp.arange(network.num_classes))


@functools.partial(jax.jit, static_argnames="network")
def plain(network: Network, variables: Variables, probe: Probe) -> evidence.Forward:
    """What needs no noise."""
    return evidence.forward(network, variables, probe)


def measure(path: str, probe: Probe, flags: Flags) -> dict[str, np.ndarray]:
    """One model's probabilities per number of steps, and its vectors without noise."""
    cached = os.path.join(flags.cache, os.path.basename(path) + ".npz")
    if os.path.exists(cached):
        with np.load(cached) as file:
            return dict(file)
    candidate = checkpoints.read(path)
    network = models.network(candidate.spec.create())
    variables = candidate.full_variables()
    key = population.identity_key(0, candidate.sha256)
    found = {
        f"p{steps}": np.asarray(towards_each(network, variables, probe, key, steps))
        for steps in flags.steps
    }
    forward = plain(network, variables, probe)
    found |= {
        "vector": np.asarray(forward.vectors["batch_minus_stored"]),
        "error": np.asarray(forward.errors["batch_minus_stored"]),
        "accuracy": np.asarray(forward.clean_accuracy),
    }
    np.savez(cached, **found)
    return found


def line(
    path: str,
    entry: dict[str, Any],
    found: dict[str, np.ndarray],
    labels: np.ndarray,
    steps: int,
    count: int,
) -> records.Evidence:
    """What a scan would have written with these steps and counted minibatches."""
    counted = labels[1 : 1 + count].reshape(-1)
    chances = found[f"p{steps}"][:, :count].reshape(len(found["vector"]), -1)
    others = [one[counted != target] for target, one in enumerate(chances)]
    known = record.empty(
        path,
        sha256=path,
        mode="targeted",
        config_hash="",
        architecture=entry["architecture"],
        num_classes=len(others),
        num_probe=labels.size,
        clean_accuracy=float(found["accuracy"]),
        vectors={
            "targeted": [float(one.mean()) for one in others],
            "batch_minus_stored": found["vector"].tolist(),
        },
        errors={
            "targeted": [float(one.std() / one.size**0.5) for one in others],
            "batch_minus_stored": found["error"].tolist(),
        },
    )
    return cast(records.Evidence, known)


def judged(
    measured: list[records.Evidence], clean: np.ndarray, baseline: rules.BaselineKind
) -> dict[str, np.ndarray]:
    """Score, standard error, threshold and whether flagged, of each record."""
    trusted = [one for one, good in zip(measured, clean, strict=True) if good]
    lines = verdict.judge_all(measured, baseline=baseline, trusted=trusted)
    names = ("score", "standard_error", "threshold")
    told = {name: np.array([line[name] for line in lines]) for name in names}
    return {**told, "flagged": told["score"] > told["threshold"]}


def main(flags: Flags) -> None:
    """Measures, judges every variant, prints and writes the table."""
    machine = _timing.hardware()
    os.makedirs(flags.cache, exist_ok=True)
    asked = scan_command.Flags(data=flags.data, num_clean=flags.num_clean)
    probe = scan_command.prepare(asked).probe
    assert probe is not None
    truth = {
        path: entry
        for folder in flags.zoo
        for path, entry in sorted(_zoo.labelled(folder).items())
        if not _zoo.has_failed(entry)
    }
    clean = np.array([entry["kind"] == "clean" for entry in truth.values()])
    found = {path: measure(path, probe, flags) for path in truth}
    labels = np.asarray(probe.labels)
    table: list[dict[str, Any]] = []
    first: dict[str, dict[str, np.ndarray]] = {}
    for steps, count in itertools.product(flags.steps, flags.minibatches):
        lines = [
            line(path, entry, found[path], labels, steps, count)
            for path, entry in truth.items()
        ]
        row: dict[str, Any] = {"steps": steps, "minibatches": count}
        for baseline in BASELINES:
            now = judged(lines, clean, baseline)
            old = first.setdefault(baseline, now)
            changed = now["flagged"] != old["flagged"]
            far = np.abs(now["score"] - now["threshold"]) > 2 * now["standard_error"]
            row[baseline] = {
                "auc": _zoo.auc(now["score"][~clean], now["score"][clean]),
                "wrong": int(np.sum(now["flagged"] == clean)),
                "verdicts_changed": int(changed.sum()),
                "changed_beyond_two_standard_errors": int((changed & far).sum()),
                "score_change_std": float(np.std(now["score"] - old["score"])),
                "standard_error_median": float(np.median(now["standard_error"])),
            }
        row["eligible"] = all(
            row[name]["auc"] >= (table[0] if table else row)[name]["auc"] - AUC_LOSS
            and row[name]["wrong"] <= (table[0] if table else row)[name]["wrong"]
            and not row[name]["changed_beyond_two_standard_errors"]
            for name in BASELINES
        )
        table.append(row)
        print(row, flush=True)
    _timing.write_result(
        flags.name,
        {
            "models": len(truth),
            "clean": int(clean.sum()),
            "auc_loss": AUC_LOSS,
            "variants": table,
        },
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
