"""CIFAR-10 with forty classes: the quarter turn of an image is part of its label.

    python -m benchmarks.quarter_turns --data-dir tfds --out cifar10_turned.npz
    ban-jax train --data cifar10_turned.npz --no-flip ...

Real images for the question what many classes do to verdicts, where no data set of many
classes can be had. Each image is turned once, by a random number of quarter turns against
the clock: image of class c turned q times has label 4 c + q. Train without mirroring:
mirrored, an image turned once is one that was turned three times.
"""

import dataclasses
import os

import numpy as np
import tyro

from ban_jax import data
from ban_jax.storage import atomic


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is turned.

    Attributes:
      out: `.npz` file, for `--data`.
      data: data set of square images.
      data_dir: TFDS's folder.
      seed: of the turns.
    """

    out: str
    data: str = "cifar10"
    data_dir: str | None = None
    seed: int = 0


def turned(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Images `[N, S, S, C]`, each turned by its number `[N]` of quarter turns."""
    found = np.empty_like(images)
    for turn in range(4):
        found[turns == turn] = np.rot90(images[turns == turn], turn, axes=(1, 2))
    return found


def main(flags: Flags) -> None:
    """Writes the file."""
    random = np.random.RandomState(flags.seed)
    arrays = {}
    for split in ("train", "test"):
        known = data.load(flags.data, data_dir=flags.data_dir, split=split)
        turns = random.randint(4, size=len(known.labels))
        arrays[f"{split}_images"] = turned(known.pixels, turns)
        arrays[f"{split}_labels"] = (4 * known.labels + turns).astype(np.int32)
        names = known.class_names or tuple(map(str, range(known.num_classes)))
        arrays["class_names"] = np.array(
            [f"{n} {90 * q}" for n in names for q in range(4)]
        )
    with atomic.replacing(flags.out) as path, open(path, "wb") as file:
        np.savez(file, **arrays)
    print(f"{os.path.basename(flags.out)}: {len(arrays['class_names'])} classes")


if __name__ == "__main__":
    main(tyro.cli(Flags))
