"""The stages of the U-Net inversions agree with their PyTorch counterparts."""

import functools
import os

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax import flatten_util
from jax import numpy as jnp

from ban_jax import mask as masks
from ban_jax import models
from ban_jax.detectors import (
    bti_dbf,
    class_transforms,
    decoupling,
    feature_re,
    hyperplane,
    inversion,
    spaces,
    transforms,
    unicorn,
)
from ban_jax.models import common, unet
from tests.testdata import goldens
from tests.testdata import transform_case as case


class Small(models.Classifier):
    """The classifier of `transform_case`."""

    def setup(self):
        super().setup()
        self.conv1 = self.make_conv(5)
        self.bn1 = common.Norm()
        self.conv2 = self.make_conv(case.FEATURES[-1], stride=2)
        self.bn2 = common.Norm()
        self.linear = common.Linear(self.num_classes)

    def features(self, images, mode):
        x = jax.nn.relu(self.bn1(self.conv1(self.normalise(images)), mode))
        return jax.nn.relu(self.bn2(self.conv2(x), mode))

    def head(self, features, mode):
        return self.linear(common.global_average(features))


NETWORK = common.network(Small(case.CLASSES))
NET = unet.UNet(case.CHANNELS, case.WIDTH, case.LEVELS)
IMAGES, LABELS = jnp.asarray(case.scaled()), jnp.asarray(case.labels())
BATCHES = jnp.stack([case.batch(step) for step in range(case.STEPS)])


def nested(flat):
    return traverse_util.unflatten_dict(jax.tree.map(jnp.asarray, flat), sep="/")


def net_of(number):
    """Parameters `[P]` of a U-Net of the case."""
    return flatten_util.ravel_pytree(nested(case.net(number)))[0]


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def variables():
    params, stats = case.classifier()
    identity = {"mean": jnp.zeros(3), "std": jnp.ones(3)}
    return {
        "params": nested(params),
        "batch_stats": nested(stats),
        "normalisation": identity,
    }


@pytest.fixture(scope="module")
def golden():
    path = os.path.join(goldens.FOLDER, "transforms.npz")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def part(golden, prefix):
    """Name -> array of the keys under a prefix."""
    return {
        name.removeprefix(f"{prefix}/"): value
        for name, value in golden.items()
        if name.startswith(f"{prefix}/")
    }


def assert_gradients(found, golden, prefix):
    """To 1e-4 of the largest entry of each leaf; leaves that cancel are rounding.

    `found` is a gradient `[P]` of one U-Net, or one for each name.
    """
    found = jax.tree.map(transforms.tree_of(NET), found)
    expected = part(golden, f"{prefix}/gradient")
    top = max(np.abs(value).max() for value in expected.values())
    compared = 0
    for name, value in flat(found).items():
        size = np.abs(expected[name]).max()
        if case.cancelled(name):
            assert np.abs(value).max() < 1e-4 * top
            continue
        np.testing.assert_allclose(
            value, expected[name], rtol=0, atol=1e-4 * size, err_msg=name
        )
        compared += 1
    assert compared > 20


def assert_relative(found, expected, tolerance):
    """To a share of the largest entry."""
    atol = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def descended(loss_of, params, optimizer, share, jobs=BATCHES):
    """Ten steps: the last state, the first gradient, losses `[10]`.

    The gradient is read off Adam's first moment after a step, of which it is a `share`.
    """

    def step(trained, job):
        trained, seen = transforms.descend(
            lambda params: loss_of(params, job), trained, optimizer
        )
        return trained, (seen["loss"], trained.optimizer[0].mu)

    first = transforms.begin(params, optimizer)
    trained, (losses, moments) = jax.lax.scan(step, first, jobs)
    return trained, jax.tree.map(lambda moment: moment[0] / share, moments), losses


@functools.partial(jax.jit, static_argnums=(0, 1))
def ten_steps(loss_of, optimizer, config):
    """A U-Net trained on the batches: first gradient, losses `[10]`, output."""
    trained, gradient, losses = descended(
        lambda params, index: loss_of(params, IMAGES[index], config),
        net_of(1),
        optimizer,
        0.1,
        BATCHES,
    )
    return gradient, losses, transforms.apply(NET, trained.params, IMAGES)


