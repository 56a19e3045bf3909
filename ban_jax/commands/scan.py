"""What the commands do once their flags are read: files in, files and a table out."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.progress

from ban_jax import checkpoints, data, detectors, records, report, verdict
from ban_jax import config as configs
from ban_jax.convolution import tables
from ban_jax.data import normalisation as normalisations
from ban_jax.data import probe as probes
from ban_jax.scanning import loop, shards, timeline
from ban_jax.storage import atomic
from ban_jax.types import Probe

CLEAN, FLAGGED, INCONCLUSIVE, NOTHING = 0, 1, 2, 3
"""Exit codes of `scan`; a later one wins over an earlier one."""

BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "zoo", "bundled")
"""Checkpoints of known make, trained on scikit-learn's handwritten digits."""


def run_scan(flags: configs.ScanFlags) -> int:
    """`ban-jax scan`: judges candidates and writes results, CSV and report to `--out`."""
    if not flags.paths:
        flags = dataclasses.replace(
            flags, paths=(BUNDLED,), data=flags.data or "digits"
        )
        print(f"No path given: scanning the zoo that ships with the package, {BUNDLED}")
    shard = shards.parse(flags.shard) if flags.shard else None
    atomic.prepare_folder(flags.out)
    if flags.profile:
        atomic.prepare_folder(os.path.dirname(flags.profile) or ".")
    paths = checkpoints.find(flags.paths)
    if not paths:
        print(
            f"nothing to scan: no checkpoint in {', '.join(flags.paths)}",
            file=sys.stderr,
        )
        return NOTHING
    settings, probe = prepare(flags)
    if shard:
        told = {
            "config_hash": settings.digest(probe),
            "baseline": flags.baseline,
            "threshold": flags.threshold,
            "class_names": settings.class_names,
            "flags": configs.describe(flags),
        }
        shards.write_plan(flags.out, shard, paths, told)
        paths = list(shard.of(paths))
    clock = timeline.Spans()
    trusted = _trusted(flags, probe, settings, shard)
    lines = _named(flags.out, "results.jsonl", shard)
    with records.Writer(lines, resume=flags.resume) as writer:
        if writer.torn:
            print(
                f"{lines}: the last line was cut short; it is redone", file=sys.stderr
            )
        earlier = {record["path"]: record for record in writer.records}
        found = _collect(paths, probe, settings, writer, "Scanning", clock)
    judged = verdict.judge_all(
        list(found.values()),
        baseline=flags.baseline,
        threshold=flags.threshold,
        trusted=trusted,
    )
    for record in judged:
        earlier[record["path"]] = record
    records.rewrite(lines, earlier.values())
    if flags.profile:
        clock.write(flags.profile)
        print(f"Profile: {flags.profile}")
    if shard:
        report.print_table(judged, class_names=settings.class_names)
        print(f"Shard {shard} is done: {lines}. `ban-jax merge` joins the shards.")
    else:
        write_reports(judged, flags.out, settings.class_names, configs.describe(flags))
    return exit_code(judged)


def run_merge(flags: configs.MergeFlags) -> int:
    """`ban-jax merge`: joins the results of shards and says what is missing."""
    gathered = shards.gather(flags.sources)
    plan = gathered.plan
    first = flags.sources[0]
    out = flags.out or (
        first if os.path.isdir(first) else os.path.dirname(first) or "."
    )
    threshold = plan.get("threshold") if flags.threshold is None else flags.threshold
    judged = verdict.judge_all(
        gathered.records,
        baseline=flags.baseline or plan.get("baseline"),
        threshold=threshold,
        trusted=gathered.trusted,
    )
    atomic.prepare_folder(out)
    records.rewrite(os.path.join(out, "results.jsonl"), judged)
    names = tuple(plan.get("class_names") or ()) or None
    told = {**plan.get("flags", {}), **configs.describe(flags)}
    told["missing"] = len(gathered.missing)
    write_reports(judged, out, names, told)
    for note in missing(gathered):
        print(note, file=sys.stderr)
    complete = plan and not gathered.absent and not gathered.missing
    return exit_code(judged) if complete else INCONCLUSIVE


def missing(gathered: shards.Gathered, most: int = 20) -> list[str]:
    """What a merge lacks, in lines for the user."""
    notes = []
    if gathered.absent:
        notes.append(f"no results of shard {', '.join(map(str, gathered.absent))}")
    if not gathered.plan:
        notes.append(
            "no plan.i-of-n.json beside the results: what is missing is unknown"
        )
    if gathered.missing:
        notes.append(
            f"{len(gathered.missing)} files were not scanned; the same `ban-jax scan "
            "--shard` commands scan them:"
        )
        notes += [f"  {path}" for path in gathered.missing[:most]]
    if len(gathered.missing) > most:
        notes.append(f"  and {len(gathered.missing) - most} more")
    return notes


