"""What a worker of a cluster does: measures files as a scan in one process would.

Nothing that touches a device is imported before the worker has said how many cores JAX
may take, so imports stand in the methods.
"""

import os
import platform
import time
from collections.abc import Sequence
from typing import Any, NamedTuple


class Hello(NamedTuple):
    """What a worker is.

    Attributes:
      pid: of its process.
      host: name of its machine.
      device: kind of its device, as `versions` of a record has it.
      backend: `cpu`, `gpu` or `tpu`.
      version: of its `ban_jax`.
    """

    pid: int
    host: str
    device: str
    backend: str
    version: str


class Done(NamedTuple):
    """A piece of work, finished.

    Attributes:
      measured: `(evidence, is_new)` of each candidate, as `scan.Measured`.
      seconds: that the worker was busy with it.
    """

    measured: list[tuple[Any, bool]]
    seconds: float


class Worker:
    """Lives as long as its process and keeps what it has compiled.

    Args:
      cpus: cores JAX may use for one operation, and candidates at once on a CPU.
      accelerated: whether it has an accelerator of its own; else it computes on the CPU.
    """

    def __init__(self, cpus: int, accelerated: bool):
        # XLA takes all cores of the machine, whatever share of them is the worker's.
        os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(cpus)
        if not accelerated:
            os.environ["JAX_PLATFORMS"] = "cpu"
        self._cpus = cpus
        self._name: int | None = None
        self._job: Any = None
        self._task: Any = None
        self._keep_programs()

    def hello(self) -> Hello:
        """What this worker is, once it can compute."""
        import ban_jax
        from ban_jax.storage import versions

        told = versions.versions()
        device, backend = told["device"], told["backend"]
        host = platform.node()
        return Hello(os.getpid(), host, device, backend, ban_jax.__version__)

    def lowering(self, precision: Any) -> Any:
        """How convolutions are computed on this worker's device."""
        from ban_jax.convolution import tables

        return tables.default(precision)

    def measure(
        self, name: int, job: Sequence[Any], paths: Sequence[str], known: Sequence[Any]
    ) -> Done:
        """The lines of some files.

        Args:
          name: of the job, so that it is fetched and prepared once.
          job: a list with the reference of it, and the folder that relative paths are
            meant from, None where all are absolute.
          paths: files and Orbax folders.
          known: lines of an earlier run of the user who asks, of these files.
        """
        from ban_jax.records import seal
        from ban_jax.scanning import scan, timeline

        began = time.perf_counter()
        if name != self._name:
            self._enter(job[1])
            self._prepare(job[0])
            self._name = name
        # The driver has looked at the seals: here the user's secret may be another.
        own = [seal.sealed(line) for line in known]
        clock = timeline.Timeline()
        found = scan.scan(paths, self._job, known=own, clock=clock, task=self._task)
        measured = [(line, is_new) for line, is_new in found]
        return Done(measured, time.perf_counter() - began)

    def _enter(self, folder: str | None) -> None:
        if folder is None:
            return
        try:
            os.chdir(folder)
        except OSError as error:
            raise ValueError(
                f"{platform.node()} cannot enter {folder} ({error.strerror}), which the "
                "given paths are relative to: give absolute paths that all machines share"
            ) from error

    def _prepare(self, reference: Any) -> None:
        """Fetches a job and sends to the device what all candidates share."""
        import dataclasses

        import jax
        import ray

        from ban_jax.scanning import chunks, timeline

        job = ray.get(reference)
        if job.settings.chunk is None and jax.default_backend() == "cpu":
            settings = dataclasses.replace(job.settings, chunk=min(self._cpus, 4))
            job = dataclasses.replace(job, settings=settings)
        self._job, self._task = job, chunks.Scan(job, timeline.Timeline())

    def _keep_programs(self) -> None:
        """Compiled programs are kept between runs, as those of the command are."""
        from ban_jax.storage import compile_cache

        compile_cache.use(os.environ)
