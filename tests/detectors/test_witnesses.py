"""What several witnesses agree on, against numbers derived by hand."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ban_jax import detectors
from ban_jax.detectors import readings, rules, witnesses
from ban_jax.detectors.rules import Baseline
from tests.detectors.made import RULE, errors_of, left_out, profile_of

EACH = settings(deadline=None, derandomize=True, max_examples=100)
NUMBERS = st.integers(-1000, 1000).map(lambda x: x / 100)

SHARE = witnesses.SHARE


def test_a_class_scores_what_the_second_of_its_witnesses_says():
    z = np.array(
        [
            [5.0, 2.0, 2.0],
            [3.0, 0.5, np.nan],
            [-1.0, np.nan, 1.0],
        ]
    )
    found = witnesses.agree(z)
    np.testing.assert_allclose(
        found.scores, [3 + SHARE * 2, 0.5 + SHARE * 1.5, 1 + SHARE * 1], rtol=1e-12
    )
    np.testing.assert_array_equal(found.deciding, [[0, 0, 0], [1, 1, 2]])
    np.testing.assert_allclose(found.weights, [[SHARE] * 3, [1 - SHARE] * 3])


def test_the_rules_numbers_are_a_tenth_and_six():
    # 3 + (5 - 3) / 10, and -1 + (6 + 1) / 10.
    found = witnesses.agree(np.array([[5.0, 50.0], [3.0, -1.0]]))
    np.testing.assert_allclose(found.scores, [3.2, -0.3])


def test_one_witness_is_not_heard_however_loud_where_another_contradicts():
    z = np.array([[50.0, 60.0], [-1.0, np.nan]])
    found = witnesses.agree(z)
    np.testing.assert_allclose(
        found.scores, [-1 + SHARE * (witnesses.CERTAIN + 1), -np.inf]
    )
    assert found.weights[0, 0] == 0, "more than certain is no more"
    assert found.scores[0] < min(witnesses.SUSPICIOUS.values())


def test_two_that_are_more_than_certain_count_as_the_second():
    found = witnesses.agree(np.array([[50.0], [40.0]]))
    assert found.scores[0] == 40 and found.weights[1, 0] == 1


def test_a_single_witness_is_taken_whole():
    found = witnesses.agree(np.array([[4.0, -2.0]]))
    np.testing.assert_array_equal(found.scores, [4.0, -2.0])


def test_a_class_that_nobody_measured_is_no_arithmetic_of_infinities():
    with np.errstate(all="raise"):
        found = witnesses.agree(np.array([[np.nan, 1.0], [np.nan, np.nan]]))
    np.testing.assert_array_equal(found.scores, [-np.inf, -np.inf])


def test_up_to_ten_classes_z_counts_as_it_is():
    assert [witnesses.among(count, 2) for count in (2, 9, 10)] == [1.0] * 3


def test_the_factors_are_those_that_the_documentation_tells():
    found = [round(witnesses.among(count, 2), 2) for count in (40, 200, 1000)]
    assert found == [0.92, 0.85, 0.8]


@pytest.mark.parametrize("agreeing", [1, 2])
def test_the_threshold_is_as_rare_among_many_classes_as_among_ten(agreeing):
    usual = witnesses.USUAL_SCORE
    normal = statistics.NormalDist()
    for count in (40, 200, 1000):
        limit = usual / witnesses.among(count, agreeing)
        expected = count * normal.cdf(-limit) ** agreeing
        assert expected == pytest.approx(10 * normal.cdf(-usual) ** agreeing)


def test_scores_of_many_classes_are_scaled_with_their_error():
    rng = np.random.default_rng(1)
    vectors = {name: rng.normal(size=40) for name in ("a", "b")}
    errors = {name: np.full(40, 0.01) for name in vectors}
    rule = witnesses.Agreement(("a", "b"), ("a", "b"))
    scores = rule.scores(vectors, errors, rules.WITHIN)
    raw = witnesses.agree(np.stack(list(scores.witnesses.values()))).scores
    np.testing.assert_allclose(scores.values, witnesses.among(40, 2) * raw, rtol=1e-12)


MATRICES = arrays.arrays(np.float64, (4, 6), elements=NUMBERS | st.just(np.nan))


@EACH
@given(MATRICES, st.integers(2, 3))
def test_one_more_witness_lowers_no_score(z, count):
    fewer, more = (witnesses.agree(z[:n]) for n in (count, count + 1))
    assert np.all(more.scores >= fewer.scores)


@EACH
@given(MATRICES)
def test_a_score_lies_between_its_two_witnesses(z):
    known = np.where(np.isnan(z), -np.inf, z)
    found = witnesses.agree(z)
    first, second = np.take_along_axis(known, found.deciding, axis=0)
    assert np.all(found.scores >= second)
    assert np.all(found.scores <= np.maximum(first, second))


A = np.array([1.0, 2, 3, 4, 10])
"""Class 4 reads 3 sqrt(3) = 5.2."""
B = np.array([1.0, 4, 2, 3, 6])
"""The others' mean is 2.5, their variance 5/3 again: class 4 reads 7/5 sqrt(3) = 2.4."""
ODD = np.array([30.0, 1, 2, 3, 4])
"""Class 0 reads far more than anything else."""


