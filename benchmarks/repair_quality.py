"""What repairs do to the models of a zoo: accuracy, attack success, recovered images.

    python -m benchmarks.repair_quality --zoo ZOO --data cifar10 --data-dir tfds
        --image-size 16 --ban.learning-rate ... --sweep badnets

Every repaired model is a line of `NAME.jsonl` beside the result the moment it is measured:
the same command goes on where it was stopped. Models whose backdoor failed in training are
left out and listed. Everything is measured on the test split; the methods see the clean
images alone, never a trigger.
"""

import collections
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import jax
import tyro

from ban_jax import checkpoints, models, population, records, repairs
from ban_jax.convolution import tables
from ban_jax.repairs import batch, comparison, inputs
from ban_jax.zoo import ground_truth
from benchmarks import _plot, _timing

LEAST_ASR = {"adap_blend": 0.5}
"""Attack success below which a backdoor counts as failed; `OTHERS` for the rest."""
OTHERS = 0.9
HELD_TO = ("badnets", "blend", "wanet", "bpp")
"""Attacks that the bars below are for."""
MOST_ASR, MOST_LOST, MOST_UNRECOVERED = 0.1, 0.03, 0.1
FIGURES = ("clean_accuracy", "asr", "recovered_accuracy")
SWEEPS: dict[str, tuple[float, ...]] = {
    "epsilon": (0.1, 0.3, 0.5, 0.7),
    "robust_weight": (0.0, 0.25, 0.5, 1.0, 2.0),
    "num_clean": (500, 1000, 2500),
}


@dataclasses.dataclass(frozen=True)
class Flags:
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
    ban: settings of the method.
    finetune: settings of the method.
    anp: settings of the method.
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
    ban: repairs.BanConfig = repairs.BanConfig()
    finetune: repairs.FinetuneConfig = repairs.FinetuneConfig()
    anp: repairs.AnpConfig = repairs.AnpConfig()


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
    return not entry["asr"] >= LEAST_ASR.get(entry["kind"], OTHERS)


def jobs_of(flags: Flags, entries: Sequence[dict[str, Any]]) -> Iterator[Job]:
    """The comparison first, then the sweeps."""
    by_architecture = collections.defaultdict(list)
    for entry in entries:
        by_architecture[entry["architecture"]].append(entry)
    for method in flags.methods:
        for some in by_architecture.values():
            settings = getattr(flags, method)
            yield Job(tuple(some), method, settings, flags.num_clean)
    swept = [entry for entry in entries if entry["kind"] == flags.sweep]
    chosen = tuple(swept[: flags.sweep_models])
    for name, values in SWEEPS.items() if chosen else ():
        for value in values:
            settings, count = flags.ban, flags.num_clean
            if name == "num_clean":
                count = int(value)
            else:
                settings = dataclasses.replace(settings, **{name: value})
            yield Job(chosen, "ban", settings, count, name, value)


class Study:
    """Clean images by their number, and figures of unrepaired models, once each."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self._images: dict[int, inputs.Images] = {}
        self._before: dict[str, dict[str, Any]] = {}

    def images(self, job: Job) -> inputs.Images:
        """The clean images of a job; fewer ones are contained in more."""
        if job.num_clean not in self._images:
            flags = self.flags
            self._images[job.num_clean] = inputs.load(
                inputs.RepairFlags(
                    data=flags.data,
                    data_dir=flags.data_dir,
                    split="defender",
                    image_size=flags.image_size,
                    num_clean=job.num_clean,
                    held_out=flags.held_out,
                    num_test=flags.num_test,
                    method=job.method,
                    **{job.method: job.settings},
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
        images = self.images(Job((), "ban", flags.ban, flags.num_clean))
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


def row(title: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of some models under one setting, and whether they reach the bars."""
    table = {
        f"{name}_{when}": _timing.spread([line[when][name] for line in lines])
        for name in FIGURES
        for when in ("before", "after")
    }
    lost = [
        line["before"]["clean_accuracy"] - line["after"]["clean_accuracy"]
        for line in lines
    ]
    unrecovered = [
        line["after"]["clean_accuracy"] - line["after"]["recovered_accuracy"]
        for line in lines
    ]
    return {
        **title,
        **table,
        "accuracy_lost": _timing.spread(lost),
        "unrecovered": _timing.spread(unrecovered),
        "epochs": _timing.spread([line["info"]["epochs"] for line in lines]),
        "seconds": _timing.spread([line["seconds"] for line in lines]),
        "cpu_seconds": _timing.spread([line["cpu_seconds"] for line in lines]),
        "reached": {
            "asr": table["asr_after"]["mean"] < MOST_ASR,
            "accuracy": statistics.fmean(lost) <= MOST_LOST,
            "recovered": statistics.fmean(unrecovered) <= MOST_UNRECOVERED,
        },
    }


