"""Linen and NNX modules become networks that every kernel can work with."""

import functools

import chex
import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import numpy as jnp

from ban_jax import checkpoints, detectors, models, perturb, types
from ban_jax.checkpoints import hashing
from ban_jax.detectors import ban, targeted
from ban_jax.models import adapters, cut
from tests.checkpoints import builders

CLASSES, CHANNELS = 5, 6
IMAGES = jax.random.uniform(jax.random.key(7), (8, 4, 4, 3))
LABELS = np.arange(8) % CLASSES
MOMENTUM = 0.75


class Linen(nn.Module):
    """A convolution with normalisation and dropout, and one dense layer."""

    def setup(self):
        self.conv = nn.Conv(CHANNELS, (3, 3))
        self.bn = nn.BatchNorm(momentum=MOMENTUM, use_fast_variance=False)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Dense(CLASSES)

    def __call__(self, x, train=True):
        x = nn.relu(self.bn(self.conv(x), use_running_average=not train))
        x = self.drop(x, deterministic=not train)
        return self.linear(jnp.mean(x, axis=(1, 2)))


class Nnx(nnx.Module):
    """The same in NNX, its flags in the layers."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(
            CHANNELS, momentum=MOMENTUM, use_fast_variance=False, rngs=rngs
        )
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(CHANNELS, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.bn(self.conv(x))))
        return self.linear(jnp.mean(x, axis=(1, 2)))


def randomised(tree, seed=0):
    """Every leaf between -.2 and .8, statistics too."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            jax.random.uniform(key, leaf.shape, minval=-0.2, maxval=0.8)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )


