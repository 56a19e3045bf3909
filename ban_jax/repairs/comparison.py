"""A repaired model against what it was: accuracy, the known attack's success, pictures."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import checkpoints, data
from ban_jax.attacks import poison
from ban_jax.repairs import inputs
from ban_jax.types import Network, Variables
from ban_jax.zoo import ground_truth, pictures, success

SHOWN = 6
"""Triggered images kept for the report, each of another class where there are enough."""


class Measured(NamedTuple):
    """What is known of a repair beside its scan.

    Attributes:
      attack: what a zoo says of it; None where nothing is known.
      before: `success.Metrics` by name.
      after: `success.Metrics` of the repaired model.
      shown: a few triggered images and what the model took them for.
      notes: why ground truth was not used.
    """

    attack: dict[str, Any] | None
    before: dict[str, Any]
    after: dict[str, Any]
    shown: list[dict[str, Any]]
    notes: list[str]


def measure(
    candidate: checkpoints.Candidate,
    before: Variables,
    after: Variables,
    *,
    network: Network,
    images: inputs.Images,
) -> Measured:
    """Accuracy on the test images and, where the trigger is known, the attack's success."""
    classes, notes = candidate.spec.num_classes, []
    try:
        truth = ground_truth.find(candidate.path, images.test.image_shape, classes)
    except ValueError as error:
        truth, notes = None, [str(error)]
    known = truth or ground_truth.none(classes)
    told = [
        figures(variables, known, network=network, test=images.test)
        for variables in (before, after)
    ]
    attack = truth and {
        "kind": truth.kind,
        "target": truth.spec.target,
        "mode": truth.spec.mode,
        "victim": truth.spec.victim,
    }
    shown = []
    if known.spec.rate:
        shown = _show(known, before, after, network=network, images=images)
    return Measured(attack, told[0], told[1], shown, notes)


def figures(
    variables: Variables,
    truth: ground_truth.GroundTruth,
    *,
    network: Network,
    test: data.Dataset,
) -> dict[str, Any]:
    """`success.Metrics` of one model, as JSON."""
    found = success.measure(
        variables,
        dataclasses.replace(test, num_classes=network.num_classes),
        network=network,
        kernel=truth.kernel,
        attack=truth.state,
        spec=truth.spec,
        policy=truth.attack.policy,
        key=jax.random.key(0),
    )
    return success.as_json(found)


def _show(
    truth: ground_truth.GroundTruth,
    before: Variables,
    after: Variables,
    *,
    network: Network,
    images: inputs.Images,
) -> list[dict[str, Any]]:
    """A few triggered images and what the model took them for, before and after."""
    labels = images.test.labels
    meant = np.flatnonzero(poison.to_succeed(labels, truth.spec))
    if not meant.size:
        return []
    _, first = np.unique(labels[meant], return_index=True)
    chosen = [*meant[first], *np.delete(meant, first)][:SHOWN]
    clean = images.test.images[np.array(chosen)]
    triggered = success.show(truth.state, jnp.asarray(clean), kernel=truth.kernel)
    found = [
        np.asarray(success.predict(variables, triggered, network=network))
        for variables in (before, after)
    ]
    return [
        {
            "label": int(labels[index]),
            "before": int(found[0][place]),
            "after": int(found[1][place]),
            "png": pictures.base64_png(picture),
        }
        for place, (index, picture) in enumerate(
            zip(chosen, np.asarray(triggered), strict=True)
        )
    ]
