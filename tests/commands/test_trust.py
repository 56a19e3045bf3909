"""How far verdicts can be trusted: said only where it was measured."""

import pytest

from ban_jax.baselines import profile, rates
from ban_jax.commands import comparison

DIGITS = {"name": "digits", "classes": None, "image_shape": [8, 8, 1]}


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
    }
    return {**line, **changes}


def test_rates_are_told_for_the_shipped_profile_and_the_rules_own_threshold():
    told = comparison.trust([judged(), judged(score=None, baseline="within")])
    assert told == rates.line("ban", "profile", "digits")
    assert "clean ones" in told


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


def test_every_rate_is_of_a_known_kind_and_holds_its_own_interval():
    for one in rates.measured():
        for count, total, (low, high) in (
            (one["flagged"], one["clean"], one["false_alarms"]),
            (one["missed"], one["backdoored"], one["misses"]),
        ):
            assert 0 <= low <= count / total <= high <= 1
        assert rates.line(one["mode"], one["baseline"], one["data"])
    assert rates.line("ban", "profile", "nowhere") is None
