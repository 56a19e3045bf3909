"""Everything that computes lowers for TPUs, on a machine that has none.

Programs are traced and lowered, not compiled: what a TPU cannot express would raise.
"""

import functools

import jax
import numpy as np
import pytest
from jax import export
from jax import numpy as jnp

from ban_jax import (
    attacks,
    convolution,
    data,
    detectors,
    mask,
    models,
    perturb,
    population,
)
from ban_jax.detectors import ban, evidence, reference, targeted
from ban_jax.population import programs
from ban_jax.scanning import examination
from ban_jax.training import model_plan, one_model, stepping, trainer
from ban_jax.types import Probe

MODELS, CLASSES = 2, 3
SHALLOW = {"blocks": (1, 1, 1, 1)}
SMALLEST = {
    "preact_resnet18": (8, {"width": 1}),
    "resnet18": (8, {"width": 1, **SHALLOW}),
    "vgg16": (32, {"width": 1}),
    "densenet121": (8, {"width": 2, **SHALLOW}),
}
"""Side of the images, and fields: every kind of layer is there."""
CONFIGS = {
    "targeted": targeted.Settings(steps=1),
    "ban": ban.Settings(steps=1, restarts=2, mask_steps=1),
    "reference": reference.Settings(steps=1, mask_epochs=1, batches=1, batch_size=2),
}


def network_of(architecture, **fields):
    size, smallest = SMALLEST[architecture]
    module = models.create(architecture, num_classes=CLASSES, **smallest, **fields)
    return models.network(module), models.abstract_variables(module, size), size


def stacked(tree):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((MODELS, *leaf.shape), leaf.dtype), tree
    )


def probe_of(size, minibatches=2, batch=2):
    return Probe(
        jax.ShapeDtypeStruct((minibatches, batch, size, size, 3), jnp.float32),
        jax.ShapeDtypeStruct((minibatches, batch), jnp.int32),
    )


def keys():
    return stacked(jax.eval_shape(lambda: jax.random.key(0)))


def lowered_for_tpu(function, *arguments):
    """The program's text; `function` is jitted here where it is not yet."""
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    exported = export.export(jitted, platforms=["tpu"])(*arguments)
    assert exported.platforms == ("tpu",)
    return exported.mlir_module()


def chunk(mode, made, choices=1):
    """The program of a chunk of stacked candidates, with its arguments."""
    network, variables, size = made
    constants = jax.ShapeDtypeStruct((choices, 3), jnp.float32)
    weights = {name: variables[name] for name in ("params", "batch_stats")}
    member = examination.Member(
        weights, constants, constants, jax.ShapeDtypeStruct((8,), jnp.uint32)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    placement = population.Placement(tuple(jax.devices()[:1]), stacked=True)
    function = examination.bound(
        examination.examine, network=network, detect=detectors.DETECTORS[mode].detect
    )
    program = programs._jitted(function, placement, advances=False)
    common = examination.Common(probe_of(size), key, CONFIGS[mode])
    return program, stacked(member), common


@functools.cache
def lowered_chunk(architecture):
    """The program of the cheapest detector."""
    made = network_of(architecture, lowering="shift")
    return lowered_for_tpu(*chunk("targeted", made))


@pytest.mark.parametrize("architecture", SMALLEST)
def test_a_chunk_of_every_architecture(architecture):
    program = lowered_chunk(architecture)
    assert "stablehlo.while" in program and "stablehlo.dot_general" in program


@pytest.mark.parametrize("mode", ["ban", "reference"])
def test_a_chunk_of_every_other_detector(mode):
    lowered_for_tpu(*chunk(mode, network_of("resnet18", lowering="shift")))


def test_the_trial_of_pixel_constants():
    made = network_of("resnet18", lowering="shift")
    tried = lowered_for_tpu(*chunk("targeted", made, 2))
    assert len(tried) > len(lowered_chunk("resnet18"))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
def test_the_noise_search_under_every_lowering_and_precision(lowering, precision):
    network, variables, size = network_of(
        "resnet18", lowering=lowering, precision=precision
    )

    def search(variables, key, images, labels):
        return perturb.perturb_params(
            evidence.logits_of(network, "batch"),
            variables,
            images,
            labels,
            key=key,
            epsilon=0.2,
            steps=1,
        )

    probe = probe_of(size)
    program = lowered_for_tpu(
        jax.vmap(search, in_axes=(0, 0, None, None)),
        stacked(variables),
        keys(),
        *jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), probe
        ),
    )
    assert ("bf16" in program) == (precision == "bfloat16")
    # The head stays float32.
    assert "precision = [HIGHEST, HIGHEST]" in program
    assert ("[HIGH, HIGH]" in program) == (precision == "tf32")


def test_the_mask():
    network, variables, size = network_of("resnet18")

    def optimise(variables, key, features, labels):
        return mask.optimize_mask(
            lambda variables, x: network.head(variables, x, "batch")[0],
            variables,
            features,
            labels,
            key=key,
            l1_weight=0.75,
            learning_rate=0.01,
            steps=2,
        )

    features = jax.ShapeDtypeStruct((4, 1, 1, 8), jnp.float32)
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    lowered_for_tpu(
        jax.vmap(optimise, in_axes=(0, 0, None, None)),
        stacked(variables),
        keys(),
        features,
        labels,
    )


@pytest.mark.parametrize(
    "kind, lowering",
    [("badnets", "sequential"), ("wanet", "shift"), ("iad", "shift")],
)
def test_an_epoch_of_training(kind, lowering):
    size, smallest = SMALLEST["resnet18"]
    rng = np.random.RandomState(0)
    train = data.Dataset(
        "random",
        "train",
        rng.randint(0, 256, (8, size, size, 3), np.uint8),
        np.arange(8, dtype=np.int32) % CLASSES,
        CLASSES,
    )
    recipe = one_model.Recipe(epochs=1, batch_size=4)
    module = models.create(
        "resnet18", num_classes=CLASSES, lowering=lowering, **smallest
    )
    plan = model_plan.ModelPlan(
        kind, attacks.create(kind), attacks.poison.PoisonSpec(0.25, target=0), 0
    )
    program = stepping.Program(
        models.network(module),
        one_model.make_optimizer(recipe, 2),
        model_plan.kernel_of(plan, train, recipe, lowering),
        recipe,
    )
    run = trainer.Run(
        module=module,
        train=train,
        test=train,
        recipe=recipe,
        normalisation=data.pixel_constants(train),
    )
    model = jax.eval_shape(lambda: trainer.start(run, program, plan))
    lowered_for_tpu(
        jax.vmap(stepping.Epoch(program, 2, preparing=False), in_axes=(0, None)),
        stacked(model),
        (stepping.Images(jnp.asarray(train.pixels), jnp.asarray(train.labels)), 0),
    )


def test_the_evaluation():
    network, variables, size = network_of("resnet18", lowering="shift")
    lowered_for_tpu(
        jax.vmap(network.predict, in_axes=(0, None)),
        stacked(variables),
        jax.ShapeDtypeStruct((4, size, size, 3), jnp.float32),
    )
