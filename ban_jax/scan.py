"""The host loop of a scan: read ahead, fill chunks, measure, write each line at once."""

import collections
import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax import numpy as jnp

from ban_jax import checkpoints, detectors, population, records, verdict
from ban_jax import probe as probes
from ban_jax.detectors import evidence
from ban_jax.records import Record, Settings
from ban_jax.types import Array, Probe, Variables

READ_AHEAD = 8
"""Files read and converted on host threads while the device computes."""


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

    def deliver(key: str, record: Record) -> Iterator[tuple[Record, bool]]:
        """A line for every file of these weights."""
        for path in waiting.pop(key):
            line = {**record, "path": path}
            yield verdict.judge(line), (path, record["key"]) not in lines

    def flush(chunk: list[checkpoints.Candidate]) -> Iterator[tuple[Record, bool]]:
        measured = measure(chunk, probe, settings, digest)
        for candidate, record in zip(chunk, measured, strict=True):
            key = records.key_of(candidate, digest)
            if record["key"]:
                finished[key] = record
            yield from deliver(key, record)
        chunk.clear()

    for path, found in _read_ahead(paths, settings.architecture):
        if isinstance(found, checkpoints.CheckpointError):
            yield (
                verdict.judge(records.failure(path, str(found), settings, digest)),
                True,
            )
            continue
        reason = _unfit(found, probe, settings)
        if reason:
            record = records.failure(path, reason, settings, digest, found)
            yield verdict.judge(record), True
            continue
        key = records.key_of(found, digest)
        waiting[key].append(path)
        if key in finished:
            yield from deliver(key, finished[key])
        elif len(waiting[key]) == 1:
            chunk = chunks[found.spec]
            chunk.append(found)
            if len(chunk) == settings.chunk:
                yield from flush(chunk)
    for chunk in chunks.values():
        if chunk:
            yield from flush(chunk)


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
    network = settings.network(spec)
    normalisations: Sequence[Record | None]
    work = [0] * len(chunk)
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
            return [records.failure(c.path, reason, settings, digest, c) for c in chunk]
        search = detector.work(settings.config, spec.num_classes, probe.labels.size)
        work = [trial + search for trial in work]
    seconds = (time.perf_counter() - began) / len(chunk)
    return [
        {
            **records.identity(candidate, settings, digest),
            "normalisation": normalisation,
            **records.plain(one),
            "num_probe": 0 if probe is None else int(probe.labels.size),
            "forward_equivalents": spent,
            "seconds": seconds,
        }
        for candidate, normalisation, one, spent in zip(
            chunk, normalisations, measured, work, strict=True
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
        for name, leaf in traverse_util.flatten_dict(
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


def _normalisations(
    network: Any,
    chunk: Sequence[checkpoints.Candidate],
    probe: Probe,
    settings: Settings,
) -> tuple[list[Record], list[int]]:
    """Each candidate's pixel constants, trying the known ones where none are given.

    Returns:
      The records' `normalisation` entries, and the image forward passes each cost.
    """
    given = [_given(candidate, settings) for candidate in chunk]
    known = [entry for entry in given if entry]
    if len(known) == len(chunk):
        return known, [0] * len(chunk)
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
    cost = few.labels.size * len(tried)
    return entries, [0 if entry else cost for entry in given]


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
