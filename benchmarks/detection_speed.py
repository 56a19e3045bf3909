"""Seconds per candidate: `ban-jax scan` against PyTorch, same machine and checkpoints.

    python -m benchmarks.detection_speed --checkpoints ../shared/zoo \
        --data cifar10 --data-dir ../shared/tfds

Three parts, each on its own with `--parts`:

released   the released detection with its README settings, all threads
           (`torch_detection.released`). By default a fraction of its steps is timed,
           kind by kind, and multiplied up; `--full` runs the whole procedure instead.
           Reading the file and the accuracy check before the procedure are left out, as
           in its own "total time".
reduced    PyTorch float32, all threads, the same reduced work as `ban_jax`'s default.
           Contiguous or channels-last memory, whichever is faster: both are measured.
ban_jax    `ban-jax scan` on the same files, `repetitions` times, the first time with
           nothing compiled: wall time of the whole command, the `seconds` of each
           candidate from its results file, and where the time went (`--profile`).

Run it on an idle machine: PyTorch's threads wait for each other, and one busy core made
them up to ten times slower here. The load at the start is in the result.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks import _plot, _timing, torch_detection, torch_models

Part = Literal["released", "reduced", "ban_jax"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Seconds per candidate of ban_jax and of PyTorch.

    Attributes:
      checkpoints: PyTorch files, or folders of them, of one architecture.
      data: name of a TFDS data set with `image` and `label`.
      data_dir: where it was prepared.
      split: images to time on; what they show does not matter.
      parts: what to measure.
      full: run the released procedure whole, on `released_candidates` files.
      released_candidates: files the released procedure is timed on.
      mask_steps: timed mask steps when not `full`, of 400.
      noise_steps: timed noise steps when not `full`, of 600.
      evaluation_batches: timed evaluation batches when not `full`, of 80.
      repetitions: of the reduced work, per candidate, and of the scan.
      minibatches: minibatches of 128 images of the reduced work, the search's included.
      epsilon: radius of the reduced work's noise.
      steps: sign steps of the reduced work.
      restarts: noise searches per class of the reduced work.
      radii: radii the reduced work evaluates, as shares of epsilon.
      memory_format: of the reduced work; `auto` times both and takes the faster.
      threads: of PyTorch; all cores this process may use when 0.
      scan_flags: further flags for `ban-jax scan`.
      name: of the result file.
      results: folder of the result file, `benchmarks/results` when empty.
    """

    checkpoints: tuple[str, ...]
    data: str
    data_dir: str | None = None
    split: str = "test"
    parts: tuple[Part, ...] = ("released", "reduced", "ban_jax")
    full: bool = False
    released_candidates: int = 1
    mask_steps: int = 5
    noise_steps: int = 10
    evaluation_batches: int = 5
    repetitions: int = 5
    minibatches: int = 4
    epsilon: float = torch_detection.ReducedConfig.epsilon
    steps: int = torch_detection.ReducedConfig.steps
    restarts: int = torch_detection.ReducedConfig.restarts
    radii: tuple[float, ...] = torch_detection.ReducedConfig.radii
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    threads: int = 0
    scan_flags: tuple[str, ...] = ()
    name: str = "detection_speed"
    results: str = ""


SMALL, LARGE = 500, 5000
"""Images the released procedure searches and evaluates on: 1 % and 10 % of CIFAR-10."""
MINIBATCH = 128


def load_images(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """The first 5,000 images: pixels `[N, H, W, C]` in [0, 1] and labels `[N]`."""
    import tensorflow_datasets as tfds  # takes seconds to import

    source = tfds.data_source(
        config.data, split=config.split, data_dir=config.data_dir, download=False
    )
    examples = [source[index] for index in range(min(LARGE, len(source)))]
    pixels = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples])
    scaled = torch.from_numpy(pixels.astype(np.float32) / np.float32(255))
    return scaled, torch.from_numpy(labels.astype(np.int64))


def find(paths: Sequence[str]) -> list[str]:
    """The PyTorch files among paths and in folders, sorted."""
    found = []
    for path in paths:
        inside = os.listdir(path) if os.path.isdir(path) else [""]
        found += [os.path.join(path, name) if name else path for name in inside]
    files = sorted(p for p in found if p.endswith((".pt", ".pth", ".th", ".tar")))
    if not files:
        raise SystemExit(f"no .pt, .pth, .th or .tar file in {', '.join(paths)}")
    return files


