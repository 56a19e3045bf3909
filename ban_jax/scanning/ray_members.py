"""What a pool of workers keeps in mind: shares of a cluster, pieces of work, members."""

import dataclasses
from typing import Any, NamedTuple

from ban_jax.scanning import ray_worker


class Share(NamedTuple):
    """What one worker takes of the cluster: one device.

    Attributes:
      resource: what there must be one of, `GPU` or `TPU`; empty for the CPU.
      cpus: besides.
    """

    resource: str
    cpus: int

    def fits(self, resources: dict[str, float]) -> int:
        """Workers that a machine with these resources holds."""
        held = int(resources.get("CPU", 0) // self.cpus)
        if self.resource:
            held = min(held, int(resources.get(self.resource, 0)))
        return held

    def options(self) -> dict[str, Any]:
        """Of `ray.remote`, for a worker that is not restarted behind our back."""
        told: dict[str, Any] = {"num_cpus": self.cpus, "max_restarts": 0}
        if self.resource == "GPU":
            told["num_gpus"] = 1
        elif self.resource:
            told["resources"] = {self.resource: 1}
        return told


@dataclasses.dataclass(eq=False)
class Piece:
    """Files that one worker does, and how many workers it has lost."""

    paths: tuple[str, ...]
    losses: int = 0


@dataclasses.dataclass(eq=False)
class Member:
    """A worker, as the driver sees it.

    Attributes:
      number: counts from 1.
      actor: Ray's handle.
      greeting: reference of its `Hello`.
      told: its `Hello`; None until it is there.
      pieces: reference -> piece, the oldest first: that one is being done.
      since: when the oldest began, or the worker came.
      files: candidates it has measured.
      busy: seconds it took for them.
      lost: why it is gone, or an empty string.
    """

    number: int
    actor: Any
    greeting: Any
    told: ray_worker.Hello | None = None
    pieces: dict[Any, Piece] = dataclasses.field(default_factory=dict)
    since: float = 0.0
    files: int = 0
    busy: float = 0.0
    lost: str = ""

    @property
    def name(self) -> str:
        where = f" on {self.told.host} ({self.told.device})" if self.told else ""
        return f"worker {self.number}{where}"
