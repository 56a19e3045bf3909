"""`ban-jax scan`: which of these checkpoints are backdoored?"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from ban_jax import checkpoints, detectors, models, records, report, verdict
from ban_jax.commands import (
    choosing,
    comparison,
    documents,
    elsewhere,
    kinds,
    measuring,
    outcome,
    preparing,
    replacing,
    settings,
)
from ban_jax.convolution import tables
from ban_jax.data import clean_images, preparation
from ban_jax.data import normalisation as normalisations
from ban_jax.detectors.rules import BaselineKind
from ban_jax.records import Job
from ban_jax.records import passed as passed_files
from ban_jax.scanning import engines, shards, timeline
from ban_jax.storage import atomic, lock
from ban_jax.types import Precision
from ban_jax.zoo import BUNDLED


@dataclasses.dataclass(frozen=True)
class ScanFlags:
    """Judges checkpoints: backdoored, clean or inconclusive.

    Attributes:
      paths: checkpoint files, Orbax folders, or folders searched for both; addresses of
        such, hf://owner/name[@revision], gs://, s3:// or https:// (docs/remote.md); by
        default the models that ship with the package, on the digits data set.
      data: clean images: a TFDS name such as cifar10, `digits`, an image folder with one
        sub-folder per class, or an .npz of `images` and `labels`.
      data_dir: where TFDS data lie.
      split: of the clean data; take one the models were not trained on: test, or
        `defender`, the tenth of the training images that `ban-jax train` holds back.
      image_size: resizes the clean images to squares of this side, for all models; without
        it those that bring a config.json get images prepared as that says.
      crop_pct: keeps this share of their shorter side, and the middle, instead of squeezing
        them: 0.875 is torchvision's for 224 pixels, timm's is in config.json.
      interpolation: the filter of that resizing.
      num_clean: how many clean images to use at most, in whole minibatches of 128.
      cache_dir: folder for what is fetched from addresses; by default
        ~/.cache/ban_jax/fetched.
      cache_limit: GiB that it may take: the least recently used is removed for more, and
        what does not fit is told of and not judged.
      out: folder for results.jsonl, results.csv and report.html.
      include: judges only files that match: `*.pt`, `runs/*`; may be given several times.
      exclude: judges no file that matches, and counts it as skipped; may be given several
        times.
      format: of the document for other programs. With table, what a person reads is
        printed; else the document alone is, and all else goes to standard error.
      output: file for the document, or - for standard output.
      quiet: prints no table and no progress; warnings and errors remain.
      baseline: insists on what a candidate is compared with. By default on the first that
        there is: trusted models, a profile, eight or more candidates of this scan, the
        candidate's own classes.
      calibrate: folder of models you vouch for.
      profile: clean models of the data set to compare with: a file that `ban-jax profile`
        wrote, the name of one that ships with the package, or none. By default the
        package's own for the data set, where there is one.
      exhaustive: measures everything of every candidate, not only where it could change
        the verdict.
      show_skipped: prints every file and folder that was met and not judged because it is
        no classifier, with the reason; else how many there are of each kind.
      fail_on: grade from which on the exit code is 1: backdoored, suspicious or never.
      threshold: score above which a model counts as backdoored; by default the mode's.
      arch: architecture of every candidate, instead of recognising it.
      normalisation: NAME or MEAN/STD for every candidate, instead of the checkpoint's
        own or the best of the known constants.
      seed: of the noise and of the choice of clean images.
      precision: what convolutions multiply: whole float32 numbers; tf32, faster on
        accelerators and the same on a CPU; or bfloat16.
      chunk: candidates each device computes at once; by default as many as its memory
        holds, up to 16, on a CPU up to one per core.
      resume: go on from the results in --out.
      shard: `i/n`, i from 0: this process takes every n-th file and writes
        results.i-of-n.jsonl to --out, for `ban-jax merge`. `auto` takes i and n from
        `jax.distributed`: on TPU pods, under SLURM and Open MPI. A job array needs no
        more than --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT, an indexed
        Kubernetes job of 8 --shard $JOB_COMPLETION_INDEX/8.
      engine: who measures: this process, or the workers of a Ray cluster, one per device
        (extra `ray`; docs/cluster.md).
      address: of a running Ray cluster; by default that of RAY_ADDRESS, else one of this
        machine alone.
      worker_cpus: CPUs of each worker of the cluster.
      trace: file for a trace of what the scan did when (ui.perfetto.dev shows it), with
        seconds per stage.
    """

    paths: tyro.conf.Positional[kinds.Paths] = ()
    include: kinds.Globs = ()
    exclude: kinds.Globs = ()
    cache_dir: kinds.MaybePath = None
    cache_limit: float = 64.0
    data: kinds.MaybeName = None
    data_dir: kinds.MaybePath = None
    split: kinds.Name = "test"
    image_size: int | None = None
    crop_pct: float | None = None
    interpolation: preparation.Filter = "bilinear"
    num_clean: int = 512
    out: kinds.Path = "ban-results"
    format: documents.Format = "table"
    output: kinds.Output = "-"
    quiet: kinds.Quiet = False
    mode: Annotated[str, settings.names("the detector", detectors.DETECTORS)] = "ban"
    baseline: BaselineKind | None = None
    calibrate: kinds.MaybePath = None
    profile: kinds.MaybeName = None
    exhaustive: bool = False
    show_skipped: bool = False
    fail_on: outcome.FailOn = "suspicious"
    threshold: float | None = None
    arch: kinds.MaybeName = None
    normalisation: kinds.MaybeName = None
    seed: int = 0
    precision: Precision = "float32"
    chunk: int | None = None
    resume: bool = True
    shard: str | None = None
    engine: engines.Name = "process"
    address: str | None = None
    worker_cpus: int = 1
    trace: kinds.MaybePath = None

    def __post_init__(self) -> None:
        outcome.require_least(self, num_clean=2, chunk=1, worker_cpus=1)
        clean_images.size(self)
        outcome.require(
            self.cache_limit > 0, "--cache-limit", "above 0", self.cache_limit
        )
        outcome.require(
            self.address is None or self.engine == "ray",
            "--address",
            "together with --engine ray",
            f"--engine {self.engine}",
        )
        outcome.require(
            self.baseline != "trusted" or self.calibrate is not None,
            "--baseline trusted",
            "together with --calibrate DIR",
            "no --calibrate",
        )
        outcome.require_threshold(self.threshold)
        outcome.require_seed(self.seed)
        replacing.check("--trace", self.trace, self, self.out)
        documents.check(self.output, self, self.out)
        if self.arch is not None:
            models.ARCHITECTURES[self.arch]
        # An unknown mode or a bad number is refused here.
        self.config, self.further  # noqa: B018

    @property
    def config(self) -> Any:
        """The settings of the mode's detector."""
        detector = detectors.DETECTORS[self.mode]
        return settings.chosen(self, self.mode, detector.settings)

    @property
    def at_work(self) -> tuple[str, ...]:
        """The mode's detector, and the one that looks closer."""
        further = detectors.DETECTORS[self.mode].further
        return (self.mode, further) if further else (self.mode,)

    @property
    def further(self) -> Any:
        """Those of the detector that looks closer; None where there is none."""
        name = detectors.DETECTORS[self.mode].further
        if name is None:
            return None
        return settings.chosen(self, name, detectors.DETECTORS[name].settings)


