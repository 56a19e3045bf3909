"""`ban-jax repair`: repaired models, a table and a report out of flagged ones."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro

from ban_jax import checkpoints, detectors, models, records, repairs, report
from ban_jax.checkpoints import part_paths
from ban_jax.commands import kinds, outcome, preparing, settings, settings_file
from ban_jax.data import clean_images
from ban_jax.records import jsonl, parts
from ban_jax.repairs import batch, inputs, record
from ban_jax.report import text
from ban_jax.storage import lock, run_folder
from ban_jax.zoo import listing

LINES, RESCAN = "repairs.jsonl", "rescan.jsonl"


class RepairFolder(run_folder.RunFolder):
    """The folder of repaired models."""

    def check_contents(self, stored_config: Any) -> None:
        """Refuses what another command wrote."""
        other = (
            isinstance(stored_config, dict) and stored_config.get("command") != "repair"
        )
        for name in (listing.INDEX, "results.jsonl"):
            other = other or self.has(name)
        if other or (stored_config is None and self.has(LINES)):
            raise self.error(
                f"{self.path}: holds another run (of a scan, of a training, or of a "
                f"repair whose {run_folder.CONFIG} is missing); choose another folder "
                "with --out"
            )

    def what_is_complete(self) -> str:
        """The models that are complete."""
        return f"the models listed in {LINES} are complete"


@dataclasses.dataclass(frozen=True)
class RepairFlags:
    """Removes backdoors: repairs checkpoints, scans them again, compares.

    Attributes:
      paths: checkpoint files, Orbax folders, or folders searched for both.
      data: as for `scan`.
      data_dir: where TFDS data lie.
      split: of the clean data; take one the models were not trained on: test, or
        `defender`, the tenth of the training images that `ban-jax train` holds back.
      image_size: as for `scan`.
      num_clean: how many clean images to use at most.
      held_out: share of the clean images that no repair learns from: accuracy is watched
        on them, and the scans before and after use them.
      num_test: test images to measure on; by default all.
      from_scan: a results.jsonl whose checkpoints judged backdoored are repaired; name
        suspicious ones yourself.
      out: folder for the repaired models, repairs.jsonl and report.html.
      mode: of the scans before and after.
      arch: architecture of every candidate, instead of recognising it.
      normalisation: NAME or MEAN/STD for every candidate, as for `scan`.
      seed: of all randomness and of the choice of clean images.
      chunk: candidates repaired side by side; by default chosen for the device.
      orbax: writes each model as an Orbax folder too.
    """

    paths: tyro.conf.Positional[kinds.Paths] = ()
    data: kinds.MaybeName = None
    data_dir: kinds.MaybePath = None
    split: kinds.Name = "test"
    image_size: int | None = None
    num_clean: int = 2500
    held_out: float = 0.2
    num_test: int | None = None
    from_scan: kinds.MaybePath = None
    method: Annotated[str, settings.names("the repair", repairs.METHODS)] = "ban"
    out: kinds.Path = "ban-repaired"
    mode: kinds.Name = "ban"
    arch: kinds.MaybeName = None
    normalisation: kinds.MaybeName = None
    seed: int = 0
    chunk: int | None = None
    orbax: bool = True

    def __post_init__(self) -> None:
        needs = detectors.DETECTORS[self.mode].needs
        outcome.require(
            "images" in needs, "--mode", "a detector that looks at images", self.mode
        )
        outcome.require_least(self, num_clean=2, chunk=1, num_test=1)
        outcome.require_seed(self.seed)
        clean_images.size(self)
        if self.arch is not None:
            models.ARCHITECTURES[self.arch]
        self.request()

    def request(self) -> inputs.Request:
        """What is asked for, without the candidates.

        Raises:
          ValueError: for an unknown method and a number out of range.
        """
        names = {field.name for field in dataclasses.fields(inputs.Request)}
        method = repairs.METHODS[self.method]
        return inputs.Request(
            **{name: getattr(self, name) for name in names - {"settings"}},
            settings=settings.chosen(self, self.method, method.settings),
        )


Flags = settings.with_settings(
    RepairFlags, {name: one.settings for name, one in repairs.METHODS.items()}
)


def candidates(flags: RepairFlags) -> list[str]:
    """The checkpoints asked for, by path or by an earlier scan.

    Raises:
      ValueError: when neither is given, and for an unreadable results file.
    """
    if not flags.paths and flags.from_scan is None:
        raise ValueError(
            "nothing to repair: give checkpoints, or --from-scan results.jsonl"
        )
    found = list(checkpoints.find(flags.paths)) if flags.paths else []
    if flags.from_scan is not None:
        lines = records.load(flags.from_scan).records
        if unjudged := sum("verdict" not in line for line in lines):
            raise ValueError(
                f"{flags.from_scan}: {unjudged} lines have no verdict yet, the scan was "
                "stopped; let it end, or draw verdicts with `ban-jax report`"
            )
        flagged = [
            line["path"]
            for line in parts.evidence(lines)
            if line.get("verdict") == "backdoored"
        ]
        if os.path.isfile(settings_file.NAME):  # what it adds is among the flags by now
            settings_file.refuse_among(flagged)
        found += [path for path in flagged if path not in found]
    return found


def run(flags: RepairFlags) -> int:
    """Repairs candidates; exit codes as of `scan`, for the repaired models.

    Returns:
      0 when all were repaired and judged clean, 1 when something is still flagged, 2
      when something was not repaired or not judged, 3 when there was nothing to repair.
    """
    settings.warn_of_idle(flags, flags.method, "--method")
    paths = candidates(flags)
    if not paths:
        where = flags.from_scan or ", ".join(flags.paths)
        what = "nothing judged backdoored" if flags.from_scan else "no checkpoint"
        print(f"nothing to repair: {what} in {where}", file=sys.stderr)
        return outcome.NOTHING
    request = flags.request()
    ways = preparing.Ways(flags, paths)
    images = inputs.load(request, ways.usual)
    folder = RepairFolder(flags.out, inputs.making(request, images))
    with lock.held(folder.file(LINES)):
        return _repair(flags, ways, images, folder, paths)


def _repair(
    flags: RepairFlags,
    ways: preparing.Ways,
    images: inputs.Images,
    folder: RepairFolder,
    paths: Sequence[str],
) -> int:
    with (
        jsonl.Writer(folder.file(LINES), record.parse) as lines,
        records.Writer(folder.file(RESCAN)) as rescans,
        outcome.progress() as progress,
    ):
        told = {line["path"]: line for line in lines.records}
        scanned = {line["path"]: line for line in rescans.records}
        quantity = text.count(len(paths), "checkpoint")
        print(f"{quantity} to repair, {len(told)} with results in {flags.out} already")
        bar = progress.add_task("Repairing", total=len(paths))
        passed: list[checkpoints.Passed] = []
        for one in _repaired(flags, ways, images, folder, paths, lines.records):
            if one.other:
                passed.append(checkpoints.Passed(one.record["path"], one.other))
                progress.advance(bar)
                continue
            if one.rescan:
                rescans.write(one.rescan)
                scanned[one.rescan["path"]] = one.rescan
            lines.write(one.record)
            told[one.record["path"]] = one.record
            progress.console.print(_line(one.record), markup=False, highlight=False)
            progress.advance(bar)
    records.rewrite(folder.file(LINES), told.values())
    records.rewrite(folder.file(RESCAN), scanned.values())
    judged = set(paths) - {one.path for one in passed}
    # A file that holds several classifiers has a line for each of them.
    chosen = [
        line
        for path, line in sorted(told.items())
        if path in judged or part_paths.split(path)[0] in judged
    ]
    outputs = {folder.file(line["output"]) for line in chosen if line["output"]}
    rescanned = [line for path, line in scanned.items() if path in outputs]
    page = folder.file("report.html")
    report.write_html(
        page,
        rescanned,
        class_names=images.class_names,
        settings=outcome.describe(flags, flags.method),
        title="Backdoor repair",
        repaired=chosen,
    )
    report.print_repairs(chosen)
    report.print_passed(passed, show_skipped=True)
    print(f"Report: {page}")
    return _exit_code(chosen)


def _repaired(
    flags: RepairFlags,
    ways: preparing.Ways,
    images: inputs.Images,
    folder: RepairFolder,
    paths: Sequence[str],
    known: Sequence[record.RepairRecord],
) -> Iterator[batch.Outcome]:
    """Outcomes of all candidates, each repaired on images as its own config says."""
    request = flags.request()
    for way, some in ways.groups(paths).items():
        own = images
        if not ways.is_usual(way, images.probe):
            ways.say(way, len(some))
            own = inputs.load(request, way)
        yield from batch.repair_all(some, request, own, folder, known=known)


def _line(done: record.RepairRecord) -> str:
    # The bar prints this itself, past the guard of standard output.
    name = text.name(os.path.basename(os.path.normpath(done["path"])))
    before, after = done["before"], done["after"]
    if before is None or after is None:
        return f"{name}: not repaired"
    told = (
        f"{name}: accuracy {before['clean_accuracy']:.3f} to "
        f"{after['clean_accuracy']:.3f}"
    )
    if before["asr"] is not None:
        told += f", ASR {before['asr']:.3f} to {after['asr']:.3f}"
    if before.get("excess") is not None:  # older lines have none
        told += f", excess {before['excess']:.3f} to {after['excess']:.3f}"
    return told


def _exit_code(repaired: Sequence[record.RepairRecord]) -> int:
    verdicts = [(one["after"] or {}).get("verdict") for one in repaired]
    found = [{"verdict": verdict or "inconclusive"} for verdict in verdicts]
    return outcome.exit_code(found)
