"""Models that are compared with one another, against numbers derived by hand."""

import math

import numpy as np
import pytest

from ban_jax.baselines import crowd
from ban_jax.detectors import rules
from tests.baselines import made
from tests.detectors.made import RULE

AVERAGE = rules.AverageZ(("v",), {"within": 4.0, "trusted": 4.0, "population": 4.0})
BASE = np.array([0.3, 0.1, 0.5, 0.2, 0.4])


def offset(*numbers):
    """Models whose vectors are `BASE` and a number."""
    return [{"v": BASE + number} for number in numbers]


def vectors_of(lines):
    return [crowd.numbers(line["vectors"]) for line in lines]


def test_null_is_a_number_that_was_not_measured():
    found = crowd.numbers({"v": [1.0, None, 2]})
    np.testing.assert_array_equal(found["v"], [1.0, np.nan, 2.0])


def test_a_crowds_centre_is_a_median_and_its_spread_is_pooled():
    found = rules.crowd("trusted", offset(0, 1, 2, 5))
    # The median of 0 1 2 5 is 1.5; it is missed by 1.5 0.5 0.5 3.5, in the middle by 1.
    np.testing.assert_allclose(found.centre["v"], BASE + 1.5)
    assert found.scale["v"] == pytest.approx(1.4826)
    assert (found.kind, found.count) == ("trusted", 4)


@pytest.mark.parametrize("having, kept", [(2, False), (3, True), (4, True)])
def test_a_vector_counts_that_more_than_half_of_the_models_have(having, kept):
    models = offset(0, 1, 2, 3)
    for model in models[:having]:
        model["dear"] = BASE
    found = rules.crowd("population", models)
    assert ("dear" in found.centre) == ("dear" in found.scale) == kept


def test_a_class_counts_that_more_than_half_of_the_models_were_asked_about():
    dear = np.array(
        [
            [1.0, 1.0, np.nan, np.nan, 1.0],
            [3.0, np.nan, np.nan, 3.0, 3.0],
            [5.0, 2.0, 2.0, np.nan, 5.0],
        ]
    )
    found = rules.crowd("population", [{"dear": row} for row in dear])
    np.testing.assert_allclose(found.centre["dear"], [3, 1.5, np.nan, np.nan, 3])
    # Misses 2 0 2, 0.5 0.5 and 2 0 2: the middle of 0 0 .5 .5 2 2 2 2 is 1.25.
    assert found.scale["dear"] == pytest.approx(1.4826 * 1.25)


def test_a_vector_of_which_no_class_is_known_by_enough_models_is_left_out():
    rows = [[1.0, np.nan, np.nan], [np.nan, 1.0, np.nan], [np.nan, np.nan, 1.0]]
    found = rules.crowd("population", [{"dear": np.array(row)} for row in rows])
    assert found.centre == {}


def left_out_scores(*told):
    return crowd.compared(*told)[1]


def test_each_model_is_scored_against_the_others_alone():
    models = offset(0, 1, 2, 5)
    errors = [{"v": np.zeros(5)}] * 4
    found = left_out_scores("trusted", AVERAGE, models, errors)
    # The last one against 0 1 2: the centre is 1, missed by 1 0 1. The first against
    # 1 2 5: centre 2, missed by 1 0 3. The second against 0 2 5: 2 0 3 about 2. The
    # third against 0 1 5: 1 0 4 about 1.
    expected = np.array([-2, -1 / 2, 1, 4]) / 1.4826
    np.testing.assert_allclose(found, expected)


def test_of_many_models_each_is_scored_against_all():
    models = offset(*np.linspace(0, 1, crowd.EXACT + 1))
    errors = [{"v": np.zeros(5)}] * len(models)
    found = left_out_scores("population", AVERAGE, models, errors)
    whole = rules.crowd("population", models)
    expected = [max(AVERAGE.scores(m, errors[0], whole).values) for m in models]
    assert found == expected
    # One fewer, and each is left out of its yardstick.
    fewer = models[1:]
    found = left_out_scores("population", AVERAGE, fewer, errors[1:])
    expected = [
        max(
            AVERAGE.scores(fewer[-1], errors[0], rules.crowd("population", rest)).values
        )
        for rest in (fewer[:-1], fewer)
    ]
    assert found[-1] == expected[0] != expected[1]


