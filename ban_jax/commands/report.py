"""`ban-jax report`: verdicts drawn again from stored evidence."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from ban_jax import records, report, verdict
from ban_jax.commands import comparison, documents, feature_maps, kinds, outcome
from ban_jax.detectors.rules import BaselineKind
from ban_jax.records import passed as passed_files
from ban_jax.records import seal
from ban_jax.storage import atomic, lock


@dataclasses.dataclass(frozen=True)
class Flags:
    """Draws verdicts again from stored evidence; nothing is computed anew but --features.

    Attributes:
      results: a results.jsonl.
      out: folder for the new results.jsonl, results.csv and report.html.
      format, output, quiet: as for `scan`.
      baseline, profile: as for `scan`.
      trusted: a results file of models you vouch for (`trusted.jsonl` of a scan with
        --calibrate).
      threshold: as for `scan`.
      class_names: names of the classes, in order; by default those of the evidence.
      fail_on: as for `scan`.
      pictures: checkpoints whose evidence is drawn, the most alarming first.
      features: checkpoints whose features of clean images are mapped under growing neuron
        noise by t-SNE: so many of the flagged ones, and as many clean ones to compare
        with. They are read again; needs --data and scikit-learn.
      data, data_dir, split, image_size: clean images for --features, as for `scan`.
    """

    results: tyro.conf.Positional[kinds.Path]
    out: kinds.Path = "ban-report"
    format: documents.Format = "table"
    output: kinds.Output = "-"
    quiet: kinds.Quiet = False
    baseline: BaselineKind | None = None
    trusted: kinds.MaybePath = None
    profile: kinds.MaybeName = None
    threshold: float | None = None
    class_names: kinds.Names = ()
    fail_on: outcome.FailOn = "suspicious"
    pictures: int = report.PICTURED
    features: int = 0
    data: kinds.MaybeName = None
    data_dir: kinds.MaybePath = None
    split: kinds.Name = "test"
    image_size: int | None = None

    def __post_init__(self) -> None:
        outcome.require(
            self.baseline != "trusted" or self.trusted is not None,
            "--baseline trusted",
            "together with --trusted FILE",
            "no --trusted",
        )
        outcome.require_least(self, pictures=0, features=0)
        outcome.require(
            not self.features or self.data is not None,
            "--features",
            "together with --data NAME",
            "no --data",
        )
        outcome.require_threshold(self.threshold)
        documents.check(self.output, self, self.out)


def run(flags: Flags) -> int:
    """Writes the new verdicts, table and page to `--out`, and the document."""
    with (
        outcome.withdrawn(flags.out),
        documents.outlet(flags.format, flags.output, flags.quiet) as outlet,
    ):
        return _report(flags, outlet)


def _check_names(names: Sequence[str], lines: Sequence[records.Evidence]) -> None:
    """Refuses names that fit none of the models.

    Raises:
      ValueError: naming how many were given and how many classes there are.
    """
    counts = (line["num_classes"] for line in lines)
    known = {count for count in counts if count is not None}
    if names and known and len(names) not in known:
        told = " or ".join(map(str, sorted(known)))
        raise ValueError(
            f"--class-names must be {told}, one for each class of the models, got "
            f"{len(names)}"
        )


def _report(flags: Flags, outlet: documents.Outlet) -> int:
    found = records.load(flags.results).records
    _check_names(flags.class_names, found)
    trusted = records.load(flags.trusted).records if flags.trusted else ()
    told_to_judge: dict[str, Any] = {
        "baseline": flags.baseline,
        "threshold": flags.threshold,
        "trusted": trusted,
        "profiles": comparison.profiles(flags.profile),
    }
    judged = verdict.judge_all(found, **told_to_judge)
    if flags.features:
        fields = ("data", "data_dir", "split", "image_size")
        images = {name: getattr(flags, name) for name in fields}
        judged = feature_maps.added(judged, flags.features, **images)
    beside = os.path.join(os.path.dirname(flags.results), passed_files.NAME)
    passed = passed_files.load([beside])
    atomic.prepare_folder(flags.out, outcome.WRITTEN)
    names = tuple(flags.class_names) or records.class_names(judged)
    lines = os.path.join(flags.out, "results.jsonl")
    with lock.held(lines):
        outcome.refuse_foreign(lines)
        outcome.refuse_strange(lines)
        atomic.remove_leftovers(flags.out, outcome.WRITTEN)
        records.rewrite(lines, judged)
        told, trust = outcome.describe(flags), comparison.trust(judged)
        passed_files.write(os.path.join(flags.out, passed_files.NAME), passed)
        outcome.write_reports(
            judged,
            flags.out,
            names,
            told,
            trust,
            passed,
            pictured=flags.pictures,
            file=outlet.table,
        )
        outlet.write(judged, passed)
    if others := seal.strangers([*found, *trusted]):
        note = seal.note(len(others), flags.results, comparison.TAKEN)
        print(f"note: {note}", file=sys.stderr)
    unanswered = comparison.unanswered(found, verdict.Judge(**told_to_judge))
    if unanswered:
        print(
            f"note: {len(unanswered)} files were {comparison.UNANSWERED}, which could "
            "change their verdicts; `ban-jax scan` with the same flags does",
            file=sys.stderr,
        )
        return outcome.INCONCLUSIVE
    return outcome.exit_code(judged, flags.fail_on)