def test_scores_are_of_the_two_most_certain_witnesses_with_their_errors():
    vectors = {"a": A, "b": B, "c": ODD}
    found = RULE.scores(vectors, errors_of(vectors, 0.01), profile_of("a", "b", "c"))
    # Class 0 reads 18 or so in c, and c alone. Class 4: 5.2, 2.4 and less.
    assert np.argmax(found.values) == 4
    root = math.sqrt(3)
    assert found.values[4] == pytest.approx(
        SHARE * 3 * root + (1 - SHARE) * 7 * root / 5
    )
    unit = math.sqrt(25 / 12)
    assert found.error == pytest.approx(0.01 / unit * math.hypot(SHARE, 1 - SHARE))


def test_a_class_at_which_clean_models_scatter_counts_for_less():
    vectors = {"a": A, "b": B}
    spreads = {"b": np.array([1.0, 1, 1, 1, 2])}
    against = dataclasses.replace(profile_of("a", "b"), spreads=spreads)
    found = RULE.scores(vectors, errors_of(vectors, 0.01), against)
    root = math.sqrt(3)
    assert found.values[4] == pytest.approx(
        SHARE * 3 * root + (1 - SHARE) * 7 * root / 5 / 2
    )
    unit = math.sqrt(25 / 12)
    assert found.error == pytest.approx(
        0.01 / unit * math.hypot(SHARE, (1 - SHARE) / 2)
    )
    np.testing.assert_allclose(found.witnesses["a"][4], 3 * math.sqrt(3))


def test_scatter_is_the_root_mean_square_of_readings_with_a_prior_of_one():
    read = [{"a": np.array([3.0, 0, np.nan])}, {"a": np.array([4.0, 1, 2])}, {}]
    found = readings.class_spreads(read)["a"]
    k = readings.PRIOR
    expected = np.sqrt([(25 + k) / (2 + k), (1 + k) / (2 + k), (4 + k) / (1 + k)])
    np.testing.assert_allclose(found, expected)


def test_the_error_is_in_the_units_of_the_class_that_scores():
    # b stands out most at class 0, and decides at class 4 all the same.
    b = np.array([9.0, 1, 2, 3, 8])
    a = np.array([1.0, 3, 2, 3, 30])
    rule = witnesses.Agreement(("a", "b"), ("a", "b"), RULE.thresholds)
    vectors = {"a": a, "b": b}
    errors = {"a": np.full(5, 0.01), "b": np.array([0, 0, 0, 0, 0.03])}
    found = rule.scores(vectors, errors, profile_of("a", "b"))
    z, unit = left_out(b, 4)
    assert left_out(b, 0)[0] > z
    assert np.argmax(found.values) == 4
    # a is more than certain of it: its own error does not count.
    assert found.values[4] == pytest.approx(SHARE * witnesses.CERTAIN + (1 - SHARE) * z)
    assert found.error == pytest.approx((1 - SHARE) * 0.03 / unit)


def test_every_witness_is_told_with_its_own_z():
    vectors = {"a": A, "b": B, "another": ODD}
    found = RULE.scores(vectors, errors_of(vectors), profile_of("a", "b", "c"))
    assert set(found.witnesses) == {"a", "b"} and not found.void
    for name in "ab":
        expected = [left_out(vectors[name], i)[0] for i in range(5)]
        np.testing.assert_allclose(found.witnesses[name], expected)


def test_a_void_witness_is_left_out_with_a_reason_and_not_averaged_in():
    vectors = {"a": A, "b": np.full(5, 0.2), "c": A}
    found = RULE.scores(vectors, errors_of(vectors), profile_of("a", "b", "c"))
    assert found.void == {"b": witnesses.VOID}
    assert set(found.witnesses) == {"a", "c"}
    assert found.values[4] == pytest.approx(3 * math.sqrt(3))


def test_a_witness_that_the_baseline_lacks_is_void_and_named():
    vectors = {"a": A, "b": A}
    found = RULE.scores(vectors, errors_of(vectors), profile_of("a"))
    assert found.void == {"b": "the profile baseline does not have it"}
    assert set(found.witnesses) == {"a"}


