"""What is said of a stem that a file's shapes do not settle."""

import re
from collections.abc import Mapping

from ban_jax import models

_NOTE = re.compile(r"(\dx\d stem|attention heads): ")


def assumed(module: models.Classifier, told: bool = False) -> str:
    """The note of a candidate as it is read; empty where shapes settle the stem.

    Args:
      module: with the stem that is assumed.
      told: whether `config.json` names it.
    """
    if not module.alike:
        return ""
    words = "is assumed, as config.json says" if told else "is assumed"
    return f"{module.stem_noun}: {module.stem_layers(module.stem)} {words}"


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
    return (
        f"{module.stem_noun}: {module.stem_layers(module.stem)} fits the clean images "
        f"best (loss {losses[module.stem] + 0.0:.2f}; {others})"
    )


def is_one(note: str) -> bool:
    """Whether a note is one of these."""
    return _NOTE.match(note) is not None
