"""Backdoor attacks, by name."""

from typing import Any

from ban_jax.attacks import poison
from ban_jax.attacks.adap_blend import AdapBlend
from ban_jax.attacks.badnets import BadNets
from ban_jax.attacks.blend import Blend
from ban_jax.attacks.bpp import Bpp
from ban_jax.attacks.clean import Clean
from ban_jax.attacks.iad import IAD
from ban_jax.attacks.sig import SIG
from ban_jax.attacks.ssdt import SSDT
from ban_jax.attacks.types import Attack, AttackState, Kernel, Schedule
from ban_jax.attacks.wanet import WaNet

ATTACKS: dict[str, Any] = {
    "adap_blend": AdapBlend,
    "badnets": BadNets,
    "blend": Blend,
    "bpp": Bpp,
    "clean": Clean,
    "iad": IAD,
    "sig": SIG,
    "ssdt": SSDT,
    "wanet": WaNet,
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


def kind(attack: Attack) -> str:
    """The name an attack is known by."""
    return next(name for name, made in ATTACKS.items() if type(attack) is made)


__all__ = [
    "ATTACKS",
    "SIG",
    "SSDT",
    "IAD",
    "AdapBlend",
    "Attack",
    "AttackState",
    "BadNets",
    "Blend",
    "Bpp",
    "Clean",
    "Kernel",
    "Schedule",
    "WaNet",
    "create",
    "kind",
    "poison",
]
