"""Models in memory: Linen and NNX modules and state dicts, measured like files."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ban_jax import checkpoints, data, population, records
from ban_jax.convolution import tables
from ban_jax.data import normalisation as normalisations
from ban_jax.data import probe as probes
from ban_jax.detectors.witnesses import Question
from ban_jax.models import adapters
from ban_jax.records import Evidence, Job
from ban_jax.records.job import Asked
from ban_jax.scanning import examination, fitness, stems
from ban_jax.types import Network, Probe, Variables

Constants = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""


class Subject(NamedTuple):
    """A model in memory that is to be measured, and the images it is measured on."""

    name: str
    sha256: str
    network: Network
    weights: Variables
    constants: dict[str, tuple[Sequence[float], Sequence[float]]]
    probe: Probe


def subject_of(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    detector: str,
    normalisation: Constants | None,
    seed: int,
    dataset: str,
    config: Any,
) -> tuple[Subject, records.Settings]:
    """A model in memory, checked, and what is to be measured of it; see `judge`."""
    images, labels = np.asarray(adapters.check_images(images)), np.asarray(labels)
    name, network, variables, read = network_of(model, variables, images, labels)
    weights = {key: leaf for key, leaf in variables.items() if key != "normalisation"}
    made = Subject(
        name,
        checkpoints.weights_hash(jax.device_get(weights)),
        network,
        weights,
        _constants(read, variables, normalisation, images.shape[-1]),
        probes.minibatches(images, labels.astype(np.int32)),
    )
    return made, records.Settings(
        mode=detector,
        config=config,
        seed=seed,
        dataset=dataset,
        lowering=network.lowering,
        precision=network.precision,
    )


def measure(
    subject: Subject,
    settings: records.Settings,
    classes: tuple[int, ...] | None = None,
) -> Evidence:
    """The evidence of one model; `classes` for a detector that is told them."""
    job, path = Job(settings, subject.probe), f"<{subject.name}>"
    identity: dict[str, Any] = {
        "sha256": subject.sha256,
        "architecture": subject.name,
        "num_classes": subject.network.num_classes,
    }
    classifier = subject.network.classifier(subject.weights)
    if reason := fitness.degenerate(subject.weights, classifier):
        return job.failure(f"<{subject.name}>", reason, **identity)
    if classes is not None:
        job = dataclasses.replace(job, asked={path: Asked(classes, None)})
    means, stds = (
        np.array([one[i] for one in subject.constants.values()], np.float32)
        for i in range(2)
    )
    member = examination.Member(
        subject.weights,
        means,
        stds,
        population.identity_words(subject.sha256),
        None if classes is None else np.array(classes, np.int32),
    )
    (found,) = population.run(
        examination.examiner(subject.network, settings.detect),
        # One model is one device's work, however many there are.
        population.Placement((jax.local_devices()[0],), stacked=False),
        [member],
        examination.Common(
            subject.probe, jax.random.key(settings.seed), settings.config
        ),
        population.default_chunk(jax.default_backend()),
    )
    source = list(subject.constants)[int(found.choice)]
    mean, std = subject.constants[source]
    return job.line(
        path,
        found.evidence,
        {
            "mean": list(map(float, mean)),
            "std": list(map(float, std)),
            "source": source,
        },
        examination.tried_work(subject.probe, len(subject.constants)),
        **identity,
    )


def look_closer(
    subject: Subject, settings: records.Settings, found: Evidence, asked: Question
) -> Evidence:
    """The evidence of a first look, with what a closer one at a model finds besides.

    Args:
      subject: the model.
      settings: of the first look.
      found: by it.
      asked: what is measured besides, one vector after the other as of files.
    """
    for vector in asked.vectors:
        assert settings.closer is not None
        closer = dataclasses.replace(settings.closer, vectors=(vector,))
        found = records.merged(found, measure(subject, closer, asked.classes))
    return found


def network_of(
    model: Any, variables: Variables | None, images: np.ndarray, labels: np.ndarray
) -> tuple[str, Network, Variables, checkpoints.Candidate | None]:
    """What a model is called, what kernels know of it, what a state dict was read to."""
    name, read = type(model).__name__, None
    if isinstance(model, Mapping):
        if variables is not None:
            raise ValueError("a state dict holds all weights: variables must be None")
        adapters.check_labels(labels, len(images))
        read = _fitted(checkpoints.read_state_dict(model), images, labels)
        name = read.spec.architecture
        model = read.spec.create(lowering=tables.default())
        variables = read.full_variables()
    network, made = adapters.as_network(model, variables, images, labels)
    return name, network, made, read


def _fitted(
    read: checkpoints.Candidate, images: np.ndarray, labels: np.ndarray
) -> checkpoints.Candidate:
    """A state dict with the stem that suits the clean images, where it has several."""
    constants = [read.normalisation] if read.normalisation else []
    tried = normalisations.options("", read.spec.in_channels).values()
    settings = records.Settings(mode="ban", lowering=tables.default())
    probe = probes.minibatches(images, labels.astype(np.int32))
    return stems.fitted(read, settings, probe, constants or list(tried))


def _constants(
    read: checkpoints.Candidate | None,
    variables: Variables,
    given: Constants | None,
    channels: int,
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Pixel constants worth trying, by where they come from."""
    if given is not None:
        return {"argument": checked(given, channels)}
    if read is not None and read.normalisation is not None:
        return {str(read.normalisation_source): read.normalisation}
    if read is not None:
        tried = normalisations.options("", channels)
        return {f"tried: {name}": constants for name, constants in tried.items()}
    own = variables["normalisation"]
    return {
        "model": (np.asarray(own["mean"]).tolist(), np.asarray(own["std"]).tolist())
    }


def checked(constants: Constants, channels: int) -> data.Constants:
    """Constants as hashable tuples, one number per channel.

    Raises:
      ValueError: for anything else.
    """
    try:
        mean, std = (tuple(float(number) for number in part) for part in constants)
    except TypeError:
        mean, std = (), ()
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"normalisation must be (means, deviations) of {channels} numbers each, "
            f"deviations positive; got {constants!r}"
        )
    return mean, std
