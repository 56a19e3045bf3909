"""Features under growing neuron noise by t-SNE, clean and backdoored side by side.

    python -m benchmarks.paper.features --data-dir TFDS

Draws the features of clean images, averaged over positions, of two models of
`benchmarks/zoo/` (or any two checkpoints): without noise, and untargeted noise of half
and all of the radius. A column's points are placed together with all others of its model
(scikit-learn's t-SNE, perplexity 30, seed 0), so that columns can be compared; colours are
the images' classes, crosses the images that are answered with the backdoor's target. Under
each picture stands the share of the most frequent answer.

What it gave: `benchmarks/results/paper_features.svg` and, with the answers' histograms at
each radius, `paper_features.json`.
"""

import dataclasses
import os
import sys
from typing import Any

import numpy as np
import tyro

from ban_jax import checkpoints
from ban_jax.commands import scan as scan_command
from ban_jax.scanning import noisy_features
from benchmarks import _timing
from benchmarks.paper import _steps


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    clean, backdoored: checkpoints.
    target: of the backdoor.
    epsilon, steps: of the noise.
    data, data_dir, num_clean: clean images, as for `ban-jax scan`.
    name, results: of the figure and the result file.
    """

    clean: str = os.path.join(_steps.ZOO, "resnet18_w8_clean_s0_onecycle.safetensors")
    backdoored: str = os.path.join(
        _steps.ZOO, "resnet18_w8_badnets_t0_s0_onecycle.safetensors"
    )
    target: int = 0
    epsilon: float = 0.4
    steps: int = 4
    data: str = "cifar10"
    data_dir: str | None = None
    num_clean: int = 256
    name: str = "paper_features"
    results: str | None = None


def draw(
    path: str, found: dict[str, noisy_features.Seen], labels: np.ndarray, flags: Flags
) -> None:
    """One row of pictures per model, one column per radius."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from benchmarks import _plot

    with matplotlib.rc_context(_plot.STYLE):
        figure, axes = pyplot.subplots(2, len(noisy_features.SHARES), figsize=(9, 6))
        for row, (name, one) in enumerate(found.items()):
            points = noisy_features.placed(one.features)
            low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
            for column, share in enumerate(noisy_features.SHARES):
                axis, here = axes[row, column], points[column]
                hit = (one.answers[column] == flags.target) & (labels != flags.target)
                for chosen, mark, size in ((~hit, ".", 12), (hit, "x", 22)):
                    axis.scatter(
                        *here[chosen].T,
                        c=labels[chosen],
                        cmap="tab10",
                        vmin=0,
                        vmax=9,
                        s=size,
                        marker=mark,
                        linewidths=0.8,
                        rasterized=False,
                    )
                axis.set(
                    xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[]
                )
                axis.set_title(f"{name}, noise {share * flags.epsilon:g}", fontsize=9)
                answers = np.bincount(one.answers[column], minlength=10)
                axis.set_xlabel(
                    f"class {answers.argmax()}: {answers.max() / len(labels):.0%} of the "
                    "answers"
                )
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def main(flags: Flags) -> None:
    """Measures, draws and writes the result file."""
    machine = _timing.hardware()
    told = scan_command.Flags(
        paths=(flags.clean,),
        data=flags.data,
        data_dir=flags.data_dir,
        num_clean=flags.num_clean,
    )
    probe = scan_command.prepare(told).probe
    assert probe is not None
    found = {
        name: noisy_features.seen(
            checkpoints.read(path), probe, epsilon=flags.epsilon, steps=flags.steps
        )
        for name, path in (("clean", flags.clean), ("backdoored", flags.backdoored))
    }
    labels = np.asarray(probe.labels).reshape(-1)
    folder = flags.results or _timing.RESULTS
    draw(os.path.join(folder, f"{flags.name}.svg"), found, labels, flags)
    measured: dict[str, Any] = {
        "radii": [share * flags.epsilon for share in noisy_features.SHARES],
        "target": flags.target,
        "num_images": len(labels),
        "histograms": {
            name: [np.bincount(row, minlength=10).tolist() for row in one.answers]
            for name, one in found.items()
        },
    }
    print(measured["histograms"])
    _timing.write_result(
        flags.name,
        measured,
        command=" ".join(["python -m benchmarks.paper.features", *sys.argv[1:]]),
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
