"""What measurements mean, in the words of the detector that took them."""

from collections.abc import Iterable
from typing import NamedTuple

from ban_jax import detectors
from ban_jax.detectors import Detector, Words
from ban_jax.report import fields, text

BASELINES = {
    "within": "each class is compared with the other classes of the same checkpoint",
    "trusted": "each class is compared with the same class in models that the user "
    "vouches for (--calibrate)",
    "population": "each class is compared with the same class in all checkpoints "
    "of this scan that are of the same kind",
    "profile": "each class is compared with the same class in clean models of the same "
    "data set, of which a profile was stored",
}


class Witness(NamedTuple):
    """A class vector as a witness: a letter, and a few words for the head of a column."""

    letter: str
    name: str


_WITNESSES = {
    "untargeted": Witness("U", "undirected noise"),
    "batch_minus_stored": Witness("B", "batch statistics"),
    "last_layer": Witness("L", "last layer"),
    "targeted": Witness("T", "noise towards it"),
    "universal": Witness("X", "one change of pixels"),
    "patch": Witness("P", "a small patch"),
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


def witnesses(names: Iterable[str]) -> dict[str, Witness]:
    """Vectors as witnesses, each with a letter of its own; in the order of the columns."""
    found = {name: known for name, known in _WITNESSES.items() if name in set(names)}
    for name in names:
        if name not in found:
            taken = {one.letter for one in found.values()} | {""}
            letters = [*filter(str.isalnum, text.printable(name).upper())]
            free = [letter for letter in letters if letter not in taken]
            letter = free[0] if free else "*"
            found[name] = Witness(letter, text.printable(name).replace("_", " "))
    return found