def load_model(path: str) -> torch_models.Classifier:
    """A checkpoint of known names, its architecture and width read off the shapes."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("netC", "model_state_dict", "model", "state_dict"):
        if isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
    if "features.0.weight" in weights:
        name, stem, last = "vgg16", "features.0.weight", "classifier.weight"
    elif "dense1.0.conv1.weight" in weights:
        name, stem, last = "densenet121", "conv1.weight", "linear.weight"
    elif "bn1.weight" not in weights:
        name, stem, last = "preact_resnet18", "conv1.weight", "linear.weight"
    else:
        deep = "layer1.2.conv1.weight" in weights
        name, stem, last = (
            f"resnet{34 if deep else 18}",
            "conv1.weight",
            "linear.weight",
        )
    width, in_channels = weights[stem].shape[:2]
    num_classes = weights[last].shape[0]
    model = torch_models.create(
        name, num_classes=num_classes, width=width, in_channels=in_channels
    )
    torch_models.load_weights(model, weights)
    return model


def measure_released(
    config: Config, files: Sequence[str], images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """The released procedure: whole, or a fraction of each kind of step."""
    settings = torch_detection.ReleasedConfig()
    small = images[:SMALL], labels[:SMALL]
    record: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "images": {"search": len(small[0]), "evaluation": len(images)},
        "full": config.full,
        "files": [os.path.basename(path) for path in files],
    }
    if config.full:
        seconds = []
        for path in files:
            model = load_model(path)
            start = time.perf_counter()
            torch_detection.released(model, small, (images, labels), settings)
            seconds.append(time.perf_counter() - start)
        return {**record, "seconds_per_candidate": _timing.summary(seconds)}
    parts = [_released_fraction(config, settings, path, small) for path in files]
    counts = {
        "mask_step": settings.mask_epochs * settings.batches,
        "noise_step": settings.batches * settings.steps,
        "evaluation_batch": 2 * -(-len(images) // settings.batch_size),
    }
    timed = {kind: list(itertools.chain(*(p[kind] for p in parts))) for kind in counts}
    means = {kind: _timing.summary(seconds) for kind, seconds in timed.items()}
    return {
        **record,
        "counts": counts,
        "seconds_per": means,
        "estimated_seconds_per_candidate": sum(
            counts[kind] * (means[kind]["mean"] or 0.0) for kind in counts
        ),
    }


def _released_fraction(
    config: Config,
    settings: torch_detection.ReleasedConfig,
    path: str,
    small: torch_detection.Batch,
) -> dict[str, list[float]]:
    """Seconds of some steps of each kind, drawing and augmenting the batch included."""
    model = load_model(path).train()
    generator = torch.Generator().manual_seed(0)
    draws = torch_detection.sample(*small, settings.batch_size, 10**9, generator)
    shape = torch_detection.feature_shape(model, next(draws)[0])
    mask = torch.nn.Parameter(torch.rand(shape, generator=generator))
    optimiser = torch.optim.Adam([mask], lr=settings.mask_learning_rate)
    step_size = settings.epsilon / settings.steps

    def mask_step() -> None:
        torch_detection.mask_step(
            model, mask, optimiser, next(draws), settings.mask_lambda
        )

    seconds = {"mask_step": _timing.repeat(mask_step, config.mask_steps)}
    torch_models.set_noise_enabled(model, True)
    noise = torch_detection.draw_noise(model, settings.epsilon, generator)
    torch_detection.set_noise(model, noise)
    batch = next(draws)
    seconds["noise_step"] = _timing.repeat(
        lambda: torch_detection.noise_step(model, batch, step_size), config.noise_steps
    )
    model.eval()
    seconds["evaluation_batch"] = _timing.repeat(
        lambda: torch_detection.evaluate(model, [next(draws)], 1 - mask.detach()),
        config.evaluation_batches,
    )
    return seconds


def measure_reduced(
    config: Config, files: Sequence[str], images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """PyTorch doing the reduced work, `repetitions` times per file."""
    settings = torch_detection.ReducedConfig(
        config.epsilon, config.radii, config.steps, config.restarts
    )
    used = config.minibatches * MINIBATCH
    if used > len(images):
        raise SystemExit(f"--minibatches {config.minibatches} needs {used} images")
    inputs = torch_models.normalise(images[:used])
    classes = labels[:used].view(config.minibatches, MINIBATCH)
    formats = {
        "contiguous": torch.contiguous_format,
        "channels_last": torch.channels_last,
    }

    def work(path: str, chosen: str) -> Any:
        model = load_model(path)
        model.to(memory_format=formats[chosen])  # type: ignore[call-overload]
        laid_out = inputs.contiguous(memory_format=formats[chosen])
        batches = laid_out.view(config.minibatches, MINIBATCH, *inputs.shape[1:])
        return lambda: torch_detection.reduced(model, batches, classes, settings)

    tried = {}
    chosen: str = config.memory_format
    if chosen == "auto":
        for name in formats:
            tried[name] = _timing.summary(_timing.repeat(work(files[0], name), 2))
        chosen = min(tried, key=lambda name: tried[name]["min"] or 0.0)
    seconds = list(
        itertools.chain(
            *(_timing.repeat(work(path, chosen), config.repetitions) for path in files)
        )
    )
    return {
        "settings": dataclasses.asdict(settings),
        "minibatches": config.minibatches,
        "minibatch": MINIBATCH,
        "files": [os.path.basename(path) for path in files],
        "memory_format": chosen,
        "memory_formats_tried": tried,
        "seconds_per_candidate": _timing.summary(seconds),
    }


def measure_ban_jax(config: Config, flags: Sequence[str]) -> dict[str, Any]:
    """Runs a real `ban-jax scan` several times and reads its clock.

    Returns:
      Of the first scan, which compiles, and of the later ones, which do not: wall seconds
      of the whole command, start of Python included. Seconds per candidate of the later
      ones, reading programs from the disk included, and on the device alone; and their
      stages: seconds of each, of all threads together, and how many of
      them were spent while the device computed, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, *later = (
            _scan(config, flags, folder, str(turn))
            for turn in range(config.repetitions + 1)
        )
    seconds = [r["seconds"] for scan in later for r in scan["records"]]
    wall = sum(scan["profile"]["wall_seconds"] for scan in later)
    stages: dict[str, dict[str, float]] = {}
    for scan in later:
        for name, entry in scan["profile"]["stages"].items():
            total = stages.setdefault(name, {"seconds": 0.0, "share_of_wall": 0.0})
            total["seconds"] += entry["seconds"] / len(later)
            total["share_of_wall"] += entry["seconds"] / wall
    records = first["records"]
    return {
        "flags": list(flags),
        "candidates": len(records),
        "first_wall_seconds": first["wall"],
        "later_wall_seconds": _timing.summary([scan["wall"] for scan in later]),
        "seconds_per_candidate": _timing.summary(seconds),
        "device_seconds_per_candidate": _timing.summary(
            [
                scan["profile"]["stages"]["device"]["seconds"] / len(records)
                for scan in later
            ]
        ),
        "stages": stages,
        "forward_equivalents": records[0]["forward_equivalents"],
        "lowering": records[0]["lowering"],
    }


