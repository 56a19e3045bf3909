"""Backdoor attacks, by name."""

from typing import Any

from ban_jax.attacks import badnets, blend, clean, overlay, poison
from ban_jax.attacks.types import Attack

ATTACKS: dict[str, Any] = {
    "badnets": badnets.BadNets,
    "blend": blend.Blend,
    "clean": clean.Clean,
}


def create(name: str, **settings: Any) -> Attack:
    """An attack with settings of its own, the documented ones by default.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in ATTACKS:
        raise ValueError(
            f"unknown attack {name!r}; known: {', '.join(sorted(ATTACKS))}"
        )
    return ATTACKS[name](**settings)


__all__ = ["ATTACKS", "Attack", "create", "overlay", "poison"]
