"""The package as a library: models in memory and files on disk, judged and repaired.

These functions are exposed by `ban_jax` itself. They compile and batch on their own;
`perturb_params`, `optimize_mask` and the detectors are the pure functions below them.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from ban_jax.data import normalisation as normalisations
from ban_jax.data import probe as probes
from ban_jax.detectors.rules import BaselineKind
from ban_jax.models import adapters
from ban_jax.records import Evidence, Job, Record
from ban_jax.repairs import batch, inputs
from ban_jax.scanning import examination
from ban_jax.scanning import scan as scanning
from ban_jax.types import Network, Precision, Variables

Constants = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""


def judge(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    detector: str = "targeted",
    normalisation: Constants | None = None,
    seed: int = 0,
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
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
      threshold: score above which a model counts as backdoored; None: the detector's.
      trusted: evidence of models you vouch for, as `evidence` gives it for models of the
        same kind with the same images, settings and seed.
      settings: of the detector, such as `epsilon=0.3`.

    Returns:
      The record that a scan would write: `verdict`, `target`, `score`, `threshold`,
      `reason` and all that was measured.

    Raises:
      ValueError: for images, labels, settings or variables that do not fit; the message
        says what was expected.
    """
    found = evidence(
        model,
        variables,
        images,
        labels,
        detector=detector,
        normalisation=normalisation,
        seed=seed,
        **settings,
    )
    return verdict.Judge(threshold=threshold, trusted=trusted)(found)


def evidence(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    detector: str = "targeted",
    normalisation: Constants | None = None,
    seed: int = 0,
    **settings: Any,
) -> Evidence:
    """What `judge` draws its verdict from, for one model in memory; see there."""
    one = detectors.DETECTORS[detector]
    config = _settings(one, settings)
    images, labels = np.asarray(adapters.check_images(images)), np.asarray(labels)
    name, network, variables, read = _network(model, variables, images, labels)
    constants = _constants(read, variables, normalisation, images.shape[-1])
    probe = probes.minibatches(images, labels.astype(np.int32))
    job = Job(
        records.Settings(
            mode=detector,
            config=config,
            seed=seed,
            lowering=network.lowering,
            precision=network.precision,
        ),
        probe,
    )
    weights = {key: leaf for key, leaf in variables.items() if key != "normalisation"}
    sha256 = checkpoints.weights_hash(jax.device_get(weights))
    means, stds = (
        np.array([one[i] for one in constants.values()], np.float32) for i in range(2)
    )
    member = examination.Member(weights, means, stds, population.identity_words(sha256))
    (found,) = population.run(
        examination.bound(
            examination.examine,
            network=network,
            detect=one.detect,
        ),
        # One model is one device's work, however many there are.
        population.Placement((jax.local_devices()[0],), stacked=False),
        [member],
        examination.Common(probe, jax.random.key(seed), config),
        1,
    )
    source = list(constants)[int(found.choice)]
    mean, std = constants[source]
    return job.line(
        f"<{name}>",
        found.evidence,
        {
            "mean": list(map(float, mean)),
            "std": list(map(float, std)),
            "source": source,
        },
        examination.tried_work(probe, len(constants)),
        sha256=sha256,
        architecture=name,
        num_classes=network.num_classes,
    )


def scan(
    paths: str | Sequence[str],
    images: Any = None,
    labels: Any = None,
    *,
    dataset: str = "",
    detector: str = "targeted",
    baseline: BaselineKind | None = None,
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
    known: Sequence[Evidence] = (),
    normalisation: Constants | None = None,
    architecture: str | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    chunk: int | None = None,
    **settings: Any,
) -> Iterator[Record]:
    """Judges checkpoint files, many at once, and yields each record when it is there.

    Args:
      paths: files, Orbax folders, or folders searched for both.
      images: `[N, H, W, C]` clean images in [0, 1], as `ban_jax.data.load` gives them; a
        detector that needs none does without.
      labels: `[N]` their classes.
      dataset: their name, such as `cifar10`: chooses the pixel constants to try.
      detector: its name, see `ban_jax.detectors`.
      baseline: what a candidate is compared with, see `ban_jax.verdict`; `population`
        yields nothing before everything is measured.
      threshold: score above which a model counts as backdoored; None: the detector's.
      trusted: evidence of models you vouch for.
      known: records of an earlier scan, whose evidence is used again where it fits.
      normalisation: mean and deviation per channel for every candidate; None: each
        file's own, else the best of the known constants.
      architecture: of every candidate, instead of recognising it.
      seed: of the noise.
      precision: of convolutions.
      chunk: candidates each device computes at once; None: planned from its memory.
      settings: of the detector, such as `epsilon=0.3`.

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
        probe = probes.minibatches(np.asarray(images), np.asarray(labels, np.int32))
    constants = None
    if normalisation is not None and probe is not None:
        constants = _checked(normalisation, probe.images.shape[-1])
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
    measured = (line for line, _ in scanning.scan(found, job, known=known))
    if baseline == "population":
        yield from verdict.judge_all(
            list(measured), baseline=baseline, threshold=threshold
        )
    else:
        draw = verdict.Judge(baseline, threshold=threshold, trusted=trusted)
        yield from map(draw, measured)


def repair(
    model: Any,
    variables: Variables | None,
    images: Any,
    labels: Any,
    *,
    method: str = "ban",
    held_out: float = 0.2,
    normalisation: Constants | None = None,
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
      normalisation: mean and deviation per channel that the model expects; None: it takes
        pixels as they are.
      seed: of all randomness.
      settings: of the method, such as `epochs=10`.

    Returns:
      The repaired collections (`params`, `batch_stats`, ...), for a state dict another one
      of the same names; and what the repair saw. The given model is not changed.

    Raises:
      ValueError: for what does not fit together.
    """
    images, labels = np.asarray(adapters.check_images(images)), np.asarray(labels)
    _, network, variables, read = _network(model, variables, images, labels)
    if normalisation is not None:
        checked = _checked(normalisation, images.shape[-1])
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


def _network(
    model: Any, variables: Variables | None, images: np.ndarray, labels: np.ndarray
) -> tuple[str, Network, Variables, checkpoints.Candidate | None]:
    """What a model is called, what kernels know of it, what a state dict was read to."""
    name, read = type(model).__name__, None
    if isinstance(model, Mapping):
        if variables is not None:
            raise ValueError("a state dict holds all weights: variables must be None")
        read = checkpoints.read_state_dict(model)
        name = read.spec.architecture
        model = read.spec.create(lowering=tables.default())
        variables = read.full_variables()
    network, made = adapters.as_network(model, variables, images, labels)
    return name, network, made, read


def _constants(
    read: checkpoints.Candidate | None,
    variables: Variables,
    given: Constants | None,
    channels: int,
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Pixel constants worth trying, by where they come from."""
    if given is not None:
        return {"argument": _checked(given, channels)}
    if read is not None and read.normalisation is not None:
        return {str(read.normalisation_source): read.normalisation}
    if read is not None:
        tried = normalisations.options("", channels)
        return {f"tried: {name}": constants for name, constants in tried.items()}
    own = variables["normalisation"]
    return {
        "model": (np.asarray(own["mean"]).tolist(), np.asarray(own["std"]).tolist())
    }


def _checked(constants: Constants, channels: int) -> data.Constants:
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
