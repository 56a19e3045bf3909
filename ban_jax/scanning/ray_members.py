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
    """Files that one worker does.

    Attributes:
      paths: of the files.
      losses: workers that died on it.
      is_suspected: whether its only file may be what they died on: then a worker has
        nothing beside it, so that no other file is blamed.
    """

    paths: tuple[str, ...]
    losses: int = 0
    is_suspected: bool = False


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
        """What messages call it: its number, machine and device."""
        where = f" on {self.told.host} ({self.told.device})" if self.told else ""
        return f"worker {self.number}{where}"


def first_line(error: Exception) -> str:
    """What an error of Ray says, without the pages of advice behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def listed(resources: dict[str, float]) -> str:
    """Resources of a cluster in a few words, without names of machines."""
    named = {k: v for k, v in resources.items() if ":" not in k and k.isupper()}
    return ", ".join(f"{value:g} {name}" for name, value in named.items()) or "nothing"
