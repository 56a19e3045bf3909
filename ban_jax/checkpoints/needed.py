"""Packages that Orbax folders alone need, imported when the first is met.

A scan of other files works without them, and starts sooner.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from ban_jax.checkpoints import errors


def orbax() -> Any:
    """Orbax's v1 API.

    Raises:
      CheckpointError: where it cannot be imported.
    """
    with _explained():
        from orbax.checkpoint import v1
    return v1


def tensorstore() -> Any:
    """TensorStore.

    Raises:
      CheckpointError: where it cannot be imported.
    """
    with _explained():
        import tensorstore as package
    return package


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise errors.CheckpointError(
            f"an Orbax folder is read with orbax-checkpoint and tensorstore ({error}); "
            "this package is installed with both"
        ) from error
