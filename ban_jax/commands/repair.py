"""`ban-jax repair`: flags in, repaired models, a table and a report out."""

import os
import sys
import time
from typing import Any

from ban_jax import config, records, report
from ban_jax.commands.scan import CLEAN, FLAGGED, INCONCLUSIVE, NOTHING
from ban_jax.repairs import batch, inputs
from ban_jax.storage import run_folder
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


def run_repair(flags: inputs.RepairFlags) -> int:
    """Repairs candidates; exit codes as of `scan`, for the repaired models.

    Returns:
      0 when all were repaired and judged clean, 1 when something is still flagged, 2
      when something was not repaired or not judged, 3 when there was nothing to repair.
    """
    paths = inputs.candidates(flags)
    if not paths:
        where = flags.from_scan or ", ".join(flags.paths)
        what = "flagged" if flags.from_scan else "no checkpoint"
        print(
            f"nothing to repair: {'nothing ' if flags.from_scan else ''}{what} in {where}",
            file=sys.stderr,
        )
        return NOTHING
    images = inputs.load(flags)
    folder = RepairFolder(flags.out, inputs.making(flags, images))
    with (
        records.Writer(folder.file(LINES)) as lines,
        records.Writer(folder.file(RESCAN)) as rescans,
    ):
        told = {record["path"]: record for record in lines.records}
        scanned = {record["path"]: record for record in rescans.records}
        left = len(paths)
        began = time.perf_counter()
        print(f"{left} checkpoints to repair, {len(told)} told of in {flags.out}")
        for outcome in batch.repair_all(
            paths, flags, images, folder, known=lines.records
        ):
            if outcome.rescan:
                rescans.write(outcome.rescan)
                scanned[outcome.rescan["path"]] = outcome.rescan
            lines.write(outcome.record)
            told[outcome.record["path"]] = outcome.record
            print(f"{_line(outcome.record)}  ({time.perf_counter() - began:.0f} s)")
    records.rewrite(folder.file(LINES), told.values())
    records.rewrite(folder.file(RESCAN), scanned.values())
    chosen = [told[path] for path in sorted(set(paths))]
    outputs = {folder.file(record["output"]) for record in chosen if record["output"]}
    rescanned = [record for path, record in scanned.items() if path in outputs]
    page = folder.file("report.html")
    report.write_html(
        page,
        rescanned,
        class_names=images.class_names,
        settings=config.describe(flags),
        title="Backdoor repair",
        repaired=chosen,
    )
    report.print_repairs(chosen)
    print(f"Report: {page}")
    return _exit_code(chosen)


def _line(record: records.Record) -> str:
    name = os.path.basename(os.path.normpath(record["path"]))
    if record["error"]:
        return f"{name}: not repaired"
    before, after = record["before"], record["after"]
    text = (
        f"{name}: accuracy {before['clean_accuracy']:.3f} to "
        f"{after['clean_accuracy']:.3f}"
    )
    if before["asr"] is not None:
        text += f", ASR {before['asr']:.3f} to {after['asr']:.3f}"
    return text


def _exit_code(repaired: list[records.Record]) -> int:
    verdicts = {
        "inconclusive" if record["error"] else record["after"]["verdict"]
        for record in repaired
    }
    if "inconclusive" in verdicts:
        return INCONCLUSIVE
    return FLAGGED if "backdoored" in verdicts else CLEAN
