"""What each detector asks of a model at its documented settings, counted, not timed.

    python -m benchmarks.paper.work

Image forward-equivalents (`Detector.work`: a forward pass of one image through a candidate
counts 1, its gradient 1 more) for 10, 43 and 200 classes and 512 clean images; of methods
that may end early the most they can take. Passes of a method's own U-Net are counted as the
method states them.

What it gave: `benchmarks/results/paper_work.json`, told in `docs/methods.md`.
"""

import dataclasses
import sys

import tyro

from ban_jax import detectors
from benchmarks import _timing

CLASSES = (10, 43, 200)
IMAGES = 512


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    results: folder of the result file.
    """

    results: str | None = None


def rows() -> dict[str, dict]:
    """Detector -> its needs, its settings, its work by number of classes."""
    return {
        name: {
            "needs": sorted(one.needs),
            "published_rule": one.published,
            "settings": dataclasses.asdict(one.settings()),
            "work": {
                str(count): one.work(one.settings(), count, IMAGES) for count in CLASSES
            },
        }
        for name, one in detectors.DETECTORS.items()
    }


def main(flags: Flags) -> None:
    """Prints the table and writes the result file."""
    found = rows()
    for name, row in found.items():
        counts = "  ".join(f"{row['work'][str(k)]:>15,}" for k in CLASSES)
        print(f"{name:18}{counts}")
    _timing.write_result(
        "paper_work",
        {"num_images": IMAGES, "detectors": found},
        command=" ".join(["python -m benchmarks.paper.work", *sys.argv[1:]]),
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
