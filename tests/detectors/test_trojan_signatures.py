"""Dixon's test of the last layer, and the baselines of rules that are published ones."""

import numpy as np
import pytest
from scipy import stats

from ban_jax import verdict
from ban_jax.detectors import rules, trojan_signatures
from ban_jax.records import record


def scores(vector):
    vector = np.array(vector, float)
    return trojan_signatures.DETECTOR.rule.scores(
        {"last_layer": vector}, {"last_layer": np.zeros(len(vector))}, rules.WITHIN
    )


def test_the_classical_table_of_five_per_cent_is_met():
    # Dixon, 1951: r10, one-sided 5 %.
    for count, point in ((3, 0.941), (5, 0.642), (8, 0.468), (10, 0.412), (30, 0.260)):
        assert abs(trojan_signatures.critical(count) - point) < 0.002
    assert trojan_signatures.critical(10_000) == trojan_signatures.CRITICAL[1000]
    between = trojan_signatures.critical(150)
    assert trojan_signatures.CRITICAL[200] < between < trojan_signatures.CRITICAL[100]


def test_it_fires_for_five_per_cent_of_normal_means():
    draws = stats.norm.rvs(size=(4000, 10), random_state=3)
    fired = np.mean([np.max(scores(one).values) > 1.0 for one in draws])
    assert 0.04 < fired < 0.06


# Eight values: the critical ratio is 0.468 (0.467 here).
@pytest.mark.parametrize(("top", "is_flagged"), [(1.9, True), (1.8, False)])
def test_the_gap_over_the_range_decides(top, is_flagged):
    vector = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0, top]
    found = scores(vector)
    assert np.isclose(found.values[7], (top - 1) / top / trojan_signatures.CRITICAL[8])
    assert (np.max(found.values) > 1.0) == is_flagged
    assert np.argmax(found.values) == 7 and np.all(found.values[:7] < 0)


def test_a_class_that_is_too_low_is_not_flagged():
    assert np.max(scores([1.0, 1.1, 0.9, 1.05, 0.95, 1.2, -9.0]).values) < 1.0


def test_equal_means_are_no_verdict():
    assert np.all(np.isnan(scores([0.5] * 10).values))


def line(seed, **changes):
    vector = np.random.default_rng(seed).normal(size=10)
    known = {
        "sha256": f"{seed:064x}",
        "key": f"{seed}",
        "architecture": "resnet18",
        "num_classes": 10,
        "mode": "trojan_signatures",
        "config": {},
        "config_hash": "c",
        "seed": 0,
        "vectors": {"last_layer": vector.tolist()},
        "errors": {"last_layer": [0.0] * 10},
        **changes,
    }
    return record.empty(f"{seed}.pt", **known)


def test_the_published_rule_decides_unless_something_else_is_asked_for():
    crowd = [line(seed) for seed in range(12)]
    for one in verdict.judge_all(crowd):
        assert one["baseline"] == "within" and one["notes"] == []
        assert "Dixon's ratio" in one["reason"] and one["z"] is None
    for one in verdict.judge_all(crowd, baseline="population"):
        assert one["baseline"] == "population" and one["z"] is not None
    others = [line(seed) for seed in range(20, 25)]
    (found, *_) = verdict.judge_all(crowd, trusted=others)
    assert found["baseline"] == "trusted"


def test_other_detectors_are_still_compared_with_the_crowd():
    crowd = [line(seed, mode="weights") for seed in range(40, 52)]
    assert {one["baseline"] for one in verdict.judge_all(crowd)} == {"population"}
