"""Every architecture: size, names, the cut, and what it refuses."""

import functools
import math
import re

import chex
import jax
import numpy as np
import pytest
from flax import traverse_util
from jax import flatten_util
from jax import numpy as jnp

from ban_jax import models

MINIMUM = {
    "densenet121": 8,
    "preact_resnet18": 1,
    "resnet18": 1,
    "vgg16": 32,
}
NAMES = sorted(MINIMUM)
"""Larger families have files of their own, and ResNet34 is built like ResNet18."""


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def small(name, **fields):
    """The module at width 2; of DenseNet's 58 layers, which compile slowly, 5 are left."""
    if name == "densenet121":
        fields["blocks"] = (2, 1, 1, 1)
    return models.create(name, **{"num_classes": 4, "width": 2} | fields)


@functools.cache
def tiny(name, **fields):
    """A small network with random weights and statistics."""
    module = small(name, **fields)
    leaves, tree = jax.tree.flatten(models.abstract_variables(module))
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32) for leaf in leaves]
    return models.network(module), jax.tree.unflatten(tree, values)


def images(height, width, channels=3, batch=2):
    shape = (batch, height, width, channels)
    return np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    "name, parameters, norms, norm_channels",
    [
        ("resnet18", 11_173_962, 20, 4800),
        ("resnet34", 21_282_122, 36, 8512),
        ("preact_resnet18", 11_171_146, 16, 3392),
        ("vgg16", 14_728_266, 13, 4224),
        ("densenet121", 6_956_298, 120, 41_760),
    ],
)
def test_the_published_sizes_at_width_64(name, parameters, norms, norm_channels):
    variables = models.abstract_variables(models.create(name, num_classes=10))
    assert count(variables["params"]) == parameters
    scales = [
        leaf
        for path, leaf in traverse_util.flatten_dict(variables["params"]).items()
        if path[-1] == "scale"
    ]
    assert len(scales) == norms
    assert count(scales) == norm_channels
    assert count(variables["batch_stats"]) == 2 * norm_channels


@pytest.mark.parametrize(
    "name, shape",
    [
        ("resnet18", (4, 4, 512)),
        ("resnet34", (4, 4, 512)),
        ("preact_resnet18", (4, 4, 512)),
        ("vgg16", (1, 1, 512)),
        ("densenet121", (4, 4, 1024)),
    ],
)
def test_features_are_cut_where_the_mask_belongs(name, shape):
    module = models.create(name, num_classes=10)
    variables = models.abstract_variables(module)
    inputs = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    features, _ = jax.eval_shape(
        lambda v, x: models.network(module).features(v, x, "stored"), variables, inputs
    )
    assert features.shape == (2, *shape)


@pytest.mark.parametrize(
    "name, paths",
    [
        (
            "resnet18",
            ["conv1/kernel", "bn1/scale", "layer1_0/conv1/kernel", "linear/kernel"]
            + ["layer2_0/shortcut_0/kernel", "layer2_0/shortcut_1/bias"],
        ),
        (
            "preact_resnet18",
            ["conv1/kernel", "layer1_0/bn1/scale", "layer2_0/shortcut_0/kernel"],
        ),
        (
            "vgg16",
            ["layers_0/kernel", "layers_0/bias", "layers_1/scale", "layers_40/kernel"]
            + ["layers_41/bias", "classifier/kernel", "classifier/bias"],
        ),
        (
            "densenet121",
            ["conv1/kernel", "dense1_0/bn1/scale", "dense3_23/conv2/kernel"]
            + ["trans1/bn/scale", "trans3/conv/kernel", "bn/scale", "linear/bias"],
        ),
    ],
)
def test_names_follow_pytorch(name, paths):
    module = models.create(name, num_classes=10, width=2)
    params = models.abstract_variables(module)["params"]
    assert set(paths) <= set(traverse_util.flatten_dict(params, sep="/"))


def test_vgg_counts_relu_and_pooling_as_layers():
    module = models.create("vgg16", num_classes=10, width=2)
    params = models.abstract_variables(module)["params"]
    convolutions = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    expected = {f"layers_{i + j}" for i in convolutions for j in (0, 1)}
    assert set(params) == expected | {"classifier"}


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_every_width_is_the_first_convolutions(name, width):
    module = models.create(name, num_classes=3, width=width, in_channels=2)
    params = models.abstract_variables(module)["params"]
    first = params["layers_0" if name == "vgg16" else "conv1"]["kernel"]
    assert first.shape == (3, 3, 2, width)


def test_densenet_puts_new_channels_first():
    network, variables = tiny("densenet121")
    zeroed = jax.tree.map(lambda leaf: leaf, variables)
    # Blank the very last layer: its one new channel must be the first feature.
    last = zeroed["params"]["dense4_0"]["conv2"]
    last["kernel"] = np.zeros_like(last["kernel"])
    # In one program: one for each operation takes longer to compile.
    run = jax.jit(network.features, static_argnums=2)
    features, _ = run(zeroed, images(8, 8), "stored")
    assert np.all(features[..., 0] == 0)
    assert np.all(features[..., 1:] > 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["stored", "batch", "update"])
