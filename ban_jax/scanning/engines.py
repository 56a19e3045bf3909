"""Who measures the candidates of a scan: this process, or the workers of a cluster."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from ban_jax.records import Evidence, Job
from ban_jax.scanning import scan, timeline

Name = Literal["process", "ray"]


class Engine(Protocol):
    """Measures candidates; `scan.scan` says what is given and yielded."""

    def adapted(self, job: Job) -> Job:
        """The job as those who compute measure it: convolutions depend on the device."""

    def measure(
        self,
        paths: Sequence[str],
        job: Job,
        *,
        known: Iterable[Evidence] = (),
        clock: timeline.Timeline | None = None,
    ) -> Iterator[scan.Measured]:
        """As `scan.scan`."""


class InProcess:
    """All devices of this process."""

    measure = staticmethod(scan.scan)

    def adapted(self, job: Job) -> Job:
        return job


@contextlib.contextmanager
def started(
    name: Name, address: str | None = None, cpus: int = 1, files: int = 1
) -> Iterator[Engine]:
    """An engine that is at work while the body runs.

    Args:
      name: `process`, or `ray` for the workers of a Ray cluster.
      address: of a running cluster; None: that of `RAY_ADDRESS`, else one of this machine
        alone, which is started and ends with the body.
      cpus: CPUs of each worker.
      files: that are to be measured, about; no more workers are started at once.

    Raises:
      ValueError: where Ray is not installed, cannot be reached or has no worker.
    """
    if name == "process":
        yield InProcess()
        return
    try:
        from ban_jax.scanning import ray_pool  # an extra: most scans need none
    except ImportError as error:
        raise ValueError(
            f"--engine ray needs Ray ({error}): install this package with its extra "
            "`ray`, here and on every machine of the cluster"
        ) from error
    with ray_pool.started(address, cpus, files) as pool:
        yield pool
