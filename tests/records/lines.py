"""Lines of a results file, made up."""

from ban_jax import verdict
from ban_jax.records import record

SETTINGS = {
    "mode": "weights",
    "config": {},
    "config_hash": "0" * 16,
    "seed": 0,
    "lowering": {"table": "native", "hash": "0"},
    "precision": "float32",
    "versions": {"ban_jax": "0.2.0"},
}
"""What a line says of the scan that it is from."""
MEASURED = {
    "sha256": "a" * 64,
    "key": "a-key",
    "architecture": "resnet18",
    "width": 2,
    "num_classes": 5,
    "vectors": {"last_layer": [0.0, 0.25, 0.5, 0.75, 9.0]},
    "errors": {"last_layer": [0.0] * 5},
}
"""What it says of a checkpoint whose class 4 stands out."""


def evidence(path="a.pt", **known):
    """A line without a verdict."""
    return record.empty(path, **{**SETTINGS, **MEASURED, **known})


def judged(path="a.pt", **known):
    """A line with the verdict its evidence gives, but for the fields that are given."""
    line = dict(verdict.Judge()(evidence(path)))
    return {**line, **known}
