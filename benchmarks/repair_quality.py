"""What repairs do to the models of a zoo: accuracy, attack success, recovered images.

    python -m benchmarks.repair_quality --zoo ZOO --data cifar10 --data-dir tfds
        --image-size 16 --ban.learning-rate ... --sweep badnets

Every repaired model is a line of `NAME.jsonl` beside the result the moment it is measured:
the same command goes on where it was stopped. Models whose backdoor failed in training are
left out and listed; success is excess over the same images without trigger where the zoo
has it. Everything is measured on the test split; the methods see the clean images alone,
never a trigger.
"""

import collections
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import jax
import tyro

from ban_jax import checkpoints, models, population, records, repairs
from ban_jax.commands import settings
from ban_jax.convolution import tables
from ban_jax.records import jsonl
from ban_jax.repairs import batch, comparison, inputs
from ban_jax.zoo import ground_truth, success
from benchmarks import _repair_tables, _timing, _zoo

LEAST_SUCCESS = {"adap_blend": 0.5}
"""Attack success below which a backdoor counts as failed; `OTHERS` for the rest."""
OTHERS = 0.9
SWEEPS: dict[str, tuple[float, ...]] = {
    "epsilon": (0.1, 0.3, 0.5, 0.7),
    "robust_weight": (0.0, 0.25, 0.5, 1.0, 2.0),
    "num_clean": (500, 1000, 2500),
}


@dataclasses.dataclass(frozen=True)
class QualityFlags:
    """Attributes:
    zoo: folder written by `ban-jax train`.
    data: its data set.
    data_dir: TFDS's folder.
    image_size: as the zoo was trained.
    num_clean: clean images of the defender's split, the held-out part included.
    held_out: share of them that accuracy is watched on.
    num_test: test images to measure on.
    methods: to compare.
    sweep: attack whose models BAN's settings are swept on, one at a time; none: no sweep.
    sweep_models: how many of them, the first ones.
    name: of the result file.
    results: its folder.
    """

    zoo: str
    data: str = "cifar10"
    data_dir: str | None = None
    image_size: int | None = None
    num_clean: int = 2500
    held_out: float = 0.2
    num_test: int = 2500
    methods: tuple[str, ...] = ("ban", "finetune", "anp")
    sweep: str | None = None
    sweep_models: int = 1
    name: str = "repair_quality"
    results: str | None = None

    def settings(self, method: str) -> Any:
        """Those of one method."""
        return settings.chosen(self, method, repairs.METHODS[method].settings)