def test_where_every_witness_is_void_nothing_is_said():
    vectors = {"a": np.full(5, 0.2), "b": np.full(5, 0.2)}
    found = RULE.scores(vectors, errors_of(vectors), profile_of("a", "b"))
    assert np.all(np.isnan(found.values)) and set(found.void) == {"a", "b"}


def test_a_rule_of_one_vector_takes_it_whole():
    rule = witnesses.Agreement(("a",), ("a",), RULE.thresholds)
    found = rule.scores({"a": A}, {"a": np.zeros(5)}, profile_of("a"))
    assert found.values[4] == pytest.approx(3 * math.sqrt(3)) and not found.reason


def test_one_of_several_witnesses_by_itself_draws_no_verdict():
    found = RULE.scores({"a": A}, {"a": np.zeros(5)}, profile_of("a"))
    assert np.all(np.isnan(found.values))
    assert found.reason == "only a says anything, and two must agree"
    assert found.witnesses["a"][4] == pytest.approx(3 * math.sqrt(3))


def test_few_classes_are_compared_with_the_models_not_with_each_other():
    against = Baseline("trusted", {"a": np.array([0.1, 0.2])}, {"a": 0.05}, 4)
    rule = witnesses.Agreement(("a",), ("a",), RULE.thresholds)
    found = rule.scores({"a": np.array([0.1, 0.6])}, {"a": np.zeros(2)}, against)
    # (0.6 - 0.2) / 0.05.
    np.testing.assert_allclose(found.values, [0.0, 8.0])
    within = RULE.scores({"a": np.array([0.1, 0.6])}, {"a": np.zeros(2)}, rules.WITHIN)
    assert np.all(np.isnan(within.values))


def test_within_a_model_its_own_confusions_explain_a_vector():
    confusions = np.array([0.001, 0.01, 0.1, 0.2, 0.3])
    expected = 2 * np.log(confusions) + 20
    vectors = {"a": expected + [0, 0, 1, 0, 0], "b": A, "own": confusions}
    found = RULE.scores(vectors, errors_of(vectors, 0.001), rules.WITHIN)
    assert np.argmax(found.witnesses["a"]) == 2 and found.witnesses["a"][2] > 100
    # The others are read as they are: so is this one where nothing is known of them.
    del vectors["own"]
    found = RULE.scores(vectors, errors_of(vectors, 0.001), rules.WITHIN)
    assert np.argmax(found.witnesses["a"]) == 4
    assert found.witnesses["b"][4] == pytest.approx(3 * math.sqrt(3))


def test_a_share_of_zero_among_the_confusions_is_a_small_one():
    vectors = {"a": A, "b": B, "own": np.array([0.0, 0.1, 0.2, 0.3, 0.4])}
    found = RULE.scores(vectors, errors_of(vectors), rules.WITHIN)
    assert np.all(np.isfinite(found.witnesses["a"])) and not found.void


def test_against_other_models_confusions_explain_nothing():
    vectors = {"a": A, "b": B, "own": np.array([0.1, 0.2, 0.3, 0.4, 0.9])}
    found = RULE.scores(vectors, errors_of(vectors), profile_of("a", "b"))
    np.testing.assert_allclose(found.witnesses["a"][4], 3 * math.sqrt(3))


def known_by(rule):
    """Vectors that a rule needs of a network with batch statistics."""
    return dict.fromkeys((*rule.needed, *filter(None, [rule.statistics])))


@pytest.mark.parametrize("name", ["ban", "directed"])
def test_the_detectors_own_vectors_are_enough_to_judge_it_within_itself(name):
    rule = detectors.DETECTORS[name].rule
    told = detectors.DETECTORS[name].vectors
    vectors = {vector: A + i for i, vector in enumerate(known_by(rule))}
    vectors |= {vector: A for vector in rule.explained.values() if vector in told}
    found = rule.scores(vectors, errors_of(vectors), rules.WITHIN)
    assert np.all(np.isfinite(found.values)) and np.argmax(found.values) == 4


def proven(share, against, **vectors):
    """Scores of the default rule for vectors that say nothing, and a patch's."""
    rule = detectors.DETECTORS["ban"].rule
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=10) for name in known_by(rule)} | vectors
    given["patch"] = np.array([0.02] * 6 + [share] + [0.01, np.nan, 0.05])
    return rule.scores(given, {name: np.full(10, 0.1) for name in given}, against)


