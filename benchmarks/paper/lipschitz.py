"""Do the channels that neuron noise moves coincide with those of large Lipschitz constant?

    python -m benchmarks.paper.lipschitz --data-dir TFDS

For every ResNet of `benchmarks/zoo/`, whose normalisation follows its convolution,
and every such layer:

lipschitz   per channel, the upper bound of Zheng et al. (ECCV 2022): the largest singular
            value of the channel's kernel as a matrix, times |scale| / sqrt(variance)
pull        per channel, how fast neuron noise raises the loss there: the gradient of the
            mean cross-entropy for its factors, |d/d delta| + |d/d xi|, batch statistics
target      per channel, the same towards one class on images of the others: the
            backdoor's target, of a clean model the class that noise pulls most
response    per layer, how much the loss rises by one sign step of radius 0.4 there alone

and per model the mean over layers of two measures of pull against lipschitz and of target
against lipschitz: rank correlation, and the share of the largest tenth of the channels that
are among the largest tenth of the other (0.1 by chance). Clean models are set against
backdoored ones by the Mann-Whitney test. A minute and a half of computing.

What it gave (`benchmarks/results/paper_lipschitz.json`, 11 clean, 13 backdoored ResNet18):
they hardly coincide. Rank correlation of pull and bound is 0.12 +- 0.07 in clean models
and 0.14 +- 0.08 in backdoored ones (p = .56). Of the channels that pull most towards the
target a share of 0.17 +- 0.05 is among those of the largest bounds, of clean models' most
pulled class 0.11 +- 0.05 (p = .04, one of six such tests).
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tyro
from flax import traverse_util
from jax import numpy as jnp
from scipy import stats

from ban_jax import checkpoints, models, perturb, population
from ban_jax.commands import scan as scan_command
from ban_jax.convolution import tables
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Probe, Variables
from ban_jax.zoo import labelled
from benchmarks import _timing
from benchmarks.paper import _steps

EPSILON, RADIUS = 1e-5, 0.4
"""Of the normalisation's square root; of the sign step."""
TENTH = 0.1


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    zoo: labelled folder.
    data, data_dir, num_clean: clean images, as for `ban-jax scan`.
    name, results: of the result file.
    """

    zoo: str = _steps.ZOO
    data: str = "cifar10"
    data_dir: str | None = None
    num_clean: int = 256
    name: str = "paper_lipschitz"
    results: str | None = None


def layers(variables: Variables) -> dict[str, str]:
    """Path of each normalisation layer that follows a convolution -> the kernel's path.

    `bn1` follows `conv1` in its block, `shortcut_1` follows `shortcut_0`; none does where
    the stem has no normalisation (PreActResNet18).
    """
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    found: dict[str, str] = {}
    if "bn1/scale" not in params:
        return found
    for path in params:
        norm, _, leaf = path.rpartition("/")
        block, _, name = norm.rpartition("/")
        before = {"shortcut_1": "shortcut_0"}.get(name, name.replace("bn", "conv"))
        kernel = "/".join(filter(None, (block, before, "kernel")))
        if leaf == "scale" and kernel in params:
            found[norm] = kernel
    return found


def lipschitz(variables: Variables) -> dict[str, np.ndarray]:
    """Layer -> the upper bound of each channel `[C]`."""
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    stored = traverse_util.flatten_dict(variables["batch_stats"], sep="/")
    found = {}
    for norm, path in layers(variables).items():
        kernel = np.asarray(params[path], np.float64)  # [kh, kw, F, C]
        matrices = np.transpose(kernel, (3, 2, 0, 1)).reshape(*kernel.shape[:1:-1], -1)
        largest = np.linalg.norm(matrices, ord=2, axis=(1, 2))
        spread = np.sqrt(np.asarray(stored[f"{norm}/var"], np.float64) + EPSILON)
        found[norm] = largest * np.abs(params[f"{norm}/scale"]) / spread
    return found


@population.compiled
def pulls(
    variables: Variables, probe: Probe, *, network: Network
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Per parameter that noise acts on: gradients of the loss `[C]`, gradients of the mean
    log-probability of every class on images of the others `[K, C]`; per layer the rise of
    the loss `[]`."""
    images = probe.images.reshape(-1, *probe.images.shape[2:])
    labels = probe.labels.reshape(-1)
    apply_fn = evidence.logits_of(network, "batch")
    zero = {n: jnp.zeros(p.shape[-1]) for n, p in perturb.neurons(variables).items()}

    def log_p(noise: perturb.Noise) -> Array:
        return jax.nn.log_softmax(
            apply_fn(perturb.apply_noise(variables, noise), images)
        )

    def loss(noise: perturb.Noise) -> Array:
        found = jnp.take_along_axis(log_p(noise), labels[:, None], axis=-1)
        return -jnp.mean(found)

    def towards(noise: perturb.Noise, target: Array) -> Array:
        others = (labels != target).astype(jnp.float32)
        return jnp.sum(log_p(noise)[:, target] * others) / jnp.sum(others)

    plain, gradient = jax.value_and_grad(loss)(zero)
    classes = jax.lax.map(
        lambda target: jax.grad(towards)(zero, target), jnp.arange(network.num_classes)
    )
    names = sorted({name.rpartition("/")[0] for name in zero})

    def alone(index: Array) -> Array:
        steps = {
            name: RADIUS
            * jnp.sign(part)
            * (index == names.index(name.rpartition("/")[0]))
            for name, part in gradient.items()
        }
        return loss(steps) - plain

    rises = jax.lax.map(alone, jnp.arange(len(names)))
    return gradient, classes, {name: rises[i] for i, name in enumerate(names)}


