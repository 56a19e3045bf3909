"""At which classes witnesses that cost a search are worth their price."""

import dataclasses

import numpy as np
import pytest

from ban_jax.detectors import rules, witnesses
from tests.detectors.made import RULE, errors_of, profile_of

CLASSES = 12
QUIET = np.array([0.0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
"""No class reads above 2."""


def spoken(*bumped):
    """`QUIET` with classes that stand out, the earlier the more."""
    vector = QUIET.copy()
    for rank, index in enumerate(bumped):
        vector[index] = 2 + 40 * 2.0**-rank
    return vector


def asked(
    a,
    b,
    *,
    rule=RULE,
    limit=3.0,
    most=12,
    seed=0,
    names=("a", "b", "c"),
    kind="profile",
):
    vectors = {"a": a, "b": b}
    against = rules.WITHIN if kind == "within" else profile_of(*names, count=CLASSES)
    found = rule.asks(
        vectors, errors_of(vectors), against, limit=limit, most=most, seed=seed
    )
    assert found is None or found.vectors == ("c",)
    return () if found is None else found.classes


def test_nothing_is_asked_where_all_was_measured():
    vectors = {"a": spoken(3), "b": QUIET, "c": QUIET}
    against = profile_of("a", "b", "c", count=CLASSES)
    errors = errors_of(vectors)
    asks = RULE.asks(vectors, errors, against, limit=3, most=12, seed=0)
    assert asks is None and asked(spoken(3), QUIET)


def test_classes_that_another_baseline_brings_up_are_asked_for_though_some_are_known():
    one, other = spoken(5, 2), spoken(9, 7)
    first = asked(one, one, limit=1e6, most=3)
    known = np.full(CLASSES, np.nan)
    known[list(first)] = 0.5
    for cheap, again in ((one, False), (other, True)):
        vectors = {"a": cheap, "b": cheap, "c": known}
        against = profile_of("a", "b", "c", count=CLASSES)
        found = RULE.asks(
            vectors, errors_of(vectors), against, limit=1e6, most=3, seed=0
        )
        assert (found is not None) == again
    assert found.classes == asked(other, other, limit=1e6, most=3)


def test_nothing_is_asked_where_two_agree_or_none_speaks():
    assert asked(spoken(3), spoken(3)) == ()
    assert asked(QUIET, QUIET[::-1]) == ()


def test_a_witness_speaks_from_above_the_doubt_on():
    vectors = {"a": spoken(3), "b": QUIET}
    against = profile_of("a", "b", "c", count=CLASSES)
    said = RULE.scores(vectors, errors_of(vectors), against).witnesses
    loudest = max(map(np.max, said.values()))
    for doubt, classes in (
        (loudest, ()),
        (np.nextafter(loudest, 0), tuple(range(CLASSES))),
    ):
        rule = dataclasses.replace(RULE, doubt=doubt)
        assert asked(*vectors.values(), rule=rule) == classes


def test_where_one_witness_speaks_all_of_few_classes_are_asked():
    assert asked(spoken(3), QUIET) == tuple(range(CLASSES))
    assert asked(QUIET, spoken(3), most=CLASSES) == tuple(range(CLASSES))


def test_two_who_speak_of_different_classes_do_not_agree():
    assert asked(spoken(3), spoken(8), limit=9.0) == tuple(range(CLASSES))


def test_a_limit_that_two_do_not_reach_leaves_a_question():
    assert asked(spoken(3), spoken(3), limit=1e6) == tuple(range(CLASSES))


@pytest.mark.parametrize("most, drawn", [(6, 2), (9, 3), (3, 1)])
def test_of_many_classes_those_that_stand_out_are_asked_and_drawn_ones(most, drawn):
    bumped = [5, 2, 10, 7, 0, 4, 9]
    one = spoken(*bumped)
    every = [asked(one, one, limit=1e6, most=most, seed=seed) for seed in range(40)]
    for found in every:
        assert len(found) == len(set(found)) == most and list(found) == sorted(found)
    assert set.intersection(*map(set, every)) == set(bumped[: most - drawn])


def test_the_seed_draws_and_nothing_else():
    def ask(seed):
        one = spoken(5, 2, 10, 7)
        return asked(one, one, limit=1e6, most=6, seed=seed)

    found = {ask(seed) for seed in range(20)}
    assert len(found) > 5 and ask(3) == ask(3)
    assert all({5, 2, 10, 7} <= set(one) for one in found)
    assert all(0 <= index < CLASSES for one in found for index in one)


@pytest.mark.parametrize(
    "unknown", [{"kind": "within"}, {"names": ("a", "b")}], ids=["within", "no curve"]
)
def test_all_is_asked_where_nothing_is_known_of_clean_answers(unknown):
    assert asked(QUIET, QUIET[::-1], **unknown) == tuple(range(CLASSES))
    assert asked(spoken(3), spoken(3), **unknown) == tuple(range(CLASSES))
    assert len(asked(QUIET, QUIET[::-1], most=4, **unknown)) == 4


def test_vectors_that_flag_by_their_level_are_asked_of_all_that_are_not_flagged():
    rule = dataclasses.replace(
        RULE, vectors=("a", "b", "c", "d"), dear=("c", "d"), levels={"d": "it"}
    )
    against = profile_of("a", "b", "c", "d", count=CLASSES)

    def ask(a, b, **more):
        vectors = {"a": a, "b": b, **more}
        told = {"limit": 3.0, "most": 12, "seed": 0}
        return rule.asks(vectors, errors_of(vectors), against, **told)

    everywhere = tuple(range(CLASSES))
    assert ask(QUIET, QUIET[::-1]) == witnesses.Question(everywhere, ("d",))
    assert ask(spoken(3), QUIET) == witnesses.Question(everywhere, ("c", "d"))
    # Whatever those say that were measured since.
    for said in (QUIET, spoken(3)):
        one = witnesses.Question(everywhere, ("c",))
        assert ask(spoken(3), QUIET, d=said) == one
        assert ask(QUIET, QUIET[::-1], d=said) is None
        assert ask(spoken(3), QUIET, c=said).vectors == ("d",)
    assert ask(spoken(3), spoken(3)) is None