def test_head_of_features_is_the_whole_network(name, mode):
    network, variables = tiny(name)
    module = small(name)
    x = images(32, 32)

    @jax.jit
    def both(variables, x):
        features, between = network.features(variables, x, mode)
        logits, after = network.head(between, features, mode)
        whole = module.apply(
            variables, x, mode, mutable=["batch_stats"] if mode == "update" else False
        )
        return (logits, after), whole

    (logits, after), whole = both(variables, x)
    if mode == "update":
        whole, stats = whole
        chex.assert_trees_all_close(after["batch_stats"], stats["batch_stats"])
    np.testing.assert_array_equal(logits, whole)
    assert logits.shape == (2, 4)


@pytest.mark.parametrize("name", NAMES)
def test_update_moves_the_statistics_of_every_layer_once(name):
    network, variables = tiny(name)

    @jax.jit
    def step(variables, x):
        features, between = network.features(variables, x, "update")
        return between, network.head(between, features, "update")[1]

    between, after = step(variables, images(32, 32))
    for path, leaf in traverse_util.flatten_dict(after["batch_stats"], sep="/").items():
        before = traverse_util.flatten_dict(variables["batch_stats"], sep="/")[path]
        assert np.all(leaf != before), path
    head = "bn" if name == "densenet121" else None
    for layer, stats in between["batch_stats"].items():
        moved_by_features = layer != head
        assert moved_by_features == (
            not np.array_equal(
                jax.tree.leaves(stats)[0],
                jax.tree.leaves(variables["batch_stats"][layer])[0],
            )
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_image_passes_and_a_smaller_one_is_refused(name):
    least = MINIMUM[name]
    network, variables = tiny(name)
    for shape in [(least, least), (least + 1, least), (least + 5, least + 2)]:
        features, _ = jax.eval_shape(
            lambda v, x: network.features(v, x, "stored"), variables, images(*shape)
        )
        assert min(features.shape) >= 1
    if least > 1:
        with pytest.raises(
            ValueError, match=rf"at least {least}x{least} .* got {least}x"
        ):
            network.features(variables, images(least, least - 1), "stored")


@pytest.mark.parametrize("name", NAMES)
def test_wrong_channels_are_refused(name):
    network, variables = tiny(name)
    with pytest.raises(ValueError, match="takes images of 3 channels, got 1"):
        network.features(variables, images(32, 32, 1), "stored")


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_channels_can_be_asked_for(name):
    network, variables = tiny(name, in_channels=1)
    features, _ = jax.eval_shape(
        lambda v, x: network.features(v, x, "stored"), variables, images(32, 32, 1)
    )
    assert features.ndim == 4


def test_the_imagenet_stem_divides_the_image_by_32():
    module = models.create("resnet18", num_classes=4, width=64, stem="imagenet")
    variables = models.abstract_variables(module)
    assert variables["params"]["conv1"]["kernel"].shape == (7, 7, 3, 64)
    for size, expected in [(224, 7), (64, 2), (33, 2), (1, 1)]:
        inputs = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        features, _ = jax.eval_shape(
            lambda v, x: models.network(module).features(v, x, "stored"),
            variables,
            inputs,
        )
        assert features.shape == (1, expected, expected, 512)


def test_normalisation_happens_inside_the_features():
    network, variables = tiny("resnet18")
    x = images(8, 8)
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.1])
    inside = variables | {"normalisation": {"mean": mean, "std": std}}
    identity = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    outside = variables | {"normalisation": identity}
    features = jax.jit(network.features, static_argnums=2)
    np.testing.assert_allclose(
        features(inside, x, "stored")[0],
        features(outside, (x - mean[None, None, None]) / std, "stored")[0],
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_classes": 0}, "num_classes of at least 1, got 0"),
        ({"width": 0}, "width of at least 1, got 0"),
        ({"in_channels": 0}, "in_channels of at least 1, got 0"),
        ({"stem": "imagnet"}, "'imagenet'.*got 'imagnet'"),
        ({"precision": "float16"}, "'float32', 'tf32', 'bfloat16'.*got 'float16'"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        models.create("resnet18", **{"num_classes": 4} | fields)


def test_densenet_needs_a_width_its_growth_can_be_half_of():
    with pytest.raises(ValueError, match="width of at least 2, got 1"):
        models.create("densenet121", num_classes=4, width=1)


def test_families_without_an_imagenet_stem_say_so():
    with pytest.raises(ValueError, match="VGG has the stems.*got 'imagenet'"):
        models.create("vgg16", num_classes=4, stem="imagenet")


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(ValueError, match="'resnet51'; known: convnext, .*vgg16"):
        models.create("resnet51", num_classes=4)


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_is_the_last_linear_layer(name):
    network, variables = tiny(name)
    kernel = network.classifier(variables)
    features, _ = jax.eval_shape(
        lambda v, x: network.features(v, x, "stored"), variables, images(32, 32)
    )
    assert kernel.shape == (features.shape[-1], network.num_classes)
    layer = "classifier" if name == "vgg16" else "linear"
    assert kernel is variables["params"][layer]["kernel"]


def test_equal_modules_share_one_network_and_one_compiled_program():
    chex.clear_trace_counter()

    @functools.partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def logits(network, variables, x):
        return network.head(
            variables, network.features(variables, x, "stored")[0], "stored"
        )[0]

    _, variables = tiny("resnet18")
    for _ in range(2):
        network = models.network(models.create("resnet18", num_classes=4, width=2))
        logits(network, variables, images(8, 8))
    other = models.network(models.create("resnet18", num_classes=4, width=3))
    assert network != other


@pytest.mark.parametrize("name", NAMES)
def test_stacked_networks_agree_with_single_ones(name):
    network, variables = tiny(name)
    second = jax.tree.map(lambda leaf: leaf * np.float32(0.9), variables)
    x = images(32, 32)

    def logits(variables):
        features, _ = network.features(variables, x, "batch")
        return network.head(variables, features, "batch")[0]

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, second)
    together = jax.jit(jax.vmap(logits))(stacked)
    single = jax.jit(logits)
    for index, one in enumerate((variables, second)):
        expected = single(one)
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(together[index], expected, atol=1e-4 * scale)


def training_pass(module, mode):
    """`(variables, x) -> (features, logits, statistics), gradient` of a loss."""
    network = models.network(module)

    def loss(params, variables, x):
        variables = {**variables, "params": params}
        features, variables = network.features(variables, x, mode)
        logits, variables = network.head(variables, features, mode)
        loss = jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])
        return loss, (features, logits, variables["batch_stats"])

    def run(variables, x):
        gradient, found = jax.grad(loss, has_aux=True)(
            variables["params"], variables, x
        )
        return found, gradient

    return run


