"""The detectors, by name."""

from ban_jax.detectors import (
    ban,
    bti_dbf,
    bti_dbf_star,
    directed,
    feature_re,
    mm_bd,
    neural_cleanse,
    reference,
    tabor,
    targeted,
    trojan_signatures,
    unicorn,
    weights,
)
from ban_jax.detectors.detector import Detect, Detector
from ban_jax.detectors.evidence import Evidence
from ban_jax.detectors.words import Words
from ban_jax.registry import Registry

DETECTORS: Registry[Detector] = Registry(
    "detector",
    {
        "ban": ban.DETECTOR,
        "targeted": targeted.DETECTOR,
        "directed": directed.DETECTOR,
        "weights": weights.DETECTOR,
        "reference": reference.DETECTOR,
        "neural_cleanse": neural_cleanse.DETECTOR,
        "tabor": tabor.DETECTOR,
        "mm_bd": mm_bd.DETECTOR,
        "trojan_signatures": trojan_signatures.DETECTOR,
        "bti_dbf": bti_dbf.DETECTOR,
        "bti_dbf_star": bti_dbf_star.DETECTOR,
        "feature_re": feature_re.DETECTOR,
        "unicorn": unicorn.DETECTOR,
    },
    group="ban_jax.detectors",
)

__all__ = ["DETECTORS", "Detect", "Detector", "Evidence", "Words"]
