"""What the commands do once their flags are read: files in, files and a table out."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import rich.console
import rich.progress

from ban_jax import (
    checkpoints,
    data,
    detectors,
    lowerings,
    population,
    records,
    report,
    results,
    scan,
    verdict,
)
from ban_jax import config as configs
from ban_jax import probe as probes
from ban_jax.types import Probe

CLEAN, FLAGGED, INCONCLUSIVE, NOTHING = 0, 1, 2, 3
"""Exit codes of `scan`; a later one wins over an earlier one."""

BUNDLED = os.path.join(os.path.dirname(__file__), "zoo")
"""Checkpoints of known make, trained on scikit-learn's handwritten digits."""


def run_scan(flags: configs.ScanFlags) -> int:
    """`ban-jax scan`: judges candidates and writes results, CSV and report to `--out`."""
    if not flags.paths:
        flags = dataclasses.replace(
            flags, paths=(BUNDLED,), data=flags.data or "digits"
        )
        print(f"No path given: scanning the zoo that ships with the package, {BUNDLED}")
    results.prepare_folder(flags.out)
    paths = checkpoints.find(flags.paths)
    if not paths:
        print(
            f"nothing to scan: no checkpoint in {', '.join(flags.paths)}",
            file=sys.stderr,
        )
        return NOTHING
    settings, probe = prepare(flags)
    trusted = _trusted(flags, probe, settings)
    lines = os.path.join(flags.out, "results.jsonl")
    with results.Writer(lines, resume=flags.resume) as writer:
        if writer.torn:
            print(
                f"{lines}: the last line was cut short; it is redone", file=sys.stderr
            )
        earlier = {record["path"]: record for record in writer.records}
        found = _collect(paths, probe, settings, writer, "Scanning")
    judged = verdict.judge_all(
        list(found.values()),
        baseline=flags.baseline,
        threshold=flags.threshold,
        trusted=trusted,
    )
    for record in judged:
        earlier[record["path"]] = record
    results.rewrite(lines, earlier.values())
    write_reports(judged, flags.out, settings.class_names, configs.describe(flags))
    return exit_code(judged)


def run_report(flags: configs.ReportFlags) -> int:
    """`ban-jax report`: draws verdicts again from stored evidence; computes nothing."""
    records = results.load(flags.results).records
    trusted = results.load(flags.trusted).records if flags.trusted else ()
    judged = verdict.judge_all(
        records, baseline=flags.baseline, threshold=flags.threshold, trusted=trusted
    )
    results.prepare_folder(flags.out)
    results.rewrite(os.path.join(flags.out, "results.jsonl"), judged)
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
        dataset = data.load(
            flags.data,
            data_dir=flags.data_dir,
            split=flags.split,
            num=flags.num_clean,
            seed=flags.seed,
            image_size=flags.image_size,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            probe = probes.minibatches(dataset.images, dataset.labels)
        for warning in caught:
            print(f"note: {warning.message}", file=sys.stderr)
        kept = probe.labels.size
        if kept < len(dataset.labels):
            print(
                f"note: {kept} of {len(dataset.labels)} clean images are used: batch "
                f"statistics are taken over whole minibatches of {configs.MINIBATCH}",
                file=sys.stderr,
            )
    channels = 3 if probe is None else probe.images.shape[-1]
    normalisation = None
    if flags.normalisation is not None:
        normalisation = probes.parse_normalisation(flags.normalisation, channels)
    backend = jax.default_backend()
    return (
        records.Settings(
            mode=flags.mode,
            config=configs.detector_config(flags),
            seed=flags.seed,
            dataset=dataset.name if dataset else "",
            class_names=dataset.class_names if dataset else None,
            normalisation=normalisation,
            architecture=flags.arch,
            chunk=flags.chunk or population.default_chunk(backend),
            lowering=lowerings.default(),
            precision=flags.precision,
        ),
        probe,
    )


def _trusted(
    flags: configs.ScanFlags, probe: Probe | None, settings: records.Settings
) -> list[results.Record]:
    """Evidence of the models in `--calibrate`, kept beside the results."""
    if flags.calibrate is None:
        return []
    paths = checkpoints.find([flags.calibrate])
    if not paths:
        raise ValueError(f"--calibrate {flags.calibrate}: no checkpoint there")
    lines = os.path.join(flags.out, "trusted.jsonl")
    with results.Writer(lines, resume=flags.resume) as writer:
        found = _collect(paths, probe, settings, writer, "Calibrating")
    return list(found.values())


def _collect(
    paths: Sequence[str],
    probe: Probe | None,
    settings: records.Settings,
    writer: results.Writer,
    title: str,
) -> dict[str, results.Record]:
    """Scans, writing each new line at once; shows progress and the time left."""
    found = {}
    with _progress() as progress:
        task = progress.add_task(title, total=len(paths))
        for record, new in scan.scan(paths, probe, settings, known=writer.records):
            found[record["path"]] = record
            if new:
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
    records: Sequence[results.Record],
    out: str,
    class_names: tuple[str, ...] | None,
    settings: dict[str, Any],
) -> None:
    """Prints the table and writes `results.csv` and `report.html`."""
    results.write_csv(os.path.join(out, "results.csv"), records)
    page = os.path.join(out, "report.html")
    report.write_html(page, records, class_names=class_names, settings=settings)
    report.print_table(records, class_names=class_names)
    print(f"Report: {page}")


def exit_code(records: Sequence[results.Record]) -> int:
    """0 all clean, 1 something flagged, 2 something inconclusive, which wins."""
    verdicts = {record["verdict"] for record in records}
    if "inconclusive" in verdicts:
        return INCONCLUSIVE
    return FLAGGED if "backdoored" in verdicts else CLEAN
