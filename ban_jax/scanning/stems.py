"""What a 7x7 first convolution is followed by: files do not say, so it is tried.

A kernel of 7x7 comes with stride 2 and pooling from ImageNet programs; programs for small
images keep the kernel and leave out one or both. The weights have the same shapes, and read
with the wrong stem a model is another function. Each stem is tried on clean images, and the
one with the smallest loss taken.
"""

import dataclasses
import math
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ban_jax import checkpoints, population
from ban_jax.checkpoints import stem_notes
from ban_jax.data import Constants
from ban_jax.records import Settings
from ban_jax.scanning import examination, fitness
from ban_jax.types import Probe

_one_at_a_time = threading.Lock()
"""Files are read on several threads: they must not all trace and compile the same."""
_known: dict[Any, tuple[Probe, list[float]]] = {}
"""Losses of what was tried in this process: a closer look reads a file again. The images
are held so that their identity, a part of the key, stays theirs."""
REMEMBERED = 4096


def fitted(
    candidate: checkpoints.Candidate,
    settings: Settings,
    probe: Probe | None,
    constants: Sequence[Constants],
) -> checkpoints.Candidate:
    """The candidate with the stem that fits the clean images best; its notes say which.

    Args:
      candidate: as it was read.
      settings: of the scan.
      probe: clean images; without them the stem stays what was assumed.
      constants: mean and deviation of its pixels: known ones, or those to try.
    """
    stems = candidate.spec.create().alike
    channels = candidate.spec.in_channels
    if not stems or probe is None or probe.images.shape[-1] != channels:
        return candidate
    specs = [dataclasses.replace(candidate.spec, stem=stem) for stem in stems]
    size = probe.images.shape[2:4]
    specs = [spec for spec in specs if not fitness.wrong_size(spec, size)]
    if not specs or candidate.spec.num_classes <= int(np.max(probe.labels)):
        return candidate  # of another data set, which is said elsewhere
    told_by = (tuple(specs), tuple(constants), settings.lowering, settings.precision)
    key = (candidate.sha256, *told_by, id(probe.images))
    with _one_at_a_time:
        if key not in _known:
            losses = [
                _loss(candidate, one, settings, probe, constants) for one in specs
            ]
            if len(_known) >= REMEMBERED:
                _known.clear()
            _known[key] = probe, losses
        losses = _known[key][1]
    best = int(np.argmin(losses))
    if not math.isfinite(losses[best]):
        return candidate
    told = {spec.stem: loss for spec, loss in zip(specs, losses, strict=True)}
    note = stem_notes.tried(specs[best].create(), told)
    kept = [one for one in candidate.notes if not stem_notes.is_one(one)]
    return dataclasses.replace(candidate, spec=specs[best], notes=(note, *kept))


def _loss(
    candidate: checkpoints.Candidate,
    spec: checkpoints.ModelSpec,
    settings: Settings,
    probe: Probe,
    constants: Sequence[Constants],
) -> float:
    """The smallest clean loss with one stem; infinite where it is not a number."""
    means, stds = (
        np.stack([np.full(spec.in_channels, one[i], np.float32) for one in constants])
        for i in range(2)
    )
    words = population.identity_words(candidate.sha256)
    member = examination.Member(candidate.variables, means, stds, words)
    (losses,) = population.run(
        examination.bound(examination.losses, network=settings.network(spec)),
        population.Placement((jax.local_devices()[0],), stacked=False),
        [member],
        examination.Common(probe, jax.random.key(0), None),
        1,
    )
    return float(np.nanmin(np.append(losses, np.inf)))
