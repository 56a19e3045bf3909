"""What `ban-jax repair` is asked for: its flags, its images, its candidates."""

import dataclasses
import hashlib
import json
import sys
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from jax import numpy as jnp

import ban_jax
from ban_jax import checkpoints, config, data, population, records, repairs
from ban_jax.commands import scan as scan_command
from ban_jax.convolution import tables
from ban_jax.data import normalisation as normalisations
from ban_jax.types import Probe

HELD_BATCH = 250
"""Largest batch of held-out images whose accuracy is taken at once."""


@dataclasses.dataclass(frozen=True)
class RepairFlags:
    """Removes backdoors: repairs checkpoints, scans them again, compares.

    Attributes:
      paths: checkpoint files, Orbax folders, or folders searched for both.
      data: clean images, as for `scan`.
      data_dir: where TFDS data lie.
      split: of the clean data; take one the models were not trained on: test, or
        `defender`, the tenth of the training images that `ban-jax train` holds back.
      image_size: resizes the clean images to squares of this side.
      num_clean: how many clean images to use at most.
      held_out: share of them that no repair learns from: accuracy is watched on them,
        and the scans before and after use them.
      num_test: test images to measure on; None: all.
      from_scan: a results.jsonl whose flagged checkpoints are repaired.
      method: ban, finetune (without neuron noise) or anp (prunes neurons).
      out: folder for the repaired models, repairs.jsonl and report.html.
      mode: of the scans before and after.
      arch: architecture of every candidate, instead of recognising it.
      normalisation: NAME or MEAN/STD for every candidate, as for `scan`.
      seed: of all randomness and of the choice of clean images.
      chunk: candidates repaired side by side; by default chosen for the device.
      orbax: writes each model as an Orbax folder too.
      ban: settings of the method.
      finetune: settings of the method.
      anp: settings of the method.
    """

    paths: tyro.conf.Positional[tuple[str, ...]] = ()
    data: str | None = None
    data_dir: str | None = None
    split: str = "test"
    image_size: int | None = None
    num_clean: int = 2500
    held_out: float = 0.2
    num_test: int | None = None
    from_scan: str | None = None
    method: Literal["ban", "finetune", "anp"] = "ban"
    out: str = "ban-repaired"
    mode: Literal["targeted", "ban", "reference"] = "targeted"
    arch: str | None = None
    normalisation: str | None = None
    seed: int = 0
    chunk: int | None = None
    orbax: bool = True
    ban: repairs.BanConfig = repairs.BanConfig()
    finetune: repairs.FinetuneConfig = repairs.FinetuneConfig()
    anp: repairs.AnpConfig = repairs.AnpConfig()

    @property
    def settings(self) -> Any:
        """Of the chosen method."""
        return getattr(self, self.method)


class Images(NamedTuple):
    """What a repair works with.

    Attributes:
      clean: to learn from and to be watched on, on the device.
      probe: the held-out part, for the scans.
      test: what accuracy and success are measured on: the test split where the clean
        images are from another one, else the held-out part.
      num_classes: K that the labels need.
      class_names: where the data set names them.
      digest: of the clean images.
    """

    clean: repairs.CleanSet
    probe: Probe
    test: data.Dataset
    num_classes: int
    class_names: tuple[str, ...] | None
    digest: str


def load(flags: RepairFlags) -> Images:
    """Reads the clean images and divides them.

    Raises:
      ValueError: for flags that contradict each other, a part that is too small.
    """
    if flags.data is None:
        raise ValueError(
            "a repair needs clean images: give --data NAME, a folder or an .npz file"
        )
    if not 0 < flags.held_out < 1:
        raise ValueError(f"--held-out must be between 0 and 1, got {flags.held_out:g}")
    dataset = scan_command.clean_images(flags)
    order = np.random.RandomState(flags.seed).permutation(len(dataset.labels))
    num_held = round(flags.held_out * len(order))
    held, rest = order[:num_held], order[num_held:]
    size = flags.settings.batch_size
    if len(rest) < size or num_held < 2:
        raise ValueError(
            f"{flags.data}: of {len(order)} clean images {num_held} are held out and "
            f"{len(rest)} are left to learn from; at least 2 and one batch of {size} are "
            f"needed: raise --num-clean, change --held-out or lower --{flags.method}."
            "batch-size"
        )
    held_set = dataclasses.replace(
        dataset, pixels=dataset.pixels[held], labels=dataset.labels[held]
    )
    digest = hashlib.sha256(dataset.pixels.tobytes() + dataset.labels.tobytes())
    return Images(
        clean=clean_set(dataset.pixels[rest], dataset.labels[rest], held_set),
        probe=scan_command.minibatches(held_set),
        test=_test(flags, held_set),
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        digest=digest.hexdigest()[:16],
    )


