"""The PyTorch half of `detection_speed`: the released procedure, and the reduced work."""

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from benchmarks import _timing, torch_detection, torch_models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What PyTorch is timed on.

    Attributes:
      data: name of a TFDS data set with `image` and `label`.
      data_dir: where it was prepared.
      split: images to time on; what they show does not matter.
      full: run the released procedure whole, on `released_candidates` files.
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
    """

    data: str
    data_dir: str | None = None
    split: str = "test"
    full: bool = False
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


SMALL, LARGE = 500, 5000
"""Images the released procedure searches and evaluates on: 1 % and 10 % of CIFAR-10."""
MINIBATCH = 128


def load_images(config: Work) -> tuple[torch.Tensor, torch.Tensor]:
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
    config: Work,
    files: Sequence[str],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    lean: bool = False,
) -> dict[str, Any]:
    """The released procedure: whole, or a fraction of each kind of step.

    Args:
      lean: takes no gradient of weights, which the release does and never uses.
    """
    settings = torch_detection.ReleasedConfig(weight_gradients=not lean)
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
    config: Work,
    settings: torch_detection.ReleasedConfig,
    path: str,
    small: torch_detection.Batch,
) -> dict[str, list[float]]:
    """Seconds of some steps of each kind, drawing and augmenting the batch included."""
    model = load_model(path).train().requires_grad_(settings.weight_gradients)
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
    config: Work, files: Sequence[str], images: torch.Tensor, labels: torch.Tensor
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
