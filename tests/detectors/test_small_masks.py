"""Neural Cleanse and TABOR against PyTorch's numbers, the published schedule and rule, and
a planted backdoor.

`tests/testdata/make_patch_goldens.py` says what the file holds.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import records, verdict
from ban_jax.data import probe as probes
from ban_jax.detectors import (
    evidence,
    inversion,
    neural_cleanse,
    patch_search,
    rules,
    small_masks,
    tabor,
)
from tests.detectors import patched
from tests.models import test_goldens
from tests.testdata import goldens, patch_case

METHODS = {"neural_cleanse": neural_cleanse, "tabor": tabor}
SMALL = {"rounds": 60, "batches": 6, "batch_size": 16, "patience": 3}
SMALL["stop_patience"] = 12
CASES = [
    pytest.param(kind, released, cost, id=f"{kind}-{cost}-{'released' * released}")
    for kind in patch_case.KINDS
    for released in (False, True)
    for cost in patch_case.COSTS
]


@functools.cache
def golden():
    with np.load(f"{goldens.FOLDER}/patches_resnet18.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def expected(kind, released, cost, name):
    return golden()[f"{kind}/{'released' if released else 'right'}/{cost}/{name}"]


@functools.cache
def run(kind, released):
    """By cost: the first gradient, the trigger after ten steps, what was minimised."""
    _, network, variables, _ = test_goldens.golden("resnet18")
    logits_of = functools.partial(evidence.logits_of(network, "stored"), variables)
    if kind == "tabor":
        weights = patch_case.RELEASED_WEIGHTS if released else patch_case.WEIGHTS
        config = tabor.Settings(released=released, **weights)
        objective = tabor.objective(logits_of, config)
    else:
        objective = neural_cleanse.objective(logits_of, released=released)
    optimizer = inversion.adam(patch_case.rate(kind, released))
    images, labels, mask, pattern = patch_case.draws()
    start = inversion.Trigger(jnp.asarray(mask), jnp.asarray(pattern))

    def search(cost):
        def step(carry, batch):
            *carry, measured, gradient = patch_search.update(
                objective, optimizer, *carry, *batch, jnp.int32(patch_case.TARGET), cost
            )
            return tuple(carry), (measured.total, gradient)

        first = (start, optimizer.init(start))
        (free, _), (totals, gradients) = jax.lax.scan(step, first, (images, labels))
        return jax.tree.map(lambda leaf: leaf[0], gradients), free, totals

    found = jax.jit(lambda costs: jax.lax.map(search, costs))(
        jnp.asarray(patch_case.COSTS)
    )
    return {
        cost: jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), found)
        for i, cost in enumerate(patch_case.COSTS)
    }


@pytest.mark.parametrize(("kind", "released", "cost"), CASES)
def test_gradients_are_pytorchs(kind, released, cost):
    gradient = run(kind, released)[cost][0]
    for name in ("mask", "pattern"):
        wanted = expected(kind, released, cost, name)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(getattr(gradient, name), wanted, atol=1e-4 * scale)


@pytest.mark.parametrize(("kind", "released", "cost"), CASES)
def test_ten_steps_end_where_pytorch_does(kind, released, cost):
    _, free, totals = run(kind, released)[cost]
    for name in ("mask", "pattern"):
        wanted = expected(kind, released, cost, f"after/{name}")
        np.testing.assert_allclose(getattr(free, name), wanted, atol=1e-3)
    np.testing.assert_allclose(totals, expected(kind, released, cost, "loss"), 1e-3)


def test_exchanged_arguments_make_the_loss_linear_in_the_probability():
    logits = jnp.log(jnp.array([[0.2, 0.8], [0.7, 0.3]]))
    plain = inversion.towards(logits, jnp.int32(1))
    np.testing.assert_allclose(plain, -np.log([0.8, 0.3]).mean(), rtol=1e-6)
    exchanged = inversion.towards(logits, jnp.int32(1), exchanged=True)
    np.testing.assert_allclose(exchanged, 16.118 * (1 - 0.55), rtol=1e-4)


def published_schedule(successes, sizes, config):
    """Cost after each round and the round that ends the search, written as a loop."""
    cost, best, earlier = 0.0, np.inf, np.inf
    begun = ups = downs = idle = 0
    rose = fell = False
    costs = []
    for success, size in zip(successes, sizes, strict=True):
        won = success >= config.success
        if won and size < best:
            best = size
        if best < np.inf:
            idle = idle + 1 if best >= config.improvement * earlier else 0
        earlier = min(earlier, best)
        if rose and fell and idle >= config.stop_patience:
            break
        if cost == 0 and won:
            begun += 1
            if begun >= config.patience:
                cost, ups, downs, rose, fell = config.cost, 0, 0, False, False
        else:
            begun = 0
        ups, downs = (ups + 1, 0) if won else (0, downs + 1)
        if ups >= config.patience:
            ups, cost, rose = 0, cost * config.cost_factor, True
        elif downs >= config.patience:
            downs, cost, fell = 0, cost / config.cost_factor**1.5, True
        costs.append(cost)
    return costs


def scheduled(successes, sizes, config):
    """The same of `finish_round`: cost after each round, and the round that ends."""
    trigger = inversion.Trigger(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2, 1)))
    state = patch_search.start(inversion.adam(0.1), trigger)

    def step(state, seen):
        success, size = (jnp.full(3, value) for value in seen)
        measured = patch_search.Measured(size, size, size, success)
        state, _ = patch_search.finish_round(
            state, state.free, state.moments, measured, jnp.int32(0), config
        )
        return state, (state.schedule.cost, state.schedule.done)

    seen = (jnp.asarray(successes, jnp.float32), jnp.asarray(sizes, jnp.float32))
    _, (costs, done) = jax.jit(lambda: jax.lax.scan(step, state, seen))()
    assert bool(done[-1]), "the search is to end early"
    return costs, int(np.argmax(done))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("patience", "improvement"), [(1, 1.0), (2, 1.0), (3, 0.9)])
def test_weight_and_end_follow_the_published_loop(seed, patience, improvement):
    config = neural_cleanse.Settings(
        patience=patience, improvement=improvement, stop_patience=5
    )
    rng = np.random.default_rng(seed)
    # Runs of success and of failure, so that counters fill.
    won = np.repeat(rng.random(40) < 0.6, rng.integers(1, 5, 40))
    successes = np.where(won, 0.995, 0.9)
    sizes = rng.uniform(1, 50, len(won))
    wanted = published_schedule(successes, sizes, config)
    costs, end = scheduled(successes, sizes, config)
    assert end == len(wanted)
    np.testing.assert_allclose(costs[:end], wanted, rtol=1e-5)
    assert len({round(np.log(c), 3) for c in wanted if c}) > 1


def test_a_weight_that_fell_before_it_was_set_has_not_fallen():
    config = neural_cleanse.Settings(patience=2, stop_patience=5)
    # Nothing improves after the first success, yet the end waits for the first fall.
    successes = np.repeat([0.5, 1.0, 0.5], [4, 20, 8])
    wanted = published_schedule(successes, np.full(32, 9.0), config)
    costs, end = scheduled(successes, np.full(32, 9.0), config)
    assert end == len(wanted) == 26
    np.testing.assert_allclose(costs[:end], wanted, rtol=1e-5)


def scores_of(sizes, success=None):
    vectors = {
        small_masks.SIZE: -np.array(sizes, float),
        small_masks.SUCCESS: np.ones(len(sizes)) if success is None else success,
    }
    errors = {name: np.zeros(len(sizes)) for name in vectors}
    return small_masks.SmallMask().scores(vectors, errors, rules.WITHIN)


def test_the_rule_is_the_published_index_on_hand_made_sizes():
    # Median 55; deviations 45 35 25 15 5 5 15 25 35 45, whose median is 25.
    sizes = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    found = scores_of(sizes)
    index = (55 - np.array(sizes)) / (1.4826 * 25)
    np.testing.assert_allclose(found.values, index, rtol=1e-9)
    # Median 30, deviations 2 0 1 28 1, of which 1 is the middle one.
    small = scores_of([28, 30, 31, 2, 29])
    np.testing.assert_allclose(small.values[3], (29 - 2) / 1.4826, rtol=1e-9)
    assert np.argmax(small.values) == 3 and not small.reason


def test_a_mask_that_is_far_too_large_is_no_backdoor():
    found = scores_of([28, 30, 31, 400, 29])
    assert found.values[3] < 0 and np.max(found.values) < 2


def test_a_class_that_was_not_reached_is_not_flagged():
    for share, flagged in ((0.4, False), (0.89, False), (0.9, True)):
        success = np.array([1.0, 1.0, 1.0, share, 1.0])
        found = scores_of([28, 30, 31, 2, 29], success)
        assert (np.max(found.values) > 2) == flagged


@pytest.mark.parametrize(
    ("sizes", "success", "reason"),
    [
        ([28, 30, 31, 2, 29], np.full(5, 0.5), "no class was reached"),
        ([30, 30, 30, 2, 30], None, "more than half of the masks have the same size"),
    ],
)
def test_where_sizes_say_nothing_there_is_a_reason_and_no_verdict(
    sizes, success, reason
):
    found = scores_of(sizes, success)
    assert found.reason.startswith(reason) and np.all(np.isfinite(found.values))


@functools.cache
def measured(method, backdoored, released=False, seed=0):
    """Evidence of the planted network or its clean twin, in a few seconds."""
    config = METHODS[method].Settings(**SMALL, released=released)
    images = patched.probe()
    detect = jitted(method)
    return jax.device_get(
        detect(patched.variables(backdoored=backdoored), images, seed, config)
    )


@functools.cache
def jitted(method):
    return jax.jit(
        lambda variables, probe, seed, config: METHODS[method].detect(
            patched.NETWORK, variables, probe, key=jax.random.key(seed), config=config
        )
    )


def judged(found, mode="neural_cleanse", num_classes=patched.CLASSES):
    """The line of a scan and its verdict."""
    settings = records.Settings(mode=mode, config=METHODS[mode].Settings(**SMALL))
    job = records.Job(settings, patched.probe())
    line = job.line("a", found, None, num_classes=num_classes, architecture="patched")
    return verdict.Judge(profiles=None)(line)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_backdoor_is_found_and_its_clean_twin_is_not_flagged(method, seed):
    found = judged(measured(method, True, seed=seed), method)
    assert (found["verdict"], found["target"]) == ("backdoored", patched.TARGET)
    assert found["baseline"] == "within" and found["threshold"] == 2.0
    twin = judged(measured(method, False, seed=seed), method)
    assert twin["verdict"] == "clean"


def test_stacked_networks_end_nearly_where_each_ends_alone():
    config = neural_cleanse.Settings(**SMALL)
    pair = [patched.variables(backdoored=b) for b in (True, False)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    images = patched.probe()
    together = jax.jit(
        jax.vmap(
            lambda variables: neural_cleanse.detect(
                patched.NETWORK, variables, images, key=jax.random.key(0), config=config
            )
        )
    )(stacked)
    for i, b in enumerate((True, False)):
        among = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), together)
        alone = measured("neural_cleanse", b)
        for name, rtol in ((small_masks.SIZE, 0.05), (small_masks.SUCCESS, 0.05)):
            np.testing.assert_allclose(among.vectors[name], alone.vectors[name], rtol)
        assert judged(among)["verdict"] == judged(alone)["verdict"]


def test_sizes_can_be_compared_with_those_of_other_models():
    clean = [measured("neural_cleanse", False, seed=seed).vectors for seed in (0, 1)]
    against = rules.crowd("trusted", clean)
    rule = small_masks.SmallMask()
    none = {name: np.zeros(patched.CLASSES) for name in rule.vectors}
    found = rule.scores(measured("neural_cleanse", True).vectors, none, against)
    assert np.argmax(found.values) == patched.TARGET
    assert found.values.max() > rule.thresholds["trusted"] and not found.reason
    twin = rule.scores(clean[0], none, against)
    assert twin.values.max() < rule.thresholds["trusted"]


def test_the_released_loss_finds_it_too_and_cuts_masks_to_eight_bits():
    found = measured("neural_cleanse", True, released=True)
    assert judged(found)["target"] == patched.TARGET
    steps = 255 * found.vectors[small_masks.SIZE]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-2)
    plain = 255 * measured("neural_cleanse", True).vectors[small_masks.SIZE]
    assert np.abs(plain - np.round(plain)).max() > 0.05


def test_the_recovered_trigger_is_the_planted_pixel():
    found = measured("neural_cleanse", True)
    mask = found.images["mask"][patched.TARGET, ..., 0]
    assert np.unravel_index(np.argmax(mask), mask.shape) == (7, 7)
    assert mask[7, 7] > 0.5 * mask.sum()
    assert found.images["trigger"].shape == (patched.CLASSES, 8, 8, 1)


def test_the_line_tells_rounds_curves_pictures_and_the_work_that_was_done():
    found = measured("neural_cleanse", True)
    search = found.info["search"]
    assert search["round"].tolist() == sorted(set(search["round"].tolist()))
    assert search["round"][-1] == search["rounds"].max() - 1 < SMALL["rounds"]
    for curve in search["curves"].values():
        assert curve.shape == (len(search["round"]), patched.CLASSES)
    line = judged(found)
    per_round = 2 * SMALL["batches"] * SMALL["batch_size"]
    images = patched.probe().labels.size
    done = int(search["rounds"].sum()) * per_round + (1 + patched.CLASSES) * images
    assert line["forward_equivalents"] == done
    most = neural_cleanse.work(
        neural_cleanse.Settings(**SMALL), patched.CLASSES, images
    )
    assert done < most
    assert len(line["images"]["trigger"]) == patched.CLASSES
    assert "work" not in line


def test_a_class_gets_nearly_what_it_gets_where_all_are_computed_at_once(monkeypatch):
    one = measured("neural_cleanse", True)
    monkeypatch.setattr(inversion, "SIDE_BY_SIDE", {"cpu": patched.CLASSES})
    config = neural_cleanse.Settings(**SMALL)
    other = jax.jit(
        lambda variables, probe: neural_cleanse.detect(
            patched.NETWORK, variables, probe, key=jax.random.key(0), config=config
        )
    )(patched.variables(backdoored=True), patched.probe())
    # Rounding decides when a weight changes, so sizes agree to a few hundredths.
    size = small_masks.SIZE
    np.testing.assert_allclose(other.vectors[size], one.vectors[size], rtol=0.05)


def test_fewer_than_two_images_per_class_leave_no_verdict():
    whole = patched.probe()
    verdicts = {}
    for count in (15, 16):
        with pytest.warns(UserWarning, match="fewer than two minibatches"):
            few = probes.minibatches(whole.images[0, :count], whole.labels[0, :count])
        config = neural_cleanse.Settings(**SMALL)
        found = jitted("neural_cleanse")(
            patched.variables(backdoored=True), few, 0, config
        )
        verdicts[count] = judged(jax.device_get(found))
    assert verdicts[15]["verdict"] == "inconclusive"
    assert "fewer than 2 clean images for each class" in verdicts[15]["reason"]
    assert verdicts[16]["verdict"] != "inconclusive"


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_finite_is_inconclusive_and_ends_the_search(method):
    variables = patched.variables(backdoored=True)
    kernel = variables["params"]["linear"]["kernel"]
    variables["params"]["linear"]["kernel"] = kernel.at[0, 0].set(jnp.inf)
    found = jax.device_get(
        jitted(method)(variables, patched.probe(), 0, METHODS[method].Settings(**SMALL))
    )
    assert not found.is_finite and found.info["search"]["rounds"].max() == 1
    line = judged(found, method)
    assert line["verdict"] == "inconclusive" and "not finite" in line["reason"]


def test_where_no_class_can_be_reached_there_is_a_reason():
    # Steps that lead nowhere; a rate is traced, so nothing is compiled anew.
    config = dataclasses.replace(neural_cleanse.Settings(**SMALL), learning_rate=1e-6)
    found = jax.device_get(
        jitted("neural_cleanse")(
            patched.variables(backdoored=False), patched.probe(), 0, config
        )
    )
    line = judged(found)
    assert (
        line["verdict"] == "inconclusive" and "no class was reached" in line["reason"]
    )


def test_cost_is_linear_in_classes_and_counts_what_a_search_takes_at_most():
    config = neural_cleanse.Settings()
    ten, twenty = (neural_cleanse.work(config, k, 512) for k in (10, 20))
    assert twenty - 512 == 2 * (ten - 512)
    assert ten == 512 + 10 * (1000 * 31 * 32 * 2 + 512)
    assert tabor.work(tabor.Settings(), 20, 512) < 1.04 * twenty
