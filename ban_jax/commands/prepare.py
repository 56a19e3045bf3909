"""`ban-jax prepare`: brings a TFDS data set onto the disk."""

import dataclasses

import tyro

from ban_jax import data
from ban_jax.commands import kinds


@dataclasses.dataclass(frozen=True)
class Flags:
    """Downloads a TFDS data set; needs the extra `prepare`.

    Attributes:
      name: of the data set, such as cifar10.
      data_dir: where TFDS data lie.
    """

    name: tyro.conf.Positional[kinds.Name]
    data_dir: kinds.MaybePath = None


def run(flags: Flags) -> int:
    """Prepares it and prints its folder."""
    print(data.prepare(flags.name, flags.data_dir))
    return 0
