"""Repairs many checkpoints: scan, repair, write, scan again, measure; a record each."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ban_jax import checkpoints, population, records, repairs, verdict
from ban_jax.records import Record
from ban_jax.repairs import comparison, inputs
from ban_jax.scanning import loop
from ban_jax.storage import run_folder, versions
from ban_jax.types import Network, Variables


class Outcome(NamedTuple):
    """Attributes:
    record: the line of `repairs.jsonl`.
    rescan: the repaired model's line of a scan; None where nothing was repaired.
    """

    record: Record
    rescan: Record | None


def repair_all(
    paths: Sequence[str],
    flags: inputs.RepairFlags,
    images: inputs.Images,
    folder: run_folder.RunFolder,
    *,
    known: Iterable[Record] = (),
) -> Iterator[Outcome]:
    """Repairs every candidate and yields its outcome as soon as its files are whole.

    Args:
      paths: files and Orbax folders, see `checkpoints.find`.
      flags: how.
      images: the clean images.
      folder: receives the repaired models.
      known: records of an earlier run with the same flags: what they say was repaired,
        and is still there, is passed over.

    Yields:
      Records have `error` set where a candidate was not repaired; the run goes on.
    """
    settings = inputs.scan_settings(flags, images)
    digest = inputs.digest(inputs.making(flags, images))
    finished = {
        record["key"]: record
        for record in known
        if record.get("key") and folder.has(record["output"])
    }
    lines = {record["path"] for record in known if record.get("key") in finished}
    waiting: dict[str, list[str]] = collections.defaultdict(list)
    done: dict[str, Outcome] = {}
    chunks: dict[Any, list[checkpoints.Candidate]] = collections.defaultdict(list)

    def flush(chunk: list[checkpoints.Candidate]) -> Iterator[Outcome]:
        keys = {c.path: records.key_of(c, digest) for c in chunk}
        for outcome in _repair_chunk(chunk, flags, images, folder, settings, digest):
            key = keys[outcome.record["path"]]
            done[key] = outcome
            for path in waiting.pop(key):
                yield outcome._replace(record={**outcome.record, "path": path})
        chunk.clear()

    for path in paths:
        try:
            candidate = checkpoints.read(path, architecture=flags.arch)
        except checkpoints.CheckpointError as error:
            yield Outcome(_blank(path, flags, str(error)), None)
            continue
        key = records.key_of(candidate, digest)
        if key in finished:
            if path not in lines:
                yield Outcome({**finished[key], "path": path}, None)
            continue
        if key in done:
            yield Outcome({**done[key].record, "path": path}, None)
            continue
        waiting[key].append(path)
        if len(waiting[key]) == 1:
            chunk = chunks[candidate.spec]
            chunk.append(candidate)
            if len(chunk) == inputs.chunk(flags):
                yield from flush(chunk)
    for chunk in chunks.values():
        if chunk:
            yield from flush(chunk)


def _repair_chunk(
    chunk: Sequence[checkpoints.Candidate],
    flags: inputs.RepairFlags,
    images: inputs.Images,
    folder: run_folder.RunFolder,
    settings: records.Settings,
    digest: str,
) -> Iterator[Outcome]:
    """Candidates of one architecture."""
    scanned = _scan([candidate.path for candidate in chunk], images, settings)
    fit = []
    for candidate in chunk:
        reason = _unfit(candidate, scanned[candidate.path], images)
        if reason:
            yield Outcome(_blank(candidate.path, flags, reason, candidate), None)
        else:
            fit.append(candidate)
    if not fit:
        return
    spec = fit[0].spec
    network = settings.network(spec)
    constants = [scanned[candidate.path]["normalisation"] for candidate in fit]
    before = [
        candidate.full_variables((entry["mean"], entry["std"]))
        for candidate, entry in zip(fit, constants, strict=True)
    ]
    keys = [population.identity_key(flags.seed, candidate.sha256) for candidate in fit]
    began = time.perf_counter()
    try:
        done = repair_population(
            network, before, keys, images.clean, flags.method, flags.settings,
            size=inputs.chunk(flags),
        )  # fmt: skip
    except jax.errors.JaxRuntimeError as error:
        reason = (
            f"the device failed: {str(error).splitlines()[0]}; if its memory did not "
            "suffice, lower --chunk"
        )
        for candidate in fit:
            yield Outcome(_blank(candidate.path, flags, reason, candidate), None)
        return
    seconds = (time.perf_counter() - began) / len(fit)
    after, infos = zip(*done, strict=True)
    names = [
        _write(folder, *pair, flags) for pair in zip(fit, after, infos, strict=True)
    ]
    paths = [folder.file(f"{name}.safetensors") for name in names]
    rescanned = _scan(paths, images, settings)
    measure = functools.partial(comparison.measure, network=network, images=images)
    with concurrent.futures.ThreadPoolExecutor(population.cores()) as pool:
        measured = list(pool.map(measure, fit, before, after))
    for index, candidate in enumerate(fit):
        first, second = scanned[candidate.path], rescanned[paths[index]]
        told = measured[index]
        yield Outcome(
            {
                **_blank(candidate.path, flags, None, candidate),
                "key": records.key_of(candidate, digest),
                "output": f"{names[index]}.safetensors",
                "orbax": f"orbax/{names[index]}" if flags.orbax else None,
                "attack": told.attack,
                "before": {**_judged(first), **told.before},
                "after": {**_judged(second), **told.after},
                "info": records.finite(infos[index]),
                "shown": told.shown,
                "seconds": seconds,
                "notes": [
                    *candidate.notes,
                    *told.notes,
                    *_remarks(infos[index], flags),
                ],
            },
            second,
        )


def repair_population(
    network: Network,
    variables: Sequence[Variables],
    keys: Sequence[jax.Array],
    clean: repairs.CleanSet,
    method: str,
    settings: Any,
    *,
    size: int,
    placement: population.Placement | None = None,
) -> list[tuple[Variables, repairs.RepairInfo]]:
    """Repairs models of one architecture side by side.

    Args:
      network: their architecture.
      variables: of each, with its pixel normalisation.
      keys: of each.
      clean: what all of them learn from.
      method: a name in `repairs.METHODS`.
      settings: of the method.
      size: models that share a compiled program; at least as many as there are.
      placement: None for all devices of this process.

    Returns:
      The repaired variables and the info of each, NumPy leaves.
    """
    placement = placement or population.default_placement()
    members = list(zip(variables, keys, strict=True))
    return population.run(
        _bound(method, network),
        placement,
        members,
        (clean, settings),
        placement.rounded(size),
    )


@functools.cache
def _bound(method: str, network: Network) -> Callable[[Any, Any], Any]:
    def call(member: Any, shared: Any) -> Any:
        (variables, key), (clean, settings) = member, shared
        return repairs.METHODS[method].repair(
            network, variables, clean, key=key, config=settings
        )

    return call


def _scan(
    paths: Sequence[str], images: inputs.Images, settings: records.Settings
) -> dict[str, Record]:
    found = loop.scan(paths, images.probe, settings)
    return {record["path"]: record for record, _ in found}


def _unfit(
    candidate: checkpoints.Candidate, scanned: Record, images: inputs.Images
) -> str:
    """Why a candidate cannot be repaired with these images, or an empty string."""
    # Against a crowd, since two classes are too few for a verdict, not for a repair.
    reason = verdict.why_inconclusive(scanned, verdict.Crowd("population"))
    if not reason and images.num_classes > candidate.spec.num_classes:
        reason = (
            f"{candidate.path}: tells {candidate.spec.num_classes} classes apart, the "
            f"clean images have {images.num_classes}: this is another data set's model"
        )
    return reason


def _write(
    folder: run_folder.RunFolder,
    candidate: checkpoints.Candidate,
    variables: Variables,
    info: repairs.RepairInfo,
    flags: inputs.RepairFlags,
) -> str:
    """Writes a repaired model with its provenance; returns its name in the folder.

    What came from a PyTorch file keeps that file's own names and layout.
    """
    base = os.path.basename(os.path.normpath(candidate.path))
    name = f"{checkpoints.stem(base)}-{candidate.sha256[:8]}"
    names = candidate.names if candidate.names.is_torch else None
    remarks = {
        "clean_accuracy": round(float(info.accuracy_after), 4),
        "repaired": {
            "from": candidate.path,
            "sha256": candidate.sha256,
            "container": candidate.names.container,
            "method": flags.method,
            "settings": dataclasses.asdict(flags.settings),
            "seed": flags.seed,
            "data": flags.data,
            "versions": versions.versions(),
        },
    }
    folder.write(
        f"{name}.safetensors",
        lambda path: checkpoints.write_safetensors(
            path, variables, candidate.spec, remarks, names
        ),
    )
    if flags.orbax:
        folder.write(
            f"orbax/{name}",
            lambda path: checkpoints.write_orbax(
                path, variables, candidate.spec, remarks
            ),
        )
    return name


def _remarks(info: repairs.RepairInfo, flags: inputs.RepairFlags) -> list[str]:
    """What a reader should know of the accuracy budget."""
    budget = f"the budget of {flags.settings.budget:g} (--{flags.method}.budget)"
    if info.epochs == 0 or info.details.get("pruned") == 0:
        return [
            f"nothing was changed that stays within {budget}: the model is as it was"
        ]
    if info.stopped:
        return [f"ended by {budget}, after epoch {int(info.epochs)}"]
    return []


_JUDGED = ("verdict", "score", "threshold", "standard_error", "target", "reason")


def _judged(record: Record) -> Record:
    """The verdict alone; accuracy is that on the test images."""
    return {name: record[name] for name in _JUDGED}


def _blank(
    path: str,
    flags: inputs.RepairFlags,
    error: str | None,
    candidate: checkpoints.Candidate | None = None,
) -> Record:
    """A record of which only the candidate is known, and why it was not repaired."""
    spec = candidate.spec if candidate else None
    return {
        "path": path,
        "key": None,
        "sha256": candidate.sha256 if candidate else None,
        "architecture": spec.architecture if spec else None,
        "width": spec.width if spec else None,
        "num_classes": spec.num_classes if spec else None,
        "method": flags.method,
        "settings": dataclasses.asdict(flags.settings),
        "seed": flags.seed,
        "versions": versions.versions(),
        "output": None,
        "orbax": None,
        "attack": None,
        "before": None,
        "after": None,
        "info": None,
        "shown": [],
        "seconds": 0.0,
        "error": error,
        "notes": [],
    }