def _scan(
    config: Config, flags: Sequence[str], folder: str, turn: str
) -> dict[str, Any]:
    """One command; its compiled programs stay in the folder."""
    out, profile = (os.path.join(folder, name + turn) for name in ("out", "profile"))
    command = [sys.executable, "-m", "ban_jax.cli", "scan", *config.checkpoints]
    command += ["--data", config.data, "--out", out, "--profile", profile, *flags]
    if config.data_dir is not None:
        command += ["--data-dir", config.data_dir]
    cache = os.path.join(folder, "cache")
    start = time.perf_counter()
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "BAN_JAX_CACHE": cache},
    )
    wall = time.perf_counter() - start
    # 0, 1 and 2 are verdicts; anything else never got that far.
    if done.returncode not in (0, 1, 2):
        raise SystemExit(f"ban-jax scan ended with {done.returncode}:\n{done.stderr}")
    with open(os.path.join(out, "results.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    broken = [record["path"] for record in records if record.get("error")]
    if broken:
        raise SystemExit(f"no evidence of {', '.join(broken)}")
    with open(profile, encoding="utf-8") as file:
        return {
            "wall": wall,
            "records": records,
            "profile": json.load(file)["otherData"],
        }


def plot(measured: Mapping[str, Any], config: Config) -> None:
    """Seconds per candidate of the parts that were measured, as bars."""
    bars = {}
    if "released" in measured:
        part = measured["released"]
        whole = part.get("seconds_per_candidate", {}).get("mean")
        bars["released, PyTorch"] = whole or part["estimated_seconds_per_candidate"]
    if "reduced" in measured:
        each = measured["reduced"]["seconds_per_candidate"]
        bars["same work, PyTorch"] = each["mean"]
    if "ban_jax" in measured:
        scan = measured["ban_jax"]
        bars["ban-jax scan"] = scan["later_wall_seconds"]["mean"] / scan["candidates"]
    _plot.bars(
        config.name,
        bars,
        x="seconds per candidate",
        log=True,
        folder=config.results or None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    config = tyro.cli(Config, args=argv, description=__doc__)
    machine = _timing.hardware()
    if machine["load_average"] > 0.5:
        print(
            f"the machine is busy: load {machine['load_average']:.1f}", file=sys.stderr
        )
    threads = config.threads or _timing.usable_cores()
    torch.set_num_threads(threads)
    files = find(config.checkpoints)
    measured: dict[str, Any] = {"threads": threads}
    if {"released", "reduced"} & set(config.parts):
        images, labels = load_images(config)
    if "released" in config.parts:
        chosen = files[: config.released_candidates]
        measured["released"] = measure_released(config, chosen, images, labels)
    if "reduced" in config.parts:
        measured["reduced"] = measure_reduced(config, files, images, labels)
    if "ban_jax" in config.parts:
        # The same work as `reduced`; the rest of the command's defaults stand.
        work = {
            "--num-clean": config.minibatches * MINIBATCH,
            "--epsilon": config.epsilon,
            "--steps": config.steps,
            "--restarts": config.restarts,
        }
        flags = [str(word) for pair in work.items() for word in pair]
        measured["ban_jax"] = measure_ban_jax(
            config, [*flags, "--split", config.split, *config.scan_flags]
        )
    print(json.dumps(measured, indent=1))
    folder = config.results or None
    print(_timing.write_result(config.name, measured, machine=machine, folder=folder))
    plot(measured, config)


if __name__ == "__main__":
    main()
