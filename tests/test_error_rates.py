"""Grades, intervals, p-values and false shares, against numbers derived by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ban_jax import verdict
from ban_jax.baselines import multiple, profile
from ban_jax.detectors import rules
from tests.baselines import made

EACH = settings(deadline=None, derandomize=True, max_examples=100)
AGAINST = rules.Baseline(
    "profile",
    {name: np.zeros(5) for name in "ab"},
    {name: 1.0 for name in "ab"},
    6,
    name="six models",
)
"""Flat curves: vectors are read as they are."""
ODD = {"a": [1.0, 2, 3, 4, 10], "b": [1.0, 2, 3, 4, 10]}
"""Class 4 scores 3 sqrt(3), see `tests.detectors.test_witnesses`."""
SCORE = 3 * 3**0.5


@pytest.fixture(autouse=True, scope="module")
def made_up_mode():
    """Forgotten afterwards."""
    with made.known():
        yield


def judged(null=(), threshold=None, **changes):
    against = dataclasses.replace(AGAINST, null=tuple(null))
    return verdict.judge(made.evidence(ODD, **changes), against, threshold)


# --- grades


@pytest.mark.parametrize(
    "score, lower, grade",
    [
        (3.0001, 2.0, "backdoored"),
        (3.0, 2.0, "suspicious"),
        (2.0001, 2.0, "suspicious"),
        (2.0, 2.0, "clean"),
        (-1.0, 2.0, "clean"),
        (3.0, None, "clean"),
        (3.0001, None, "backdoored"),
    ],
)
def test_a_score_must_be_above_a_limit_to_pass_it(score, lower, grade):
    assert verdict.grade(score, 3.0, lower) == grade


def test_a_verdict_is_the_grade_of_its_score(monkeypatch):
    rule = made.DETECTOR.rule
    found = judged()
    assert found["score"] == pytest.approx(SCORE) and found["target"] == 4
    assert found["verdict"] == "backdoored" and "above the thr" in found["reason"]
    monkeypatch.setitem(rule.thresholds, "profile", found["score"])
    found = judged()
    assert found["verdict"] == "suspicious"
    assert "not above the threshold 5.2" in found["reason"]
    assert found["reason"].endswith(", but above 2.0")
    monkeypatch.setitem(rule.suspicious, "profile", found["score"])
    assert judged()["verdict"] == "clean"
    monkeypatch.delitem(rule.suspicious, "profile")
    found = judged()
    assert found["verdict"] == "clean" and found["suspicious_above"] is None


def test_a_threshold_of_ones_own_leaves_no_room_for_suspicion():
    found = judged(threshold=SCORE + 0.1)
    assert found["verdict"] == "clean" and found["suspicious_above"] is None
    assert found["threshold_source"] == "flag"
    assert judged(threshold=SCORE - 0.1)["verdict"] == "backdoored"


def test_the_interval_is_two_standard_errors_to_either_side():
    errors = {"a": [0.5] * 5, "b": [0.5] * 5}
    found = judged(errors=errors)
    # The unit of class 4 is the root of 25 / 12.
    error = 0.5 / (25 / 12) ** 0.5
    assert found["standard_error"] == pytest.approx(error)
    low, high = found["interval"]
    assert low == pytest.approx(SCORE - 1.96 * error)
    assert high == pytest.approx(SCORE + 1.96 * error)


# --- p-values


@pytest.mark.parametrize(
    "null, p",
    [
        # Of m clean scores those at least as large as this one, and one more.
        ([1.0, 2.0, 3.0], 1 / 4),
        ([1.0, 2.0, 6.0], 2 / 4),
        ([6.0, 7.0, 8.0], 4 / 4),
        ([1.0] * 99, 1 / 100),
        ([6.0], 2 / 2),
    ],
)
def test_p_is_the_share_of_clean_models_with_such_a_score(null, p):
    found = judged(null)
    assert found["p_value"] == pytest.approx(p)
    assert found["p_models"] == len(null)


def test_a_clean_score_that_is_the_same_counts():
    score = judged()["score"]
    assert judged([score, 0.0, 0.0])["p_value"] == 2 / 4
    assert judged([np.nextafter(score, 0), 0.0, 0.0])["p_value"] == 1 / 4


@EACH
@given(st.lists(st.floats(-10, 10), max_size=30))
def test_p_is_never_below_what_so_many_models_can_tell(null):
    found = judged(null)
    if not null:
        assert found["p_value"] is None and found["p_models"] == 0
    else:
        assert 1 / (len(null) + 1) <= found["p_value"] <= 1


def test_without_clean_scores_there_is_no_p():
    found = verdict.judge(made.evidence(ODD))
    assert found["baseline"] == "within" and found["p_value"] is None
    assert found["p_models"] == 0 and found["q_value"] is None


def test_p_of_a_profile_is_of_its_members_scores():
    lines = made.several(6)
    found = profile.make("toy", lines, {}) | {"clean_scores": [1.0] * 13}
    line = made.clean(99, {"a": 3, "b": 3}, size=3.0)
    one = verdict.Judge(profiles=found)(line)
    assert (one["p_value"], one["p_models"]) == (1 / 20, 19)


# --- false shares


@pytest.mark.parametrize(
    "p_values, expected",
    [
        # Benjamini and Hochberg: p m / rank, never more than that of a larger p.
        ([0.01, 0.02, 0.03, 0.5], [0.04, 0.04, 0.04, 0.5]),
        ([0.5, 0.01], [0.5, 0.02]),
        # 0.04 3 / 1 = 0.12, 0.05 3 / 2 = 0.075, 0.06 3 / 3 = 0.06: the last is least.
        ([0.04, 0.05, 0.06], [0.06, 0.06, 0.06]),
        ([0.2, 0.2, 0.9], [0.3, 0.3, 0.9]),
        ([1.0, 1.0], [1.0, 1.0]),
        ([0.3], [0.3]),
        ([None, 0.01, None, 0.4], [None, 0.02, None, 0.4]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_false_shares_are_those_of_benjamini_and_hochberg(p_values, expected):
    found = multiple.false_shares(p_values)
    assert [one is None for one in found] == [one is None for one in expected]
    known = [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
    assert all(a == pytest.approx(b) for a, b in known)


P = st.floats(0.001, 1.0)


@EACH
@given(st.lists(st.none() | P, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_no_false_share(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    found = multiple.false_shares(p_values)
    shuffled = multiple.false_shares([p_values[i] for i in order])
    assert shuffled == [found[i] for i in order]


@EACH
@given(st.lists(P, min_size=1, max_size=12))
def test_a_false_share_is_at_least_p_and_grows_with_it(p_values):
    found = multiple.false_shares(p_values)
    assert all(p - 1e-12 <= q <= 1 for p, q in zip(p_values, found, strict=True))
    ordered = [q for _, q in sorted(zip(p_values, found, strict=True))]
    assert ordered == sorted(ordered)


def scan(*lines):
    return verdict.judge_all([*made.several(8), *lines], profiles=None)


def test_a_scan_has_false_shares_of_what_is_judged():
    target = made.clean(99, {"a": 3, "b": 3}, size=3.0)
    found = scan(target)
    p_values = [one["p_value"] for one in found]
    assert None not in p_values
    assert [one["q_value"] for one in found] == multiple.false_shares(p_values)
    broken = target | {"path": "broken.pt", "key": "broken", "clean_accuracy": 0.1}
    more = scan(target, broken)
    assert more[:-1] == found
    assert more[-1]["verdict"] == "inconclusive" and more[-1]["q_value"] is None


def test_a_copy_of_a_file_has_its_false_share_and_changes_no_other():
    target = made.clean(99, {"a": 3, "b": 3}, size=3.0)
    found = scan(target)
    copies = [target | {"path": f"copy{index}.pt"} for index in range(5)]
    more = scan(target, *copies)
    assert more[:9] == found
    assert {one["q_value"] for one in more[9:]} == {found[-1]["q_value"]}


def test_a_single_line_has_no_false_share():
    assert verdict.Judge(profiles=None)(made.clean(0))["q_value"] is None