ADAM = optax.adam(1e-3)


def check(golden, prefix, loss_of, optimizer, config=None):
    gradient, losses, output = ten_steps(loss_of, optimizer, config)
    assert_gradients(gradient, golden, prefix)
    assert_relative(losses, golden[f"{prefix}/loss"], 1e-3)
    assert_relative(output, golden[f"{prefix}/output"], 1e-3)


@pytest.mark.parametrize("kind", ["right", "released"])
def test_the_first_stage_of_bti_dbf_agrees_with_pytorch(golden, kind):
    check(
        golden,
        f"bti/pretrain/{kind}",
        lambda params, images, _: decoupling.pretrain_loss(
            NET, NETWORK, variables(), params, images, kind == "released"
        ),
        ADAM,
    )


def of_the_generator(params, images, config):
    mask = decoupling.mask_of(jnp.asarray(case.draw(60, *case.FEATURES)))
    return decoupling.generator_loss(
        NET, NETWORK, variables(), params, mask, images, config
    )


@pytest.mark.parametrize(
    ("kind", "bounds"), [("within", (5.0, 50.0)), ("beyond", (0.05, 3.0))]
)
def test_the_second_stage_of_bti_dbf_agrees_with_pytorch(golden, kind, bounds):
    config = bti_dbf.Settings(image_bound=bounds[0], feature_bound=bounds[1])
    check(golden, f"bti/generator/{kind}", of_the_generator, ADAM, config)


@pytest.mark.parametrize("kind", ["right", "released"])
def test_the_mask_of_bti_dbf_agrees_with_pytorch(golden, kind):
    prefix, mode = f"bti/mask/{kind}", "update" if kind == "released" else "stored"
    optimizer = optax.adam(0.01)
    start = transforms.begin(jnp.asarray(case.draw(60, *case.FEATURES)), optimizer)

    def step(state, index):
        return decoupling.mask_step(
            NETWORK, state, IMAGES[index], LABELS[index], optimizer, mode
        )

    @jax.jit
    def run(state):
        # Of Adam's first moment, which starts from nothing.
        moments = step(state, BATCHES[0])[0].trained.optimizer[0].mu / 0.1
        state, (kept, dropped) = jax.lax.scan(step, state, BATCHES)
        return moments, state, kept - dropped

    gradient, state, losses = run(decoupling.MaskState(start, variables()))
    assert_relative(gradient, golden[f"{prefix}/gradient"], 1e-4)
    assert_relative(losses, golden[f"{prefix}/losses"], 1e-3)
    mask = decoupling.mask_of(state.trained.params)
    assert_relative(mask, golden[f"{prefix}/mask"], 1e-3)
    stats = part(golden, f"{prefix}/stats") or case.classifier()[1]
    for name, value in flat(state.variables["batch_stats"]).items():
        assert_relative(value, stats[name], 1e-4)


OTHERS = class_transforms.Others(
    # A spare image at the end, which weighs nothing.
    IMAGES[jnp.array([*case.others(), case.TARGET])],
    jnp.array([1.0] * len(case.others()) + [0.0]),
)
RE_BOUNDS = {"inside": (50.0, 50.0, 0.95), "outside": (0.15, 0.05, 0.1)}


def re_settings(kind):
    image, spread, mask = RE_BOUNDS[kind]
    return feature_re.Settings(image_bound=image, spread_bound=spread, mask_size=mask)


def test_the_warm_up_of_feature_re_agrees_with_pytorch(golden):
    config = feature_re.Settings()

    def loss_of(params, _):
        return hyperplane.warm_loss(
            NET, NETWORK, variables(), params, OTHERS, case.TARGET, config
        )

    run = jax.jit(lambda net: descended(loss_of, net, inversion.adam(1e-3), 0.5))
    _, gradient, losses = run(net_of(1))
    assert_gradients(gradient, golden, "re/warm")
    assert_relative(losses, golden["re/warm/loss"], 1e-3)