Flags = settings.with_settings(
    ScanFlags, {name: one.settings for name, one in detectors.DETECTORS.items()}
)


def run(flags: ScanFlags) -> int:
    """Judges candidates; writes results, CSV and report to `--out`, and the document."""
    with (
        outcome.withdrawn(flags.out),
        documents.outlet(flags.format, flags.output, flags.quiet) as outlet,
        elsewhere.fetched(
            flags, lambda path: choosing.why_not(path, flags.include, flags.exclude)
        ) as (told, places),
    ):
        return _run(told, outlet, places)


def _run(flags: ScanFlags, outlet: documents.Outlet, places: elsewhere.Places) -> int:
    settings.warn_of_idle(flags, flags.mode, "--mode", *flags.at_work)
    if not flags.paths:
        print(f"No path given: scanning the zoo that ships with the package, {BUNDLED}")
        flags = dataclasses.replace(
            flags, paths=(BUNDLED,), data=flags.data or "digits"
        )
    if flags.shard == "auto":
        flags = dataclasses.replace(flags, shard=shards.of_cluster())
    shard = shards.parse(flags.shard) if flags.shard else None
    profiles = comparison.profiles(flags.profile)
    names = [*outcome.WRITTEN, "trusted.jsonl", "plan.json"]
    own = [shard.name(name) if shard else name for name in names]
    searched = places.search(flags.paths)
    found = choosing.chosen(searched, flags.include, flags.exclude, flags.data)
    for flag, path in (("--output", flags.output), ("--trace", flags.trace)):
        replacing.refuse_any(flag, path, [*found.paths, *found.opened])
    if not found.paths:
        print(
            f"nothing to scan: no checkpoint in {', '.join(flags.paths)}",
            file=sys.stderr,
        )
        report.print_passed(choosing.met(found), show_skipped=flags.show_skipped)
        outlet.write([], choosing.met(found))
        return outcome.NOTHING
    atomic.prepare_folder(flags.out, own)
    if flags.trace:
        atomic.prepare_folder(os.path.dirname(flags.trace) or ".")
    # A cluster is joined before JAX takes a device here, which may be a worker's.
    with engines.started(
        flags.engine, flags.address, flags.worker_cpus, len(found.paths)
    ) as started:
        there = [path for path in found.paths if path not in places.failed]
        own_ways = preparing.Ways(flags, map(places.lying, there))
        workers = places.engine(own_ways.engine(started))
        job = workers.adapted(prepare(flags, own_ways.usual))
        with lock.held(_named(flags.out, "results.jsonl", shard)):
            atomic.remove_leftovers(flags.out, own)
            trusted = _named(flags.out, "trusted.jsonl", shard)
            if flags.calibrate and flags.resume and os.path.isfile(trusted):
                records.load(trusted)  # refuses what is no scan's
            outcome.refuse_strange(_named(flags.out, "results.jsonl", shard), own)
            return _scan(flags, job, workers, found, shard, profiles, outlet, places)


