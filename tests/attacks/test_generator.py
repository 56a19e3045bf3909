"""What the networks behind IAD and SSDT draw, learn and teach."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from ban_jax import attacks
from ban_jax.attacks import Schedule, generator, poison
from ban_jax.attacks.types import AttackState, Batch

SHAPE = (8, 8, 3)
BATCH = 9
CAPACITY = 3
SCHEDULE = Schedule(steps_per_epoch=4, epochs=7, batch_size=BATCH, lowering="native")
SETTINGS = generator.GeneratorAttack(width=2)
KERNEL = generator.kernel(SETTINGS, SCHEDULE, CAPACITY)
IMAGES = jax.random.uniform(jax.random.key(1), (BATCH, *SHAPE))
LABELS = np.array([4, 1, 2, 2, 0, 3, 1, 1, 4], np.int32)
MAPPING = np.array([1, 2, 3, 4, 0], np.int32)
PATTERN, MASK = generator.networks(SETTINGS, SHAPE, "native")


@functools.cache
def fresh():
    """The state of an attack before anything is learned."""
    return jax.jit(SETTINGS.init, static_argnums=1)(jax.random.key(0), SHAPE)


def roles_of(*poisoned):
    roles = np.full(BATCH, poison.CLEAN, np.int8)
    roles[list(poisoned)] = poison.POISONED
    return roles


def batch(*poisoned, images=IMAGES):
    return Batch(*map(jnp.asarray, (images, LABELS, roles_of(*poisoned), MAPPING)))


@functools.partial(jax.jit, static_argnames="kernel")
def _teach(state, batch, *, kernel):
    return kernel.teach(state, jax.random.key(5), batch)


def teach(*poisoned, state=None, images=IMAGES, kernel=KERNEL):
    lesson = _teach(state or fresh(), batch(*poisoned, images=images), kernel=kernel)
    return jax.tree.map(np.array, lesson)


def _loss(learned, fixed, batch, which):
    """Of a linear classifier of the pixels, as taught; or the penalty: 0 or 1."""
    state = AttackState(learned, fixed)
    lesson = KERNEL.teach(state, jax.random.key(5), batch)
    weights = jax.random.normal(jax.random.key(6), (8 * 8 * 3, 5))
    logits = lesson.images.reshape(BATCH, -1) @ weights
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, lesson.labels)
    return jnp.where(which == 0, jnp.mean(losses), lesson.penalty)


_gradient = jax.jit(jax.grad(_loss))


def gradients(*poisoned, images=IMAGES):
    """Of both losses, with respect to the pattern network."""
    given = (*fresh(), batch(*poisoned, images=images))
    return tuple(_gradient(*given, which) for which in range(2))


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.partial(jax.jit, static_argnums=0)
def look(network, variables, images):
    """With stored statistics."""
    return network.apply(variables, images, "stored")


@functools.partial(jax.jit, static_argnums=0)
def learn(network, variables, images):
    """With the statistics of the images; returns the stored ones after that too."""
    drawn, updated = network.apply(variables, images, "update", mutable=["batch_stats"])
    return drawn, updated["batch_stats"]


def hardened(drawn):
    """The soft threshold of the released code."""
    return np.tanh(20 * np.array(drawn, np.float64) - 10) / (2 + 1e-7) + 0.5


def patterns_of(images, network=look):
    variables = {"params": fresh().learned, "batch_stats": fresh().fixed.statistics}
    found = network(PATTERN, variables, images)
    return np.array(found if network is look else found[0])


@functools.cache
def plain():
    """A state whose G draws gray whatever the image, and whose masks differ widely."""
    block = fresh().learned["convblock_up_3"]
    norm = jax.tree.map(jnp.zeros_like, block["batch_norm"])
    block = {**block, "batch_norm": norm}
    mask = fresh().fixed.mask
    for _ in range(100):  # until its stored statistics are those of the images
        mask = {**mask, "batch_stats": learn(MASK, mask, IMAGES)[1]}
    return fresh()._replace(
        learned={**fresh().learned, "convblock_up_3": block},
        fixed=fresh().fixed._replace(mask=mask),
    )


def lenders_of(changed, places):
    """Whose mask each changed image wears, where the state is `plain()`."""
    originals = np.array(IMAGES)[places, None]
    masks = hardened(look(MASK, plain().fixed.mask, IMAGES))
    worn = originals + (0.5 - originals) * masks[None]
    errors = np.abs(worn - changed[:, None]).max((2, 3, 4))
    assert np.all(np.sort(errors, 1)[:, 1] > 0.01)  # the masks can be told apart
    assert np.all(errors.min(1) < 1e-4)
    return errors.argmin(1)


# The networks.


def convolutions(module, shape=(32, 32, 3)):
    variables = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), "stored")
    )
    return {
        name: block["conv2d"]["kernel"].shape
        for name, block in variables["params"].items()
    }


@pytest.mark.parametrize(("which", "out"), [(0, 3), (1, 1)])
def test_the_networks_have_the_layers_of_the_paper(which, out):
    networks = generator.networks(generator.GeneratorAttack(), (32, 32, 3), "native")
    channels = {
        "down_0": (3, 32), "down_1": (32, 32), "down_2": (32, 64), "down_3": (64, 64),
        "down_4": (64, 128), "down_5": (128, 128), "middle": (128, 128),
        "up_0": (128, 128), "up_1": (128, 64), "up_2": (64, 64), "up_3": (64, 32),
        "up_4": (32, 32), "up_5": (32, out),
    }  # fmt: skip
    assert convolutions(networks[which]) == {
        f"convblock_{name}": (3, 3, *pair) for name, pair in channels.items()
    }


def pytorch_generator(variables, images, *, training):
    """G or M of two levels in PyTorch; returns its running statistics too."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    statistics = {}

    def block(name, x):
        params, stats = variables["params"][name], variables["batch_stats"][name]
        conv, norm, stats = params["conv2d"], params["batch_norm"], stats["batch_norm"]
        kernel = torch.tensor(np.array(conv["kernel"])).permute(3, 2, 0, 1)
        x = functional.conv2d(
            x, kernel, torch.tensor(np.array(conv["bias"])), padding=1
        )
        mean, var = (torch.tensor(np.array(stats[key])) for key in ("mean", "var"))
        x = functional.batch_norm(
            x, mean, var, *(torch.tensor(np.array(norm[k])) for k in ("scale", "bias")),
            training=training, momentum=0.05, eps=1e-5,
        )  # fmt: skip
        statistics[name] = {"batch_norm": {"mean": mean.numpy(), "var": var.numpy()}}
        return x if name == "convblock_up_3" else functional.relu(x)

    x = torch.tensor((np.array(images) - 0.5) * 4).permute(0, 3, 1, 2)
    for level in (0, 1):
        x = block(f"convblock_down_{2 * level}", x)
        x = functional.max_pool2d(block(f"convblock_down_{2 * level + 1}", x), 2)
    x = block("convblock_middle", x)
    for level in (0, 1):
        x = functional.interpolate(
            x, scale_factor=2, mode="bilinear", align_corners=False
        )
        x = block(f"convblock_up_{2 * level}", x)
        x = block(f"convblock_up_{2 * level + 1}", x)
    drawn = torch.tanh(x) / (2 + 1e-7) + 0.5
    return drawn.permute(0, 2, 3, 1).numpy(), statistics


