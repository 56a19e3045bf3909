"""`ban-jax report --features`: the most telling checkpoints, mapped under neuron noise."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ban_jax import checkpoints
from ban_jax.commands import scan
from ban_jax.detectors import ban
from ban_jax.records import Record, Settings
from ban_jax.scanning import noisy_features, stems

IMAGES = 256
"""Clean images of a map; at most, and whole minibatches of 128."""
DECIMALS = 4


def added(judged: Sequence[Record], most: int, **images: Any) -> list[Record]:
    """The records, some with a map of their features (`info.features`).

    Checkpoints that cannot be read again, or are no longer those that were measured, are
    named on standard error and have none.

    Args:
      judged: records with verdicts.
      most: checkpoints that are mapped of the flagged ones, the most alarming first, and
        as many of the clean ones, the least alarming first, to compare with.
      **images: `data`, `data_dir`, `split` and `image_size` as for `ban-jax scan`.
    """
    asked = _chosen(judged, most)
    if not asked:
        return list(judged)
    told = scan.Flags(paths=(), mode="ban", num_clean=IMAGES, **images)
    probe = scan.prepare(told).probe
    found = []
    for record in judged:
        if record["path"] in asked:
            try:
                record = _mapped(record, probe)
            except (OSError, ValueError, TypeError) as error:
                print(
                    f"note: {record['path']}: no map of its features: {error}",
                    file=sys.stderr,
                )
        found.append(record)
    return found


def _chosen(judged: Sequence[Record], most: int) -> set[str]:
    scored = sorted(
        (one for one in judged if one["score"] is not None),
        key=lambda one: -float(one["score"] or 0.0),
    )
    alarming = [o for o in scored if o["verdict"] in ("backdoored", "suspicious")]
    calm = [one for one in reversed(scored) if one["verdict"] == "clean"]
    return {one["path"] for one in (*alarming[:most], *calm[:most])}


def _mapped(record: Record, probe: Any) -> Record:
    candidate = checkpoints.read(os.fspath(record["path"]))
    if candidate.sha256 != record["sha256"]:
        raise ValueError("its weights are not those that were measured")
    constants: Mapping[str, Any] = record["normalisation"] or {}
    normalisation = None
    if {"mean", "std"} <= set(constants):
        normalisation = (tuple(constants["mean"]), tuple(constants["std"]))
    channels = candidate.spec.in_channels
    identity = (0.0,) * channels, (1.0,) * channels
    pixels = normalisation or candidate.normalisation or identity
    candidate = stems.fitted(candidate, Settings(), probe, [pixels])
    noise = ban.Settings()
    seen = noisy_features.seen(
        candidate,
        probe,
        epsilon=noise.epsilon,
        steps=noise.steps,
        normalisation=normalisation,
    )
    points = noisy_features.placed(seen.features)
    features = {
        "radii": [share * noise.epsilon for share in noisy_features.SHARES],
        "labels": probe.labels.reshape(-1).tolist(),
        "answers": seen.answers.tolist(),
        "points": points.round(DECIMALS).astype(float).tolist(),
    }
    return {**record, "info": {**record["info"], "features": features}}
