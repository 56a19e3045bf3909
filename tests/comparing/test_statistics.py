"""Shares, areas and curves on numbers made by hand."""

import numpy as np
import pytest

from ban_jax.comparing import statistics


def test_the_exact_interval_is_clopper_and_pearsons():
    # 0 of n: the upper end is 1 - (0.05 / 2)^(1 / n).
    found = statistics.share(0, 4)
    assert (found.value, found.low) == (0, 0)
    assert np.isclose(found.high, 1 - 0.025**0.25)
    found = statistics.share(8, 10)  # Clopper and Pearson, 1934, as tables give it
    assert np.allclose((found.low, found.high), (0.4439, 0.9748), atol=1e-4)


def test_a_share_of_none_is_no_number():
    assert statistics.share(0, 0) == (0, 0, None, None, None)


def test_the_area_counts_pairs_and_ties_half():
    assert statistics.auc([3, 2], [1, 2]) == (1 + 1 + 1 + 0.5) / 4
    assert statistics.auc([1.0], [2.0]) == 0
    found = statistics.area([3, 4, 5], [0, 1, 2])
    assert found == (1, 1, 1)
    assert statistics.area([3, 4], []) is None
    mixed = statistics.area([0, 2, 4, 6], [1, 3, 5])
    assert mixed.low < mixed.value < mixed.high


def test_the_areas_interval_holds_95_per_cent_of_what_drawing_again_gives():
    """Of a hundred clean models as many are below as a fair coin gives heads: the
    quantiles of its distribution are 40 and 60."""
    found = statistics.area([0.0], [-1.0, 1.0] * 50)
    assert found.value == 0.5
    np.testing.assert_allclose((found.low, found.high), (0.4, 0.6), atol=0.01001)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_that_under_the_curve(seed):
    rng = np.random.default_rng(seed)
    bad, good = rng.integers(0, 6, 12) + 1.0, rng.integers(0, 6, 9)
    points = np.array(statistics.roc(bad, good))
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1]
    assert np.all(np.diff(points, axis=0) >= 0)
    under = np.trapezoid(points[:, 1], points[:, 0])
    assert np.isclose(under, statistics.auc(bad, good))
