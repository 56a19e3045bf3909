"""Detectors that search something for each class apart: the searches, then the evidence.

Nothing that is searched for one class hangs on another, so the searches of one model can
run side by side on the cores of a CPU (`population.Parted`).
"""

import dataclasses
from typing import Any, Protocol

from jax import numpy as jnp

from ban_jax.detectors.evidence import Evidence
from ban_jax.types import Array, Network, Variables


class Search(Protocol):
    """Searches the given classes `[J]` of one candidate; pure.

    A class gets what it gets alone. Returns a tree whose leaves are `[J, ...]`.
    """

    def __call__(
        self,
        network: Network,
        variables: Variables,
        probe: Any,
        classes: Array,
        *,
        key: Array,
        config: Any,
    ) -> Any: ...


class Finish(Protocol):
    """The evidence of one candidate from what was found for all its classes; pure.

    `found` is the tree of `Search` with J = K, `key` the one that the search was given.
    """

    def __call__(
        self,
        network: Network,
        variables: Variables,
        probe: Any,
        found: Any,
        *,
        key: Array,
        config: Any,
    ) -> Evidence: ...


@dataclasses.dataclass(frozen=True)
class ByClass:
    """A `detector.Detect` whose searches can also be run apart.

    Attributes:
      search: of some classes.
      finish: what follows the searches of all.
    """

    search: Search
    finish: Finish

    def __call__(
        self,
        network: Network,
        variables: Variables,
        probe: Any,
        *,
        key: Array,
        config: Any,
    ) -> Evidence:
        """Measures one candidate; pure.

        Args:
          network: the model's two functions; stored statistics.
          variables: its collections.
          probe: images `[T, B, H, W, C]`, labels `[T, B]`.
          key: typed key, consumed.
          config: the detector's settings.
        """
        classes = jnp.arange(network.num_classes)
        found = self.search(network, variables, probe, classes, key=key, config=config)
        return self.finish(network, variables, probe, found, key=key, config=config)
