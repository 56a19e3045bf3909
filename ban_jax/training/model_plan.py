"""One model that is to be trained: its attack, its randomness, its poisoned images."""

import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from ban_jax import attacks, data
from ban_jax.attacks import poison
from ban_jax.training import one_model
from ban_jax.types import Array


class ModelPlan(NamedTuple):
    """One model to be trained.

    Attributes:
      name: unique in its population; all randomness is folded from it and the seed, so
        a model does not depend on which others are trained.
      attack: its trigger.
      spec: the attacker's choice.
      seed: number that tells twins apart.
    """

    name: str
    attack: attacks.Attack
    spec: poison.PoisonSpec
    seed: int


class Keys(NamedTuple):
    """Independent randomness of one model, by purpose."""

    weights: Array
    trigger: Array
    order: Array
    steps: Array
    metrics: Array
    poison_seed: int


def keys_for(plan: ModelPlan) -> Keys:
    """Folds a model's keys from its seed and name."""
    # 32 bits of the name, where scans use all of a hash: models trained before stay equal.
    identity = zlib.crc32(plan.name.encode())
    key = jax.random.fold_in(jax.random.key(plan.seed), identity)
    weights, trigger, order, steps, measured = jax.random.split(key, 5)
    poison_seed = int(
        np.random.SeedSequence([plan.seed, identity]).generate_state(1)[0]
    )
    return Keys(weights, trigger, order, steps, measured, poison_seed)


def steps_per_epoch(train: data.Dataset, recipe: one_model.Recipe) -> int:
    """Whole batches of the training images.

    Raises:
      ValueError: when they do not fill one.
    """
    steps = len(train.labels) // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"{len(train.labels)} training images do not fill one batch of "
            f"{recipe.batch_size}"
        )
    return steps


def poisoning(
    plan: ModelPlan, train: data.Dataset, recipe: one_model.Recipe
) -> poison.Plan:
    """Which of the training images the model sees with its trigger.

    Raises:
      ValueError: for a poisoning that is impossible with these images and batches.
    """
    return poison.plan(
        train.labels,
        train.num_classes,
        plan.spec,
        plan.attack.policy,
        batch_size=recipe.batch_size,
        seed=keys_for(plan).poison_seed,
    )


def kernel_of(
    plan: ModelPlan,
    train: data.Dataset,
    recipe: one_model.Recipe,
    lowering: Any,
) -> attacks.Kernel:
    """The attack's program.

    Raises:
      ValueError: for a trigger or a poisoning that is impossible with these images,
        classes and batches.
    """
    schedule = attacks.Schedule(
        steps_per_epoch(train, recipe), recipe.epochs, recipe.batch_size, lowering
    )
    poisoning(plan, train, recipe)
    jax.eval_shape(lambda: plan.attack.init(jax.random.key(0), train.image_shape))
    return plan.attack.kernel(schedule, plan.spec.rate, train.num_classes)