def _scan(
    flags: ScanFlags,
    job: Job,
    workers: engines.Engine,
    searched: checkpoints.Found,
    shard: shards.Shard | None,
    profiles: verdict.Profiles,
    outlet: documents.Outlet,
    places: elsewhere.Places,
) -> int:
    paths: Sequence[str] = searched.paths
    clock = timeline.Timeline()
    lines = _named(flags.out, "results.jsonl", shard)
    # A file there that is no scan's is refused before anything beside it is replaced.
    with records.Writer(lines, resume=flags.resume) as writer:
        passed_files.write(
            _named(flags.out, passed_files.NAME, shard), choosing.met(searched)
        )
        if shard:
            _write_plan(flags, job, shard, paths)
            paths = list(shard.of(paths))
        told_to_judge: dict[str, Any] = {
            "baseline": flags.baseline,
            "threshold": flags.threshold,
            "trusted": measuring.trusted(
                places.search([flags.calibrate]).paths if flags.calibrate else None,
                flags,
                _named(flags.out, "trusted.jsonl", shard),
                job,
                workers,
            ),
            "profiles": profiles,
        }
        if writer.torn:
            print(
                f"{lines}: the last line was cut short; it is redone", file=sys.stderr
            )
        measuring.say_whose(lines, writer)
        earlier = {record["path"]: record for record in writer.records}
        # Only the whole scan is a crowd: until then lines are evidence alone.
        found = measuring.collect(paths, job, workers, writer, "Scanning", clock)
        # What is asked of a candidate must not hang on its neighbours, of which a shard
        # has others: the crowd judges, it does not ask.
        judge = verdict.Judge(**told_to_judge)
        found = measuring.look_closer(
            found, job, workers, writer, clock, judge, flags.exhaustive
        )
    judged = verdict.judge_all(found, **told_to_judge)
    # Evidence of files that are not among the given paths this time is kept.
    told_of = {record["path"] for record in judged}
    given = set(paths)
    rest = [
        record
        for path, record in earlier.items()
        # A file that was read again may have other parts than before.
        if path not in told_of and record.get("part_of") not in given
    ]
    records.rewrite(lines, [*judged, *rest])
    if flags.trace:
        clock.write(flags.trace)
        print(f"Trace: {flags.trace}")
    names = job.settings.class_names
    if shard:
        kept, others = passed_files.divide(judged)
        report.print_table(
            kept,
            class_names=names,
            trust=comparison.trust(judged),
            passed=sorted([*choosing.met(searched), *others]),
            show_skipped=flags.show_skipped,
            file=outlet.table,
        )
        print(f"Shard {shard} is done: {lines}. `ban-jax merge` joins the shards.")
    else:
        outcome.write_reports(
            judged,
            flags.out,
            names,
            outcome.describe(flags, *flags.at_work),
            comparison.trust(judged),
            choosing.met(searched),
            show_skipped=flags.show_skipped,
            file=outlet.table,
        )
    outlet.write(judged, choosing.met(searched))
    if (took := clock.took()) and not flags.quiet:
        print(f"Measured in {took}", file=sys.stderr)
    # Of more shards than files some have nothing to do.
    return outcome.exit_code(judged, flags.fail_on, may_be_none=bool(shard))


