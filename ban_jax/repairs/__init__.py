"""Repairs, by name: each removes a backdoor from ONE model with a few clean images."""

from ban_jax.registry import Registry
from ban_jax.repairs import anp, ban, finetune
from ban_jax.repairs.types import FILLER, CleanSet, Method, Repair, RepairInfo

METHODS: Registry[Method] = Registry(
    "repair",
    {"ban": ban.METHOD, "finetune": finetune.METHOD, "anp": anp.METHOD},
    group="ban_jax.repairs",
)

__all__ = ["FILLER", "METHODS", "CleanSet", "Method", "Repair", "RepairInfo"]
