"""Repairs, by name: each removes a backdoor from ONE model with a few clean images."""

from typing import Any, NamedTuple

from ban_jax.repairs import anp, ban, finetune
from ban_jax.repairs.anp import AnpConfig
from ban_jax.repairs.ban import BanConfig
from ban_jax.repairs.finetune import FinetuneConfig
from ban_jax.repairs.types import FILLER, CleanSet, Repair, RepairInfo


class Method(NamedTuple):
    """A way to repair a model.

    Attributes:
      repair: the pure function for one model.
      config: class of its settings; the defaults are the documented ones.
    """

    repair: Repair
    config: Any


METHODS = {
    "ban": Method(ban.repair, BanConfig),
    "finetune": Method(finetune.repair, FinetuneConfig),
    "anp": Method(anp.repair, AnpConfig),
}

__all__ = [
    "FILLER",
    "METHODS",
    "AnpConfig",
    "BanConfig",
    "CleanSet",
    "FinetuneConfig",
    "Method",
    "Repair",
    "RepairInfo",
]
