"""What candidates are compared with, as flags say it."""

from collections.abc import Sequence

from ban_jax import verdict
from ban_jax.baselines import profile, rates
from ban_jax.records import Record

NONE = "none"


def profiles(name: str | None) -> verdict.Profiles:
    """The `--profile` of a command; None: the package's own, where one fits.

    Raises:
      ProfileError: for what is neither a profile file, nor a shipped one, nor `none`.
    """
    if name is None:
        return "shipped"
    return None if name == NONE else profile.load(name)


def trust(judged: Sequence[Record]) -> str | None:
    """How often such verdicts are wrong, where all are of one kind and it was measured."""
    kinds = {
        (one["mode"], one["baseline"], one["data"]["name"] if one["data"] else "")
        for one in judged
        if one["score"] is not None
    }
    return rates.line(*kinds.pop()) if len(kinds) == 1 else None
