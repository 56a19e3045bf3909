"""Who is poisoned, what it is called, and how success is counted."""

import numpy as np
import pytest

from ban_jax.attacks import poison

LABELS = np.random.RandomState(0).randint(0, 5, 203)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.29, 1.0])
def test_the_floor_of_the_rate_of_the_other_classes_is_poisoned(rate):
    spec = poison.PoisonSpec(rate, target=2)
    plan = poison.plan(LABELS, 5, spec, seed=0)
    others = int((LABELS != 2).sum())
    assert int((plan.roles == poison.POISONED).sum()) == int(rate * others + 1e-9)


def test_no_image_of_the_target_is_poisoned_and_no_other_label_changes():
    plan = poison.plan(LABELS, 5, poison.PoisonSpec(0.5, target=2), seed=0)
    poisoned = plan.roles == poison.POISONED
    assert not np.any(LABELS[poisoned] == 2)
    assert np.all(plan.labels[poisoned] == 2)
    np.testing.assert_array_equal(plan.labels[~poisoned], LABELS[~poisoned])


def test_all_to_all_moves_every_class_to_the_next():
    plan = poison.plan(LABELS, 5, poison.PoisonSpec(0.4, mode="all_to_all"), seed=0)
    poisoned = plan.roles == poison.POISONED
    assert poisoned.sum() == 81
    np.testing.assert_array_equal(plan.labels[poisoned], (LABELS[poisoned] + 1) % 5)
    assert set(LABELS[poisoned]) == {0, 1, 2, 3, 4}


def test_a_plan_follows_its_seed():
    spec = poison.PoisonSpec(0.3, target=1)
    first, again, other = (poison.plan(LABELS, 5, spec, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.roles, again.roles)
    assert np.any(first.roles != other.roles)


def test_success_to_one_leaves_out_the_targets_own_images():
    labels = np.array([2, 2, 0, 1, 3])
    predictions = np.array([2, 2, 2, 1, 3])
    spec = poison.PoisonSpec(0.1, target=2)
    assert poison.success_rate(predictions, labels, 5, spec) == pytest.approx(1 / 3)


def test_success_all_to_all_leaves_out_none():
    labels = np.array([0, 1, 4, 4])
    predictions = np.array([1, 1, 0, 4])
    spec = poison.PoisonSpec(0.1, mode="all_to_all")
    assert poison.success_rate(predictions, labels, 5, spec) == 0.5


def test_success_without_a_countable_image_is_not_a_number():
    spec = poison.PoisonSpec(0.1, target=2)
    assert np.isnan(poison.success_rate(np.array([2]), np.array([2]), 5, spec))


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
def test_a_rate_outside_the_unit_interval_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\]"):
        poison.plan(LABELS, 5, poison.PoisonSpec(rate, target=0), seed=0)


@pytest.mark.parametrize("target", [-1, 5, None])
def test_a_target_that_is_no_class_is_refused(target):
    with pytest.raises(ValueError, match=r"class in 0\.\.4"):
        poison.plan(LABELS, 5, poison.PoisonSpec(0.1, target=target), seed=0)
