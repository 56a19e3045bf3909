"""How many candidates fit into a device, and what running out of memory looks like."""

import contextlib
import os
from typing import Any

import jax

SHARE = 0.8
"""Of the free memory that a chunk may take: the next chunk's weights arrive beside it."""

EXHAUSTED = (
    # The status of every allocation of XLA that fails, on all backends.
    "RESOURCE_EXHAUSTED",
    # CUDA's own words, where an allocation fails outside of XLA's allocator.
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # XLA tries a convolution's algorithms while it compiles. Where none gets its scratch
    # memory the status is INTERNAL, UNKNOWN or NOT_FOUND, and only the text tells.
    "Failed to determine best cudnn convolution algorithm",
    "All algorithms tried for",
    "Autotuning failed for HLO",
)
"""Texts of a device error after which fewer candidates at once may succeed."""


def exhausted(error: BaseException) -> bool:
    """Whether less work at once may help: memory ran out, on the device or the host."""
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in EXHAUSTED
    )


def needed(compiled: Any) -> int | None:
    """Bytes a `programs.Program` takes on one device; None where XLA does not say."""
    if hasattr(compiled, "needed"):  # it was found out before
        return compiled.needed
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def free(device: jax.Device) -> int | None:
    """Bytes that can still be had on a device: of the machine, where it is the CPU."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return free_ram() if device.platform == "cpu" else None


def free_ram() -> int | None:
    """Bytes this process can still get, within its container's limit; None if unknown."""
    bounds = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open("/proc/meminfo", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("MemAvailable:"))
        bounds.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limit, used = (
            int(_read(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current")
        )
        bounds.append(limit - used)
    if not bounds and "SC_PHYS_PAGES" in os.sysconf_names:
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(bounds, default=None)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def fitting(candidates: int, bytes_needed: int | None, bytes_free: int | None) -> int:
    """How many candidates a device holds at once, from what so many of them need.

    Args:
      candidates: that a program of `bytes_needed` computes at once on one device.
      bytes_needed: from `needed`.
      bytes_free: from `free`.

    Returns:
      At least 1, at most `candidates`; `candidates` where either is unknown.
    """
    if not bytes_needed or bytes_free is None:
        return candidates
    fit = int(SHARE * bytes_free * candidates // bytes_needed)
    return min(max(fit, 1), candidates)