def positive_variances(variables):
    """The same, variances moved away from zero."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1 if path[-1].key == "var" else leaf, variables
    )


@functools.cache
def linen_variables():
    """Random weights; variances are positive."""
    variables = Linen().init(jax.random.key(0), IMAGES, train=False)
    return positive_variances(randomised(variables))


def nnx_module():
    """The twin with the same weights."""
    module = Nnx(nnx.Rngs(0))
    flat = hashing.flatten(linen_variables())
    for name, value in flat.items():
        _, layer, leaf = name.split("/")
        getattr(getattr(module, layer), leaf)[...] = value
    return module


def given(kind):
    if kind == "linen":
        return Linen(), linen_variables()
    return nnx_module(), None


def adapted(kind):
    return adapters.as_network(*given(kind), IMAGES, LABELS)


KINDS = pytest.mark.parametrize("kind", ["linen", "nnx"])


@KINDS
def test_stored_statistics_give_what_the_module_gives(kind):
    network, variables = adapted(kind)
    logits, after = network.logits(variables, IMAGES, "stored")
    expected = Linen().apply(linen_variables(), IMAGES, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(after, variables)
    assert network.num_classes == CLASSES
    features, _ = network.features(variables, IMAGES, "stored")
    assert features.shape == (8, 1, 1, CHANNELS)
    np.testing.assert_array_equal(
        network.classifier(variables), linen_variables()["params"]["linear"]["kernel"]
    )


@KINDS
def test_batch_statistics_are_those_of_the_images_and_nothing_is_kept(kind):
    network, variables = adapted(kind)
    logits, after = network.logits(variables, IMAGES, "batch")
    chex.assert_trees_all_equal(after, variables)

    # By hand: convolution, the images' own mean and biased variance, relu, pooling.
    params = linen_variables()["params"]
    x = nn.Conv(CHANNELS, (3, 3)).apply({"params": params["conv"]}, IMAGES)
    x = np.asarray(x)
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    scale, bias = (
        np.asarray(params["bn"][n])[None, None, None] for n in ("scale", "bias")
    )
    x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0).mean((1, 2))
    expected = x @ params["linear"]["kernel"] + params["linear"]["bias"][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    moved = {
        **variables,
        "batch_stats": jax.tree.map(lambda s: s + 3, variables["batch_stats"]),
    }
    again, _ = network.logits(moved, IMAGES, "batch")
    np.testing.assert_array_equal(again, logits)


@KINDS
def test_update_moves_the_statistics_with_the_layers_momentum(kind):
    network, variables = adapted(kind)
    logits, after = network.logits(variables, IMAGES, "update")
    _, expected = Linen().apply(
        linen_variables(),
        IMAGES,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    chex.assert_trees_all_close(
        after["batch_stats"], expected["batch_stats"], rtol=1e-5
    )
    assert not np.allclose(
        after["batch_stats"]["bn"]["mean"], variables["batch_stats"]["bn"]["mean"]
    )
    chex.assert_trees_all_equal(after["params"], variables["params"])
    in_batch, _ = network.logits(variables, IMAGES, "batch")
    np.testing.assert_allclose(logits, in_batch, rtol=1e-6)


@KINDS
def test_gradients_and_stacked_models_go_through(kind):
    network, variables = adapted(kind)

    @jax.jit
    def loss(params, images):
        logits, _ = network.logits({**variables, "params": params}, images, "batch")
        return jnp.sum(jnp.sin(logits))

    gradients = jax.grad(loss)(variables["params"], IMAGES)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, variables["params"])
    step = 1e-2 * gradients["linear"]["kernel"]
    params = variables["params"]
    ahead = {
        **params,
        "linear": {**params["linear"], "kernel": params["linear"]["kernel"] + step},
    }
    rise = loss(ahead, IMAGES) - loss(params, IMAGES)
    np.testing.assert_allclose(
        rise, 1e-2 * jnp.sum(gradients["linear"]["kernel"] ** 2), rtol=0.1
    )
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), variables)
    stacked = jax.vmap(lambda v: network.logits(v, IMAGES, "batch")[0])(both)
    for index in range(2):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], both)
        np.testing.assert_allclose(
            stacked[index],
            network.logits(one, IMAGES, "batch")[0],
            rtol=1e-4,
            atol=1e-5,
        )


@KINDS
def test_noise_finds_the_normalisation_layer(kind):
    _, variables = adapted(kind)
    assert set(perturb.neurons(variables)) == {"bn/scale", "bn/bias"}


@KINDS
def test_equal_modules_are_one_network_so_that_nothing_is_compiled_twice(kind):
    network, _ = adapted(kind)
    assert adapted(kind)[0] is network
    assert hash(network) == hash(adapted(kind)[0])


@KINDS
def test_pixel_constants_are_applied_before_the_module(kind):
    module, variables = given(kind)
    constants = {"mean": np.float32([0.5, 0.25, 0.1]), "std": np.float32(0.5)}
    network, made = adapters.as_network(
        module, {**(variables or {}), "normalisation": constants}, IMAGES
    )
    logits, _ = network.logits(made, IMAGES, "stored")
    pixels = (IMAGES - constants["mean"][None, None, None]) / 0.5
    expected = Linen().apply(linen_variables(), pixels, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_the_users_nnx_module_is_not_changed():
    module = nnx_module()
    before = nnx.to_pure_dict(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    before = jax.tree.map(np.array, before)
    network, variables = adapters.as_network(module, None, IMAGES)
    network.logits(variables, IMAGES, "update")
    after = nnx.to_pure_dict(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    chex.assert_trees_all_equal(before, after)
    assert type(module.linear) is nnx.Linear and type(module.bn) is nnx.BatchNorm
    assert not module.bn.use_running_average and not module.drop.deterministic
    assert nnx.graphdef(module) == nnx.graphdef(nnx_module())


SETTINGS = {
    "targeted": targeted.Settings(steps=1, start=0.5),
    "ban": ban.Settings(steps=1, mask_steps=1, restarts=1),
}


@pytest.mark.parametrize("mode", sorted(SETTINGS))
def test_detectors_say_the_same_of_twins(mode):
    probe = types.Probe(IMAGES.reshape(2, 4, 4, 4, 3), LABELS.reshape(2, 4))
    detect = detectors.DETECTORS[mode].detect
    found = []
    for kind in ("linen", "nnx"):
        network, variables = adapted(kind)
        evidence = jax.jit(functools.partial(detect, network))(
            variables, probe, key=jax.random.key(0), config=SETTINGS[mode]
        )
        assert evidence.is_finite
        found.append(evidence)
    assert all(vector.shape == (CLASSES,) for vector in found[0].vectors.values())
    chex.assert_trees_all_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_one_of_ours_is_the_same_as_a_module_and_as_a_state_dict():
    candidate = checkpoints.read_state_dict(builders.state_dict())
    network, variables = adapters.as_network(
        candidate.spec.create(), candidate.variables, np.asarray(IMAGES), LABELS
    )
    assert network is models.network(candidate.spec.create())
    np.testing.assert_array_equal(variables["normalisation"]["mean"], np.zeros(3))
    state = checkpoints.to_torch_names(variables)
    again = checkpoints.read_state_dict(state)
    assert again.spec == candidate.spec
    chex.assert_trees_all_equal(
        jax.tree.map(jnp.asarray, again.full_variables()), variables
    )
    logits = network.logits(variables, IMAGES, "batch")[0]
    assert logits.shape == (8, CLASSES) and np.all(np.isfinite(logits))


class Flexible(nn.Module):
    """Parts that users' networks differ in."""

    flag: bool | None = None
    axis_name: str | None = None
    layer_norm: bool = False
    spatial: bool = False
    then: str = ""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(CHANNELS, (3, 3))(x)
        if self.layer_norm:
            x = nn.LayerNorm()(x)
        elif self.flag is not None:
            x = nn.BatchNorm(use_running_average=self.flag, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.5, deterministic=False)(nn.gelu(x))
        if not self.spatial:
            x = jnp.mean(x, axis=(1, 2))
        x = nn.Dense(7)(x)
        x = nn.Dense(CLASSES)(x)
        if self.spatial:
            x = jnp.mean(x, axis=(1, 2))
        after = {"": lambda x: x, "softmax": nn.softmax, "tripled": lambda x: 3 * x}
        return after[self.then](x)


