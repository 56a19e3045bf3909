"""`ban-jax merge`: one result from the shards of a scan."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from ban_jax import records, verdict
from ban_jax.checkpoints import errors
from ban_jax.commands import comparison, documents, kinds, outcome
from ban_jax.detectors.rules import BaselineKind
from ban_jax.records import passed as passed_files
from ban_jax.records import seal
from ban_jax.report import text
from ban_jax.scanning import shards
from ban_jax.storage import atomic, lock


@dataclasses.dataclass(frozen=True)
class Flags:
    """Joins the results of `scan --shard`, and says what is missing.

    Verdicts are drawn again from the evidence of all shards; nothing is computed anew.

    Attributes:
      sources: folders that shards wrote to (their --out), or single results.i-of-n.jsonl.
      out: folder for results.jsonl, results.csv and report.html; by default the first
        source's.
      format, output, quiet: as for `scan`.
      baseline: as for `scan`; by default what the shards were told.
      threshold: as for `scan`; by default what the shards were told.
      profile: as for `scan`; by default what the shards were told.
      fail_on: as for `scan`.
    """

    sources: tyro.conf.Positional[kinds.SomePaths]
    out: kinds.MaybePath = None
    format: documents.Format = "table"
    output: kinds.Output = "-"
    quiet: kinds.Quiet = False
    baseline: BaselineKind | None = None
    threshold: float | None = None
    profile: kinds.MaybeName = None
    fail_on: outcome.FailOn = "suspicious"

    def __post_init__(self) -> None:
        outcome.require(
            bool(self.sources), "merge", "told at least one folder or file", "none"
        )
        outcome.require_threshold(self.threshold)
        documents.check(self.output, self, self.folder)

    @property
    def folder(self) -> str:
        """Of the joined results."""
        first = self.sources[0]
        beside = first if os.path.isdir(first) else os.path.dirname(first) or "."
        return self.out or beside


def run(flags: Flags) -> int:
    """Writes the joined results, table, page and document, and tells what shards lack."""
    out = flags.folder
    with (
        outcome.withdrawn(out),
        documents.outlet(flags.format, flags.output, flags.quiet) as outlet,
    ):
        return _merge(flags, out, outlet)


def _merge(flags: Flags, out: str, outlet: documents.Outlet) -> int:
    gathered = shards.gather(flags.sources)
    for name in gathered.differing:
        outcome.require(
            getattr(flags, name) is not None,
            f"--{name}",
            "given here, since not all shards were told the same",
            "none",
        )
    plan: Mapping[str, Any] = gathered.plan or {}
    threshold = plan.get("threshold") if flags.threshold is None else flags.threshold
    told_to_judge: dict[str, Any] = {
        "baseline": flags.baseline or plan.get("baseline"),
        "threshold": threshold,
        "trusted": gathered.trusted,
        "profiles": comparison.profiles(flags.profile or plan.get("profile")),
    }
    judged = verdict.judge_all(gathered.records, **told_to_judge)
    asker = verdict.Judge(**told_to_judge)
    unanswered = comparison.unanswered(gathered.records, asker)
    atomic.prepare_folder(out, outcome.WRITTEN)
    names = tuple(plan.get("class_names") or ()) or None
    told = {**plan.get("flags", {}), **outcome.describe(flags)}
    told["missing"] = len(gathered.missing)
    lines = os.path.join(out, "results.jsonl")
    with lock.held(lines):
        outcome.refuse_foreign(lines)
        outcome.refuse_strange(lines)
        atomic.remove_leftovers(out, outcome.WRITTEN)
        records.rewrite(lines, judged)
        passed_files.write(os.path.join(out, passed_files.NAME), gathered.passed)
        trust = comparison.trust(judged)
        outcome.write_reports(
            judged, out, names, told, trust, gathered.passed, file=outlet.table
        )
        outlet.write(judged, gathered.passed)
    if others := seal.strangers([*gathered.records, *gathered.trusted]):
        note = seal.note(len(others), ", ".join(flags.sources), comparison.TAKEN)
        print(f"note: {note}", file=sys.stderr)
    for note in missing(gathered, unanswered):
        print(note, file=sys.stderr)
    absent = gathered.absent or gathered.missing or unanswered
    complete = gathered.plan is not None and not absent
    if not complete:
        return outcome.INCONCLUSIVE
    return outcome.exit_code(judged, flags.fail_on)


def missing(
    gathered: shards.Gathered, unanswered: Sequence[str] = (), most: int = 20
) -> list[str]:
    """What a merge lacks, in lines for the user.

    Args:
      gathered: the parts.
      unanswered: files at which a closer look is due.
      most: of the shards and of the files, to be named.
    """
    notes = []
    if gathered.absent:
        named = [str(shard) for shard in gathered.absent]
        notes.append(f"no results of shard {errors.listing(named, most)}")
    if gathered.plan is None:
        notes.append(
            "no plan.i-of-n.json beside the results: what is missing is unknown"
        )
    for files, what in (
        (gathered.missing, "not scanned"),
        (unanswered, comparison.UNANSWERED),
    ):
        if files:
            were = "was" if len(files) == 1 else "were"
            notes.append(
                f"{text.count(len(files), 'file')} {were} {what}; the same `ban-jax "
                "scan --shard` commands go on from there:"
            )
            notes += [f"  {text.name(path)}" for path in files[:most]]
        if len(files) > most:
            notes.append(f"  and {len(files) - most} more")
    return notes