def clean_set(
    pixels: np.ndarray, labels: np.ndarray, held: data.Dataset
) -> repairs.CleanSet:
    """Puts both parts on the device, the held-out one as even minibatches.

    Args:
      pixels: `[N, H, W, C]` to learn from.
      labels: `[N]`.
      held: to be watched on; the last minibatch is filled up and the filler not counted.
    """
    count = len(held.labels)
    batches = -(-count // HELD_BATCH)
    size = -(-count // batches)
    chosen = np.arange(batches * size)
    filled = np.where(chosen < count, held.labels[chosen % count], repairs.FILLER)
    return repairs.CleanSet(
        jnp.asarray(pixels),
        jnp.asarray(labels),
        jnp.asarray(held.pixels[chosen % count]).reshape(
            batches, size, *held.pixels.shape[1:]
        ),
        jnp.asarray(filled).reshape(batches, size),
    )


def _test(flags: RepairFlags, held: data.Dataset) -> data.Dataset:
    assert flags.data is not None
    if flags.split == "test":
        return held
    try:
        return data.load(
            flags.data,
            data_dir=flags.data_dir,
            num=flags.num_test,
            image_size=flags.image_size,
        )
    except data.DataError as error:
        print(
            f"note: no test images ({error}): the {len(held.labels)} held-out clean "
            "images take their place",
            file=sys.stderr,
        )
        return held


def scan_settings(flags: RepairFlags, images: Images) -> records.Settings:
    """Of the scans before and after; those of `ban-jax scan` with the same mode."""
    channels = images.probe.images.shape[-1]
    normalisation = None
    if flags.normalisation is not None:
        normalisation = normalisations.parse_normalisation(
            flags.normalisation, channels
        )
    return records.Settings(
        mode=flags.mode,
        config=config.MODE_DEFAULTS[flags.mode],
        seed=flags.seed,
        dataset=flags.data or "",
        class_names=images.class_names,
        normalisation=normalisation,
        architecture=flags.arch,
        chunk=flags.chunk,
        lowering=tables.default(),
    )


def chunk(flags: RepairFlags) -> int:
    """Candidates repaired side by side."""
    return flags.chunk or population.default_chunk(jax.default_backend())


def making(flags: RepairFlags, images: Images) -> dict[str, Any]:
    """All that decides what a repair gives; two runs into one folder must share it."""
    names = (
        "data", "split", "image_size", "num_clean", "held_out", "num_test", "method",
        "mode", "arch", "normalisation", "seed", "orbax",
    )  # fmt: skip
    return {
        "command": "repair",
        **{name: getattr(flags, name) for name in names},
        "settings": dataclasses.asdict(flags.settings),
        "images": images.digest,
        "lowering": scan_settings(flags, images).told_lowering(),
        "version": ban_jax.__version__,
    }


def digest(making: dict[str, Any]) -> str:
    """Short hash of a making."""
    text = json.dumps(making, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def candidates(flags: RepairFlags) -> list[str]:
    """The checkpoints asked for, by path or by an earlier scan.

    Raises:
      ValueError: when neither is given, and for an unreadable results file.
    """
    if not flags.paths and flags.from_scan is None:
        raise ValueError(
            "nothing to repair: give checkpoints, or --from-scan results.jsonl"
        )
    found = list(checkpoints.find(flags.paths)) if flags.paths else []
    if flags.from_scan is not None:
        flagged = [
            record["path"]
            for record in records.load(flags.from_scan).records
            if record.get("verdict") == "backdoored"
        ]
        found += [path for path in flagged if path not in found]
    return found