def test_a_model_is_not_compared_with_versions_of_its_own():
    models = offset(0, 1, 2, 5, 5)
    errors = [{"v": np.zeros(5)}] * 5
    apart = left_out_scores("trusted", AVERAGE, models[:4], errors[:4])
    found = left_out_scores("trusted", AVERAGE, models, errors, [0, 1, 2, 3, 3])
    assert found[3] == found[4] == apart[3]
    assert left_out_scores("trusted", AVERAGE, models, errors)[3] < apart[3]


def test_a_baseline_knows_how_its_models_scatter_at_each_class():
    models = vectors_of([made.clean(seed) for seed in range(6)])
    odd = vectors_of([made.clean(seed, {"a": 3}) for seed in range(6, 8)])
    errors = [{name: np.zeros(8) for name in "ab"}] * 8
    found, _ = crowd.compared("profile", RULE, [*models, *odd], errors)
    spreads = found.spreads["a"]
    assert np.argmax(spreads) == 3 and spreads[3] > 2 > spreads[4]
    # As versions of each other the odd ones do not make each other look usual.
    families = [*range(6), 6, 6]
    apart, _ = crowd.compared("profile", RULE, [*models, *odd], errors, families)
    assert apart.spreads["a"][3] > spreads[3]


def settle(models, limit=2.0, least=2):
    errors = [{"v": np.zeros(5)}] * len(models)
    return crowd.settled(AVERAGE, models, errors, limit, least)


def test_a_crowd_in_which_nothing_stands_out_stays_whole():
    models = offset(0, 1, 2, 3)
    found, whole = settle(models), rules.crowd("population", models)
    np.testing.assert_array_equal(found.centre["v"], whole.centre["v"])
    assert (found.kind, found.scale, found.count) == ("population", whole.scale, 4)
    errors = [{"v": np.zeros(5)}] * 4
    scores = left_out_scores("population", AVERAGE, models, errors)
    assert found.null == tuple(scores)


def test_models_that_stand_out_do_not_move_the_centre():
    sound, odd = offset(0, 1, 2, 3), offset(30)
    # Against 0 1 2 3 the odd one scores 28.5 / 1.4826; it goes, and the rest remains.
    found, rest = settle([*sound, *odd]), rules.crowd("population", sound)
    np.testing.assert_array_equal(found.centre["v"], rest.centre["v"])
    assert found.scale == rest.scale and found.count == 4
    assert len(found.null) == 4 and max(found.null) <= 2.0


def test_those_that_are_left_are_looked_at_again():
    # With 30 among the others the spread is 1.5 x 1.4826, and 5 scores 2.5 of them, 1.1.
    # Against 0 1 2 3 4 alone it scores 3 / 1.4826 = 2.023.
    models = offset(0, 1, 2, 3, 4, 5, 30)
    assert settle(models, limit=2.03).count == 6
    assert settle(models, limit=2.02).count == 5


def test_one_that_scores_as_much_as_the_limit_is_kept():
    models = offset(0, 1, 2, 3)
    errors = [{"v": np.zeros(5)}] * 4
    limit = max(left_out_scores("population", AVERAGE, models, errors))
    assert settle(models, limit).count == 4
    assert settle(models, np.nextafter(limit, 0)).count < 4


def test_a_crowd_of_which_too_few_would_be_left_stays_whole():
    models = offset(0, 0, 0, 50, 60)
    whole = settle(models, least=4)
    # Its odd ones are no example of what chance gives all the same.
    assert whole.count == 5 and len(whole.null) == 3 and max(whole.null) <= 2.0
    assert settle(models, least=3).count == 3


def test_the_order_of_a_crowd_does_not_matter():
    models = offset(0, 1, 2, 3, 30, 40)
    one, other = settle(models), settle(models[::-1])
    np.testing.assert_array_equal(one.centre["v"], other.centre["v"])
    assert one.scale == other.scale and sorted(one.null) == sorted(other.null)


