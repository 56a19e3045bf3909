"""`ban-jax compare`: detectors side by side on a zoo whose truth is known."""

import collections
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from ban_jax import detectors, records, report, verdict
from ban_jax.commands import choosing, comparison, kinds, outcome, scan, settings
from ban_jax.comparing import budget, figures, runs, writing
from ban_jax.data import clean_images
from ban_jax.records import Job
from ban_jax.storage import atomic, lock, versions
from ban_jax.types import Precision
from ban_jax.zoo import BUNDLED, labelled

COMPARABLE = [
    name for name, one in detectors.DETECTORS.items() if "classes" not in one.needs
]
"""Those that look at all classes; the others look closer at what these doubt."""


@dataclasses.dataclass(frozen=True)
class CompareFlags:
    """Compares detectors on a labelled zoo: how often they are right, and what they cost.

    Models whose backdoor failed in training are left out and counted. A candidate that
    cannot be judged counts as neither found nor clean. Each detector is judged by its own
    rule: a published method by the published one. Interrupted, it goes on where it was.

    Attributes:
      zoos: folders with `zoo.json`, as `ban-jax train` writes it; by default the models
        that ship with the package, on the digits data set.
      include, exclude: of the files in them, as for `scan`.
      detectors: names, separated by commas. Those that invert triggers take from an hour to
        days per model on a CPU at their documented counts, see --budget and --passes.
      data, data_dir, split, image_size, num_clean, seed, precision, chunk: as for `scan`.
      out: folder for the evidence, comparison.json, comparison.csv and comparison.html.
      baseline: insists on what candidates are compared with, for all detectors alike; a
        comparison is given no trusted models.
      profile: as for `scan`.
      budget: seconds that each detector may take per candidate: its step counts are
        changed to fit, by what a short run of it measures. By default each has its own
        documented counts.
      passes: forward-equivalents that each may spend per candidate instead: the same
        counts on every machine.
      resume: go on from the evidence in --out.
    """

    zoos: tyro.conf.Positional[kinds.Paths] = ()
    include: kinds.Globs = ()
    exclude: kinds.Globs = ()
    detectors: Annotated[str, tyro.conf.arg(metavar="NAME,...")] = ",".join(COMPARABLE)
    data: kinds.MaybeName = None
    data_dir: kinds.MaybePath = None
    split: kinds.Name = "test"
    image_size: int | None = None
    num_clean: int = 512
    out: kinds.Path = "ban-comparison"
    baseline: Literal["profile", "population", "within"] | None = None
    profile: kinds.MaybeName = None
    budget: kinds.Seconds = None
    passes: int | None = None
    seed: int = 0
    precision: Precision = "float32"
    chunk: int | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in COMPARABLE:
                known = ", ".join(COMPARABLE)
                raise ValueError(f"--detectors must be of {known}; got {name!r}")
        outcome.require(bool(self.names), "--detectors", "at least one name", "none")
        outcome.require(
            self.budget is None or 0 < self.budget < math.inf,
            "--budget",
            "more than 0 seconds, and not without end",
            self.budget,
        )
        outcome.require_least(self, passes=1)
        if self.budget is not None and self.passes is not None:
            raise ValueError(
                "--budget and --passes exclude each other: give one of them"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the detectors, each once."""
        found = [name.strip() for name in self.detectors.split(",")]
        return tuple(dict.fromkeys(name for name in found if name))


Flags = settings.with_settings(
    CompareFlags, {name: one.settings for name, one in detectors.DETECTORS.items()}
)


def run(flags: CompareFlags) -> int:
    """Compares, prints the table, and writes all files to `--out`."""
    settings.warn_of_idle(flags, flags.names[0], "--detectors", *_at_work(flags))
    if not flags.zoos:
        print(
            f"No zoo given: comparing on the one that ships with the package, {BUNDLED}"
        )
        flags = dataclasses.replace(flags, zoos=(BUNDLED,), data=flags.data or "digits")
    whole = {
        path: one
        for zoo in flags.zoos
        for path, one in labelled.labelled(zoo).items()
        if not choosing.why_not(path, flags.include, flags.exclude)
    }
    truth = {p: one for p, one in whole.items() if not labelled.has_failed(one)}
    failed = [one for one in whole.values() if labelled.has_failed(one)]
    if not truth:
        raise ValueError(f"{', '.join(flags.zoos)}: no model in it to compare on")
    atomic.prepare_folder(flags.out)
    with lock.held(os.path.join(flags.out, runs.TIMES)):
        found = _compare(flags, truth)
    told = _told(flags, truth, failed, found)
    for path in writing.write(flags.out, told):
        print(path)
    return outcome.CLEAN


def _compare(flags: CompareFlags, truth: figures.Truth) -> list[figures.Method]:
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for path in sorted(truth):
        groups[truth[path]["architecture"]].append(path)
    # Whatever one of them cannot do without is missed before another has begun.
    jobs = {name: _job(flags, name) for name in flags.names}
    told: dict[str, Any] = {
        "baseline": flags.baseline,
        "profiles": comparison.profiles(flags.profile),
    }
    found = []
    for name, job in jobs.items():
        fitted = _fitted(flags, job, groups, truth)
        with outcome.progress() as progress:
            task = progress.add_task(name, total=len(truth))
            ran = runs.run(
                groups,
                {arch: fitted[arch].job if fitted else job for arch in groups},
                flags.out,
                verdict.Judge(**told),
                resume=flags.resume,
                progress=lambda task=task: progress.advance(task),  # type: ignore[misc]
            )
        judged = verdict.judge_all(ran.lines, **told)
        summary = detectors.DETECTORS[name].summary
        found.append(figures.method(name, summary, judged, truth, ran, fitted))
        print(f"{len(found)} of {len(jobs)}: {report.method_line(found[-1])}")
    report.print_methods(found)
    return found


def _fitted(
    flags: CompareFlags,
    job: Job,
    groups: Mapping[str, Sequence[str]],
    truth: figures.Truth,
) -> dict[str, budget.Fitted]:
    """Architecture -> the job that fits the budget; empty without one.

    What an earlier run of the same flags measured is used again: the settings decide what
    evidence is filed under.
    """
    if flags.budget is None and flags.passes is None:
        return {}
    path = os.path.join(flags.out, writing.RATES)
    rates = writing.read_rates(path) if flags.resume else {}
    found = {}
    for architecture, paths in groups.items():
        key = f"{job.settings.mode}/{job.digest}/{architecture}"
        classes = int(truth[paths[0]].get("num_classes") or 10)
        rate: float | None = None
        work: float | None = flags.passes
        if flags.budget is not None:
            rate = rates.get(key) or budget.rate(job, paths, classes, flags.budget)
            work = None if rate is None else rate * flags.budget
        if rate is not None:
            rates[key] = rate
            writing.write_rates(path, rates)
        one = found[architecture] = budget.fitted(job, work, classes, rate)
        print(f"{job.settings.mode}, {architecture}: {one.in_words()}")
    return found


def _job(flags: CompareFlags, name: str) -> Job:
    """What a scan with these flags would measure by this detector.

    Raises:
      ValueError: for flags that contradict each other, the data or the detector.
    """
    detector = detectors.DETECTORS[name]
    config = settings.chosen(flags, name, detector.settings)
    if flags.data is not None and "images" not in detector.needs:
        config = _sized(flags, config)
    chosen = {name.replace("-", "_"): config} if dataclasses.fields(config) else {}
    if detector.further is not None:
        further = detectors.DETECTORS[detector.further]
        given = settings.chosen(flags, detector.further, further.settings)
        chosen[detector.further.replace("-", "_")] = given
    shared = {
        field: getattr(flags, field)
        for field in (
            "data",
            "data_dir",
            "split",
            "image_size",
            "num_clean",
            "seed",
            "precision",
            "chunk",
            "baseline",
        )
    }
    told = scan.Flags(paths=flags.zoos, mode=name, **shared, **chosen)
    return scan.prepare(told)


def _sized(flags: CompareFlags, config: Any) -> Any:
    """Settings whose made-up images are as large as the data's, unless a size was given."""
    if getattr(config, "image_size", None) != getattr(type(config)(), "image_size", 0):
        return config
    height = clean_images.load(flags).pixels.shape[1]
    return dataclasses.replace(config, image_size=height)


def _at_work(flags: CompareFlags) -> list[str]:
    further = [detectors.DETECTORS[name].further for name in flags.names]
    return [*flags.names, *(name for name in further if name)]


def _asked(flags: CompareFlags) -> dict[str, Any]:
    """The flags that decide figures; settings of detectors are told beside these."""
    told = outcome.describe(flags)
    return {n: told[n] for n in told if n not in ("zoos", "out", "resume", "data_dir")}


def _told(
    flags: CompareFlags,
    truth: figures.Truth,
    failed: Sequence[Mapping[str, Any]],
    found: Sequence[figures.Method],
) -> dict[str, Any]:
    """All that `comparison.json` says."""
    return records.finite(
        {
            "zoo": ", ".join(os.path.basename(os.path.normpath(z)) for z in flags.zoos),
            "models": len(truth),
            "clean": sum(map(labelled.is_clean, truth.values())),
            "failed": [one.get("name", one["file"]) for one in failed],
            "budget": flags.budget,
            "passes": flags.passes,
            "flags": _asked(flags),
            "versions": versions.versions(),
            "methods": list(found),
        }
    )