@jax.jit
def feature_re_epochs(config):
    """The last state, the values, the first moments of each epoch, and the output."""
    features, _ = NETWORK.features(variables(), IMAGES, "stored")
    centre = jnp.mean(features[case.labels() == case.TARGET], axis=0)
    count = len(case.others())
    rows = np.stack(
        [
            [case.rows(step + extra, count, case.IMAGES) for extra in (0, 100)]
            for step in range(case.STEPS)
        ]
    )
    lent = features[np.pad(rows, ((0, 0), (0, 0), (0, 1)))][:, :, None]  # one batch
    batches = jax.tree.map(lambda leaf: leaf[None], OTHERS)
    start = hyperplane.begin(
        transforms.begin(net_of(1), inversion.adam(1e-3)),
        case.FEATURES,
        config,
    )

    def step(state, job):
        index, lent = job
        state, seen = hyperplane.epoch(
            NET, NETWORK, variables(), state, batches, lent, centre, case.TARGET,
            index, config,
        )  # fmt: skip
        moments = [one.optimizer[0].mu for one in (state.net, state.mask)]
        return state, (seen["value"], moments)

    state, seen = jax.lax.scan(step, start, (jnp.arange(case.STEPS), lent))
    return state, *seen, transforms.apply(NET, state.net.params, IMAGES)


@pytest.mark.parametrize("kind", list(RE_BOUNDS))
def test_the_epochs_of_feature_re_agree_with_pytorch(golden, kind):
    state, values, moments, output = feature_re_epochs(re_settings(kind))
    # Of the first epoch: half of Adam's first moments is the gradient's.
    of_net, of_mask = jax.tree.map(lambda leaf: 2 * leaf[0], moments)
    assert_gradients(of_net, golden, f"re/net/{kind}")
    assert_relative(of_mask, golden[f"re/mask/{kind}/gradient"], 1e-4)
    assert_relative(values, golden[f"re/{kind}/values"], 1e-3)
    mask = inversion.boxed(state.mask.params)
    assert_relative(mask, golden[f"re/{kind}/mask"], 1e-3)
    assert_relative(output, golden[f"re/{kind}/output"], 1e-3)
    np.testing.assert_allclose(state.best.value, values.min(), rtol=1e-5)
    assert int(state.best.round) == int(values.argmin())


UNICORN_BOUNDS = {"inside": (5.0, 50.0, 0.3, 0.3), "outside": (0.1, 0.05, 0.1, 0.1)}
SCALE = transforms.Scale(jnp.array(case.MEAN), jnp.array(case.STD))
TASK = spaces.Task(NET, NETWORK, variables(), SCALE)


def unicorn_settings(kind, steps):
    structure, spread, mask, features = UNICORN_BOUNDS[kind]
    return unicorn.Settings(
        structure_bound=structure,
        spread_bound=spread,
        mask_size=mask,
        feature_mask_size=features,
        trigger_steps=steps,
    )


def nets():
    return spaces.Nets(net_of(1), net_of(2))


def named(tree):
    """A `Nets` as the golden file names its leaves."""
    return {"into": tree.into, "back": tree.back}


def orders(steps, *numbers):
    """Of a batch with a spare image at the end, whose place is its own."""
    count = len(case.others())
    drawn = np.stack([[*case.order(n, count), count] for n in numbers])
    return spaces.Orders(
        drawn[:1], drawn[None, 1 : 1 + steps], drawn[None, 1 + steps :]
    )


def test_structural_similarity_agrees_with_pytorch(golden):
    shape = (case.IMAGES, case.SIZE, case.SIZE, case.CHANNELS)
    found = spaces.structure_loss(SCALE, IMAGES, IMAGES + case.draw(70, *shape))
    assert found.shape == (case.IMAGES,)
    np.testing.assert_allclose(jnp.mean(found), golden["uni/structure"], rtol=1e-4)
    same = spaces.structure_loss(SCALE, IMAGES, IMAGES)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_the_pretraining_of_unicorn_agrees_with_pytorch(golden):
    def loss_of(nets, _):
        loss = spaces.undone(NET, nets, OTHERS.images, OTHERS.weights)
        return loss, {"loss": loss}

    run = jax.jit(lambda nets: descended(loss_of, nets, inversion.adam(1e-3), 0.5))
    _, gradient, losses = run(nets())
    assert_gradients(named(gradient), golden, "uni/pretrain")
    assert_relative(losses, golden["uni/pretrain/loss"], 1e-3)


