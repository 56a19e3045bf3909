"""Everything that is to be known of an accelerator, at full size, in resumable steps.

    python -m benchmarks.gpu_suite --out suite          # where the accelerator is
    python -m benchmarks.gpu_suite --out suite --tiny   # tries the script on any CPU

Needs neither a network nor prepared data: weights and images are random, and the zoo and
the digits that come with the package are real. Steps, each a process of its own that
leaves NAME.json in `--out` and is skipped where that is there already; the log of a step
is NAME.log:

device       what there is; this process itself stays off it, whose memory is the steps'
correct      first: the device and the CPU judge the bundled zoo and a random model of each
             architecture; every score must agree within its standard error, else all ends
tune         times every lowering of every layer at every precision; the table serves the
             steps that follow
speed        candidates per second against their number, stages and share of the matrix
             product's peak: each architecture and precision, with the tuned table
lowering     the same with one lowering for all layers, float32
trace        a profile of one chunk (TensorBoard, Perfetto) for each architecture
scan         `ban-jax scan` of many distinct files, with a trace of what overlaps

At the end the figures of all steps are joined in `benchmarks/results/NAME_DEVICE.json`.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tyro

from ban_jax import checkpoints, convolution
from ban_jax.commands import bench, throughput
from ban_jax.commands.scan import BUNDLED
from ban_jax.convolution import tables
from ban_jax.storage import atomic
from benchmarks import _command, _timing


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    out: folder of the steps' files.
    arch: architectures.
    width: their width.
    image_size: side of the random images.
    precisions: of the convolutions.
    candidates: how many at once.
    num_clean: clean images.
    repeats: timed chunks.
    files: distinct files of the scan.
    only: names of steps begin with one of these; all where empty.
    tiny: all of it small enough for a minute or two on a CPU; figures mean nothing.
    name: of the joined result file.
    results: its folder.
    """

    out: str
    arch: tuple[str, ...] = ("resnet18", "vgg16", "densenet121")
    width: int = 64
    image_size: int = 32
    precisions: tuple[str, ...] = ("float32", "tf32", "bfloat16")
    candidates: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    num_clean: int = 512
    repeats: int = 5
    files: int = 200
    only: tuple[str, ...] = ()
    tiny: bool = False
    name: str = "gpu_suite"
    results: str | None = None

    def __post_init__(self) -> None:
        if self.tiny:
            small = {
                "arch": ("resnet18",),
                "width": 4,
                "image_size": 8,
                "precisions": ("float32", "bfloat16"),
                "candidates": (1, 2),
                "num_clean": 256,
                "repeats": 1,
                "files": 4,
            }
            for field, value in small.items():
                object.__setattr__(self, field, value)


@dataclasses.dataclass(frozen=True)
class Step:
    """One process, or one function of this one.

    Attributes:
      name: of its files.
      run: leaves the result at the path it is given, and raises where it cannot.
    """

    name: str
    run: Callable[[str], None]


def steps(flags: Flags) -> Iterator[Step]:
    """All steps, in order."""
    tuned = os.path.join(flags.out, "config")
    yield Step("device", _device)
    yield Step("correct", lambda path: correct(flags, path))
    for arch, precision in itertools.product(flags.arch, flags.precisions):
        yield Step(f"tune_{arch}_{precision}", _tune(flags, tuned, arch, precision))
    for arch in flags.arch:
        for precision in flags.precisions:
            more = ["--precision", precision]
            yield Step(f"speed_{arch}_{precision}", _bench(flags, tuned, arch, more))
        for name in convolution.LOWERINGS:
            only = os.path.join(flags.out, f"only_{name}")
            yield Step(f"lowering_{arch}_{name}", _bench(flags, only, arch, [], name))
        profile = ["--trace", os.path.join(flags.out, f"trace_{arch}")]
        yield Step(f"trace_{arch}", _bench(flags, tuned, arch, profile))
    yield Step("scan", lambda path: scan(flags, tuned, path))


def _device(path: str) -> None:
    asked = (
        "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=';')"
    )
    told = subprocess.run(
        [sys.executable, "-c", asked], check=True, capture_output=True, text=True
    )
    backend, _, kind = told.stdout.strip().rpartition("\n")[2].partition(";")
    _write(path, {"backend": backend, "device": kind})


def _known_device(flags: Flags) -> dict[str, str]:
    with open(os.path.join(flags.out, "device.json"), encoding="utf-8") as file:
        return json.load(file)


def _tune(
    flags: Flags, folder: str, arch: str, precision: str
) -> Callable[[str], None]:
    def run(path: str) -> None:
        table = os.path.join(folder, "ban_jax", "lowerings.json")
        _run(
            [
                *("bench", "--tune", "--table", table, "--arch", arch),
                *("--width", flags.width, "--image-size", flags.image_size),
                *("--repeats", flags.repeats, "--precision", precision),
            ],
            path,
        )
        _write(path, {"table": table, "machines": len(tables.read(table))})

    return run


def _bench(
    flags: Flags,
    folder: str,
    arch: str,
    more: Sequence[Any],
    only: convolution.Name | None = None,
) -> Callable[[str], None]:
    """`ban-jax bench` under the tables in a configuration folder."""

    def run(path: str) -> None:
        if only is not None:
            table = os.path.join(folder, "ban_jax", "lowerings.json")
            alone = tables.Machine(**_known_device(flags), fallback=only)
            tables.update(table, alone)
        _run(
            [
                *("bench", "--arch", arch, "--width", flags.width),
                *("--image-size", flags.image_size, "--num-clean", flags.num_clean),
                *("--repeats", flags.repeats, "--candidates", *flags.candidates),
                *(*more, "--out", path),
            ],
            path,
            XDG_CONFIG_HOME=folder,
        )

    return run