def told(line: dict[str, Any]) -> str:
    """A row of the printed table."""
    cells = [
        f"{name.split('_')[0]} {line[f'{name}_before']['mean']:.3f} to "
        f"{line[f'{name}_after']['mean']:.3f}"
        for name in FIGURES
    ]
    cells.append(f"{line['seconds']['mean']:.0f} s")
    missed = [name for name, reached in line["reached"].items() if not reached]
    return "  ".join(cells) + (f"  misses {', '.join(missed)}" if missed else "")


def compared(
    jobs: Sequence[Job], lines: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row per method and attack and architecture, and one for all that have bars."""
    groups = collections.defaultdict(list)
    for job in jobs:
        for entry in job.entries if job.swept is None else ():
            line = lines.get(job.key(entry))
            if line is None:
                continue
            kind, architecture = entry["kind"], entry["architecture"]
            groups[job.method, kind, architecture].append(line)
            groups[job.method, kind, "all"].append(line)
            if kind in HELD_TO:
                groups[job.method, " ".join(HELD_TO), "all"].append(line)
    return [
        row({"method": method, "attack": kind, "architecture": architecture}, some)
        for (method, kind, architecture), some in sorted(groups.items())
    ]


def sweeps(
    jobs: Sequence[Job], lines: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row per value that was tried."""
    rows = []
    for job in jobs:
        some = [lines.get(job.key(entry)) for entry in job.entries]
        if job.swept is not None and all(some):
            title = {"swept": job.swept, "value": job.value}
            rows.append(row(title, [line for line in some if line]))
    return rows


def plot(flags: Flags, rows: Sequence[dict[str, Any]]) -> None:
    """One picture per sweep."""
    titles = {
        "epsilon": "radius of the neuron noise",
        "robust_weight": "weight of the loss under noise",
        "num_clean": "clean images, a part of them held out",
    }
    for name, title in titles.items():
        some = [line for line in rows if line["swept"] == name]
        if len(some) > 1:
            _plot.lines(
                f"{flags.name}_{name}",
                {
                    label: [
                        (line["value"], line[f"{field}_after"]["mean"]) for line in some
                    ]
                    for field, label in zip(
                        FIGURES,
                        ("clean accuracy", "attack success", "recovered"),
                        strict=True,
                    )
                },
                x=title,
                y="share of test images",
            )


def main(flags: Flags) -> None:
    """Repairs what is missing, then writes and prints the tables."""
    machine = _timing.hardware()
    with open(os.path.join(flags.zoo, "zoo.json"), encoding="utf-8") as file:
        listed = json.load(file)
    backdoored = [entry for entry in listed if entry["kind"] != "clean"]
    clean = [entry for entry in listed if entry["kind"] == "clean"]
    excluded = [entry for entry in backdoored if failed(entry)]
    entries = [entry for entry in backdoored if not failed(entry)]
    jobs = list(jobs_of(flags, entries))
    side_by_side = population.default_chunk(jax.default_backend())
    study = Study(flags)
    path = os.path.join(_timing.RESULTS, f"{flags.name}.jsonl")
    with records.Writer(path) as writer:
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
                        f"{told(row({}, [line]))}  {left} left",
                        flush=True,
                    )
    found, swept = compared(jobs, lines), sweeps(jobs, lines)
    for one in found:
        title = f"{one['method']} {one['attack']} {one['architecture']}"
        print(f"{title:45} n {one['asr_after']['n']}  {told(one)}")
    plot(flags, swept)
    _timing.write_result(
        flags.name,
        {
            "settings": records.finite(dataclasses.asdict(flags)),
            "excluded": {entry["name"]: entry["asr"] for entry in excluded},
            "comparison": found,
            "sweeps": swept,
            "never_backdoored": study.never_backdoored(clean, entries),
            "models": [lines[key] for key in sorted(lines)],
        },
        machine=machine,
    )


if __name__ == "__main__":
    main(tyro.cli(Annotated[Flags, tyro.conf.arg(name="")], args=sys.argv[1:]))