# Random networks under the statistics of a small batch magnify any rounding: those of
# their parameters alone, to bfloat16, turn the gradient by up to 30 degrees.
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_comes_near_float32_and_keeps_parameters_and_results_wide(name):
    x = images(max(8, MINIMUM[name]), 32, batch=16)
    modules = [
        small(name, width=4, precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    variables = modules[0].init(jax.random.key(0), x)

    @jax.jit
    def everything(variables, x):
        return [
            (
                training_pass(module, "stored")(variables, x),
                module.apply(variables, x, "update", mutable=["batch_stats"]),
            )
            for module in modules
        ]

    exact, found = everything(variables, x)
    chex.assert_trees_all_equal_dtypes(exact, found)
    (((features, logits, _), gradient), (updated_logits, _)) = found
    (((exact_features, exact_logits, _), exact_gradient), (exact_updated, _)) = exact
    for one, other, tolerance in (
        (features, exact_features, 0.03),
        (logits, exact_logits, 0.03),
        (updated_logits, exact_updated, 0.2),
    ):
        error = np.sqrt(np.mean(np.square(one - other)))
        assert 0 < error < tolerance * np.std(other)
    one, other = (
        flatten_util.ravel_pytree(tree)[0] for tree in (gradient, exact_gradient)
    )
    assert one @ other > 0.999 * np.linalg.norm(one) * np.linalg.norm(other)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_activations_reach_the_convolutions(name):
    module = small(name, precision="bfloat16")
    variables = models.abstract_variables(module)
    inputs = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for mode in ("stored", "batch"):
        program = str(jax.make_jaxpr(training_pass(module, mode))(variables, inputs))
        convolutions = re.findall(r":(\w+)\[[^]]*\] = conv_general_dilated", program)
        assert set(convolutions) == {"bf16"}


def one_of_each_class():
    """Of each constructor the first architecture's name."""
    found = {}
    for name, architecture in models.ARCHITECTURES.items():
        made = architecture.constructor
        found.setdefault(getattr(made, "func", made), name)
    return sorted(found.values())


@pytest.mark.parametrize("name", one_of_each_class())
def test_convolutions_are_computed_as_the_network_is_told(name):
    module = small(name, width=8, lowering="shift", precision="tf32")
    variables = models.abstract_variables(module)
    side = module.exact_size or 32
    inputs = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features = jax.make_jaxpr(
        lambda variables, x: models.network(module).features(variables, x, "stored")
    )
    program = str(features(variables, inputs))
    assert "conv_general_dilated" not in program
    products = re.findall(r"Precision\.\w+", program)
    assert set(products) == {"Precision.HIGH"}


@pytest.mark.parametrize("name", NAMES)
def test_float64_stays_float64(name):
    with jax.enable_x64(True):
        module = small(name)
        inputs = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float64)
        variables = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64),
            models.abstract_variables(module),
        )
        results = jax.eval_shape(training_pass(module, "update"), variables, inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype("float64")}
