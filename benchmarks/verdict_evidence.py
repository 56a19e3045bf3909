"""All evidence of labelled zoos, small enough to be kept: verdict rules are drawn from it.

    python -m benchmarks.verdict_evidence ZOO [ZOO ...] --data cifar10 --data-dir tfds \\
        --out benchmarks/results/verdict_evidence_cifar10.jsonl.xz --cache FOLDER

Every model of the zoos is measured by the default detector and by the closer look at all
classes. A line has the vectors and errors with what `zoo.json` tells of the model, so that
any rule can be drawn again from it without training, images or an accelerator. The first
line tells settings and clean images. The same command goes on where it was stopped.
"""

import dataclasses
import json
import lzma
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

from ban_jax import records, verdict
from ban_jax.baselines import profile
from ban_jax.commands import scan as scan_command
from ban_jax.scanning import closer, scan
from ban_jax.storage import atomic, versions
from benchmarks import _timing, _zoo

TOLD = (
    "name", "kind", "target", "mode", "architecture", "width", "seed", "recipe", "variant",
    "of", "clean_accuracy", "asr", "untriggered", "excess", "failed",
)  # fmt: skip
"""What is kept of an entry of `zoo.json`."""
KEPT = (
    "untargeted",
    "patch",
    "batch_minus_stored",
    "last_layer",
    "targeted",
    "universal",
    "stored",
)
DIGITS = 5


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is measured.

    Attributes:
      zoos: labelled folders.
      out: compressed JSON lines.
      cache: folder for the whole evidence, so that a stopped run goes on.
      profile: looks closer only where a scan with this profile would; None: everywhere.
      data, data_dir, split, num_clean, seed: as for `ban-jax scan`.
    """

    zoos: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: str
    cache: str
    data: str = "cifar10"
    data_dir: str | None = None
    split: str = "test"
    num_clean: int = 512
    seed: int = 0
    profile: str | None = None


def measure(flags: Flags, paths: list[str]) -> tuple[records.Job, dict[str, Any]]:
    """Evidence by path; kept in the cache folder line by line."""
    told = scan_command.Flags(
        paths=tuple(paths),
        data=flags.data,
        data_dir=flags.data_dir,
        split=flags.split,
        num_clean=flags.num_clean,
        seed=flags.seed,
        out=flags.cache,
    )
    job = scan_command.prepare(told)
    atomic.prepare_folder(flags.cache)
    with records.Writer(os.path.join(flags.cache, "evidence.jsonl")) as writer:
        found = []
        for line, is_new in scan.scan(paths, job, known=writer.records):
            found.append(line)
            if is_new:
                writer.write(line)
        lines = {line["path"]: line for line in found}
        judge = None
        if flags.profile is not None:
            known = profile.load(flags.profile)
            judge = verdict.Judge("profile", profiles=known)
        for line in closer.look(found, job, closer.questions(found, job, judge)):
            writer.write(line)
            lines[line["path"]] = line
    return job, lines


def slim(line: records.Evidence, entry: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a model."""
    return {
        **{name: entry[name] for name in TOLD if entry.get(name) is not None},
        "sha256": line["sha256"],
        "error": line["error"],
        "accuracy": line["clean_accuracy"],
        "work": line["forward_equivalents"],
        "vectors": _short(line["vectors"]),
        "errors": _short(line["errors"]),
    }


def _short(vectors: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    return {
        name: [None if x is None else float(f"{x:.{DIGITS}g}") for x in vectors[name]]
        for name in KEPT
        if name in vectors
    }


def read(path: str) -> Iterator[dict[str, Any]]:
    """The lines of a file this command wrote; the first one tells how it was made."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for text in file:
            yield json.loads(text)


def main(flags: Flags) -> None:
    """Measures, and writes the file."""
    truth = {
        path: entry for zoo in flags.zoos for path, entry in _zoo.labelled(zoo).items()
    }
    job, lines = measure(flags, sorted(truth))
    any_line = next(iter(lines.values()))
    head = {
        "command": " ".join(["python -m benchmarks.verdict_evidence", *sys.argv[1:]]),
        "commit": _timing.commit(),
        "versions": versions.versions(),
        "mode": job.settings.mode,
        "config": job.settings.told_config(),
        "data": any_line["data"],
        "num_probe": any_line["num_probe"],
        "num_classes": any_line["num_classes"],
        "models": len(lines),
    }
    text = [json.dumps(head)]
    text += [json.dumps(slim(lines[path], truth[path])) for path in sorted(lines)]
    data = lzma.compress("\n".join([*text, ""]).encode(), preset=9)
    atomic.write(flags.out, data)
    print(f"{flags.out}: {len(lines)} models, {len(data) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Flags, description=Flags.__doc__))
