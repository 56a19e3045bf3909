"""No images at all: the final linear layer betrays many targets by itself."""

from typing import Any

from jax import numpy as jnp

from ban_jax.config import BanConfig
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Variables


def detect(
    network: Network,
    variables: Variables,
    probe: Any = None,
    *,
    key: Array | None = None,
    config: BanConfig | None = None,
) -> evidence.Evidence:
    """Measures one candidate from its weights; `probe`, `key`, `config` are not used.

    Returns:
      Evidence whose vector `last_layer` `[K]` is the mean weight of each class in the
      final linear layer; histograms and accuracy are NaN, for nothing was predicted.
    """
    del probe, key, config
    vector = evidence.last_layer(network, variables)
    nothing = jnp.full((network.num_classes,), jnp.nan)
    return evidence.Evidence(
        vectors={"last_layer": vector},
        errors={"last_layer": jnp.zeros_like(vector)},
        curves={},
        histogram=nothing,
        histogram_without_noise=nothing,
        clean_accuracy=jnp.array(jnp.nan),
        is_finite=jnp.all(jnp.isfinite(vector)),
    )