def _write_plan(
    flags: ScanFlags, job: Job, shard: shards.Shard, paths: Sequence[str]
) -> None:
    """What `ban-jax merge` needs to know of all shards."""
    told = {
        "config_hash": job.digest,
        "baseline": flags.baseline,
        "threshold": flags.threshold,
        "profile": flags.profile,
        "class_names": job.settings.class_names,
        "flags": outcome.describe(flags, *flags.at_work),
    }
    shards.write_plan(flags.out, shard, paths, told)


def prepare(flags: ScanFlags, usual: preparation.Preparation | None = None) -> Job:
    """Loads the clean images and turns flags into a job.

    Args:
      flags: of the command.
      usual: prepares clean images so, whatever the flags say of sizes.

    Raises:
      ValueError: for flags that contradict each other or the data.
    """
    needs_images = "images" in detectors.DETECTORS[flags.mode].needs
    if needs_images and flags.data is None:
        raise ValueError(
            f"--mode {flags.mode} needs clean images: give --data NAME, a folder or an "
            ".npz file, or judge weights alone with --mode weights"
        )
    dataset, probe = None, None
    if flags.data is not None and needs_images:
        dataset, probe = clean_images.asked(flags, usual)
    channels = 3 if probe is None else probe.images.shape[-1]
    normalisation = None
    if flags.normalisation is not None:
        normalisation = normalisations.parse_normalisation(
            flags.normalisation, channels
        )
    chosen = records.Settings(
        mode=flags.mode,
        config=flags.config,
        further=flags.further,
        seed=flags.seed,
        dataset=dataset.name if dataset else "",
        class_names=dataset.class_names if dataset else None,
        normalisation=normalisation,
        architecture=flags.arch,
        chunk=flags.chunk,
        lowering=tables.default(flags.precision),
        precision=flags.precision,
    )
    is_own = usual and dataset and not clean_images.are_as_given(flags, dataset)
    return Job(chosen, probe, preparation=preparing.told(usual) if is_own else "")


def _named(out: str, base: str, shard: shards.Shard | None) -> str:
    """A file in the output folder; shards have files of their own."""
    return os.path.join(out, shard.name(base) if shard else base)
