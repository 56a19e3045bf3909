"""What a repair is: a model and a few clean images in, the model without backdoor out."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ban_jax.types import Array, Network, Variables

FILLER = -1
"""Label of an image that only fills up a minibatch; it counts nowhere."""


class CleanSet(NamedTuple):
    """The defender's clean images, in two parts that share none.

    Attributes:
      images: `[N, H, W, C]` uint8 or float pixels in [0, 1] that a repair learns from.
      labels: `[N]` their classes.
      held_images: `[T, B, H, W, C]` images it only watches the accuracy on.
      held_labels: `[T, B]` their classes, or `FILLER`.
    """

    images: Array
    labels: Array
    held_images: Array
    held_labels: Array


class RepairInfo(NamedTuple):
    """What a repair saw; diagnosis only. Accuracies are on the held-out images.

    Attributes:
      loss: `[E]` mean training loss of each epoch; NaN where it was not run.
      accuracy: `[E]` after each epoch; NaN where it was not run.
      accuracy_before: `[]`.
      accuracy_after: `[]` of the model given back.
      epochs: `[]` int32, after which the model given back was taken.
      stopped: `[]` bool, whether the accuracy budget ended the repair, or kept it from
        cutting more.
      is_finite: `[]` bool, false where a loss of an epoch that was run was not.
      details: what one method alone has to tell, `[]` each.
    """

    loss: Array
    accuracy: Array
    accuracy_before: Array
    accuracy_after: Array
    epochs: Array
    stopped: Array
    is_finite: Array
    details: dict[str, Array]


class Repair(Protocol):
    """The shape of every repair: one model, pure."""

    def __call__(
        self,
        network: Network,
        variables: Variables,
        data: CleanSet,
        *,
        key: Array,
        config: Any,
    ) -> tuple[Variables, RepairInfo]: ...


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to repair a model; one file each, one line in `repairs.METHODS`.

    Attributes:
      repair: the pure function for one model.
      settings: class of its settings, a dataclass registered with JAX whose defaults are
        the documented ones and which has `batch_size` and `budget`; its fields become the
        flags `--NAME.FIELD`.
      summary: one sentence, without a full stop.
      unfit: why a model's collections cannot be repaired this way; empty: they can.
    """

    repair: Repair
    settings: type
    summary: str
    unfit: Callable[[Variables], str] = lambda variables: ""
