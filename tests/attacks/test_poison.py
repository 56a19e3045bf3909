"""Who is poisoned, what it is called, and how success is counted."""

import numpy as np
import pytest

from ban_jax import attacks
from ban_jax.attacks import poison
from ban_jax.attacks.poison import COVER, POISONED, PoisonSpec, Policy

LABELS = np.random.RandomState(0).randint(0, 5, 203)
COUNTS = np.bincount(LABELS)
ALL = Policy(rate=0.1)
SOURCE_SPECIFIC = Policy(rate=1.0, eligible="victim", modes=("one_to_one",))


def draw(spec, policy=ALL, *, batch_size=16, seed=0):
    return poison.plan(LABELS, 5, spec, policy, batch_size=batch_size, seed=seed)


def number(places, role):
    return int(np.sum(places == role))


@pytest.mark.parametrize(
    ("eligible", "rate", "poisoned"),
    [
        ("all", 0.29, int(0.29 * 203)),
        ("all", 1.0, 203),
        ("others", 0.29, int(0.29 * (203 - COUNTS[2]))),
        ("others", 1.0, 203 - COUNTS[2]),
        ("target", 0.1, 20),  # of all images
        ("target", 0.5, COUNTS[2]),  # but at most the class
    ],
)
def test_the_floor_of_the_rate_of_the_eligible_images_is_poisoned(
    eligible, rate, poisoned
):
    found = draw(PoisonSpec(rate, target=2), Policy(rate=0.1, eligible=eligible)).roles
    assert number(found, POISONED) == poisoned
    assert number(found, COVER) == 0


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_source_specific_attacks_poison_their_victim_alone(rate):
    spec = PoisonSpec(rate, target=2, mode="one_to_one", victim=3)
    found = draw(spec, SOURCE_SPECIFIC).roles
    assert number(found, POISONED) == int(rate * COUNTS[3])
    assert set(LABELS[found == POISONED]) == {3}


@pytest.mark.parametrize(
    ("eligible", "classes"),
    [("all", {0, 1, 2, 3, 4}), ("others", {0, 1, 3, 4}), ("target", {2})],
)
def test_only_images_of_eligible_classes_are_poisoned(eligible, classes):
    found = draw(PoisonSpec(0.5, target=2), Policy(rate=0.1, eligible=eligible)).roles
    assert set(LABELS[found == POISONED]) == classes


def test_no_class_is_left_out_when_every_class_is_moved():
    policy = Policy(rate=0.1, eligible="others")
    found = draw(PoisonSpec(0.4, target=2, mode="all_to_all"), policy).roles
    assert number(found, POISONED) == int(0.4 * 203)
    assert set(LABELS[found == POISONED]) == {0, 1, 2, 3, 4}


def test_a_rate_that_floating_point_puts_just_below_a_whole_number_counts_as_it():
    labels = np.zeros(100, int)
    spec = PoisonSpec(0.29, mode="all_to_all")  # 0.29 * 100 = 28.999999999999996
    plan = poison.plan(labels, 5, spec, ALL, batch_size=100, seed=0)
    assert number(plan.roles, POISONED) == 29
    per_batch = Policy(rate=0.1, per_batch=True)
    plan = poison.plan(labels, 5, spec, per_batch, batch_size=100, seed=0)
    assert number(plan.slots, POISONED) == 29


@pytest.mark.parametrize(("cover", "covers"), [(0.5, 10), (1.0, 20), (2.0, 40)])
def test_cover_images_are_the_floor_of_their_share_of_the_poisoned(cover, covers):
    found = draw(PoisonSpec(0.1, target=2), Policy(rate=0.1, cover=cover)).roles
    assert number(found, POISONED) == 20
    assert number(found, COVER) == covers


def test_cover_images_come_from_the_eligible_classes():
    policy = Policy(rate=0.1, cover=1.0, eligible="others")
    found = draw(PoisonSpec(0.5, target=2), policy).roles
    assert set(LABELS[found != poison.CLEAN]) == {0, 1, 3, 4}


def test_slots_of_a_batch_are_poisoned_first_then_cover_then_clean():
    policy = Policy(rate=0.1, cover=2.0, per_batch=True)
    plan = draw(PoisonSpec(0.1, target=2), policy, batch_size=128)
    assert plan.slots.tolist() == [POISONED] * 12 + [COVER] * 24 + [0] * 92
    assert not plan.roles.any()


def test_sets_drawn_once_leave_all_slots_clean():
    plan = draw(PoisonSpec(0.1, target=2), Policy(rate=0.1, cover=1.0))
    assert plan.roles.any() and not plan.slots.any()


@pytest.mark.parametrize("policy", [ALL, Policy(rate=0.1, cover=1, per_batch=True)])
def test_a_rate_of_zero_touches_no_image(policy):
    plan = draw(PoisonSpec(0.0, target=2), policy)
    assert not plan.roles.any() and not plan.slots.any()