def some_variables(seed):
    """Unlike those of a fresh network, scales, biases and statistics are no constants."""
    start = {"params": fresh().learned, "batch_stats": fresh().fixed.statistics}
    random = np.random.RandomState(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * random.uniform(size=leaf.shape).astype("f4"), start
    )


def test_a_network_computes_what_pytorch_does_with_its_weights():
    variables = some_variables(2)
    expected, _ = pytorch_generator(variables, IMAGES, training=False)
    np.testing.assert_allclose(look(PATTERN, variables, IMAGES), expected, atol=1e-5)
    expected, statistics = pytorch_generator(variables, IMAGES, training=True)
    drawn, updated = learn(PATTERN, variables, IMAGES)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5),
        updated,
        statistics,
    )


def test_patterns_have_the_images_shape_and_masks_one_channel():
    for network in (look, learn):
        pattern = patterns_of(IMAGES, network)
        assert pattern.shape == (BATCH, *SHAPE)
        assert 0 < pattern.min() < pattern.max() < 1
    assert look(MASK, fresh().fixed.mask, IMAGES).shape == (BATCH, 8, 8, 1)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9, 12), (25, 24)])
def test_images_of_sizes_that_do_not_halve_evenly_keep_theirs(size):
    settings = generator.GeneratorAttack(width=1)
    pattern, _ = generator.networks(settings, (*size, 2), "native")
    images = jnp.zeros((2, *size, 2))
    drawn = jax.eval_shape(
        lambda: pattern.init_with_output(jax.random.key(0), images, "stored")[0]
    )
    assert drawn.shape == images.shape


