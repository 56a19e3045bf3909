"""How far verdicts can be trusted: said only where it was measured."""

import dataclasses

import pytest

from ban_jax import detectors
from ban_jax.baselines import profile, rates
from ban_jax.commands import comparison

DIGITS = {"name": "digits", "classes": None, "image_shape": [8, 8, 1]}
SETTINGS = detectors.DETECTORS["ban"].settings()


def judged(**changes):
    """A line, as far as it matters here."""
    own = profile.baseline(profile.load("digits")).name
    line = {
        "mode": "ban",
        "baseline": "profile",
        "data": DIGITS,
        "score": 1.0,
        "threshold_source": "default",
        "compared_with": own,
        "architecture": "resnet18",
        "num_classes": 10,
        "num_probe": 512,
        "config": {
            **dataclasses.asdict(SETTINGS),
            "directed": dataclasses.asdict(detectors.DETECTORS["directed"].settings()),
        },
    }
    line |= changes
    return {**line, "config_hash": repr((line["config"], line["data"]))}


def test_rates_are_told_for_the_shipped_profile_and_the_rules_own_threshold():
    told = comparison.trust([judged(), judged(score=None, baseline="within")])
    assert told == rates.line(rates.find("ban", "profile", "digits"))
    assert "clean ones" in told and "trusted" not in told
    trusted = comparison.trust([judged(baseline="trusted", compared_with="4 models")])
    assert "78 clean ones trusted" in trusted, (
        "how many they were is for the user to see"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"compared_with": "profile digits, 5 clean models"},
        {"threshold_source": "flag"},
        {"data": None},
        {"data": {**DIGITS, "name": "mnist"}},
        {"mode": "targeted"},
        {"baseline": "within"},
    ],
)
def test_nothing_is_told_where_it_was_not_measured(other):
    assert comparison.trust([judged(), judged(**other)]) is None


@pytest.mark.parametrize(
    "other",
    [
        {"architecture": "vit"},
        {"architecture": None},
        {"num_probe": 128},
        {"num_classes": 43},
        {"data": {**DIGITS, "image_shape": [16, 16, 1]}},
        {"config": {**judged()["config"], "epsilon": 0.01}},
        {"config": {**judged()["config"], "patch_steps": 0}},
    ],
)
@pytest.mark.parametrize("baseline", ["profile", "within"])
def test_nor_for_other_settings_images_and_networks(other, baseline):
    as_measured, otherwise = (
        judged(baseline=baseline, **changes) for changes in ({}, other)
    )
    assert comparison.trust([as_measured])
    assert comparison.trust([otherwise]) is None
    assert comparison.trust([as_measured, otherwise]) is None


def test_every_rate_is_of_a_known_kind_and_holds_its_own_interval():
    for one in rates.measured():
        for count, total, (low, high) in (
            (one["flagged"], one["clean"], one["false_alarms"]),
            (one["missed"], one["backdoored"], one["misses"]),
        ):
            assert 0 <= low <= count / total <= high <= 1
        assert 0 < one["clean_originals"] <= one["clean"]
        assert 0 < one["backdoored_originals"] <= one["backdoored"]
        assert rates.line(one)
    assert rates.find("ban", "profile", "nowhere") is None
