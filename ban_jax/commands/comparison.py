"""What candidates are compared with, as flags say it."""

from ban_jax import verdict
from ban_jax.baselines import profile

NONE = "none"


def profiles(name: str | None) -> verdict.Profiles:
    """The `--profile` of a command; None: the package's own, where one fits.

    Raises:
      ProfileError: for what is neither a profile file, nor a shipped one, nor `none`.
    """
    if name is None:
        return "shipped"
    return None if name == NONE else profile.load(name)
