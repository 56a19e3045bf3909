"""The detectors, by name."""

from ban_jax.detectors import ban, reference, targeted, weights
from ban_jax.detectors.detector import Detect, Detector
from ban_jax.detectors.evidence import Evidence
from ban_jax.detectors.words import Words
from ban_jax.registry import Registry

DETECTORS: Registry[Detector] = Registry(
    "detector",
    {
        "targeted": targeted.DETECTOR,
        "ban": ban.DETECTOR,
        "weights": weights.DETECTOR,
        "reference": reference.DETECTOR,
    },
    group="ban_jax.detectors",
)

__all__ = ["DETECTORS", "Detect", "Detector", "Evidence", "Words"]
