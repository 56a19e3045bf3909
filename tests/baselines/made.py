"""Lines of a made-up mode that is judged by witnesses, and clean models of it.

The rule's numbers are those of `tests.detectors.made`, not of a detector, which are tuned.
"""

import contextlib

import numpy as np

from ban_jax import detectors
from ban_jax.detectors import weights
from ban_jax.records import record
from tests.detectors.made import RULE
from tests.records import lines

MODE = "made"
CLASSES = 8
DETECTOR = detectors.Detector(
    detect=weights.detect,
    settings=weights.Settings,
    rule=RULE,
    work=lambda config, classes, images: 0,
    summary="a detector of tests",
    vectors={name: detectors.Words(name, name) for name in (*RULE.vectors, "own")},
    further="directed",
)
CURVES = {
    "a": np.array([0.2, 0.5, 0.1, 0.4, 0.3, 0.6, 0.25, 0.45]),
    "b": np.array([0.1, 0.1, 0.3, 0.2, 0.5, 0.4, 0.15, 0.35]),
    "c": np.array([0.9, 0.2, 0.4, 0.3, 0.1, 0.5, 0.65, 0.75]),
}
"""Of clean models."""
DATA = {"name": "toy", "classes": list("ABCDEFGH"), "image_shape": [8, 8, 3]}
CONFIG = {"epsilon": 0.5, "radii": [0.5, 1.0], "further": {"steps": 2}}


@contextlib.contextmanager
def known():
    """While the body runs, there is such a detector."""
    detectors.DETECTORS.register(MODE, DETECTOR)
    try:
        yield
    finally:
        del detectors.DETECTORS._things[MODE]


def evidence(vectors, name="model", **changes):
    """A line of these vectors; `name` is its file and its weights."""
    vectors = {key: [*map(_plain, values)] for key, values in vectors.items()}
    line = {
        **lines.SETTINGS,
        "mode": MODE,
        "config": CONFIG,
        "config_hash": "c",
        "sha256": name,
        "key": f"{name}-c",
        "architecture": "resnet18",
        "width": 8,
        "num_classes": len(next(iter(vectors.values()))),
        "vectors": vectors,
        "errors": {key: [0.001] * len(values) for key, values in vectors.items()},
        "clean_accuracy": 0.9,
        "num_probe": 512,
        "data": DATA,
    }
    return record.empty(f"{name}.pt", **{**line, **changes})


def clean(seed, bumps=None, names=("a", "b"), size=1.0, **changes):
    """A clean model: the curves, in a scale and at an offset of its own, and noise.

    Args:
      seed: of all that.
      bumps: vector -> class at which it stands out.
      names: of the vectors it has.
      size: by how much it stands out; the curves' own deviation is 0.2.
      changes: to the line.
    """
    rng = np.random.default_rng(seed)
    vectors = {}
    for name, curve in CURVES.items():
        scale, offset = rng.uniform(0.5, 2), rng.uniform(-0.5, 0.5)
        noise = 0.02 * scale * rng.standard_normal(CLASSES)
        vectors[name] = scale * curve + offset + noise
        if bumps and name in bumps:
            vectors[name][bumps[name]] += size * scale
    chosen = {name: vectors[name] for name in names}
    return evidence(chosen, **{"name": f"m{seed:02}", **changes})


def several(count, first=0, **more):
    """Clean models."""
    return [clean(seed, **more) for seed in range(first, first + count)]


def _plain(value):
    return None if value is None or np.isnan(value) else float(value)
