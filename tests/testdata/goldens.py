"""Reads the golden files; `make_goldens.py` says what is in them."""

import json
import os
from typing import Any

import numpy as np

FOLDER = os.path.dirname(os.path.abspath(__file__))


def load(name: str) -> dict[str, Any]:
    """One golden file, its flat vectors cut into layers.

    Args:
      name: `KIND_FAMILY`, for example `noise_resnet18`.

    Returns:
      The keys of `make_goldens`: images as float32 in [0, 1], noise and its gradients
      as `{layer: (delta [C], xi [C])}`, statistics as `{layer.running_mean: [C], ..}`.
    """
    with np.load(os.path.join(FOLDER, f"{name}.npz"), allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    layers = [str(layer) for layer in stored.pop("layers")]
    channels = stored.pop("channels")
    cuts = np.cumsum(channels)[:-1]
    found: dict[str, Any] = {"settings": json.loads(str(stored.pop("settings")))}
    if "weights/names" in stored:
        found["weights"] = _weights(
            stored.pop("weights/names"),
            json.loads(str(stored.pop("weights/shapes"))),
            stored.pop("weights/values"),
        )
    for key, value in stored.items():
        kind = key.partition("/")[0]
        if value.dtype == np.uint8:
            found[key] = value.astype(np.float32) / np.float32(255)
        elif kind == "statistics":
            means, variances = (np.split(row, cuts) for row in value)
            found[key] = {
                **{
                    f"{layer}.running_mean": x
                    for layer, x in zip(layers, means, strict=True)
                },
                **{
                    f"{layer}.running_var": x
                    for layer, x in zip(layers, variances, strict=True)
                },
            }
        elif kind in ("noise", "gradient") and value.shape == (2, channels.sum()):
            deltas, xis = (np.split(row, cuts) for row in value)
            found[key] = {
                n: (d, x) for n, d, x in zip(layers, deltas, xis, strict=True)
            }
        else:
            found[key] = value
    return found


def _weights(
    names: np.ndarray, shapes: list[list[int]], values: np.ndarray
) -> dict[str, np.ndarray]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(values, ends[:-1])
    return {
        str(n): part.reshape(s) for n, s, part in zip(names, shapes, parts, strict=True)
    }
