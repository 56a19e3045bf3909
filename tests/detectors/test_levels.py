"""A vector whose level alone flags a model, against numbers derived by hand."""

import dataclasses
import math

import numpy as np
import pytest

from ban_jax.detectors import witnesses
from tests.detectors.made import RULE, errors_of, profile_of

ODD = np.array([1.0, 2, 3, 4, 10])
"""Class 4 stands out."""
LEVELS = dataclasses.replace(RULE, levels={"c": "one change"})
QUIET = np.array([0.2, 0.1, 0.3, 0.2, 0.1])
"""Shares of clean models: odds of 1/4, 1/9, 3/7, 1/4, 1/9."""


def levelled(shares, *, kind="profile", known=True, limit=None, **vectors):
    """Scores where nobody agrees, of a candidate with these shares of images reached."""
    against = profile_of("a", "b", "c")
    against = dataclasses.replace(against, kind=kind, limit=limit)
    if known:
        against = dataclasses.replace(against, centre={**against.centre, "c": QUIET})
    else:
        against = dataclasses.replace(against, centre={"a": QUIET, "b": QUIET})
    given = {"a": np.array([1.0, 2, 3, 4, 3]), "b": np.array([3.0, 1, 4, 2, 2.5])}
    given |= {"c": np.array(shares)} | vectors
    return LEVELS.scores(given, errors_of(given, 0.01), against)


def odds(share):
    return share / (1 - share)


def test_a_level_of_twenty_times_the_odds_of_clean_models_flags_by_itself():
    times = math.exp(witnesses.LEVEL)
    assert times == pytest.approx(20, rel=0.01)
    for factor in (0.99, 1.01):
        share = odds(0.1) * times * factor
        share /= 1 + share
        found = levelled([0.2, share, 0.3, 0.2, 0.1])
        assert (np.max(found.values) > LEVELS.thresholds["profile"]) == (factor > 1)
    assert np.argmax(found.values) == 1 and found.error == 0
    assert found.values[1] == pytest.approx(witnesses.CERTAIN, abs=3 * witnesses.SHARE)
    assert found.witnesses["c"][1] == witnesses.CERTAIN > found.witnesses["c"][0]
    told = f"one change turns {share:.0%} of images of other classes into class 1"
    assert found.meaning == f"{told}, of clean models 10%"


def test_of_several_classes_at_that_level_the_one_that_others_speak_for_is_the_target():
    shares = [0.2, 1.0, 0.3, 0.99, 0.1]
    for target, other in ((1, 3), (3, 1)):
        spoken = {name: np.zeros(5) for name in "ab"}
        for name, vector in spoken.items():
            vector[:] = [0.0, 1, 2, 1, 0.5] if name == "a" else [1.0, 0, 2, 1, 0.5]
            vector[target], vector[other] = 1.9, 0.1
        found = levelled(shares, **spoken)
        assert np.argmax(found.values) == target
        assert np.min(found.values[[1, 3]]) > LEVELS.thresholds["profile"]


def test_what_is_said_of_classes_at_that_level_counts_up_to_the_threshold():
    spoken = np.array([1.0, -1.0] * 14 + [2.6, 2.8])
    given = {"a": spoken, "b": spoken, "c": np.array([0.1] * 28 + [1.0] * 2)}
    against = profile_of("a", "b", "c", count=30)
    centre = {**against.centre, "c": np.full(30, 0.1)}
    against = dataclasses.replace(against, centre=centre)
    says = RULE.scores(given, errors_of(given), against).values[28:]
    assert 2 < says[0] < says[1] < LEVELS.thresholds["profile"]
    found = LEVELS.scores(given, errors_of(given), against)
    np.testing.assert_allclose(
        found.values[28:], witnesses.CERTAIN + witnesses.SHARE * says
    )


def test_a_level_says_nothing_where_a_class_is_flagged_or_nothing_is_known_of_it():
    shares = [0.2, 1.0, 0.3, 0.2, 0.1]
    agreed = levelled(shares, a=ODD, b=ODD)
    assert np.argmax(agreed.values) == 4 and "one change" not in agreed.meaning
    for unknown in ({"known": False}, {"kind": "within"}):
        found = levelled(shares, **unknown)
        assert "one change" not in found.meaning
    assert "one change" in levelled(shares, kind="trusted").meaning


def test_a_level_counts_where_a_score_is_no_higher_than_one_of_the_trusted_models():
    told = {"kind": "trusted", "a": ODD, "b": ODD}
    score = np.max(levelled([0.2, 0.1, 0.3, 0.2, 0.1], **told).values)
    assert LEVELS.thresholds["trusted"] < score < witnesses.CERTAIN - 0.5
    for limit, target in ((score - 0.1, 4), (score + 0.1, 1), (2.0, 4), (7.0, 1)):
        found = levelled([0.2, 1.0, 0.3, 0.2, 0.1], **told, limit=limit)
        assert np.argmax(found.values) == target and np.max(found.values) > limit


def test_a_level_counts_where_all_witnesses_are_void():
    flat = {name: np.full(5, 0.2) for name in "ab"}
    found = levelled([1.0] * 5, **flat)
    assert np.all(np.isfinite(found.values)) and not found.reason
    assert "c" not in found.void and np.all(found.witnesses["c"] == witnesses.CERTAIN)
    assert np.min(found.values) > LEVELS.thresholds["profile"]


@pytest.mark.parametrize("known", [True, False], ids=["baseline", "no baseline"])
@pytest.mark.parametrize("has", [True, False], ids=["candidate", "no candidate"])
def test_levels_are_compared_among_networks_that_have_batch_statistics_or_have_none(
    known, has
):
    rule = dataclasses.replace(
        RULE, vectors=("a", "b", "c", "d"), levels={"c": "it"}, dear=("c", "d")
    )
    rule = dataclasses.replace(rule, statistics="rise", noisy=("d",))
    centre = profile_of("a", "b", "c", "d", *(["rise"] if known else [])).centre
    against = dataclasses.replace(profile_of("a"), centre={**centre, "c": QUIET})
    given = {"a": np.array([1.0, 2, 3, 4, 3]), "b": np.array([3.0, 1, 4, 2, 2.5])}
    given |= {"rise": ODD} if has else {}
    asked = rule.asks(given, errors_of(given), against, limit=9.0, most=9, seed=0)
    assert (asked is None) == (known != has)
    if asked:
        assert asked.vectors == ("c",)
    given["c"] = np.array([0.2, 1.0, 0.3, 0.2, 0.1])
    found = rule.scores(given, errors_of(given, 0.01), against)
    assert ("it turns 100%" in found.meaning) == (known == has)