def run_report(flags: configs.ReportFlags) -> int:
    """`ban-jax report`: draws verdicts again from stored evidence; computes nothing."""
    found = records.load(flags.results).records
    trusted = records.load(flags.trusted).records if flags.trusted else ()
    judged = verdict.judge_all(
        found, baseline=flags.baseline, threshold=flags.threshold, trusted=trusted
    )
    atomic.prepare_folder(flags.out)
    records.rewrite(os.path.join(flags.out, "results.jsonl"), judged)
    names = tuple(flags.class_names) or None
    write_reports(judged, flags.out, names, configs.describe(flags))
    return exit_code(judged)


def prepare(flags: configs.ScanFlags) -> tuple[records.Settings, Probe | None]:
    """Loads the clean images and turns flags into `records.Settings`.

    Raises:
      ValueError: for flags that contradict each other or the data.
    """
    needs_images = detectors.DETECTORS[flags.mode].needs_images
    if needs_images and flags.data is None:
        raise ValueError(
            f"--mode {flags.mode} needs clean images: give --data NAME, a folder or an "
            ".npz file, or judge weights alone with --mode weights"
        )
    dataset, probe = None, None
    if flags.data is not None and needs_images:
        dataset = clean_images(flags)
        probe = minibatches(dataset)
        kept = probe.labels.size
        if kept < flags.num_clean:
            print(
                f"note: {kept} of {len(dataset.labels)} clean images are used, "
                f"{flags.num_clean} were asked for: batch statistics are taken over "
                f"whole minibatches of {configs.MINIBATCH}",
                file=sys.stderr,
            )
    channels = 3 if probe is None else probe.images.shape[-1]
    normalisation = None
    if flags.normalisation is not None:
        normalisation = normalisations.parse_normalisation(
            flags.normalisation, channels
        )
    return (
        records.Settings(
            mode=flags.mode,
            config=configs.detector_config(flags),
            seed=flags.seed,
            dataset=dataset.name if dataset else "",
            class_names=dataset.class_names if dataset else None,
            normalisation=normalisation,
            architecture=flags.arch,
            chunk=flags.chunk,
            lowering=tables.default(flags.precision),
            precision=flags.precision,
        ),
        probe,
    )


def clean_images(flags: Any) -> data.Dataset:
    """Clean images by the flags of `scan` or `repair`, fewer where there are no more."""
    return data.load(
        flags.data,
        data_dir=flags.data_dir,
        split=flags.split,
        num=flags.num_clean,
        at_most=True,
        seed=flags.seed,
        image_size=flags.image_size,
    )


def minibatches(dataset: data.Dataset) -> Probe:
    """`probe.minibatches`, its warning as a note to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = probes.minibatches(dataset.images, dataset.labels)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return probe


def _named(out: str, base: str, shard: shards.Shard | None) -> str:
    """A file in the output folder; shards have files of their own."""
    return os.path.join(out, shard.name(base) if shard else base)


def _trusted(
    flags: configs.ScanFlags,
    probe: Probe | None,
    settings: records.Settings,
    shard: shards.Shard | None,
) -> list[records.Record]:
    """Evidence of the models in `--calibrate`, kept beside the results."""
    if flags.calibrate is None:
        return []
    paths = checkpoints.find([flags.calibrate])
    if not paths:
        raise ValueError(f"--calibrate {flags.calibrate}: no checkpoint there")
    lines = _named(flags.out, "trusted.jsonl", shard)
    with records.Writer(lines, resume=flags.resume) as writer:
        found = _collect(
            paths, probe, settings, writer, "Calibrating", timeline.Spans()
        )
    return list(found.values())


def _collect(
    paths: Sequence[str],
    probe: Probe | None,
    settings: records.Settings,
    writer: records.Writer,
    title: str,
    clock: timeline.Spans,
) -> dict[str, records.Record]:
    """Scans, writing each new line at once; shows progress and the time left."""
    found = {}
    known = writer.records
    with _progress() as progress:
        task = progress.add_task(title, total=len(paths))
        for record, new in loop.scan(paths, probe, settings, known=known, clock=clock):
            found[record["path"]] = record
            if new:
                with clock("write"):
                    writer.write(record)
            progress.advance(task)
    return found


def _progress() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
    )


def write_reports(
    lines: Sequence[records.Record],
    out: str,
    class_names: tuple[str, ...] | None,
    settings: dict[str, Any],
) -> None:
    """Prints the table and writes `results.csv` and `report.html`."""
    records.write_csv(os.path.join(out, "results.csv"), lines)
    page = os.path.join(out, "report.html")
    report.write_html(page, lines, class_names=class_names, settings=settings)
    report.print_table(lines, class_names=class_names)
    print(f"Report: {page}")


def exit_code(lines: Sequence[records.Record]) -> int:
    """0 all clean, 1 something flagged, 2 something inconclusive, which wins."""
    verdicts = {record["verdict"] for record in lines}
    if "inconclusive" in verdicts:
        return INCONCLUSIVE
    return FLAGGED if "backdoored" in verdicts else CLEAN
