"""Backdoor attacks, by name.

An attack is a frozen dataclass of its settings with the methods of `attacks.types.Attack`:
one file here and one line below, or an entry point of the group `ban_jax.attacks` in
another package. `ban-jax train` then has it among `--attacks`, and its settings as
`--NAME.SETTING`.
"""

import dataclasses
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
from ban_jax.registry import Registry, check_settings

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    {
        "adap_blend": AdapBlend,
        "badnets": BadNets,
        "blend": Blend,
        "bpp": Bpp,
        "clean": Clean,
        "iad": IAD,
        "sig": SIG,
        "ssdt": SSDT,
        "wanet": WaNet,
    },
    group="ban_jax.attacks",
)


def create(name: str, **settings: Any) -> Attack:
    """An attack with settings of its own, the documented ones by default.

    Raises:
      UnknownNameError: a `ValueError` for an unknown name; it lists the known ones.
      ValueError: for a number or a name that its settings do not allow.
    """
    made = ATTACKS[name](**settings)
    if dataclasses.is_dataclass(made):
        check_settings(made, f"{name}.")
    return made


def kind(attack: Attack) -> str:
    """The name an attack is known by.

    Raises:
      ValueError: for one that is not registered.
    """
    for name, made in ATTACKS.items():
        if type(attack) is made:
            return name
    raise ValueError(
        f"{type(attack).__name__} is no registered attack; known: "
        f"{', '.join(sorted(ATTACKS))}"
    )


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