def test_a_plan_follows_its_seed():
    policy = Policy(rate=0.3, cover=1.0)
    first, again, other = (
        draw(PoisonSpec(0.3, target=1), policy, seed=seed) for seed in (3, 3, 4)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.any(first.roles != other.roles)


def test_a_plan_does_not_draw_from_the_global_generator():
    np.random.seed(1)
    before = draw(PoisonSpec(0.3, target=1)).roles
    np.random.seed(2)
    np.testing.assert_array_equal(draw(PoisonSpec(0.3, target=1)).roles, before)


@pytest.mark.parametrize(
    ("spec", "policy", "mapping"),
    [
        (PoisonSpec(0.1, target=2), ALL, [2, 2, 2, 2, 2]),
        (PoisonSpec(0.1, mode="all_to_all"), ALL, [1, 2, 3, 4, 0]),
        (
            PoisonSpec(0.1, target=4, mode="one_to_one", victim=0),
            SOURCE_SPECIFIC,
            [4, 4, 4, 4, 4],
        ),
    ],
)
def test_poisoned_images_of_each_class_get_the_label_of_the_mode(spec, policy, mapping):
    plan = draw(spec, policy)
    assert plan.mapping.tolist() == mapping
    assert plan.mapping.dtype == np.int32 and plan.roles.dtype == np.int8


def test_success_to_one_leaves_out_the_targets_own_images():
    labels = np.array([2, 2, 0, 1, 3])
    predictions = np.array([2, 2, 2, 1, 3])
    spec = PoisonSpec(0.1, target=2)
    assert poison.success_rate(predictions, labels, 5, spec) == pytest.approx(1 / 3)


def test_success_to_one_may_count_the_targets_own_images():
    labels = np.array([2, 2, 0, 1, 3])
    predictions = np.array([2, 2, 2, 1, 3])
    spec = PoisonSpec(0.1, target=2)
    found = poison.success_rate(predictions, labels, 5, spec, count_target=True)
    assert found == pytest.approx(3 / 5)


@pytest.mark.parametrize("count_target", [False, True])
def test_success_all_to_all_leaves_out_none(count_target):
    labels = np.array([0, 1, 4, 4])
    predictions = np.array([1, 1, 0, 4])
    spec = PoisonSpec(0.1, target=0, mode="all_to_all")
    found = poison.success_rate(predictions, labels, 5, spec, count_target=count_target)
    assert found == 0.5


@pytest.mark.parametrize("count_target", [False, True])
def test_success_one_to_one_counts_the_victims_alone(count_target):
    labels = np.array([3, 3, 3, 2, 0, 0])
    predictions = np.array([2, 2, 3, 2, 2, 2])
    spec = PoisonSpec(0.1, target=2, mode="one_to_one", victim=3)
    found = poison.success_rate(predictions, labels, 5, spec, count_target=count_target)
    assert found == pytest.approx(2 / 3)


def test_success_without_a_countable_image_is_not_a_number():
    spec = PoisonSpec(0.1, target=2)
    assert np.isnan(poison.success_rate(np.array([2]), np.array([2]), 5, spec))


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_rate_outside_the_unit_interval_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\]"):
        draw(PoisonSpec(rate, target=0))


@pytest.mark.parametrize("target", [-1, 5, None])
@pytest.mark.parametrize("mode", ["all_to_one", "one_to_one"])
def test_a_target_that_is_no_class_is_refused(target, mode):
    policy = Policy(rate=0.1, modes=("all_to_one", "one_to_one"))
    with pytest.raises(ValueError, match=r"class in 0\.\.4, got"):
        draw(PoisonSpec(0.1, target=target, mode=mode, victim=1), policy)


@pytest.mark.parametrize("victim", [None, -1, 5, 2])
def test_a_victim_that_is_no_class_or_the_target_itself_is_refused(victim):
    spec = PoisonSpec(0.1, target=2, mode="one_to_one", victim=victim)
    with pytest.raises(ValueError, match="victim class in 0..4 other than the target"):
        draw(spec, SOURCE_SPECIFIC)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("sig", "all_to_all"),
        ("adap_blend", "all_to_all"),
        ("ssdt", "all_to_one"),
        ("ssdt", "all_to_all"),
        ("badnets", "one_to_one"),
        ("wanet", "one_to_one"),
        ("iad", "one_to_one"),
    ],
)
def test_a_mode_the_attack_is_not_defined_for_is_refused(name, mode):
    spec = PoisonSpec(0.1, target=2, mode=mode, victim=1)
    with pytest.raises(ValueError, match=f"is defined for .*, not for {mode}"):
        draw(spec, attacks.create(name).policy)


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        (Policy(rate=0.1, cover=2.0), "eligible ones"),
        (Policy(rate=0.1, cover=2.0, per_batch=True), "of a batch"),
    ],
)
def test_more_poisoned_and_cover_images_than_there_are_is_refused(policy, place):
    with pytest.raises(ValueError, match=f"do not fit into .* {place}"):
        draw(PoisonSpec(0.4, target=2), policy)


@pytest.mark.parametrize(
    ("name", "poisoned", "cover"),
    [("wanet", 12, 24), ("bpp", 25, 25), ("iad", 12, 12)],
)
def test_per_batch_attacks_fill_the_slots_of_their_released_code(name, poisoned, cover):
    attack = attacks.create(name)
    spec = PoisonSpec(attack.policy.rate, target=0)
    plan = draw(spec, attack.policy, batch_size=128)
    assert number(plan.slots, POISONED) == poisoned
    assert number(plan.slots, COVER) == cover


@pytest.mark.parametrize(
    ("name", "poisoned", "cover"),
    [
        ("badnets", 2250, 0),
        ("blend", 2250, 0),
        ("sig", 5000, 0),
        ("adap_blend", 150, 150),
    ],
)
def test_sets_drawn_once_have_the_sizes_of_their_released_code(name, poisoned, cover):
    labels = np.arange(50_000) % 10
    attack = attacks.create(name)
    spec = PoisonSpec(attack.policy.rate, target=0)
    plan = poison.plan(labels, 10, spec, attack.policy, batch_size=128, seed=0)
    assert number(plan.roles, POISONED) == poisoned
    assert number(plan.roles, COVER) == cover