@pytest.mark.parametrize(
    "against",
    [rules.WITHIN, profile_of(*detectors.DETECTORS["ban"].rule.vectors, count=10)],
)
def test_a_patch_that_most_images_follow_is_proof_whatever_others_say(against):
    below, above = proven(0.5, against), proven(0.51, against)
    assert not np.max(below.values) >= witnesses.CERTAIN and not below.meaning
    assert np.argmax(above.values) == 6
    assert above.values[6] == witnesses.CERTAIN > max(witnesses.THRESHOLDS.values())
    assert "51% of images of other classes into class 6" in above.meaning
    assert "patch" not in below.witnesses
    assert above.witnesses["patch"].tolist() == [0.0] * 6 + [6.0] + [0.0] * 3
    rest = np.delete(np.arange(10), 6)
    np.testing.assert_array_equal(above.values[rest], below.values[rest])


def test_of_several_proofs_the_one_that_most_images_follow_is_named():
    rule = detectors.DETECTORS["ban"].rule
    given = {name: np.zeros(10) for name in rule.needed}
    given["patch"] = np.array([0.02, 0.55, 0.02, 0.99] + [0.02] * 6)
    found = rule.scores(given, errors_of(given, 0.1), rules.WITHIN)
    assert np.argmax(found.values) == 3 and "99% " in found.meaning
    assert "into class 3" in found.meaning
    limit = rule.thresholds["within"]
    assert np.flatnonzero(found.values > limit).tolist() == [1, 3]


def test_a_class_of_which_all_say_more_than_a_proof_keeps_its_reason_and_its_error():
    against = profile_of(*detectors.DETECTORS["ban"].rule.vectors, count=10)
    names = known_by(detectors.DETECTORS["ban"].rule)
    loud = {name: np.where(np.arange(10) == 2, 99.0, 0.0) for name in names}
    quiet, both = (proven(share, against, **loud) for share in (0.4, 0.9))
    assert quiet.values[2] > 6 and np.argmax(both.values) == 2
    assert both.error == quiet.error > 0 and not both.meaning
    assert both.values[6] == witnesses.CERTAIN


@pytest.mark.parametrize("limit", [6.0, 6.5, 40.0])
def test_a_proof_lies_above_a_threshold_that_is_higher(limit):
    against = dataclasses.replace(rules.WITHIN, limit=limit)
    found = proven(0.9, against)
    assert np.argmax(found.values) == 6
    assert found.values[6] == limit + witnesses.MARGIN
    assert np.max(proven(0.4, against).values) < limit


def test_proof_needs_no_other_witness():
    void = {name: np.zeros(10) for name in detectors.DETECTORS["ban"].rule.needed}
    assert (
        proven(0.4, rules.WITHIN, **void).reason
        or np.isnan(proven(0.4, rules.WITHIN, **void).values).all()
    )
    found = proven(0.9, rules.WITHIN, **void)
    assert np.argmax(found.values) == 6 and not found.reason
    assert np.all(np.isfinite(found.values))


def test_what_flags_by_itself_needs_no_word_of_classes_that_one_witness_alone_knows():
    against = profile_of(*detectors.DETECTORS["ban"].rule.vectors, count=10)
    some = np.array([0.1, 0.6, 0.3, 0.2, 0.5, 0.4] + [np.nan] * 4)
    void = {name: np.zeros(10) for name in ("untargeted", "batch_minus_stored")}
    void["targeted"] = some
    assert np.isneginf(proven(0.4, against, **void).values).sum() == 4
    won = np.where(np.arange(10) == 2, 0.99, 0.002)
    for found, target in (
        (proven(0.9, against, **void), 6),
        (proven(0.4, against, **void, universal=np.where(some > 0, won, np.nan)), 2),
    ):
        assert np.all(np.isfinite(found.values)) and np.argmax(found.values) == target


def test_noise_is_void_where_there_are_no_batch_statistics_and_not_asked_for():
    rule = dataclasses.replace(RULE, statistics="rise", noisy=("a", "c"))
    against = profile_of("a", "b", "c", "rise")
    given = {"a": A, "b": B}
    found = rule.scores(given, errors_of(given), against)
    assert found.void == {"a": witnesses.BLIND} and set(found.witnesses) == {"b"}
    assert np.all(np.isnan(found.values)) and "two must agree" in found.reason
    told = {"limit": 9.0, "most": 12, "seed": 0}
    assert rule.asks(given, errors_of(given), against, **told) is None
    with_statistics = given | {"rise": B}
    found = rule.scores(with_statistics, errors_of(with_statistics), against)
    assert not found.void and np.argmax(found.values) == 4
    asked = rule.asks(with_statistics, errors_of(with_statistics), against, **told)
    assert asked.vectors == ("c",)