def test_clean_models_have_no_odd_class():
    assert crowd.odd_class(RULE, vectors_of(made.several(9)), 9.0) is None


def test_a_target_that_most_models_share_is_the_odd_class_of_their_centre():
    bumped = [made.clean(seed, {"a": 3, "b": 3}, size=60) for seed in range(6)]
    sound = made.several(3, first=6)
    assert crowd.odd_class(RULE, vectors_of([*bumped, *sound]), 2.0) == 3
    # Fewer than half do not move the centre.
    few = vectors_of([*bumped[:3], *made.several(6, first=6)])
    assert crowd.odd_class(RULE, few, 2.0) is None


def test_a_class_is_odd_from_the_limit_on_and_not_at_it():
    models = offset(0, 0, 0)
    # BASE holds .1 to .5: its median is .3, the deviation of the lower four is the root
    # of .0125.
    score = 0.2 / math.sqrt(0.0125)
    assert crowd.odd_class(AVERAGE, models, score + 1e-9) is None
    assert crowd.odd_class(AVERAGE, models, score - 1e-9) == 2


def baseline(kind, count, centre, spreads, null=()):
    return rules.Baseline(
        kind,
        {name: np.array(values, float) for name, values in centre.items()},
        dict.fromkeys(centre, 1.0),
        count=count,
        null=null,
        spreads={name: np.array(values, float) for name, values in spreads.items()},
    )


RISING = np.arange(6.0)
BENT = np.array([0, 1, 2, 3, 4, 11.0])


def test_a_crowd_takes_a_profiles_models_as_members():
    """Three of a profile and one of the scan: a quarter is the scan's."""
    own = baseline("population", 1, {"v": BENT}, {"v": np.full(6, 2.0)}, (0.5,))
    given = baseline(
        "profile",
        3,
        # The same curve at half the scale and another offset, its last class unbent.
        {"v": 0.5 * RISING + 7, "dear": RISING},
        {"v": np.full(6, 1.0), "dear": np.full(6, 3.0)},
        (0.1, 0.2),
    )
    found = crowd.completed(own, given, RULE)
    np.testing.assert_allclose(found.centre["v"], [0, 1, 2, 3, 4, 0.25 * 11 + 0.75 * 5])
    np.testing.assert_allclose(found.spreads["v"], np.sqrt(0.25 * 4 + 0.75 * 1))
    np.testing.assert_array_equal(found.centre["dear"], RISING)
    np.testing.assert_array_equal(found.spreads["dear"], np.full(6, 3.0))
    assert found.null == (0.5, 0.1, 0.2)
    assert (found.kind, found.count) == ("population", 1)


def test_trusted_models_take_of_a_profile_what_they_lack_alone():
    own = baseline("trusted", 1, {"v": BENT}, {"v": np.full(6, 2.0)})
    given = baseline(
        "profile", 3, {"v": RISING, "dear": RISING}, {"v": RISING, "dear": RISING}
    )
    found = crowd.completed(own, given, RULE)
    np.testing.assert_array_equal(found.centre["v"], BENT)
    np.testing.assert_array_equal(found.spreads["v"], np.full(6, 2.0))
    np.testing.assert_array_equal(found.centre["dear"], RISING)


def test_classes_that_one_of_them_does_not_know_stay_as_the_crowd_has_them():
    curve, other = BENT.copy(), RISING.copy()
    curve[2], other[5] = np.nan, np.nan
    own = baseline("population", 1, {"v": curve, "w": BENT[:4]}, {})
    given = baseline("profile", 1, {"v": other, "w": RISING[:4] ** 2}, {})
    with np.errstate(all="raise"):
        found = crowd.completed(own, given, RULE)
    # Four that both know are too few to tell a scale and an offset.
    np.testing.assert_array_equal(found.centre["v"], curve)
    np.testing.assert_array_equal(found.centre["w"], BENT[:4])
    other[5] = 5.0
    given = baseline("profile", 1, {"v": other}, {})
    found = crowd.completed(own, given, RULE)
    np.testing.assert_allclose(found.centre["v"], [0, 1, np.nan, 3, 4, 8])