def correct(flags: Flags, path: str) -> None:
    """Scores of the device against the CPU's, in units of their standard error."""
    files = random_files(flags, "random", 1)
    zoos = {"bundled": ([BUNDLED], "digits"), "random": (files, images(flags))}
    found = {}
    for zoo, (paths, data) in zoos.items():
        scores = []
        for where, platform in (("device", {}), ("cpu", {"JAX_PLATFORMS": "cpu"})):
            out = os.path.join(flags.out, f"correct_{zoo}_{where}")
            command = ["scan", *paths, "--data", data, "--out", out]
            command += ["--num-clean", flags.num_clean]
            _run(command, path, _command.JUDGED, **platform)
            scores.append(_scores(os.path.join(out, "results.jsonl")))
        device, cpu = scores
        for name, (score, error) in cpu.items():
            found[name] = {
                "cpu": score,
                "device": device[name][0],
                "standard_error": error,
                "agrees": abs(device[name][0] - score) <= error,
            }
    apart = [name for name, entry in found.items() if not entry["agrees"]]
    if apart:
        _write(f"{path}.failed", found)
        raise SystemExit(
            f"the device does not compute what the CPU does: {', '.join(apart)}; see "
            f"{path}.failed. No speed is worth measuring before that is understood"
        )
    _write(path, found)


def _scores(path: str) -> dict[str, tuple[float, float]]:
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    broken = [line["path"] for line in lines if line["score"] is None]
    if broken:
        raise SystemExit(f"no score for {', '.join(broken)}: see {path}")
    return {
        os.path.basename(line["path"]): (line["score"], line["standard_error"])
        for line in lines
    }


def scan(flags: Flags, folder: str, path: str) -> None:
    """Wall time of one scan of distinct files, and where it went."""
    files = random_files(flags, "many", flags.files)
    out = os.path.join(flags.out, "scan_results")
    trace = os.path.join(flags.out, "scan_trace.json")
    command = ["scan", *files, "--data", images(flags), "--out", out]
    command += ["--no-resume", "--num-clean", flags.num_clean, "--trace", trace]
    seconds = _run(command, path, _command.JUDGED, XDG_CONFIG_HOME=folder)
    with open(trace, encoding="utf-8") as file:
        where = json.load(file)["otherData"]
    _write(path, {"files": len(files), "wall_seconds": seconds, "where": where})


def random_files(flags: Flags, folder: str, each: int) -> list[str]:
    """`each` distinct files per architecture, written where they are missing."""
    paths = []
    os.makedirs(os.path.join(flags.out, folder), exist_ok=True)
    for arch in flags.arch:
        spec = checkpoints.ModelSpec(arch, throughput.NUM_CLASSES, flags.width)
        for seed in range(each):
            name = f"{arch}_w{flags.width}_{seed:04}.safetensors"
            paths.append(os.path.join(flags.out, folder, name))
            if not os.path.exists(paths[-1]):
                variables = throughput.random_member(spec, seed).variables
                checkpoints.write_safetensors(paths[-1], variables, spec)
    return paths


def images(flags: Flags) -> str:
    """An `.npz` of random clean images."""
    path = os.path.join(flags.out, "images.npz")
    if not os.path.exists(path):
        probe = throughput.random_probe(
            bench.Flags(image_size=flags.image_size, num_clean=flags.num_clean)
        )
        pixels = np.asarray(probe.images).reshape(-1, *probe.images.shape[2:])
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                images=(255 * pixels).astype(np.uint8),
                labels=np.asarray(probe.labels).reshape(-1),
            )
    return path


def _run(
    words: Sequence[Any], path: str, fine: Sequence[int] = (0,), **environment: str
) -> float:
    """Wall seconds of `ban-jax`, its output in the step's log."""
    with open(path.removesuffix(".json") + ".log", "a") as log:
        return _command.ban_jax(words, fine=fine, log=log, **environment).seconds


def _write(path: str, told: Mapping[str, Any]) -> None:
    with atomic.replacing(path) as temporary, open(temporary, "w") as file:
        json.dump(told, file, indent=1)


def main(flags: Flags) -> None:
    """Takes every step that is not done, and joins what there is."""
    machine = _timing.hardware()
    jax.config.update("jax_platforms", "cpu")
    os.makedirs(flags.out, exist_ok=True)
    done = {}
    for step in steps(flags):
        path = os.path.join(flags.out, f"{step.name}.json")
        if (
            flags.only
            and step.name != "device"
            and not step.name.startswith(flags.only)
        ):
            continue
        if not os.path.exists(path):
            print(f"{step.name} ...", flush=True)
            try:
                step.run(path)
            except (_command.Failed, subprocess.CalledProcessError) as error:
                print(f"{step.name} failed: {error}", file=sys.stderr, flush=True)
                continue
        with open(path, encoding="utf-8") as file:
            done[step.name] = json.load(file)
    device = _known_device(flags)["device"].replace(" ", "_").lower()
    print(
        _timing.write_result(
            f"{flags.name}_{device}",
            {"flags": dataclasses.asdict(flags), "steps": done},
            machine=machine,
            folder=flags.results,
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