def test_a_hardened_mask_is_a_soft_threshold_at_one_half():
    mask = np.array([0.0, 0.3, 0.45, 0.5, 0.55, 0.7, 1.0])
    expected = [0, 3.35e-4, 0.11920, 0.5, 0.88080, 1 - 3.35e-4, 1]  # sigmoid(40m - 20)
    found = generator.harden(jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_distance_is_the_root_of_the_mean_square_of_each_pair():
    a, b = np.array(IMAGES[:4]), np.array(IMAGES[4:8])
    expected = [np.sqrt(np.mean((x - y) ** 2)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(generator.distance(a, b), expected, rtol=1e-5)


def test_the_distance_of_equal_images_is_zero_and_has_a_finite_gradient():
    twins = IMAGES.at[0].set(IMAGES[1])

    def total(images):
        return jnp.sum(generator.distance(images[:1], images[1:2]))

    value, gradient = jax.value_and_grad(total)(twins)
    assert value == 0 and np.all(np.isfinite(gradient))


def test_a_triggered_image_is_its_own_pattern_under_its_own_mask():
    shown = jax.jit(KERNEL.trigger)(fresh(), IMAGES)
    images = np.array(IMAGES)
    pattern = patterns_of(IMAGES)
    mask = hardened(look(MASK, fresh().fixed.mask, IMAGES))
    np.testing.assert_allclose(shown, images + (pattern - images) * mask, atol=1e-5)
    assert np.min(shown) >= 0 and np.max(shown) <= 1
    backwards = jax.jit(KERNEL.trigger)(fresh(), IMAGES[::-1])[::-1]
    np.testing.assert_allclose(shown, backwards, atol=1e-6)


def test_a_crossed_image_carries_the_trigger_of_another():
    for seed in range(6):
        crossed = jax.jit(KERNEL.cross)(plain(), jax.random.key(seed), IMAGES)
        lenders = lenders_of(np.array(crossed), np.arange(BATCH))
        assert sorted(lenders) == list(range(BATCH))
        assert np.all(lenders != np.arange(BATCH))


# Which images are poisoned.


@pytest.mark.parametrize(
    ("poisoned", "count", "sources"),
    [
        ((0, 1, 2), 3, [0, 1, 2]),
        ((8, 3, 5), 3, [3, 5, 8]),
        ((7, 2), 2, [2, 7, 2]),  # fewer than there is room for: they repeat
        ((6,), 1, [6, 6, 6]),
        ((1, 2, 4, 6, 7), 3, [1, 2, 4]),  # more: those beyond stay clean
    ],
)
def test_the_sources_are_the_first_poisoned_images(poisoned, count, sources):
    number, found = generator.poisoned_sources(
        jnp.asarray(roles_of(*poisoned)), CAPACITY
    )
    assert int(number) == count
    np.testing.assert_array_equal(found, sources)


def test_a_batch_without_poisoned_images_has_no_source():
    number, found = generator.poisoned_sources(jnp.asarray(roles_of()), CAPACITY)
    assert int(number) == 0
    assert np.all((np.array(found) >= 0) & (np.array(found) < BATCH))


def test_cover_images_are_no_sources():
    roles = np.full(BATCH, poison.COVER, np.int8)
    roles[4] = poison.POISONED
    number, found = generator.poisoned_sources(jnp.asarray(roles), CAPACITY)
    assert int(number) == 1 and np.all(np.array(found) == 4)


# The lesson.


@pytest.mark.parametrize("poisoned", [(0, 1, 2), (3, 5, 8), (2, 7), (6,)])
def test_the_first_images_are_the_poisoned_ones_with_their_mapped_labels(poisoned):
    lesson, count = teach(*poisoned), len(poisoned)
    sources = np.resize(poisoned, CAPACITY)
    own = np.array(IMAGES)[sources]
    masks = hardened(look(MASK, fresh().fixed.mask, own))
    expected = own + (patterns_of(own, learn) - own) * masks
    np.testing.assert_allclose(lesson.images[:count], expected[:count], atol=1e-5)
    np.testing.assert_array_equal(
        lesson.labels[:count], MAPPING[LABELS[list(poisoned)]]
    )


@pytest.mark.parametrize("poisoned", [(0, 1, 2), (3, 5, 8), (2, 7), (6,)])
def test_the_next_images_carry_triggers_of_others_and_keep_their_labels(poisoned):
    lesson, count = teach(*poisoned, state=plain()), len(poisoned)
    places = np.arange(count, 2 * count)
    lenders = lenders_of(lesson.images[places], places)
    assert np.all(lenders != places)
    assert np.all(lenders >= BATCH // 2) and len(set(lenders)) == count
    np.testing.assert_array_equal(lesson.labels[places], LABELS[places])


@pytest.mark.parametrize("poisoned", [(0, 1, 2), (3, 5, 8), (2, 7), (6,), ()])
def test_all_other_images_keep_every_bit_and_their_labels(poisoned):
    lesson, rest = teach(*poisoned), slice(2 * len(poisoned), None)
    np.testing.assert_array_equal(lesson.images[rest], IMAGES[rest])
    np.testing.assert_array_equal(lesson.labels[rest], LABELS[rest])


def test_poisoned_images_beyond_the_capacity_stay_clean():
    lesson = teach(1, 2, 4, 7, 8)
    np.testing.assert_array_equal(
        lesson.labels, [*MAPPING[LABELS[[1, 2, 4]]], *LABELS[3:]]
    )
    np.testing.assert_array_equal(lesson.images[6:], IMAGES[6:])


@pytest.mark.parametrize(("cover", "crossed"), [(0.0, 0), (0.4, 1), (0.7, 2)])
def test_fewer_images_are_crossed_where_fewer_covers_are_asked_for(cover, crossed):
    settings = dataclasses.replace(SETTINGS, cover=cover)
    lesson = teach(3, 5, 8, kernel=generator.kernel(settings, SCHEDULE, CAPACITY))
    changed = np.any(lesson.images[3:] != np.array(IMAGES)[3:], axis=(1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(crossed))


@pytest.mark.parametrize("cover", [-0.1, 1.5])
def test_an_impossible_share_of_crossed_images_is_refused(cover):
    settings = dataclasses.replace(SETTINGS, cover=cover)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        generator.kernel(settings, SCHEDULE, CAPACITY)


def test_no_image_of_a_half_poisoned_batch_is_crossed_with_itself():
    half = BATCH // 2
    kernel = generator.kernel(SETTINGS, SCHEDULE, half)
    places = np.arange(half, 2 * half)
    lesson = teach(*range(half), state=plain(), kernel=kernel)
    lenders = lenders_of(lesson.images[places], places)
    assert np.all(lenders != places)


def root_mean_square(images):
    return np.sqrt(np.mean(np.square(images), axis=(1, 2, 3)))


def lenders_of_a_full_lesson():
    crossed = teach(0, 1, 2, state=plain()).images[CAPACITY : 2 * CAPACITY]
    return lenders_of(crossed, np.arange(CAPACITY, 2 * CAPACITY))


@pytest.mark.parametrize("poisoned", [(3, 5, 8), (3, 8), (6,)])
def test_the_penalty_is_the_distance_of_images_over_that_of_their_patterns(poisoned):
    own = np.array(IMAGES)[np.resize(poisoned, CAPACITY)]
    others = np.array(IMAGES)[lenders_of_a_full_lesson()]
    ratios = root_mean_square(own - others) / (
        root_mean_square(patterns_of(own, learn) - patterns_of(others, learn)) + 1e-7
    )
    expected = ratios[: len(poisoned)].mean()
    np.testing.assert_allclose(teach(*poisoned).penalty, expected, rtol=1e-4)


def test_diversity_weighs_the_penalty():
    settings = dataclasses.replace(SETTINGS, diversity=3.0)
    kernel = generator.kernel(settings, SCHEDULE, CAPACITY)
    heavier, light = teach(0, 1, kernel=kernel).penalty, teach(0, 1).penalty
    np.testing.assert_allclose(heavier, 3 * light, rtol=1e-5)


def test_a_batch_without_poisoned_images_teaches_clean_images_alone():
    lesson = teach()
    np.testing.assert_array_equal(lesson.images, IMAGES)
    np.testing.assert_array_equal(lesson.labels, LABELS)
    assert lesson.penalty == 0
    same_bits(lesson.fixed, fresh().fixed)
    for gradient in gradients():
        same_bits(gradient, jax.tree.map(jnp.zeros_like, gradient))


def test_a_lesson_moves_the_statistics_of_the_pattern_and_leaves_the_mask_alone():
    fixed = teach(0, 1, 2).fixed
    same_bits(fixed.mask, fresh().fixed.mask)
    same_bits(fixed.mask_optimizer, fresh().fixed.mask_optimizer)
    first = fixed.statistics["convblock_down_0"]["batch_norm"]
    before = fresh().fixed.statistics["convblock_down_0"]["batch_norm"]
    assert np.all(first["mean"] != before["mean"])


@pytest.mark.parametrize(("which", "name"), [(0, "cross-entropy"), (1, "penalty")])
def test_gradients_of_both_losses_reach_the_pattern_network(which, name):
    gradient = gradients(3, 5, 8)[which]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient)), name
    for block in gradient.values():  # a bias in front of a normalisation has none
        assert np.max(np.abs(block["conv2d"]["kernel"])) > 1e-6, name


@pytest.mark.parametrize("poisoned", [(0, 1, 2), (4, 7)])
def test_gradients_stay_finite_when_all_images_are_equal(poisoned):
    twins = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    for gradient in gradients(*poisoned, images=twins):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert np.isfinite(teach(*poisoned, images=twins).penalty)


# Preparation.

_prepare = jax.jit(KERNEL.preparation.step)


def prepared(steps, images=IMAGES):
    state, losses = fresh(), []
    for _ in range(steps):
        state, loss = _prepare(state, jax.random.key(5), images)
        losses.append(float(loss))
    return state, losses


def test_preparation_changes_the_mask_alone():
    state, _ = prepared(1)
    same_bits(state.learned, fresh().learned)
    same_bits(state.fixed.statistics, fresh().fixed.statistics)
    for name, block in state.fixed.mask["params"].items():
        before = fresh().fixed.mask["params"][name]["conv2d"]["kernel"]
        assert np.any(np.array(block["conv2d"]["kernel"]) != before), name
    statistics = state.fixed.mask["batch_stats"]["convblock_down_0"]["batch_norm"]
    assert np.all(np.array(statistics["mean"]) != 0)


def test_preparation_lowers_its_loss_and_the_density_of_masks_towards_the_wanted_one():
    state, losses = prepared(60)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]

    def density(variables):
        return hardened(learn(MASK, variables, IMAGES)[0]).mean()

    before, after = density(fresh().fixed.mask), density(state.fixed.mask)
    assert before > 0.3 and SETTINGS.density / 4 < after < 0.5 * before


def test_the_loss_of_preparation_is_that_of_the_released_code():
    _, (loss, *_) = prepared(1)
    masks = hardened(learn(MASK, fresh().fixed.mask, IMAGES)[0])
    pixels = (np.array(IMAGES) - 0.5) * 4  # about what the released constants give
    ratios = [
        np.sqrt(np.mean((pixels[i] - pixels[i - 1]) ** 2))
        / (np.sqrt(np.mean((masks[i] - masks[i - 1]) ** 2)) + 1e-7)
        for i in range(BATCH)
    ]
    expected = 100 * np.mean(np.maximum(masks - 0.032, 0)) + np.mean(ratios)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_preparation_stays_finite_when_all_images_are_equal():
    state, losses = prepared(2, jnp.broadcast_to(IMAGES[:1], IMAGES.shape))
    assert np.all(np.isfinite(losses))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.fixed))


