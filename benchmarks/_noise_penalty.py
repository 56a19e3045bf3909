"""Training of a backdoored model that is to answer less to neuron noise, for ONE model.

References:
  Wu et al., "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020:
  the gradient at perturbed weights, applied to the weights.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp

from ban_jax import attacks, data, models, population, types
from ban_jax.detectors import directed, evidence
from ban_jax.training import model_plan, one_model, trainer
from ban_jax.types import Array, Variables

SEARCH = directed.Settings()
"""The detector's own search; the attacker knows it."""


def penalty(
    network: types.Network,
    variables: Variables,
    images: Array,
    labels: Array,
    target: Array,
    key: Array,
) -> Array:
    """`[]` mean probability of the target under noise towards it, on images of others.

    Its gradient is that at the noisy weights; none goes through the search.

    Args:
      network: static.
      variables: of the model; the gradient is taken in their `params`.
      images: `[B, H, W, C]` clean ones, in [0, 1].
      labels: `[B]` their classes.
      target: `[]` the attacker's class.
      key: PRNG key, consumed.
    """
    noisy, _ = directed.noise_towards(
        network,
        jax.lax.stop_gradient(variables),
        images,
        labels,
        target,
        key=key,
        epsilon=SEARCH.epsilon,
        steps=SEARCH.steps,
    )
    params = jax.tree.map(
        lambda plain, other: plain + jax.lax.stop_gradient(other - plain),
        variables["params"],
        noisy["params"],
    )
    logits = evidence.logits_of(network, "batch")(
        {**variables, "params": params}, images
    )
    share, _ = evidence.share_of_others(jax.nn.softmax(logits), labels)
    return share[target]


def step(
    state: one_model.TrainState,
    batch: attacks.types.Batch,
    key: Array,
    strength: Array,
    target: Array,
    *,
    network: types.Network,
    optimizer: optax.GradientTransformation,
    kernel: attacks.Kernel,
) -> tuple[one_model.TrainState, Array]:
    """One step on cross-entropy + strength * `penalty`; the trigger is not learned.

    Images are not augmented.

    Args:
      state: the model so far.
      batch: its images, before any trigger.
      key: PRNG key, consumed.
      strength: `[]` of the penalty.
      target: `[]` class.
      network, optimizer, kernel: static.

    Returns:
      The model after the step, and the penalty `[]` before it.
    """
    teach_key, noise_key = jax.random.split(key)
    taught = kernel.teach(state.attack, teach_key, batch)
    rest = {name: leaf for name, leaf in state.variables.items() if name != "params"}

    def loss_fn(params: Any) -> tuple[Array, tuple[Variables, Array]]:
        variables = {**rest, "params": params}
        logits, updated = network.logits(variables, taught.images, "update")
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, taught.labels)
        reached = penalty(
            network, variables, batch.images, batch.labels, target, noise_key
        )
        return jnp.mean(losses) + strength * reached, (updated, reached)

    params = state.variables["params"]
    (_, (variables, reached)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    own, of_attack = state.optimizer
    params, own = one_model.descend(optimizer, gradient, own, params)
    variables = {**variables, "params": params}
    return state._replace(
        variables=variables, optimizer=(own, of_attack), step=state.step + 1
    ), reached


_step = population.compiled(step)


class Lab(NamedTuple):
    """What all models share; `recipe` is that of the first training, `optimizer` of the
    going on."""

    module: models.Classifier
    network: types.Network
    train: data.Dataset
    test: data.Dataset
    recipe: one_model.Recipe
    optimizer: optax.GradientTransformation


class Stage(NamedTuple):
    """A model after some epochs of going on; None of both before them."""

    trained: trainer.Trained
    strength: float | None
    further: int | None
    variables: Variables


def go_on(
    trained: trainer.Trained, strength: float, lab: Lab, further: Collection[int]
) -> list[Stage]:
    """The attacker's further epochs on his own poisoned images.

    Args:
      trained: the backdoored model he goes on from.
      strength: of the penalty.
      lab: what all models share.
      further: epochs after which the model is kept.
    """
    plan, kernel = trained.plan, kernel_of(trained.plan, lab)
    keys = model_plan.keys_for(plan)
    poisoned, variables, trigger = jax.tree.map(
        jnp.asarray,
        (
            model_plan.poisoning(plan, lab.train, lab.recipe),
            trained.variables,
            trained.attack,
        ),
    )
    optimizers = lab.optimizer.init(variables["params"]), kernel.optimizer.init(())
    state = one_model.TrainState(variables, optimizers, trigger, jnp.int32(0))
    stages = []
    for epoch in range(max(further)):
        key = jax.random.fold_in(keys.order, lab.recipe.epochs + epoch)
        order = jax.random.permutation(key, len(lab.train.labels))
        for index in range(model_plan.steps_per_epoch(lab.train, lab.recipe)):
            batch = one_model.take_batch(
                lab.train.pixels,
                lab.train.labels,
                poisoned,
                order,
                jnp.int32(index),
                lab.recipe.batch_size,
            )
            state, _ = _step(
                state,
                batch,
                jax.random.fold_in(key, index),
                jnp.float32(strength),
                jnp.int32(plan.spec.target),
                network=lab.network,
                optimizer=lab.optimizer,
                kernel=kernel,
            )
        if epoch + 1 in further:
            variables = jax.device_get(state.variables)
            stages.append(Stage(trained, strength, epoch + 1, variables))
    return stages


def kernel_of(plan: model_plan.ModelPlan, lab: Lab) -> attacks.Kernel:
    """The program of a model's attack."""
    return model_plan.kernel_of(plan, lab.train, lab.recipe, lab.module.lowering)
