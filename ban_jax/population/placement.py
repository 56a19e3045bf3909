"""Where the candidates of a chunk are computed."""

import os
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MODELS = "models"
"""Name of the mesh's only axis."""


class Placement(NamedTuple):
    """Where the candidates of a chunk are computed. Hashable.

    Attributes:
      devices: of this process, all of one kind; a chunk is shared out among them.
      stacked: whether the candidates of a device share one program by `jax.vmap`. Else
        each gets the program of a single one, so that no result can depend on a
        neighbour: on host threads side by side where the device is one CPU (one
        candidate does not fill its cores), one after another where they are several.
    """

    devices: tuple[jax.Device, ...]
    stacked: bool

    @property
    def on_threads(self) -> bool:
        return not self.stacked and len(self.devices) == 1

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (MODELS,), axis_types=(AxisType.Auto,))

    def split(self) -> NamedSharding:
        """The leading axis dealt out to the devices."""
        return NamedSharding(self.mesh, PartitionSpec(MODELS))

    def everywhere(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def rounded(self, count: int) -> int:
        """The smallest multiple of the devices that holds `count` candidates."""
        return -(-count // len(self.devices)) * len(self.devices)


def default_placement() -> Placement:
    """This process's devices: a CPU gets native convolutions, which do not stack."""
    return Placement(tuple(jax.local_devices()), jax.default_backend() != "cpu")


def default_chunk(backend: str) -> int:
    """Candidates per device at once: one per core of a CPU, few enough for its memory."""
    return min(cores(), 4) if backend == "cpu" else 16


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