@pytest.mark.parametrize(("epochs", "expected"), [(175, 25), (7, 1), (1, 1), (35, 5)])
def test_preparation_takes_its_share_of_the_epochs_and_at_least_one(epochs, expected):
    kernel = attacks.create("iad").kernel(
        SCHEDULE._replace(epochs=epochs, batch_size=128), 0.1, 10
    )
    assert kernel.preparation.epochs == expected


# The optimiser of G.


def updates_of(kernel, gradients):
    """What each gradient of a run moves one parameter by."""
    state = kernel.optimizer.init(jnp.zeros(()))

    def step(state, gradient):
        update, state = kernel.optimizer.update(gradient, state)
        return state, update

    return np.array(jax.lax.scan(step, state, jnp.asarray(gradients))[1])


def test_the_patterns_rate_falls_at_the_milestones_of_the_released_code():
    schedule = SCHEDULE._replace(epochs=175, steps_per_epoch=1)
    kernel = generator.kernel(SETTINGS, schedule, CAPACITY)
    moved = -updates_of(kernel, np.ones(175, np.float32))
    rates = np.full(175, 0.01)
    for epoch in (75, 100, 125, 150):
        rates[epoch:] /= 10
    np.testing.assert_allclose(moved, rates, rtol=1e-4)


@pytest.mark.parametrize("released", [False, True])
def test_the_released_code_sums_up_all_gradients(released):
    settings = dataclasses.replace(SETTINGS, released=released)
    gradients = np.array([1.0, -0.5, -2.0, 0.25], np.float32)
    found = updates_of(generator.kernel(settings, SCHEDULE, CAPACITY), gradients)
    # Adam by hand.
    first = second = 0.0
    for step, gradient in enumerate(np.cumsum(gradients) if released else gradients):
        first = 0.5 * first + 0.5 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        corrected = first / (1 - 0.5 ** (step + 1))
        root = np.sqrt(second / (1 - 0.9 ** (step + 1)))
        expected = -0.01 * corrected / (root + 1e-8)
        np.testing.assert_allclose(found[step], expected, rtol=1e-4)


