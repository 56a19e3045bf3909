"""What the numbers of a result were made with."""

import functools
import platform

import flax
import jax
import jaxlib

import ban_jax


@functools.cache
def versions() -> dict[str, str]:
    """What the numbers of a record were made with."""
    device = jax.devices()[0]
    return {
        "ban_jax": ban_jax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "python": platform.python_version(),
        "backend": device.platform,
        "device": device.device_kind,
    }
