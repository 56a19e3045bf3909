"""What measurements mean, in the words of the detector that took them."""

from ban_jax import detectors
from ban_jax.detectors import Detector, Words
from ban_jax.report import fields

BASELINES = {
    "within": "each class is compared with the other classes of the same checkpoint",
    "trusted": "each class is compared with the same class in models that the user "
    "vouches for (--calibrate)",
    "population": "each class is compared with the same class in all checkpoints "
    "of this scan that have the same architecture and number of classes",
}


def detector(record: fields.Record) -> Detector | None:
    """The one that measured a record; None where this installation does not know it."""
    return detectors.DETECTORS.get(str(record.get("mode")))


def summary(mode: str) -> str:
    """What a mode does, in one sentence; nothing for an unknown one."""
    found = detectors.DETECTORS.get(mode)
    return found.summary if found else ""


def words(record: fields.Record, name: str) -> Words:
    """How to tell of a vector, a histogram or images; what is unknown keeps its name."""
    found = detector(record)
    plain = Words(name.replace("_", " "), "", "number")
    return found.vectors.get(name, plain) if found else plain


def deciding(record: fields.Record) -> list[str]:
    """Names of the stored vectors from which the mode's rule draws the verdict."""
    found = detector(record)
    stored = fields.mapping(record.get("vectors"))
    return [name for name in found.rule.vectors if name in stored] if found else []


def main_vector(record: fields.Record) -> str | None:
    """The vector to show large: the first that decides, or the first there is."""
    stored = fields.mapping(record.get("vectors"))
    return next(iter(deciding(record)), next(iter(stored), None))
