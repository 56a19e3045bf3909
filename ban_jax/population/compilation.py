"""Compiled functions of ONE model: `jit` for those who do not compute a whole chunk."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

PROGRAMS = 64
"""Programs of one function, or of all chunks, that are kept; the oldest are dropped.

Each holds machine code and memory maps for as long as it is known: a process that meets
ever new architectures would run out of them.
"""


OPTIONS: Mapping[str, Mapping[str, bool]] = {
    # XLA of jaxlib 0.11.2 ends the process ("Check failed: subdim_size_accumulator ==
    # dim_size" in its Triton tiling) on every ResNet, trained or scanned, where this is
    # on. Matrix products go to cuBLAS instead.
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}
"""What XLA is told, by backend."""


def options(backend: str) -> dict[str, bool] | None:
    """Options of `jax.jit` for programs of a backend; None where there are none."""
    return dict(OPTIONS[backend]) if backend in OPTIONS else None


def compiled(
    function: Callable[..., Any], *, donated: bool = False
) -> Callable[..., Any]:
    """A pure function, compiled when it is first called with new shapes.

    What the result is given by position is traced: its values do not count. What it is
    given by keyword is static: hashable, and a program of its own for each value.

    Args:
      function: pure.
      donated: the first argument's buffers are used up, for results of the same shapes.

    Returns:
      A function with the same results.
    """

    @functools.lru_cache(maxsize=PROGRAMS)
    def program(**static: Any) -> Callable[..., Any]:
        bound = functools.partial(function, **static)
        bound.__name__ = getattr(function, "__name__", "function")  # type: ignore[attr-defined]
        return jax.jit(
            bound,
            donate_argnums=(0,) if donated else (),
            compiler_options=options(jax.default_backend()),
        )

    def call(*traced: Any, **static: Any) -> Any:
        return program(**static)(*traced)

    return functools.update_wrapper(call, function)


def over_models(function: Callable[..., Any], shared: int = 0) -> Callable[..., Any]:
    """A function of one model as one of M stacked ones.

    Args:
      function: `(of this model, ..., of all models, ...) -> result`.
      shared: how many of its last arguments are the same for all models.

    Returns:
      The function whose other arguments, and result, have a leading axis M.
    """

    def call(*arguments: Any) -> Any:
        own = len(arguments) - shared
        return jax.vmap(function, in_axes=(0,) * own + (None,) * shared)(*arguments)

    return call
