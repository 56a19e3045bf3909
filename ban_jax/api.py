"""The package as a library: models in memory and files on disk, judged and repaired.

These functions are exposed by `ban_jax` itself. They compile and batch on their own;
`perturb_params`, `optimize_mask` and the detectors are the pure functions below them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import (
    checkpoints,
    data,
    detectors,
    population,
    records,
    registry,
    repairs,
    verdict,
)
from ban_jax.convolution import tables
from ban_jax.data import probe as probes
from ban_jax.detectors import witnesses
from ban_jax.detectors.rules import BaselineKind
from ban_jax.models import adapters
from ban_jax.records import Evidence, Job, Record, parts, passed
from ban_jax.repairs import batch, inputs
from ban_jax.scanning import closer, in_memory
from ban_jax.scanning import scan as scanning
from ban_jax.types import Precision, Variables


def judge(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    detector: str = "ban",
    normalisation: in_memory.Constants | None = None,
    seed: int = 0,
    dataset: str = "",
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
    profiles: verdict.Profiles = "shipped",
    **settings: Any,
) -> Record:
    """Judges one model in memory: backdoored, clean or inconclusive.

    Args:
      model: a Flax Linen module, an NNX module, or a PyTorch state dict that is loaded
        already (a mapping of names to arrays or tensors). Modules must end in a linear
        layer.
      variables: collections of a Linen module; None for the others.
      images: `[N, H, W, C]` clean images the model was not trained on, in [0, 1]; whole
        minibatches of 128 are used.
      labels: `[N]` their classes.
      detector: its name, see `ban_jax.detectors`.
      normalisation: mean and deviation per channel that the model expects pixels to be
        normalised with. None: a module takes them as they are; of a state dict the known
        constants are tried and the best is recorded.
      seed: of the noise.
      dataset: name of the images, such as `cifar10`: chooses the profile of clean models
        that the model is compared with.
      threshold: score above which a model counts as backdoored; None: the detector's.
      trusted: evidence of models you vouch for, as `evidence` gives it for models of the
        same kind with the same images, settings and seed.
      profiles: see `verdict.Judge`.
      settings: of the detector, such as `epsilon=0.3`.

    Returns:
      The record that a scan would write: `verdict`, `target`, `score`, `threshold`,
      `reason` and all that was measured.

    Raises:
      ValueError: for images, labels, settings or variables that do not fit; the message
        says what was expected.
    """
    draw = verdict.Judge(threshold=threshold, trusted=trusted, profiles=profiles)
    config = _settings(detectors.DETECTORS[detector], settings)
    subject, chosen = in_memory.subject_of(
        model, variables, images, labels, detector, normalisation, seed, dataset, config
    )
    found = in_memory.measure(subject, chosen)
    if question := draw.asks(found):
        found = in_memory.look_closer(subject, chosen, found, question)
    return draw(found)


def evidence(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    detector: str = "ban",
    normalisation: in_memory.Constants | None = None,
    seed: int = 0,
    dataset: str = "",
    **settings: Any,
) -> Evidence:
    """All that `judge` may draw its verdict from, for one model in memory; see there."""
    config = _settings(detectors.DETECTORS[detector], settings)
    subject, chosen = in_memory.subject_of(
        model, variables, images, labels, detector, normalisation, seed, dataset, config
    )
    found = in_memory.measure(subject, chosen)
    if chosen.closer is None or found["error"]:
        return found
    classes = tuple(range(subject.network.num_classes))
    asked = witnesses.Question(classes, chosen.closer.detector.rule.vectors)
    return in_memory.look_closer(subject, chosen, found, asked)


def scan(
    paths: str | Sequence[str],
    images: Any = None,
    labels: Any = None,
    *,
    dataset: str = "",
    detector: str = "ban",
    baseline: BaselineKind | None = None,
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
    profiles: verdict.Profiles = "shipped",
    known: Sequence[Evidence] = (),
    normalisation: in_memory.Constants | None = None,
    architecture: str | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    chunk: int | None = None,
    **settings: Any,
) -> Iterator[Record]:
    """Judges checkpoint files, many at once, and yields each record when it is there.

    Args:
      paths: files, Orbax folders, or folders searched for both. What holds no classifier
        (optimizers, triggers; `checkpoints.search`) yields nothing.
      images: `[N, H, W, C]` clean images in [0, 1], as `ban_jax.data.load` gives them; a
        detector that needs none does without.
      labels: `[N]` their classes.
      dataset: their name, such as `cifar10`: chooses the pixel constants to try.
      detector: its name, see `ban_jax.detectors`.
      baseline: what a candidate is compared with, see `ban_jax.verdict`; `population`
        yields nothing before everything is measured.
      threshold: score above which a model counts as backdoored; None: the detector's.
      trusted: evidence of models you vouch for.
      profiles: see `verdict.Judge`.
      known: records of an earlier scan, whose evidence is used again where it fits.
      normalisation: mean and deviation per channel for every candidate; None: each
        file's own, else the best of the known constants.
      architecture: of every candidate, instead of recognising it.
      seed: of the noise.
      precision: of convolutions.
      chunk: candidates each device computes at once; None: planned from its memory.
      settings: of the detector, such as `epsilon=0.3`.

    Yields:
      A record per file; of one that holds several classifiers a record for each of them,
      and at the end one for the file, its worst.

    Raises:
      ValueError: for what does not fit together. A file that cannot be read is an
        `inconclusive` record with `error` set.
    """
    one = detectors.DETECTORS[detector]
    probe = None
    if "images" in one.needs:
        if images is None or labels is None:
            raise ValueError(f"the detector {detector} needs clean images and labels")
        images = adapters.check_images(images)
        adapters.check_labels(labels, len(images))
        probe = probes.minibatches(np.asarray(images), np.asarray(labels, np.int32))
    constants = None
    if normalisation is not None and probe is not None:
        constants = in_memory.checked(normalisation, probe.images.shape[-1])
    job = Job(
        records.Settings(
            mode=detector,
            config=_settings(one, settings),
            seed=seed,
            dataset=dataset,
            normalisation=constants,
            architecture=architecture,
            chunk=chunk,
            lowering=tables.default(precision),
            precision=precision,
        ),
        probe,
    )
    found = checkpoints.find([paths] if isinstance(paths, str) else paths)
    told: dict[str, Any] = {
        "baseline": baseline,
        "threshold": threshold,
        "trusted": trusted,
        "profiles": profiles,
    }
    draw = verdict.Judge(**told)
    if baseline == "population":
        lines = list(_classifiers(scanning.scan(found, job, known=known)))
        # The crowd judges, it does not ask: see `ban_jax.commands.scan`.
        whole = closer.joined(
            lines, closer.look(lines, job, closer.questions(lines, job, draw))
        )
        yield from verdict.judge_all(whole, **told)
        return
    doubtful: list[Evidence] = []
    of_parts: list[Record] = []
    for line in _classifiers(scanning.scan(found, job, known=known)):
        if draw.asks(line):
            doubtful.append(line)
            continue
        judged = draw(line)
        if judged["part_of"] is not None:
            of_parts.append(judged)
        yield judged
    asked = closer.questions(doubtful, job, draw)
    for line in closer.look(doubtful, job, asked):
        if not closer.is_through(line, asked[line["path"]]):
            continue
        judged = draw(line)
        if judged["part_of"] is not None:
            of_parts.append(judged)
        yield judged
    yield from parts.files(of_parts)


def _classifiers(measured: Iterable[scanning.Measured]) -> Iterator[Evidence]:
    """Lines of all but the files that recognisably hold no classifier."""
    for line, _ in measured:
        if not passed.is_other(line):
            yield line


def repair(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    method: str = "ban",
    held_out: float = 0.2,
    normalisation: in_memory.Constants | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[Any, repairs.RepairInfo]:
    """Removes a backdoor from one model in memory.

    Args:
      model: as for `judge`.
      variables: as for `judge`.
      images: `[N, H, W, C]` clean images in [0, 1].
      labels: `[N]` their classes.
      method: its name, see `ban_jax.repairs`.
      held_out: share of the images that the repair does not learn from: its accuracy is
        watched on them.
      normalisation: mean and deviation per channel that the model expects; None: those it
        brings with it, else pixels as they are. None are tried, as `judge` tries them.
      seed: of all randomness.
      settings: of the method, such as `epochs=10`.

    Returns:
      The repaired collections (`params`, `batch_stats`, ...), for a state dict another one
      of the same names; and what the repair saw. The given model is not changed.

    Raises:
      ValueError: for what does not fit together.
    """
    images, labels = np.asarray(adapters.check_images(images)), np.asarray(labels)
    _, network, variables, read = in_memory.network_of(model, variables, images, labels)
    if normalisation is not None:
        checked = in_memory.checked(normalisation, images.shape[-1])
        mean, std = (jnp.asarray(part, jnp.float32) for part in checked)
        variables = {**variables, "normalisation": {"mean": mean, "std": std}}
    chosen = repairs.METHODS[method]
    config = _settings(chosen, settings)
    learned, held = inputs.divide(len(labels), held_out, seed, size=config.batch_size)
    labels = labels.astype(np.int32)
    watched = data.Dataset(
        "memory", "all", images[held], labels[held], network.num_classes
    )
    clean = inputs.clean_set(images[learned], labels[learned], watched)
    weights = {key: variables[key] for key in variables if key != "normalisation"}
    sha256 = checkpoints.weights_hash(jax.device_get(weights))
    ((repaired, info),) = batch.repair_population(
        network,
        [variables],
        [population.identity_key(seed, sha256)],
        clean,
        method,
        config,
        size=1,
        placement=population.Placement((jax.local_devices()[0],), stacked=False),
    )
    if read is not None:
        return checkpoints.to_torch_names(repaired, read.names), info
    return repaired, info


def _settings(one: Any, given: Mapping[str, Any]) -> Any:
    """The settings of a detector or repair.

    Raises:
      ValueError: for a name it does not have; the message lists those it has.
    """
    known = sorted(one.settings.__dataclass_fields__)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"no setting {', '.join(unknown)}; known: {', '.join(known) or 'none'}"
        )
    made = one.settings(**given)
    registry.check_settings(made)
    return made
