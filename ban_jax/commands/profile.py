"""`ban-jax profile`: what clean models of a data set look like, to compare with."""

import dataclasses
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from ban_jax import checkpoints, detectors, records
from ban_jax.baselines import profile, usable
from ban_jax.commands import (
    comparison,
    kinds,
    measuring,
    outcome,
    preparing,
    replacing,
    scan,
    settings,
)
from ban_jax.data import preparation
from ban_jax.records import seal
from ban_jax.scanning import engines
from ban_jax.storage import atomic, lock, versions
from ban_jax.types import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileFlags:
    """Measures clean models and writes their profile, a small JSON file.

    What was measured is kept beside it until it is whole: interrupted, it goes on where
    it was.

    Attributes:
      paths: files, Orbax folders or folders of clean models; or results files (.jsonl) of
        scans of them, whose evidence is used as it is.
      data, data_dir, split, image_size, crop_pct, interpolation, num_clean: as for `scan`.
      out: the file to write.
      name: of the profile; by default the data set's.
      seed: as for `scan`.
      precision: as for `scan`.
      chunk: as for `scan`.
      null: results files (.jsonl) of other clean models: their scores against this profile
        are kept, and p-values come from them too.
      note: free text on where the models come from.
    """

    paths: tyro.conf.Positional[kinds.SomePaths]
    out: Annotated[str, tyro.conf.arg(metavar="PATH", aliases=("-o",))]
    data: kinds.MaybeName = None
    data_dir: kinds.MaybePath = None
    split: kinds.Name = "test"
    image_size: int | None = None
    crop_pct: float | None = None
    interpolation: preparation.Filter = "bilinear"
    num_clean: int = 512
    mode: Annotated[str, settings.names("the detector", detectors.DETECTORS)] = "ban"
    name: kinds.MaybeName = None
    seed: int = 0
    precision: Precision = "float32"
    chunk: int | None = None
    null: kinds.Paths = ()
    note: str = ""

    def __post_init__(self) -> None:
        outcome.require(
            bool(self.paths), "profile", "told at least one file or folder", "none"
        )
        replacing.check("--out", self.out, self)
        self.as_scanned()  # refuses what a scan refuses

    def as_scanned(self) -> scan.ScanFlags:
        """What a scan of the same models would be told."""
        given: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(scan.Flags)
            if hasattr(self, field.name) and field.name not in ("paths", "out")
        }
        return scan.Flags(**given)


Flags = settings.with_settings(
    ProfileFlags, {name: one.settings for name, one in detectors.DETECTORS.items()}
)


def run(flags: ProfileFlags) -> int:
    """Writes the profile; the exit code."""
    lines = [
        line
        for path in flags.paths
        if path.endswith(".jsonl")
        for line in records.load(path).records
    ]
    if theirs := seal.strangers(lines):
        results = ", ".join(path for path in flags.paths if path.endswith(".jsonl"))
        note = seal.note(len(theirs), results, comparison.TAKEN)
        print(f"note: {note}", file=sys.stderr)
    others = [line for path in flags.null for line in records.load(path).records]
    files = [path for path in flags.paths if not path.endswith(".jsonl")]
    measured = f"{flags.out}.measured.jsonl"
    if paths := checkpoints.find(files) if files else []:
        _refuse_few(lines, paths)
        lines += _measure(flags, paths, measured)
    kept = []
    for line in lines:
        if reason := usable.why_no_yardstick(line):
            print(f"note: {line['path']} is left out: {reason}", file=sys.stderr)
        else:
            kept.append(line)
    if not kept:
        print(
            f"nothing to profile: no usable model in {', '.join(flags.paths)}",
            file=sys.stderr,
        )
        return outcome.NOTHING
    data = kept[0]["data"]
    made = {
        "command": " ".join(["ban-jax", "profile", *sys.argv[2:]]),
        "versions": versions.versions(),
        "note": flags.note,
    }
    name = flags.name or (data["name"] if data else kept[0]["mode"])
    found = profile.make(name, kept, made)
    if flags.null:
        found["clean_scores"] = profile.clean_scores(found, others)
        known = len(found["clean_scores"])
        print(f"{known} of {len(others)} models of --null have a score of their own")
    profile.write(flags.out, found)
    if os.path.isfile(measured):
        os.unlink(measured)
    scores = [one["score"] for one in found["models"]]
    print(
        f"{flags.out}: {len(scores)} clean models; scores of each against the others "
        f"{min(scores):.2f} to {max(scores):.2f}, median {statistics.median(scores):.2f}"
    )
    return 0


def _refuse_few(lines: Sequence[records.Evidence], paths: Sequence[str]) -> None:
    """Refuses files that are too few for a profile before any of them is measured.

    They are read until enough different models were met. Where none can be read, what is
    wrong with each is told by measuring, which then costs nothing.

    Args:
      lines: evidence that is there already.
      paths: of the files.

    Raises:
      ProfileError: saying how many models there are.
    """
    found = {line["sha256"] for line in usable.distinct(lines)}
    unread = []
    for path in paths:
        if len(found) >= profile.MINIMUM:
            return
        try:
            parts = checkpoints.read_all(path)
        except checkpoints.CheckpointError as error:
            unread.append(f"note: {path} is left out: {error}")
            continue
        found |= {one.candidate.sha256 for one in parts if one.candidate}
    if 0 < len(found) < profile.MINIMUM:
        print(*unread, sep="\n", end="\n" * bool(unread), file=sys.stderr)
        raise profile.ProfileError(
            f"a profile needs at least {profile.MINIMUM} different clean models; got "
            f"{len(found)} that can be read"
        )


def _measure(
    flags: ProfileFlags, paths: Sequence[str], measured: str
) -> list[records.Evidence]:
    """All evidence of checkpoints, kept in the file `measured`."""
    asked_for = flags.as_scanned()
    ways = preparing.Ways(asked_for, paths)
    workers = ways.engine(engines.InProcess())
    job = scan.prepare(asked_for, ways.usual)
    folder, base = os.path.split(measured)
    atomic.prepare_folder(folder or ".", [base])
    with lock.held(flags.out):
        return measuring.whole(paths, measured, job, workers, "Measuring")