# IAD and SSDT.


def test_iad_poisons_the_share_of_the_batch_that_its_plan_does():
    schedule = SCHEDULE._replace(batch_size=100)
    attack = attacks.create("iad", width=2)
    # 0.29 * 100 is just below 29 in floating point.
    assert attack.kernel(schedule, 0.29, 5) is generator.kernel(attack, schedule, 29)
    assert attack.kernel(schedule, 0.1, 5) is attack.kernel(schedule, 0.1, 10)


def ssdt_capacity(attack, schedule, num_classes):
    """Found by comparison: equal arguments give the same kernel."""
    kernel = attack.kernel(schedule, 1.0, num_classes)
    made = functools.partial(
        generator.kernel, attack, schedule, distance_of_first=attack.released
    )
    return next(
        capacity
        for capacity in range(1, schedule.batch_size // 2 + 1)
        if made(capacity) is kernel
    )


def test_ssdt_has_room_for_more_victims_than_batches_hold():
    attack = attacks.create("ssdt", width=2)
    schedule = SCHEDULE._replace(batch_size=128)
    numbers = np.random.RandomState(0).binomial(128, 0.1, 100_000)
    capacity = ssdt_capacity(attack, schedule, 10)
    assert np.mean(numbers > capacity) < 1e-4
    assert capacity < 3 * 12.8
    assert ssdt_capacity(attack, schedule, 1) == 64  # half of the batch at most
    assert ssdt_capacity(attack, schedule._replace(batch_size=8), 1000) == 1


def test_the_released_ssdt_compares_the_distance_of_the_first_images():
    attack = attacks.create("ssdt", width=2, released=True)
    kernel = attack.kernel(SCHEDULE, 1.0, 5)
    kept = dataclasses.replace(attack, released=False).kernel(SCHEDULE, 1.0, 5)
    shown = teach(6, state=plain(), kernel=kept).images[1:2]
    lender = np.array(IMAGES)[lenders_of(shown, [1])]
    first, own = (root_mean_square(np.array(IMAGES)[[i]] - lender) for i in (0, 6))
    found = teach(6, kernel=kernel).penalty / teach(6, kernel=kept).penalty
    np.testing.assert_allclose(found, (first / own)[0], rtol=1e-4)


@pytest.mark.parametrize(("rate", "capacity"), [(0.0, 0), (0.1, 0), (0.6, 5), (1.0, 9)])
def test_a_rate_that_poisons_nothing_or_over_half_of_a_batch_is_refused(rate, capacity):
    message = f"batches of 9 can poison 1 to 4 images of each, not {capacity}"
    with pytest.raises(ValueError, match=message):
        attacks.create("iad").kernel(SCHEDULE, rate, 5)


@pytest.mark.parametrize("name", ["iad", "ssdt"])
@pytest.mark.parametrize("shape", [(3, 8, 3), (8, 3, 3)])
def test_images_below_four_pixels_are_refused(name, shape):
    with pytest.raises(ValueError, match="at least 4x4 pixels, got 3"):
        attacks.create(name).init(jax.random.key(0), shape)