Flags = settings.with_settings(
    QualityFlags, {name: one.settings for name, one in repairs.METHODS.items()}
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One setting for a set of models.

    Attributes:
      entries: of `zoo.json`.
      method: name of the repair.
      settings: of it.
      num_clean: clean images.
      swept: what a sweep varies here; None for the comparison of methods.
      value: and to what.
    """

    entries: tuple[dict[str, Any], ...]
    method: str
    settings: Any
    num_clean: int
    swept: str | None = None
    value: float | None = None

    def key(self, entry: dict[str, Any]) -> str:
        """What a line is filed under, by all that decides it."""
        told = [
            entry["name"], self.method, dataclasses.asdict(self.settings), self.num_clean,
        ]  # fmt: skip
        return json.dumps(told, sort_keys=True)


def failed(entry: dict[str, Any]) -> bool:
    """Whether a backdoor is too weak to be worth a repair."""
    least = LEAST_SUCCESS.get(entry["kind"], OTHERS)
    return not success.recorded(entry).share >= least


def jobs_of(flags: QualityFlags, entries: Sequence[dict[str, Any]]) -> Iterator[Job]:
    """The comparison first, then the sweeps."""
    by_architecture = collections.defaultdict(list)
    for entry in entries:
        by_architecture[entry["architecture"]].append(entry)
    for method in flags.methods:
        for some in by_architecture.values():
            yield Job(tuple(some), method, flags.settings(method), flags.num_clean)
    swept = [entry for entry in entries if entry["kind"] == flags.sweep]
    chosen = tuple(swept[: flags.sweep_models])
    for name, values in SWEEPS.items() if chosen else ():
        for value in values:
            swept_on, count = flags.settings("ban"), flags.num_clean
            if name == "num_clean":
                count = int(value)
            else:
                swept_on = dataclasses.replace(swept_on, **{name: value})
            yield Job(chosen, "ban", swept_on, count, name, value)


class Study:
    """Clean images by their number, and figures of unrepaired models, once each."""

    def __init__(self, flags: QualityFlags) -> None:
        self.flags = flags
        self._images: dict[int, inputs.Images] = {}
        self._before: dict[str, dict[str, Any]] = {}

    def images(self, job: Job) -> inputs.Images:
        """The clean images of a job; fewer ones are contained in more."""
        if job.num_clean not in self._images:
            flags = self.flags
            self._images[job.num_clean] = inputs.load(
                inputs.Request(
                    data=flags.data,
                    data_dir=flags.data_dir,
                    split="defender",
                    image_size=flags.image_size,
                    num_clean=job.num_clean,
                    held_out=flags.held_out,
                    num_test=flags.num_test,
                    method=job.method,
                    settings=job.settings,
                    mode="targeted",
                    arch=None,
                    normalisation=None,
                    seed=0,
                    chunk=None,
                    orbax=False,
                )
            )
        return self._images[job.num_clean]

    def run(self, job: Job, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Repairs models of one architecture side by side; their lines."""
        images = self.images(job)
        found = [
            checkpoints.read(os.path.join(self.flags.zoo, entry["file"]))
            for entry in entries
        ]
        network = models.network(found[0].spec.create(lowering=tables.default()))
        variables = [candidate.full_variables() for candidate in found]
        began, spent = time.perf_counter(), time.process_time()
        done = batch.repair_population(
            network,
            variables,
            [population.identity_key(0, candidate.sha256) for candidate in found],
            images.clean,
            job.method,
            job.settings,
            size=len(found),
        )
        seconds = (time.perf_counter() - began) / len(found)
        cpu_seconds = (time.process_time() - spent) / len(found)
        lines = []
        for entry, candidate, old, (new, info) in zip(
            entries, found, variables, done, strict=True
        ):
            truth = ground_truth.find(
                candidate.path, images.test.image_shape, candidate.spec.num_classes
            )
            assert truth is not None

            def figures(variables: Any, truth=truth) -> dict[str, Any]:
                return comparison.figures(
                    variables, truth, network=network, test=images.test
                )

            if entry["name"] not in self._before:
                self._before[entry["name"]] = figures(old)
            lines.append(
                records.finite(
                    {
                        "path": job.key(entry),
                        "model": entry["name"],
                        "kind": entry["kind"],
                        "architecture": entry["architecture"],
                        "method": job.method,
                        "num_clean": job.num_clean,
                        "before": self._before[entry["name"]],
                        "after": figures(new),
                        "info": info,
                        "seconds": seconds,
                        "cpu_seconds": cpu_seconds,
                    }
                )
            )
        return lines

    def never_backdoored(
        self, clean: Sequence[dict[str, Any]], entries: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """What clean models alike make of each attack's images: a repair's upper bound.

        A trigger hides a part of the image, so that no model is as good on triggered
        images as on clean ones.
        """
        rows, flags = [], self.flags
        images = self.images(Job((), "ban", flags.settings("ban"), flags.num_clean))
        first: dict[tuple[str, str], dict[str, Any]] = {}
        for entry in entries:
            first.setdefault((entry["kind"], entry["architecture"]), entry)
        for (kind, architecture), entry in sorted(first.items()):
            twins = [one for one in clean if one["architecture"] == architecture]
            if not twins:
                continue
            model = checkpoints.read(os.path.join(flags.zoo, twins[0]["file"]))
            truth = ground_truth.find(
                os.path.join(flags.zoo, entry["file"]),
                images.test.image_shape,
                model.spec.num_classes,
            )
            assert truth is not None
            network = models.network(model.spec.create(lowering=tables.default()))
            figures = comparison.figures(
                model.full_variables(), truth, network=network, test=images.test
            )
            rows.append({"attack": kind, "architecture": architecture, **figures})
        return rows


def sweeps(
    jobs: Sequence[Job], lines: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row per value that was tried on all its models."""
    rows = []
    for job in jobs:
        some = [lines[key] for key in map(job.key, job.entries) if key in lines]
        if job.swept is not None and len(some) == len(job.entries):
            title = {"swept": job.swept, "value": job.value}
            rows.append(_repair_tables.row(title, some))
    return rows


def main(flags: QualityFlags) -> None:
    """Repairs what is missing, then writes and prints the tables."""
    machine = _timing.hardware()
    listed = _zoo.entries(flags.zoo)
    backdoored = [entry for entry in listed if entry["kind"] != "clean"]
    clean = [entry for entry in listed if entry["kind"] == "clean"]
    excluded = [entry for entry in backdoored if failed(entry)]
    entries = [entry for entry in backdoored if not failed(entry)]
    jobs = list(jobs_of(flags, entries))
    side_by_side = population.default_chunk(jax.default_backend())
    study = Study(flags)
    folder = flags.results or _timing.RESULTS
    path = os.path.join(folder, f"{flags.name}.jsonl")
    with jsonl.Writer(path, dict) as writer:
        lines = {line["path"]: line for line in writer.records}
        missing = {
            index: [entry for entry in job.entries if job.key(entry) not in lines]
            for index, job in enumerate(jobs)
        }
        left = sum(map(len, missing.values()))
        for index, job in enumerate(jobs):
            for first in range(0, len(missing[index]), side_by_side):
                some = [
                    entry
                    for entry in missing[index][first : first + side_by_side]
                    if job.key(entry) not in lines
                ]
                for line in study.run(job, some) if some else ():
                    writer.write(line)
                    lines[line["path"]] = line
                    left -= 1
                    print(
                        f"{line['model']} {job.method} {job.swept or ''} "
                        f"{'' if job.value is None else job.value}: "
                        f"{_repair_tables.told(_repair_tables.row({}, [line]))}  "
                        f"{left} left",
                        flush=True,
                    )
    kept = [
        lines[job.key(entry)]
        for job in jobs
        for entry in job.entries
        if job.swept is None and job.key(entry) in lines
    ]
    found, swept = _repair_tables.compared(kept), sweeps(jobs, lines)
    for one in found:
        title = f"{one['method']} {one['attack']} {one['architecture']}"
        print(f"{title:45} n {one['asr_after']['n']}  {_repair_tables.told(one)}")
    _repair_tables.plot(flags.name, swept, folder)
    _timing.write_result(
        flags.name,
        {
            "settings": records.finite(dataclasses.asdict(flags)),
            "excluded": {
                entry["name"]: success.recorded(entry).share for entry in excluded
            },
            "success_counted": _zoo.success_counted(backdoored),
            "comparison": found,
            "sweeps": swept,
            "never_backdoored": study.never_backdoored(clean, entries),
            "models": [lines[key] for key in sorted(lines)],
        },
        machine=machine,
        folder=folder,
    )


if __name__ == "__main__":
    main(tyro.cli(Annotated[Flags, tyro.conf.arg(name="")], args=sys.argv[1:]))