def flexible(**fields):
    module = Flexible(**fields)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.jit(module.init)(keys, IMAGES)
    return module, positive_variances(randomised(variables))


@pytest.mark.parametrize("flag", [True, False])
def test_flags_in_the_constructor_give_way_to_the_mode(flag):
    module, variables = flexible(flag=flag, axis_name="devices")
    network, made = adapters.as_network(module, variables, IMAGES)
    stored, _ = network.logits(made, IMAGES, "stored")
    batch, _ = network.logits(made, IMAGES, "batch")
    assert not np.allclose(stored, batch)
    shifted = {
        **made,
        "batch_stats": jax.tree.map(lambda s: s + 2, made["batch_stats"]),
    }
    np.testing.assert_array_equal(network.logits(shifted, IMAGES, "batch")[0], batch)
    assert not np.allclose(network.logits(shifted, IMAGES, "stored")[0], stored)


def test_layer_norm_owns_a_scale_and_needs_no_statistics():
    network, variables = adapters.as_network(*flexible(layer_norm=True), IMAGES)
    assert set(perturb.neurons(variables)) == {
        "LayerNorm_0/scale",
        "LayerNorm_0/bias",
    }
    for mode in ("stored", "batch", "update"):
        logits, after = network.logits(variables, IMAGES, mode)
        chex.assert_trees_all_equal(after, variables)
        assert np.all(np.isfinite(logits))


def test_a_dense_layer_of_a_map_keeps_the_map_as_features():
    network, variables = adapters.as_network(*flexible(spatial=True), IMAGES)
    features, _ = network.features(variables, IMAGES, "stored")
    assert features.shape == (8, 4, 4, 7)
    assert network.classifier(variables).shape == (7, CLASSES)


def test_a_softmax_at_the_end_is_left_out():
    module, variables = flexible(then="softmax")
    network, made = adapters.as_network(module, variables, IMAGES)
    plain, _ = adapters.as_network(Flexible(), variables, IMAGES)
    np.testing.assert_allclose(
        network.logits(made, IMAGES, "stored")[0],
        plain.logits(made, IMAGES, "stored")[0],
        rtol=1e-5,
    )


class Headless(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.mean(nn.Conv(CLASSES, (3, 3))(x), axis=(1, 2))


class Maps(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(x)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(jnp.mean(x, axis=(1, 2))), x


class Needy(nn.Module):
    @nn.compact
    def __call__(self, x, temperature):
        return nn.Dense(CLASSES)(jnp.mean(x, axis=(1, 2))) / temperature


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (Headless(), (), "Headless calls no nn.Dense"),
        (Maps(), (), r"shape \(8, 4, 4, 5\) for 8 images, expected logits"),
        (Pair(), (), "returns a tuple, expected logits"),
        (Needy(), (2.0,), "needs temperature besides the images"),
    ],
)
def test_what_cannot_be_cut_is_told(module, arguments, words):
    variables = module.init(jax.random.key(0), IMAGES, *arguments)
    with pytest.raises(cut.CutError, match=words):
        adapters.as_network(module, variables or {"params": {}}, IMAGES)


