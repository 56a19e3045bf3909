"""Plain fine-tuning on clean images: the baseline of the repairs, for ONE model.

References:
  Liu et al., "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
  Networks", RAID 2018.
"""

import dataclasses
import functools

import jax

from ban_jax import perturb
from ban_jax.repairs import descent
from ban_jax.repairs.types import CleanSet, Method, RepairInfo
from ban_jax.types import Array, Network, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=descent.TRACED,
    meta_fields=descent.STATIC,
)
@dataclasses.dataclass(frozen=True)
class Settings(descent.DescentConfig):
    """BAN's optimiser without its noise, so that the noise is all that differs."""


def repair(
    network: Network,
    variables: Variables,
    data: CleanSet,
    *,
    key: Array,
    config: Settings,
) -> tuple[Variables, RepairInfo]:
    """See `repairs.types.Repair`; cross-entropy on clean images, BatchNorm learning."""

    def lesson(
        variables: Variables, images: Array, labels: Array, key: Array
    ) -> descent.Loss:
        del key

        def loss_fn(params):
            current = {**variables, "params": params}
            logits, after = network.logits(current, images, "update")
            return perturb.cross_entropy(logits, labels), after

        return loss_fn

    return descent.fit(network, variables, data, lesson, key=key, config=config)


METHOD = Method(repair, Settings, "plain fine-tuning, without neuron noise")
