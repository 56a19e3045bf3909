"""BAN's second half: fine-tuning while an adversary perturbs the neurons, for ONE model.

Weights that neuron noise can turn into the backdoor keep a high loss under that noise;
learning to classify under it flattens them.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024, section 3; xiaoyunxxy/ban, `ban_finetune.py`.
"""

import dataclasses
import functools

import jax

from ban_jax import perturb
from ban_jax.detectors import reference
from ban_jax.registry import at_least
from ban_jax.repairs import descent
from ban_jax.repairs.types import CleanSet, Method, RepairInfo
from ban_jax.types import Array, Network, NormMode, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("epsilon", "robust_weight", *descent.TRACED),
    meta_fields=("steps", "released", *descent.STATIC),
)
@dataclasses.dataclass(frozen=True)
class Settings(descent.DescentConfig):
    """The optimiser with the settings of the released README, and the noise.

    Attributes:
      epsilon: radius of the neuron noise, relative to each scale and bias.
      steps: sign steps of a noise search, one search per batch.
      robust_weight: of the loss under noise; that of the clean loss is 1.
      released: does what the released code does where it differs: the stored statistics
        absorb the forward passes under noise too, and the noise may reach twice
        `epsilon`, from a random start by `steps` steps of `epsilon / steps`, unclipped.
        That code takes images in one order and holds none out besides: `shuffle` off and
        a `budget` of 1 come close.
    """

    epsilon: float = 0.3
    steps: int = at_least(1, 1)
    robust_weight: float = 0.5
    released: bool = False


def repair(
    network: Network,
    variables: Variables,
    data: CleanSet,
    *,
    key: Array,
    config: Settings,
) -> tuple[Variables, RepairInfo]:
    """See `repairs.types.Repair`.

    The stored statistics follow the clean forward passes alone, in which the model will
    be used; those under noise take the statistics of their batch (but see
    `Settings.released`).
    """

    def search(
        variables: Variables, images: Array, labels: Array, key: Array
    ) -> tuple[perturb.Noise, Variables]:
        noise = perturb.init_noise(key, variables, config.epsilon)
        if config.released:
            settings = reference.Settings(epsilon=config.epsilon, steps=config.steps)
            for _ in range(config.steps):
                variables, noise, _ = reference.noise_step(
                    network, variables, noise, images, labels, settings
                )
            return noise, variables

        def objective(noise: perturb.Noise) -> Array:
            noisy = perturb.apply_noise(variables, noise)
            logits, _ = network.logits(noisy, images, "batch")
            return perturb.cross_entropy(logits, labels)

        noise, _ = perturb.climb(
            objective, noise, epsilon=config.epsilon, steps=config.steps
        )
        return noise, variables

    def lesson(
        variables: Variables, images: Array, labels: Array, key: Array
    ) -> descent.Loss:
        noise, variables = search(variables, images, labels, key)
        mode: NormMode = "update" if config.released else "batch"

        def loss_fn(params):
            current = {**variables, "params": params}
            noisy = perturb.apply_noise(current, noise)
            noisy_logits, after = network.logits(noisy, images, mode)
            logits, after = network.logits(
                {**after, "params": params}, images, "update"
            )
            loss = perturb.cross_entropy(logits, labels)
            robust = perturb.cross_entropy(noisy_logits, labels)
            return loss + config.robust_weight * robust, after

        return loss_fn

    return descent.fit(network, variables, data, lesson, key=key, config=config)


METHOD = Method(repair, Settings, "fine-tuning while an adversary perturbs the neurons")
