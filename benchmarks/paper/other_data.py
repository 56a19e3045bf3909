"""Detection on the other data sets: Tiny-ImageNet, GTSRB, ImageNet200.

    python -m benchmarks.paper.other_data --full --out FOLDER --folder gtsrb=DIR ...

Needs the images, which no command here can fetch: TFDS has none of the three as such.

    tiny_imagenet  tiny-imagenet-200.zip of cs231n.stanford.edu (64x64, 200 classes)
    gtsrb          GTSRB_Final_Training_Images.zip, the test images and their list, of
                   benchmark.ini.rub.de; resized to 32x32 (43 classes)
    imagenet200    the first 200 classes of ILSVRC 2012 (image-net.org, which wants an
                   account); resized to 224x224

A folder has `train` and `test`, each with a sub-folder of images per class, or is laid out
as it was downloaded (README, clean images). Trains ten models of each attack at the paper's
scale, then judges them. There is no CPU scale: without `--full` the steps are only shown.

What it gave: not run; no such images are at hand.
"""

import dataclasses
import os

import tyro

from benchmarks.paper import _steps

SIZES = {"tiny_imagenet": 64, "gtsrb": 32, "imagenet200": 224}
DETECTORS = "neural_cleanse,feature_re,bti_dbf_star,ban,mm_bd"


@dataclasses.dataclass(frozen=True)
class Flags(_steps.Flags):
    """See `_steps.Flags`.

    Attributes:
      folder: NAME=DIR of each data set that is at hand.
    """

    folder: tuple[str, ...] = ()


def steps(flags: Flags, name: str, images: str):
    """The commands of one data set, in order."""
    told = _steps.SHARED.replace("--data cifar10", f"--data {images}")
    told += f" {_steps.QUICK} --width 64 --seeds 10 --image-size {SIZES[name]}"
    told += " --no-flip" if name == "gtsrb" else ""
    yield _steps.train(
        flags, name, told, "--attacks", "clean,badnets,blend,wanet,iad,bpp"
    )
    zoo, out = os.path.join(flags.out, name), f"compared_{name}"
    size = ["--image-size", str(SIZES[name])]
    yield _steps.compare(flags, [zoo], DETECTORS, out, images, size)


def main(flags: Flags) -> None:
    """Runs the steps of every data set that is there, and names those that are not."""
    given = dict(one.split("=", 1) for one in flags.folder)
    for name in given.keys() - SIZES.keys():
        raise SystemExit(f"--folder {name}=...: expected one of {', '.join(SIZES)}")
    flags = dataclasses.replace(flags, list=flags.list or not flags.full)
    done = {}
    for name in SIZES:
        if name not in given:
            print(
                f"{name}: no --folder {name}=DIR; the head of this file says what to fetch"
            )
        elif _steps.run(flags, steps(flags, name, given[name])):
            done[name] = [f"compared_{name}"]
    if done:
        _steps.write_comparisons(flags, "other_data", done)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
