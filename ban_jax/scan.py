"""The host loop of a scan: read ahead, fill chunks, measure, write each line at once."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
from jax import numpy as jnp

import ban_jax
from ban_jax import (
    checkpoints,
    convolution,
    detectors,
    models,
    population,
    results,
    verdict,
)
from ban_jax import probe as probes
from ban_jax.config import BanConfig, DetectorConfig, Mode
from ban_jax.detectors import evidence
from ban_jax.types import Array, Probe, Variables

Record = results.Record
READ_AHEAD = 8
"""Files read and converted on host threads while the device computes."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a candidate's evidence depends on besides its own weights.

    Attributes:
      mode: name of the detector.
      config: the detector's numbers.
      seed: folded with each candidate's weights hash into its key.
      dataset: name of the clean data; chooses the pixel constants to try.
      class_names: of the data set, where it names them.
      normalisation: `(mean, std)` for every candidate, or None: the checkpoint's own,
        else the best of the known constants.
      architecture: overrides recognition.
      chunk: candidates handed to the device at once.
      lowering: of convolutions, see `ban_jax.convolution`.
    """

    mode: Mode = "targeted"
    config: DetectorConfig = BanConfig()
    seed: int = 0
    dataset: str = ""
    class_names: tuple[str, ...] | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    architecture: str | None = None
    chunk: int = 1
    lowering: convolution.Lowering = "native"

    def digest(self, probe: Probe | None) -> str:
        """Hash of all that decides the numbers: not the chunk, not the class names."""
        told = {
            "mode": self.mode,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "normalisation": self.normalisation,
            "dataset": self.dataset if self.normalisation is None else None,
            "architecture": self.architecture,
            "lowering": self.lowering,
            "probe": probes.digest(probe) if probe is not None else None,
            "version": ban_jax.__version__,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[
            :16
        ]


def scan(
    paths: Sequence[str],
    probe: Probe | None,
    settings: Settings,
    *,
    known: Iterable[Record] = (),
) -> Iterator[tuple[Record, bool]]:
    """Measures every candidate and yields its record as soon as it is there.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      probe: clean images `[T, B, H, W, C]`; None for a mode that needs none.
      settings: what to measure, and how.
      known: records of an earlier run; where their key is the same, their evidence is
        used again.

    Yields:
      `(record, new)`: the record carries the verdict against the candidate's own classes
      (`verdict.judge_all` draws others from the same evidence); `new` is false where the
      very same line was known. A file that cannot be judged has `error` set and is
      `inconclusive`; the scan goes on.
    """
    digest = settings.digest(probe)
    finished = {record["key"]: record for record in known if record.get("key")}
    lines = {(record["path"], record.get("key")) for record in known}
    waiting: dict[str, list[str]] = collections.defaultdict(list)
    chunks: dict[Any, list[checkpoints.Candidate]] = collections.defaultdict(list)

    def deliver(record: Record) -> Iterator[tuple[Record, bool]]:
        """The record itself and a line for every copy of the file."""
        finished[record["key"]] = record
        for path in waiting.pop(record["key"], [record["path"]]):
            line = {**record, "path": path}
            yield verdict.judge(line), (path, record["key"]) not in lines

    for path, found in _read_ahead(paths, settings.architecture):
        if isinstance(found, checkpoints.CheckpointError):
            yield verdict.judge(_failure(path, str(found), settings, digest)), True
            continue
        reason = _unfit(found, probe, settings)
        if reason:
            record = _failure(path, reason, settings, digest, found)
            yield verdict.judge(record), True
            continue
        key = f"{found.sha256}-{digest}-{_own_normalisation(found)}"
        waiting[key].append(path)
        if key in finished:
            yield from deliver(finished[key])
        elif len(waiting[key]) == 1:
            chunk = chunks[found.spec]
            chunk.append(found)
            if len(chunk) == settings.chunk:
                for record in measure(chunk, probe, settings, digest):
                    yield from deliver(record)
                chunk.clear()
    for chunk in chunks.values():
        if chunk:
            for record in measure(chunk, probe, settings, digest):
                yield from deliver(record)


def measure(
    chunk: Sequence[checkpoints.Candidate],
    probe: Probe | None,
    settings: Settings,
    digest: str,
) -> list[Record]:
    """Evidence of candidates of one architecture, as records without a verdict."""
    began = time.perf_counter()
    detector = detectors.DETECTORS[settings.mode]
    spec = chunk[0].spec
    network = models.network(spec.create(lowering=settings.lowering))
    normalisations: Sequence[Record | None]
    work = 0
    if probe is None or not detector.needs_images:
        normalisations = [_given(candidate, settings) for candidate in chunk]
        measured = [
            detector.detect(network, candidate.variables) for candidate in chunk
        ]
    else:
        try:
            chosen, work = _normalisations(network, chunk, probe, settings)
            normalisations = chosen
            variables = [
                candidate.full_variables((entry["mean"], entry["std"]))
                for candidate, entry in zip(chunk, chosen, strict=True)
            ]
            keys = [population.identity_key(settings.seed, c.sha256) for c in chunk]
            stacked = population.run(
                detector.detect,
                network,
                population.stack(population.pad(variables, settings.chunk)),
                jnp.stack(population.pad(keys, settings.chunk)),
                probe,
                settings.config,
                tile=population.default_tile(jax.default_backend(), settings.chunk),
                count=len(chunk),
            )
            measured = population.unstack(stacked, len(chunk))
        except jax.errors.JaxRuntimeError as error:
            reason = f"the device failed: {str(error).splitlines()[0]}"
            return [_failure(c.path, reason, settings, digest, c) for c in chunk]
        work += detector.work(settings.config, spec.num_classes, probe.labels.size)
    seconds = (time.perf_counter() - began) / len(chunk)
    return [
        {
            **_identity(candidate, settings, digest),
            "normalisation": normalisation,
            **_plain(one),
            "num_probe": 0 if probe is None else int(probe.labels.size),
            "forward_equivalents": work,
            "seconds": seconds,
        }
        for candidate, normalisation, one in zip(
            chunk, normalisations, measured, strict=True
        )
    ]


def _read_ahead(
    paths: Sequence[str], architecture: str | None
) -> Iterator[tuple[str, checkpoints.Candidate | checkpoints.CheckpointError]]:
    """Reads files on host threads, a few ahead of the consumer, in the given order."""

    def read(path: str) -> checkpoints.Candidate | checkpoints.CheckpointError:
        try:
            return checkpoints.read(path, architecture=architecture)
        except checkpoints.CheckpointError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(READ_AHEAD // 2) as pool:
        ahead: collections.deque[tuple[str, concurrent.futures.Future]] = (
            collections.deque()
        )
        try:
            for path in paths:
                ahead.append((path, pool.submit(read, path)))
                if len(ahead) > READ_AHEAD:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _unfit(
    candidate: checkpoints.Candidate, probe: Probe | None, settings: Settings
) -> str:
    """Why this candidate cannot be measured with these images, or an empty string."""
    broken = [
        name
        for name, leaf in flax.traverse_util.flatten_dict(
            candidate.variables, sep="/"
        ).items()
        if not np.all(np.isfinite(leaf))
    ]
    if broken:
        return f"{candidate.path}: weights are not finite in {', '.join(broken[:5])}"
    if probe is None:
        return ""
    spec = candidate.spec
    height, width, channels = probe.images.shape[2:]
    if spec.in_channels != channels:
        return (
            f"{candidate.path}: takes images of {spec.in_channels} channels, the clean "
            f"images have {channels}"
        )
    smallest = spec.create().minimum_size
    if min(height, width) < smallest:
        return (
            f"{candidate.path}: {spec.architecture} needs images of at least {smallest}x"
            f"{smallest} pixels, the clean images have {height}x{width}"
        )
    names = settings.class_names
    classes = len(names) if names else int(probe.labels.max()) + 1
    if classes > spec.num_classes or (names and classes != spec.num_classes):
        return (
            f"{candidate.path}: tells {spec.num_classes} classes apart, the clean images "
            f"have {classes}: this is another data set's model"
        )
    return ""


def _given(candidate: checkpoints.Candidate, settings: Settings) -> Record | None:
    """The normalisation that needs no trying: the flag's, else the checkpoint's own."""
    if settings.normalisation is not None:
        (mean, std), source = settings.normalisation, "flag"
    elif candidate.normalisation is not None:
        (mean, std), source = (
            candidate.normalisation,
            str(candidate.normalisation_source),
        )
    else:
        return None
    return {"mean": list(mean), "std": list(std), "source": source}


def _own_normalisation(candidate: checkpoints.Candidate) -> str:
    text = json.dumps(candidate.normalisation)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _normalisations(
    network: Any,
    chunk: Sequence[checkpoints.Candidate],
    probe: Probe,
    settings: Settings,
) -> tuple[list[Record], int]:
    """Each candidate's pixel constants, trying the known ones where none are given.

    Returns:
      The records' `normalisation` entries, and the image forward passes each cost.
    """
    given = [_given(candidate, settings) for candidate in chunk]
    known = [entry for entry in given if entry]
    if len(known) == len(chunk):
        return known, 0
    tried = probes.options(settings.dataset, probe.images.shape[-1])
    means, stds = (jnp.array(part) for part in zip(*tried.values(), strict=True))
    raw = [candidate.full_variables(((0.0,), (1.0,))) for candidate in chunk]
    few = Probe(probe.images[:2], probe.labels[:2])
    losses = population.for_each(
        _trial(network),
        (population.stack(population.pad(raw, settings.chunk)),),
        population.default_tile(jax.default_backend(), settings.chunk),
        len(chunk),
        few,
        means,
        stds,
    )
    best = np.argmin(np.nan_to_num(np.asarray(losses), nan=np.inf), axis=1)
    names = list(tried)
    entries = []
    for index, entry in enumerate(given):
        name = names[best[index]]
        mean, std = tried[name]
        guess = {"mean": list(mean), "std": list(std), "source": f"tried: {name}"}
        entries.append(entry or guess)
    return entries, few.labels.size * len(tried)


@functools.cache
def _trial(network: Any) -> Callable[..., Array]:
    """One candidate's clean loss under each of L normalisations, `[L]`."""

    def losses(variables: Variables, few: Probe, means: Array, stds: Array) -> Array:
        def loss(constants: tuple[Array, Array]) -> Array:
            mean, std = constants
            chosen = {**variables, "normalisation": {"mean": mean, "std": std}}
            logits = evidence.over_minibatches(network, chosen, few.images, "stored")
            log_p = jax.nn.log_softmax(logits)
            return -jnp.mean(jnp.take_along_axis(log_p, few.labels[..., None], axis=-1))

        return jax.lax.map(loss, (means, stds))

    return losses


