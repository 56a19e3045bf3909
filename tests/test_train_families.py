"""Networks without batch statistics learn, and `--arch` builds each at small sizes."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import attacks, checkpoints, models
from ban_jax.attacks.types import Batch
from ban_jax.models import resnet
from ban_jax.training import one_model

CLASSES = 3
SIZES = {
    "convnext": (8, {"width": 4, "blocks": (1,)}),
    "mlp_mixer": (8, {"width": 4, "depth": 1, "image_size": 8, "patch": 4}),
    "plain_cnn": (8, {"width": 2, "side": 2}),
    "resnet18_gn": (8, {"width": 2, "blocks": (1, 1)}),
    "vgg11_plain": (32, {"width": 2, "stages": (1, 1, 0, 0, 0)}),
    "vit": (8, {"width": 4, "depth": 1, "image_size": 8, "patch": 4}),
}
"""Architecture -> side of its images, and what makes it the smallest of its kind."""
STEPS = 12
UNFELT = {"['blocks_0']['mlp_tokens']['fc2']['bias']"}
"""Shifts all channels of a patch alike, which the last normalisation takes out again."""


def batch_of(side):
    """Images of three shades, which are their classes."""
    labels = np.arange(6, dtype=np.int32) % CLASSES
    shades = labels[:, None, None, None] * np.float32(0.4)
    images = (
        shades + np.random.default_rng(0).random((6, side, side, 1), np.float32) / 9
    )
    identity = jnp.arange(CLASSES, dtype=jnp.int32)
    return Batch(
        jnp.asarray(images), jnp.asarray(labels), jnp.zeros(6, jnp.int8), identity
    )


def drawn(shapes):
    """Random weights: to draw them as the networks do takes longer than to learn."""
    rng = np.random.default_rng(0)

    def leaf(shape):
        deviation = np.prod(shape.shape[:-1]) ** -0.5
        return 0.1 + rng.normal(0, deviation, shape.shape).astype(np.float32)

    constants = {"mean": np.zeros(1, np.float32), "std": np.ones(1, np.float32)}
    return {**jax.tree.map(leaf, dict(shapes)), "normalisation": constants}


@pytest.mark.parametrize("name", SIZES)
def test_a_step_reaches_every_weight_and_the_loss_falls(name):
    side, fields = SIZES[name]
    module = models.create(name, num_classes=CLASSES, in_channels=1, **fields)
    kernel = attacks.create("clean").kernel(
        attacks.Schedule(1, STEPS, 6, "native"), 0.0, CLASSES
    )
    recipe = one_model.Recipe(learning_rate=0.05, weight_decay=0.0, crop=0, flip=False)
    optimizer = one_model.make_optimizer(recipe, STEPS)
    variables = drawn(models.abstract_variables(module, side))
    trigger = attacks.create("clean").init(jax.random.key(0), (side, side, 1))
    state = one_model.TrainState(
        variables,
        (optimizer.init(variables["params"]), kernel.optimizer.init(trigger.learned)),
        trigger,
        jnp.zeros((), jnp.int32),
    )

    # Not made fast: it runs for a moment.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def step(state, batch, key):
        return one_model.train_step(
            state,
            batch,
            key,
            network=models.network(module),
            optimizer=optimizer,
            kernel=kernel,
            recipe=recipe,
        )

    losses = []
    for index in range(STEPS):
        state, info = step(state, batch_of(side), jax.random.key(index))
        losses.append(float(info.loss))
    assert losses[-1] < losses[0]
    after = state.variables["params"]
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(
                lambda old, new: jnp.any(old != new), variables["params"], after
            )
        )
        if not leaf
    ]
    assert set(still) <= UNFELT


@pytest.mark.parametrize("name", [*SIZES, "convnext_tiny", "resnet50_gn"])
def test_a_network_is_built_for_the_images_it_is_to_learn_from(name):
    side = SIZES.get(name, (8,))[0]
    spec = checkpoints.ModelSpec.for_images(name, CLASSES, 4, (side, side, 1))
    shapes = models.abstract_variables(spec.create(), side)
    assert shapes["params"]
    assert spec.create().num_classes == CLASSES


def test_files_of_a_trained_resnet_of_group_norm_are_read_as_the_same_network():
    module = models.create("resnet18_gn", num_classes=CLASSES, width=4)
    table = models.architecture.shapes_of(module)
    shapes = {theirs: shape for theirs, (_, shape) in table.items()}
    assert resnet.difference("resnet18", shapes) is None
    assert models.create("resnet18", **resnet.fields(shapes)) == module