@jax.jit
def unicorn_epochs(config, all_orders):
    """The last state, and of each epoch what it saw and its gradients (see `first`)."""
    features, _ = NETWORK.features(variables(), IMAGES, "stored")
    centre = jnp.mean(features[case.labels() == case.TARGET], axis=0)
    batches = jax.tree.map(lambda leaf: leaf[None], OTHERS)
    trained = transforms.begin(nets(), inversion.adam(1e-3))
    start = spaces.begin(trained, IMAGES.shape[1:], case.FEATURES, config)

    def step(state, job):
        index, one = job
        state, seen = spaces.epoch(
            TASK, state, batches, one, centre, case.TARGET, index, config
        )
        searched = (state.nets, state.trigger, state.mask)
        return state, (seen, [one.optimizer[0].mu for one in searched])

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *all_orders)
    return jax.lax.scan(step, start, (jnp.arange(len(all_orders)), stacked))


@pytest.mark.parametrize("kind", list(UNICORN_BOUNDS))
def test_ten_steps_of_trigger_and_mask_of_unicorn_agree_with_pytorch(golden, kind):
    config = unicorn_settings(kind, case.STEPS)
    state, _ = unicorn_epochs(config, [orders(case.STEPS, *range(21))])
    trigger = jax.tree.map(inversion.boxed, state.trigger.params)
    assert_relative(trigger.mask, golden[f"uni/steps/{kind}/trigger"], 1e-3)
    assert_relative(trigger.pattern, golden[f"uni/steps/{kind}/pattern"], 1e-3)
    mask = inversion.boxed(state.mask.params)
    assert_relative(mask, golden[f"uni/steps/{kind}/mask"], 1e-3)


@pytest.mark.parametrize("kind", list(UNICORN_BOUNDS))
def test_ten_epochs_of_unicorn_agree_with_pytorch(golden, kind):
    all_orders = [
        orders(1, *(3 * step + k for k in range(3))) for step in range(case.STEPS)
    ]
    state, (seen, moments) = unicorn_epochs(unicorn_settings(kind, 1), all_orders)
    # Of the first epoch, Adam's first moments: half are the gradients.
    of_nets, of_trigger, of_mask = jax.tree.map(lambda leaf: 2 * leaf[0], moments)
    assert_gradients(named(of_nets), golden, f"uni/nets/{kind}")
    for name in ("mask", "pattern"):
        expected = golden[f"uni/trigger/{kind}/gradient/{name}"]
        assert_relative(getattr(of_trigger, name), expected, 1e-4)
    assert_relative(of_mask, golden[f"uni/mask/{kind}/gradient"], 1e-4)
    assert_relative(seen["loss"], golden[f"uni/epochs/{kind}/losses"], 1e-3)
    output = spaces.stamp(
        NET, state.nets.params, state.trigger.params, IMAGES, jnp.ones(case.IMAGES)
    )
    assert_relative(output, golden[f"uni/epochs/{kind}/output"], 1e-3)
    mask = inversion.boxed(state.mask.params)
    assert_relative(mask, golden[f"uni/epochs/{kind}/mask"], 1e-3)


def test_the_mask_of_bti_dbf_star_agrees_with_pytorch(golden, monkeypatch):
    start = (jnp.asarray(case.draw(61, *case.FEATURES)) + 1) / 2
    uniform = jax.random.uniform

    def drawn(key, shape=(), *more, **told):
        found = uniform(key, shape, *more, **told)
        return start if shape == start.shape else found

    monkeypatch.setattr(jax.random, "uniform", drawn)
    features, _ = NETWORK.features(variables(), IMAGES, "stored")
    found, _ = masks.optimize_mask(
        lambda variables, features: NETWORK.head(variables, features, "stored")[0],
        variables(),
        features,
        LABELS,
        key=jax.random.key(0),
        l1_weight=0.75,
        learning_rate=0.01,
        steps=case.STEPS,
    )
    assert_relative(found, golden["bti/mask/star/mask"], 1e-3)