def test_more_than_a_softmax_behind_the_last_layer_is_refused():
    with pytest.raises(cut.CutError, match="does more to the output .* Dense_1"):
        adapters.as_network(*flexible(then="tripled"), IMAGES)


def test_images_and_labels_are_checked():
    module = Flat()
    variables = module.init(jax.random.key(0), IMAGES)
    network = functools.partial(adapters.as_network, module, variables)
    with pytest.raises(ValueError, match=r"of shape \[B, 5, 5, 3\]"):
        network(np.ones((8, 5, 5, 3), np.float32))
    with pytest.raises(ValueError, match=r"must be \[N, H, W, C\], got the shape \(4"):
        network(np.ones((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="divide by 255"):
        network(np.ones((8, 4, 4, 3), np.uint8))
    with pytest.raises(
        ValueError, match="labels are 0 to 5, the model tells 5 classes"
    ):
        network(IMAGES, np.arange(8) % 6)
    with pytest.raises(ValueError, match="labels must be 8 integers"):
        network(IMAGES, LABELS[:7])


def test_variables_and_modules_of_another_kind_are_told():
    with pytest.raises(ValueError, match="Linen needs its variables"):
        adapters.as_network(Linen(), None, IMAGES)
    with pytest.raises(ValueError, match="got ..conv., .linear"):
        params = linen_variables()["params"]
        adapters.as_network(Linen(), {k: params[k] for k in ("conv", "linear")}, IMAGES)
    with pytest.raises(ValueError, match="Linen cannot be applied"):
        adapters.as_network(Linen(), {"params": linen_variables()["params"]}, IMAGES)
    with pytest.raises(ValueError, match="has its own variables; got params"):
        adapters.as_network(nnx_module(), {"params": {}}, IMAGES)
    with pytest.raises(TypeError, match=r"got the class Linen"):
        adapters.as_network(Linen, linen_variables(), IMAGES)
    with pytest.raises(TypeError, match="expected a Linen or NNX module, got dict"):
        adapters.as_network({}, None, IMAGES)


def test_ours_with_other_images_is_told():
    candidate = checkpoints.read_state_dict(builders.state_dict())
    with pytest.raises(ValueError, match="takes images of 3 channels, got 1"):
        adapters.as_network(
            candidate.spec.create(), candidate.variables, IMAGES[..., :1]
        )


class Listed(nnx.Module):
    """Layers in a list, flags given to the call, a variable of another kind."""

    def __init__(self, rngs):
        self.blocks = nnx.List([nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5)])
        self.shift = nnx.Variable(jnp.full((3,), 2.0))
        self.linear = nnx.Linear(3, CLASSES, rngs=rngs)

    def __call__(self, x, train: bool, rngs=None):
        norm, drop = self.blocks
        x = norm(x, use_running_average=not train)
        x = drop(x, deterministic=False, rngs=rngs)
        return self.linear(jnp.mean(x, axis=(1, 2)) + self.shift[...].reshape(1, 3))


def test_lists_flags_and_other_variables_of_nnx_modules_are_carried():
    module = Listed(nnx.Rngs(0))
    network, variables = adapters.as_network(module, None, IMAGES)
    assert set(perturb.neurons(variables)) == {"blocks/0/scale", "blocks/0/bias"}
    assert variables["others"]["shift"].shape == (3,)
    features, _ = network.features(variables, IMAGES, "batch")
    np.testing.assert_allclose(
        np.mean(features, axis=(0, 1, 2)), np.full(3, 2.0), atol=1e-5
    )  # normalised images have mean zero, which the shift is added to
    _, after = network.logits(variables, IMAGES, "update")
    np.testing.assert_allclose(
        after["batch_stats"]["blocks"]["0"]["mean"],
        0.01 * np.mean(IMAGES, axis=(0, 1, 2)),
        rtol=1e-4,
    )


def test_without_normalisation_noise_takes_every_parameter():
    _, variables = adapters.as_network(*flexible(), IMAGES)
    layers = ("Conv_0", "Dense_0", "Dense_1")
    assert set(perturb.neurons(variables)) == {
        f"{layer}/{leaf}" for layer in layers for leaf in ("kernel", "bias")
    }