def compared(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Any:
    """Rank correlation and overlap of the largest tenths, means over layers."""
    ranks, overlaps = [], []
    for name in one:
        ranks.append(stats.spearmanr(one[name], other[name]).statistic)
        count = max(round(TENTH * len(one[name])), 1)
        tops = [set(np.argsort(-v[name])[:count].tolist()) for v in (one, other)]
        overlaps.append(len(tops[0] & tops[1]) / count)
    return {"rank": float(np.nanmean(ranks)), "overlap": float(np.mean(overlaps))}


def model(path: str, entry: Mapping[str, Any], probe: Probe) -> dict[str, Any] | None:
    """The figures of one model; None where no normalisation follows a convolution."""
    candidate = checkpoints.read(path)
    if len(layers(candidate.variables)) < 5:
        return None
    network = models.network(candidate.spec.create(lowering=tables.default()))
    variables = candidate.full_variables()
    gradient, classes, rises = jax.device_get(pulls(variables, probe, network=network))
    bounds = lipschitz(variables)
    pull = {n: _both(gradient, n) for n in bounds}
    of_classes = {n: _both(classes, n) for n in bounds}  # [K, C]
    target = entry.get("target")
    if target is None:
        strength = sum(np.sum(values, axis=-1) for values in of_classes.values())
        target = int(np.argmax(strength))
    toward = {name: values[target] for name, values in of_classes.items()}
    others = {
        name: np.mean(np.delete(values, target, axis=0), axis=0)
        for name, values in of_classes.items()
    }
    return {
        "name": entry["name"],
        "attack": labelled.attack(entry),
        "target": target,
        "pull": compared(pull, bounds),
        "target_pull": compared(toward, bounds),
        "other_pull": compared(others, bounds),
        "response": {name: float(rises[name]) for name in bounds},
        "largest_bound": {name: float(np.max(v)) for name, v in bounds.items()},
    }


def _both(noise: Mapping[str, np.ndarray], norm: str) -> np.ndarray:
    """Scale's and bias's of a layer together."""
    return np.abs(noise[f"{norm}/scale"]) + np.abs(noise[f"{norm}/bias"])


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Clean models against backdoored ones."""
    groups = {
        "clean": [one for one in found if one["attack"] == labelled.CLEAN],
        "backdoored": [one for one in found if one["attack"] != labelled.CLEAN],
    }
    told: dict[str, Any] = {}
    for measure in ("pull", "target_pull", "other_pull"):
        for figure in ("rank", "overlap"):
            values = {
                kind: [one[measure][figure] for one in members]
                for kind, members in groups.items()
            }
            told[f"{measure}_{figure}"] = {
                **{kind: _timing.spread(numbers) for kind, numbers in values.items()},
                "p": float(stats.mannwhitneyu(*values.values()).pvalue),
            }
    told["most_responsive_layer"] = {
        kind: _counts(max(one["response"], key=one["response"].get) for one in members)
        for kind, members in groups.items()
    }
    return told


def _counts(names: Any) -> dict[str, int]:
    listed = list(names)
    return {name: listed.count(name) for name in sorted(set(listed))}


def main(flags: Flags) -> None:
    """Measures every model and writes the result file."""
    machine = _timing.hardware()
    told = scan_command.Flags(
        paths=(flags.zoo,),
        data=flags.data,
        data_dir=flags.data_dir,
        num_clean=flags.num_clean,
    )
    probe = scan_command.prepare(told).probe
    found = []
    for path, entry in sorted(labelled.labelled(flags.zoo).items()):
        if labelled.has_failed(entry):
            continue
        one = model(path, entry, probe)
        if one is not None:
            found.append(one)
            print(
                f"{os.path.basename(path):52} pull {one['pull']['rank']:+.2f}, "
                f"target {one['target_pull']['rank']:+.2f} "
                f"(overlap {one['target_pull']['overlap']:.2f})",
                flush=True,
            )
    measured = {"summary": summary(found), "models": found}
    print(measured["summary"])
    _timing.write_result(
        flags.name,
        measured,
        command=" ".join(["python -m benchmarks.paper.lipschitz", *sys.argv[1:]]),
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
