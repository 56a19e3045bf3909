"""Repairs of one model: what they promise, on a network small enough to check by hand."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from ban_jax import perturb, population, repairs, types
from ban_jax.repairs import batch
from tests import tiny

KEY = jax.random.key(3)
QUIET = {"crop": 0, "flip": False, "momentum": 0.0}
"""No augmentation and no memory: one step can be worked out by hand."""


def clean_set(count=16):
    """Images and labels, the first eight held out as two minibatches, one of filler."""
    probe = tiny.probe(count // 8 + 2, 8)
    images = probe.images.reshape(-1, 4, 4, 3)
    labels = probe.labels.reshape(-1)
    held = labels[:16].reshape(2, 8).at[1, 2:].set(repairs.FILLER)
    return repairs.CleanSet(
        images[16:], labels[16:], images[:16].reshape(2, 8, 4, 4, 3), held
    )


@functools.partial(jax.jit, static_argnames=("method", "network"))
def compiled(method, network, variables, clean, config):
    chosen = repairs.METHODS[method]
    return chosen.repair(network, variables, clean, key=KEY, config=config)


def run(method, variables, clean, network=tiny.NETWORK, **settings):
    config = repairs.METHODS[method].settings(**settings)
    return compiled(method, network, variables, clean, config)


def loss_of(params, images, labels, noise=None):
    variables = {**tiny.variables(), "params": params}
    if noise is not None:
        variables = perturb.apply_noise(variables, noise)
    logits = tiny.apply(variables, images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


@pytest.fixture
def one_batch():
    """A clean set of one batch, so that an epoch is one step whatever the order."""
    return clean_set(8)


def after_one_step(params, gradient, rate=0.1, decay=0.01):
    return jax.tree.map(lambda p, g: p - rate * (g + decay * p), params, gradient)


STEP = {
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 0.1,
    "weight_decay": 0.01,
    "budget": 1.0,
    **QUIET,
}


def test_plain_finetuning_is_sgd_with_decay(one_batch):
    variables = tiny.variables()
    repaired, info = run("finetune", variables, one_batch, **STEP)
    loss, gradient = jax.value_and_grad(loss_of)(
        variables["params"], one_batch.images, one_batch.labels
    )
    wanted = after_one_step(variables["params"], gradient)
    chex.assert_trees_all_close(repaired["params"], wanted, atol=1e-6)
    np.testing.assert_allclose(info.loss, [loss], atol=1e-6)


def test_a_linear_schedule_falls_to_zero_over_the_whole_repair(one_batch):
    variables = tiny.variables()
    settings = {**STEP, "epochs": 2, "weight_decay": 0.0}
    repaired, _ = run("finetune", variables, one_batch, schedule="linear", **settings)
    params = variables["params"]
    for rate in (0.1, 0.05):  # two steps: the whole rate, then half of it
        gradient = jax.grad(loss_of)(params, one_batch.images, one_batch.labels)
        params = after_one_step(params, gradient, rate, decay=0.0)
    chex.assert_trees_all_close(repaired["params"], params, atol=1e-6)
    constant, _ = run("finetune", variables, one_batch, **settings)
    assert not np.array_equal(
        constant["params"]["linear"]["bias"], repaired["params"]["linear"]["bias"]
    )


def test_ban_descends_on_the_clean_loss_and_that_under_the_worst_noise(one_batch):
    variables, epsilon = tiny.variables(), 1e-3
    # In so small a ball the ascent's direction is the same everywhere, and one step of
    # twice the radius, clipped, ends in its corner.
    still = jax.tree.map(jnp.zeros_like, perturb.init_noise(KEY, variables, 1.0))
    uphill = jax.grad(loss_of, argnums=3)(
        variables["params"], one_batch.images, one_batch.labels, still
    )
    noise = jax.tree.map(lambda slope: epsilon * jnp.sign(slope), uphill)

    def objective(params):
        clean = loss_of(params, one_batch.images, one_batch.labels)
        return clean + 0.5 * loss_of(params, one_batch.images, one_batch.labels, noise)

    loss, gradient = jax.value_and_grad(objective)(variables["params"])
    repaired, info = run("ban", variables, one_batch, epsilon=epsilon, **STEP)
    wanted = after_one_step(variables["params"], gradient)
    chex.assert_trees_all_close(repaired["params"], wanted, atol=2e-6)
    np.testing.assert_allclose(info.loss, [loss], atol=1e-5)


def test_ban_without_weight_on_the_noise_is_plain_finetuning():
    settings = dict(STEP, epochs=3, crop=1, flip=True, momentum=0.9)
    ban, _ = run("ban", tiny.variables(), clean_set(), robust_weight=0.0, **settings)
    plain, _ = run("finetune", tiny.variables(), clean_set(), **settings)
    chex.assert_trees_all_close(ban, plain, atol=1e-6)


def counting_features(variables, images, mode):
    """`tiny.features`, and in mode `update` a statistic that moves to the scale."""
    found, variables = tiny.features(variables, images, mode)
    if mode == "update":
        seen = variables["params"]["bn"]["scale"]
        old = variables["batch_stats"]["bn"]["mean"]
        stats = {"bn": {**variables["batch_stats"]["bn"], "mean": 0.5 * (old + seen)}}
        variables = {**variables, "batch_stats": stats}
    return found, variables


COUNTING = types.Network(counting_features, tiny.head, tiny.classifier, tiny.CLASSES)


def test_stored_statistics_follow_the_clean_pass_alone(one_batch):
    variables = tiny.variables()
    repaired, _ = run("ban", variables, one_batch, COUNTING, epsilon=0.3, **STEP)
    mean = repaired["batch_stats"]["bn"]["mean"]
    scale = variables["params"]["bn"]["scale"]
    np.testing.assert_allclose(mean, 0.5 * scale, atol=1e-6)


def test_the_released_switch_lets_statistics_absorb_the_noisy_passes(one_batch):
    variables = tiny.variables()
    settings = dict(STEP, epsilon=0.3, released=True, steps=2)
    repaired, _ = run("ban", variables, one_batch, COUNTING, **settings)
    mean = repaired["batch_stats"]["bn"]["mean"]
    scale = variables["params"]["bn"]["scale"]
    # Two noisy passes of the search, a noisy and a clean one of the step: the scale is
    # seen with factors 1 + a, 1 + b, 1 + c and 1.
    clean_alone = 0.5 * scale
    no_noise = (0.5 + 0.25 + 0.125 + 0.0625) * scale
    assert float(jnp.max(jnp.abs(mean - clean_alone))) > 0.1
    # Noise reaches at most twice the radius.
    assert np.all(np.abs(mean - no_noise) <= 0.6 * 0.5 * np.abs(scale) + 1e-6)
    assert float(jnp.max(jnp.abs(mean - no_noise))) > 1e-3


def test_a_repair_that_costs_too_much_accuracy_gives_the_model_back_as_it_was():
    variables, clean = tiny.variables(), clean_set()
    # No accuracy is within this budget.
    settings = dict(STEP, epochs=6, budget=-2.0, patience=2)
    repaired, info = run("ban", variables, clean, **settings)
    chex.assert_trees_all_equal(repaired, variables)
    assert bool(info.stopped) and int(info.epochs) == 0
    assert info.accuracy_after == info.accuracy_before
    # Two epochs were run, the others skipped.
    np.testing.assert_array_equal(np.isnan(info.accuracy), [0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("method", ["ban", "finetune"])
def test_the_model_given_back_is_the_last_within_the_budget(method):
    for seed in range(4):
        settings = dict(STEP, epochs=5, learning_rate=0.5, budget=0.11, patience=9)
        _, info = run(method, tiny.variables(seed), clean_set(), **settings)
        within = np.asarray(info.accuracy) >= info.accuracy_before - 0.11
        assert int(info.epochs) == max([0, *(np.flatnonzero(within) + 1)])
        kept = [info.accuracy_before, *info.accuracy][int(info.epochs)]
        assert info.accuracy_after == kept
        assert not info.stopped and info.is_finite


def test_held_out_accuracy_counts_no_filler():
    variables, clean = tiny.variables(), clean_set()
    found = jnp.argmax(
        tiny.apply(variables, clean.held_images.reshape(-1, 4, 4, 3), "stored"), -1
    )
    hits = (found.reshape(2, 8) == clean.held_labels)[clean.held_labels >= 0]
    assert hits.size == 10
    _, info = run("finetune", variables, clean, **STEP)
    assert info.accuracy_before == pytest.approx(float(hits.mean()))


def test_a_clean_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="16 clean images do not fill one batch of 17"):
        run("ban", tiny.variables(), clean_set(), batch_size=17)


PRUNE = {"epochs": 2, "iterations": 5, "batch_size": 8, "crop": 0, "flip": False}


def test_pruning_cuts_scales_of_channels_at_or_below_the_threshold_and_nothing_else():
    variables = tiny.variables()
    settings = dict(PRUNE, thresholds=(0.3, 0.6), budget=1.0, learning_rate=1.0)
    repaired, info = run("anp", variables, clean_set(), **settings)
    before, after = variables["params"]["bn"], repaired["params"]["bn"]
    cut = np.asarray(after["scale"]) == 0
    assert 0 < cut.sum() < cut.size
    assert info.details["pruned"] == pytest.approx(cut.mean())
    assert info.details["threshold"] == np.float32(0.6) and not info.stopped
    np.testing.assert_array_equal(after["scale"][~cut], before["scale"][~cut])
    rest = {**repaired["params"], "bn": {**after, "scale": before["scale"]}}
    chex.assert_trees_all_equal(rest, variables["params"])
    chex.assert_trees_all_equal(repaired["batch_stats"], variables["batch_stats"])


def test_pruning_descends_under_noise_that_is_the_worst_for_the_masks_at_hand():
    """Six steps by hand; from the second on the masks are no longer ones."""
    variables, clean, epsilon = tiny.variables(), clean_set(), 0.4
    settings = dict(PRUNE, epochs=1, iterations=6, momentum=0.0, learning_rate=2.0)
    _, info = run("anp", variables, clean, epsilon=epsilon, **settings)
    masks, losses = jnp.ones(tiny.CHANNELS), []
    for key in jax.random.split(KEY, (1, 6))[0]:
        draw, _, start = jax.random.split(key, 3)
        chosen = jax.random.randint(draw, (8,), 0, len(clean.labels))

        def loss(masks, delta, xi, chosen=chosen):
            bn = variables["params"]["bn"]
            factors = {"scale": masks + delta, "bias": 1 + xi}
            bn = {name: bn[name] * factors[name] for name in bn}
            params = {**variables["params"], "bn": bn}
            return loss_of(params, clean.images[chosen], clean.labels[chosen])

        noise = perturb.init_noise(start, variables, epsilon)
        noise = [noise["bn/scale"], noise["bn/bias"]]
        uphill = jax.grad(loss, argnums=(1, 2))(masks, *noise)
        delta, xi = (
            jnp.clip(one + 2 * epsilon * jnp.sign(slope), -epsilon, epsilon)
            for one, slope in zip(noise, uphill, strict=True)
        )

        def both(masks, delta=delta, xi=xi, loss=loss):
            return 0.2 * loss(masks, 0, jnp.zeros(())) + 0.8 * loss(masks, delta, xi)

        value, slope = jax.value_and_grad(both)(masks)
        losses.append(float(value))
        masks = jnp.clip(masks - 2 * slope, 0, 1)
    np.testing.assert_allclose(info.loss, [np.mean(losses)], atol=1e-6)
    assert masks.min() < 0.9


def test_no_threshold_within_the_budget_prunes_nothing():
    variables = tiny.variables()
    settings = dict(PRUNE, thresholds=(1.0,), budget=-1.0)
    repaired, info = run("anp", variables, clean_set(), **settings)
    chex.assert_trees_all_equal(repaired, variables)
    assert info.stopped and info.details["pruned"] == 0


def test_pruning_needs_normalisation_layers():
    with pytest.raises(ValueError, match="no parameter to perturb"):
        run("anp", tiny.variables(normalised=False), clean_set(), **PRUNE)


@pytest.mark.parametrize("method", list(repairs.METHODS))
def test_eight_together_are_what_they_are_one_at_a_time(method):
    """To 1e-5 stacked by vmap; on host threads bit for bit."""
    settings = dict(PRUNE) if method == "anp" else dict(STEP, epochs=3, crop=1)
    config = repairs.METHODS[method].settings(**settings)
    members = [tiny.variables(seed) for seed in range(8)]
    keys = jax.random.split(KEY, 8)

    def together(chosen, *, stacked):
        return batch.repair_population(
            tiny.NETWORK,
            [members[index] for index in chosen],
            [keys[index] for index in chosen],
            clean_set(),
            method,
            config,
            size=len(chosen),
            placement=population.Placement(tuple(jax.devices()[:1]), stacked),
        )

    alone = [together([index], stacked=False)[0] for index in range(8)]
    threads = together(range(8), stacked=False)
    vmapped = together(range(8), stacked=True)
    for one, threaded, beside in zip(alone, threads, vmapped, strict=True):
        chex.assert_trees_all_equal(threaded, one)
        chex.assert_trees_all_close(beside, one, atol=1e-5)


@pytest.mark.parametrize("method", list(repairs.METHODS))
def test_it_can_be_traced_where_64_bits_are_on(method):
    settings = dict(PRUNE) if method == "anp" else dict(STEP, epochs=2)
    given = tiny.variables(), clean_set()
    with jax.enable_x64(True):
        jax.eval_shape(lambda *given: run(method, *given, **settings), *given)


@pytest.mark.parametrize("method", list(repairs.METHODS))
def test_other_floats_compile_nothing(method):
    chosen = repairs.METHODS[method]
    settings = dict(PRUNE) if method == "anp" else dict(STEP)
    config = chosen.settings(**settings)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def repaired(variables, config):
        return chosen.repair(
            tiny.NETWORK, variables, clean_set(), key=KEY, config=config
        )

    names = {"learning_rate", "budget", "epsilon", "robust_weight", "clean_weight"}
    for factor in (1.0, 0.5):
        changed = {
            field.name: factor * getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name in names
        }
        repaired(tiny.variables(), dataclasses.replace(config, **changed))


def test_uint8_pixels_are_the_floats_they_stand_for():
    clean = clean_set()
    pixels = jnp.round(clean.images * 255).astype(jnp.uint8)
    floats = clean._replace(images=pixels.astype(jnp.float32) / 255)
    as_bytes, _ = run(
        "finetune", tiny.variables(), clean._replace(images=pixels), **STEP
    )
    as_floats, _ = run("finetune", tiny.variables(), floats, **STEP)
    chex.assert_trees_all_close(as_bytes, as_floats, atol=1e-7)