def _identity(
    candidate: checkpoints.Candidate, settings: Settings, digest: str
) -> Record:
    return {
        **_blank(candidate.path, settings, digest),
        "sha256": candidate.sha256,
        "key": f"{candidate.sha256}-{digest}-{_own_normalisation(candidate)}",
        "architecture": candidate.spec.architecture,
        "width": candidate.spec.width,
        "num_classes": candidate.spec.num_classes,
        "recorded_accuracy": candidate.recorded_accuracy,
        "notes": list(candidate.notes),
    }


def _blank(path: str, settings: Settings, digest: str) -> Record:
    return {
        "path": path,
        "sha256": None,
        "key": None,
        "architecture": None,
        "width": None,
        "num_classes": None,
        "normalisation": None,
        "clean_accuracy": None,
        "recorded_accuracy": None,
        "histogram": None,
        "histogram_without_noise": None,
        "vectors": {},
        "errors": {},
        "curves": {},
        "mode": settings.mode,
        "epsilon": settings.config.epsilon,
        "seed": settings.seed,
        "config": dataclasses.asdict(settings.config),
        "config_hash": digest,
        "versions": versions(),
        "seconds": 0.0,
        "forward_equivalents": 0,
        "error": None,
        "notes": [],
    }


def _failure(
    path: str,
    reason: str,
    settings: Settings,
    digest: str,
    candidate: checkpoints.Candidate | None = None,
) -> Record:
    known = _identity(candidate, settings, digest) if candidate else {}
    return {**_blank(path, settings, digest), **known, "key": None, "error": reason}


def _plain(one: evidence.Evidence) -> Record:
    """Evidence as JSON-ready lists; vectors of a mode without images stay out."""
    record = results.finite(one._asdict())
    for name in ("histogram", "histogram_without_noise"):
        if None in record[name]:
            record[name] = None
    return record


def versions() -> dict[str, str]:
    """What the numbers of a record were made with."""
    device = jax.devices()[0]
    return {
        "ban_jax": ban_jax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "python": platform.python_version(),
        "backend": device.platform,
        "device": device.device_kind,
    }
