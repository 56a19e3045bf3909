"""What is said of a stem, and of all else that a file's shapes do not settle."""

import re
from collections.abc import Mapping

from ban_jax import models

_NOTE = re.compile(r"(\dx\d stem|attention heads|padding and pooling): ")


def assumed(module: models.Classifier, told: bool = False) -> list[str]:
    """Notes of a candidate as it is read; none where shapes settle all.

    Args:
      module: with the stem that is assumed; what else it takes for granted, which nothing
        tries, is its `assumption`.
      told: whether `config.json` names the stem.
    """
    notes = []
    if module.alike:
        words = "is assumed, as config.json says" if told else "is assumed"
        notes.append(f"{module.stem_noun}: {module.stem_layers(module.stem)} {words}")
    if assumption := getattr(module, "assumption", ""):
        notes.append(assumption)
    return notes


def tried(module: models.Classifier, losses: Mapping[str, float]) -> str:
    """The note of one whose stem was chosen.

    Args:
      module: with the chosen stem.
      losses: of each stem that was tried.
    """
    others = ", ".join(
        f"{module.stem_layers(stem)} {loss + 0.0:.2f}"
        for stem, loss in losses.items()
        if stem != module.stem
    )
    what = f"{module.stem_noun}: {module.stem_layers(module.stem)}"
    if not others:
        return f"{what} is the one that suits images of this size"
    return (
        f"{what} fits the clean images best (loss {losses[module.stem] + 0.0:.2f}; "
        f"{others})"
    )


def is_one(note: str) -> bool:
    """Whether a note is one of these."""
    return _NOTE.match(note) is not None
