"""No images at all: the final linear layer betrays many targets by itself."""

import dataclasses
from typing import Any

import jax
from jax import numpy as jnp

from ban_jax.detectors import evidence, rules
from ban_jax.detectors.detector import Detector
from ban_jax.types import Array, Network, Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Settings:
    """There is nothing to choose."""


def detect(
    network: Network,
    variables: Variables,
    probe: Any = None,
    *,
    key: Array | None = None,
    config: Settings = Settings(),
) -> evidence.Evidence:
    """Measures one candidate from its weights; `probe`, `key`, `config` are not used.

    Returns:
      Evidence whose vector `last_layer` `[K]` is the mean weight of each class in the
      final linear layer; the accuracy is NaN, for nothing was predicted.
    """
    del probe, key, config
    vector = evidence.last_layer(network, variables)
    return evidence.Evidence(
        vectors={"last_layer": vector},
        errors={"last_layer": jnp.zeros_like(vector)},
        clean_accuracy=jnp.array(jnp.nan),
        is_finite=jnp.all(jnp.isfinite(vector)),
    )


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=rules.AverageZ(
        ("last_layer",), {"within": 4.0, "trusted": 5.0, "population": 3.5}
    ),
    work=lambda config, num_classes, num_images: 0,
    summary="the last layer of the network alone; no images were used",
    vectors={"last_layer": evidence.WORDS["last_layer"]},
    needs=frozenset(),
)
