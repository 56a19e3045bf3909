"""Whether evidence may be judged at all."""

import math
from collections.abc import Sequence

from ban_jax import detectors
from ban_jax.detectors.readings import CLASSES_MINIMUM
from ban_jax.records import Evidence

ACCURACY_LOSS = 0.10
"""Fall from the recorded clean accuracy that makes a candidate inconclusive."""

NOISE_IS_BLIND = (
    "but the network has no batch statistics, and neuron noise did not show the "
    "backdoors of such networks where that was measured"
)
"""Why a model in which nothing is found is not called clean."""


def why_inconclusive(record: Evidence, *, crowd_like: bool) -> str:
    """The reason no verdict may be drawn, or an empty string.

    Args:
      record: the evidence.
      crowd_like: whether it is compared with other models, not with its own classes.
    """
    if record["error"]:
        return record["error"]
    if not record["is_finite"]:
        return "a weight, a logit or a loss is not finite"
    num_classes = record["num_classes"]
    if num_classes is None:
        return "nothing was measured"
    if not crowd_like and num_classes < CLASSES_MINIMUM:
        return (
            f"{num_classes} classes are too few to compare with one another; give "
            "trusted models with --calibrate"
        )
    accuracy = record["clean_accuracy"]
    if accuracy is None:
        return ""
    advice = "the normalisation or the order of the classes may be wrong"
    chance = min(2 / num_classes, (1 + 1 / num_classes) / 2)
    lower = wilson_lower(accuracy, record["num_probe"])
    if lower <= chance:
        return (
            f"clean accuracy {accuracy:.2f} is near chance (its lower 95 % bound "
            f"{lower:.2f} is at most {chance:.2f}): {advice}"
        )
    recorded = record["recorded_accuracy"]
    if recorded is not None and accuracy < recorded - ACCURACY_LOSS:
        return (
            f"clean accuracy {accuracy:.2f} is far below the recorded {recorded:.2f}: "
            f"{advice}"
        )
    return ""


def why_unmeasured(record: Evidence) -> str:
    """What the rule of its detector cannot do without and was not measured, or ''."""
    if record["mode"] not in detectors.DETECTORS:
        return ""
    needed = detectors.DETECTORS[record["mode"]].rule.needed
    missing = ", ".join(sorted(set(needed) - set(record["vectors"])))
    return f"the evidence lacks {missing}, which the verdict needs" if missing else ""


def why_no_yardstick(record: Evidence) -> str:
    """Why nothing may be compared with a model, or an empty string."""
    return why_inconclusive(record, crowd_like=True) or why_unmeasured(record)


def wilson_lower(share: float, count: int, z: float = 1.96) -> float:
    """Lower 95 % bound of a share seen on `count` images (Wilson, 1927)."""
    centre = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return max((centre - width) / (1 + z * z / count), 0.0)


def distinct(records: Sequence[Evidence]) -> list[Evidence]:
    """Usable evidence, once per weights: copies of a file must not outvote the rest."""
    found = {
        record["sha256"]: record
        for record in records
        if record["vectors"] and not why_no_yardstick(record)
    }
    return list(found.values())
