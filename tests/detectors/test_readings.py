"""One vector against a curve of clean models, against numbers derived by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ban_jax.detectors import readings, rules

EACH = settings(deadline=None, derandomize=True, max_examples=100)
NO_ERROR = np.zeros(5)
CURVE = np.array([0.0, 1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("scale", [0.25, 1.0, 7.0])
def test_the_scale_of_an_affine_copy_is_found(scale):
    assert readings.slope(scale * CURVE - 3, CURVE) == pytest.approx(scale)


def test_one_odd_class_does_not_bend_the_scale():
    # Of ten pairs six are among the first four classes and have the slope 2; the pairs
    # with the odd one have 11/4, 9/3, 7/2 and 5: the middle two of all ten are 2.
    assert readings.slope(np.array([1.0, 3, 5, 7, 12]), CURVE) == 2.0
    # Least squares would give 2.6.
    assert np.polyfit(CURVE, [1.0, 3, 5, 7, 12], 1)[0] == pytest.approx(2.6)


@EACH
@given(arrays.arrays(np.float64, st.integers(5, 40), elements=st.floats(-1e3, 1e3)))
def test_deviations_are_of_all_but_the_one(values):
    by_hand = [np.std(np.delete(values, i), ddof=1) for i in range(len(values))]
    found = readings._deviations_of_others(values)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9, atol=1e-4)


def test_a_scale_below_zero_is_none():
    assert readings.slope(-CURVE, CURVE) == 0.0


def test_classes_that_a_curve_does_not_tell_apart_have_no_slope():
    assert readings.slope(CURVE, np.ones(5)) == 0.0
    # Pairs of equal classes are left out: (0,2) 4, (0,3) 6, (1,2) 2, (1,3) 4.
    assert readings.slope(np.array([0.0, 2, 4, 6]), np.array([0.0, 0, 1, 1])) == 4.0


def test_a_class_is_measured_in_the_spread_of_the_others():
    found = readings.read(np.array([1.0, 2, 3, 4, 10]), NO_ERROR, None)
    # Class 4: the others' mean is 2.5 and their variance 5/3, times 1 + 1/4 is 25/12:
    # 7.5 / (5 / sqrt(12)) = 3 sqrt(3).
    assert found.z[4] == pytest.approx(3 * math.sqrt(3))
    assert found.units[4] == pytest.approx(math.sqrt(25 / 12))
    # Class 0: mean 4.75, variance 38.75 / 3.
    assert found.z[0] == pytest.approx(-3.75 / math.sqrt(38.75 / 3 * 5 / 4))


def test_the_odd_class_does_not_hide_itself():
    # Of five numbers none is further from their mean than 4 / sqrt(5) deviations.
    found = readings.read(np.array([1.0, 2, 3, 4, 1000]), NO_ERROR, None)
    assert found.z[4] > 100 > 4 / math.sqrt(5)


def test_what_follows_the_curve_is_not_odd():
    noise = np.array([0.1, -0.1, 0.0, 0.1, -0.1])
    found = readings.read(5 * CURVE + 2 + noise, NO_ERROR, CURVE)
    assert np.max(np.abs(found.z)) < 2.5
    # As it is, the largest class of the curve would stand out by the curve alone.
    steep = np.array([0.0, 0.1, 0.0, 0.1, 9.0])
    found = readings.read(steep + noise, NO_ERROR, steep)
    assert found.z[4] < 2 < 50 < readings.read(steep + noise, NO_ERROR, None).z[4]


def test_a_copy_of_the_curve_leaves_nothing():
    found = readings.read(3 * CURVE + 1, NO_ERROR, CURVE)
    np.testing.assert_allclose(found.z, np.zeros(5), atol=1e-9)
    np.testing.assert_allclose(found.units, rules.FLOOR * math.sqrt(1.25))


def test_a_class_above_the_curve_is_odd_and_one_below_it_is_not():
    bumped = 2 * CURVE + np.array([0.1, 0, 0.1, 0, 3.0])
    assert np.argmax(readings.read(bumped, NO_ERROR, CURVE).z) == 4
    dented = 2 * CURVE + np.array([0.1, 0, 0.1, 0, -3.0])
    assert readings.read(dented, NO_ERROR, CURVE).z[4] < -10


def test_a_spread_smaller_than_the_errors_is_no_unit():
    found = readings.read(np.array([0.0, 0, 0, 0, 9]), np.full(5, 0.5), None)
    assert found.z[4] == pytest.approx(9 / (0.5 * math.sqrt(1.25)))


def test_classes_that_were_not_measured_are_left_out():
    whole = readings.read(np.array([1.0, 2, 3, 4, 10]), NO_ERROR, None)
    vector = np.array([1.0, np.nan, 2, 3, 4, 10])
    found = readings.read(vector, np.zeros(6), None)
    assert np.isnan(found.z[1]) and np.isnan(found.units[1])
    np.testing.assert_allclose(np.delete(found.z, 1), whole.z)
    np.testing.assert_allclose(np.delete(found.units, 1), whole.units)
    curve = np.array([0.0, 1, 2, 3, 4, np.nan])
    found = readings.read(np.array([0.0, 1, 2, 3, 5, 99]), np.zeros(6), curve)
    assert np.isnan(found.z[5]) and np.argmax(found.z[:5]) == 4


@pytest.mark.parametrize(
    "vector, error, centre",
    [
        # The deviation of 1 2 3 4 5 is the root of 2, 1.414.
        ([1.0, 2, 3, 4, 5], 1.42, None),
        ([1.0, 2, 3, 4, 5], [0.0, 0.0, 1.42, 1.42, 1.42], None),
        ([0.3] * 5, 0.0, None),
        ([1.0, 2, 3, 4, np.nan], 0.0, None),
        ([1.0, 2, 3, 4, 9], 0.0, [1.0, 2, 3, 4, np.nan]),
    ],
)
def test_a_vector_without_spread_beyond_chance_or_with_few_classes_is_void(
    vector, error, centre
):
    centre = None if centre is None else np.array(centre)
    assert readings.read(np.array(vector), np.full(5, error), centre) is None


@pytest.mark.parametrize("errors", [[1.41] * 5, [1.41, 1.41, 1.41, 9.0, 9.0]])
def test_a_spread_just_above_the_errors_is_not_void(errors):
    vector = np.array([1.0, 2, 3, 4, 5])
    assert readings.read(vector, np.array(errors), None) is not None


def test_scatter_starts_from_eight_models_that_scatter_by_one():
    found = readings.class_spreads([{"a": np.array([3.0, 0.0])}])["a"]
    np.testing.assert_allclose(found, np.sqrt([(9 + 8) / 9, 8 / 9]))


def test_odds_are_told_apart_from_a_two_hundredth_on():
    vector = np.array([0.001, 0.01, 0.5, 0.999, np.nan])
    found = readings.above(vector, np.full(5, 0.5))
    expected = np.log([1 / 199, 1 / 99, 1.0, 199, np.nan])
    np.testing.assert_allclose(found, expected, atol=1e-12)


NUMBERS = st.integers(-1000, 1000).map(lambda x: x / 100)
VECTORS = arrays.arrays(np.float64, 7, elements=NUMBERS)
SPREAD = VECTORS.filter(lambda v: np.std(v) > 0.1)


@EACH
@given(SPREAD, VECTORS, st.integers(1, 1000), NUMBERS)
def test_a_models_own_scale_and_offset_do_not_matter(vector, curve, scale, offset):
    factor = scale / 50
    one = readings.read(vector, np.full(7, 0.05), curve)
    other = readings.read(factor * vector + offset, np.full(7, 0.05 * factor), curve)
    np.testing.assert_allclose(other.z, one.z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.units, factor * one.units, rtol=1e-6)


@EACH
@given(SPREAD, VECTORS, st.permutations(range(7)))
def test_renamed_classes_rename_what_is_said(vector, curve, order):
    order = np.array(order)
    one = readings.read(vector, np.full(7, 0.05), curve)
    other = readings.read(vector[order], np.full(7, 0.05), curve[order])
    np.testing.assert_allclose(other.z, one.z[order], atol=1e-9)
