"""Verdicts for any evidence: what must not matter, and what must move along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ban_jax import verdict
from ban_jax.detectors import rules
from ban_jax.records import record as records
from tests.baselines import made

settings.register_profile("verdicts", deadline=None, derandomize=True, max_examples=60)
EACH = settings.get_profile("verdicts")

CLASSES = 6
VECTORS = arrays.arrays(
    np.float64,
    CLASSES,
    # Thousandths: no two entries so near that rounding could swap them.
    elements=st.integers(-1000, 1000).map(lambda x: x / 1000),
)
SPREAD = VECTORS.filter(lambda vector: np.std(np.sort(vector)[:-1]) > 1e-3)
ORDERS = st.permutations(range(CLASSES))


NAMES = {"targeted": ("targeted", "batch_minus_stored"), made.MODE: ("a", "b")}
"""Vectors of a mode that averages, and of one whose witnesses must agree."""


@pytest.fixture(autouse=True, scope="module")
def made_up_mode():
    """Forgotten afterwards."""
    with made.known():
        yield


def line(*pair, index=0, mode="targeted", **changes):
    vectors = {n: list(map(float, v)) for n, v in zip(NAMES[mode], pair, strict=True)}
    known = {
        "sha256": str(index),
        "key": f"{index}-c",
        "mode": mode,
        "architecture": "resnet18",
        "num_classes": CLASSES,
        "config_hash": "c",
        "vectors": vectors,
        "errors": {name: [0.01] * CLASSES for name in vectors},
        "clean_accuracy": 0.9,
        "num_probe": 500,
    }
    return records.empty(f"{index}.pt") | known | changes


PAIRS = st.lists(st.tuples(VECTORS, VECTORS), min_size=9, max_size=12)
CROWDS = st.builds(
    lambda mode, pairs: [
        line(*pair, index=index, mode=mode) for index, pair in enumerate(pairs)
    ],
    st.sampled_from(list(NAMES)),
    PAIRS,
)


@EACH
@given(SPREAD, st.integers(1, 1000), st.integers(-1000, 1000))
def test_z_within_does_not_depend_on_scale_and_shift(vector, scale, shift):
    z, unit = rules.z_values(vector, "v", rules.WITHIN)
    factor = scale / 100
    other, its_unit = rules.z_values(factor * vector + shift / 10, "v", rules.WITHIN)
    np.testing.assert_allclose(other, z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(its_unit, factor * unit, rtol=1e-6)


@EACH
@given(SPREAD, SPREAD, ORDERS)
def test_renamed_classes_rename_the_target_and_nothing_else(targeted, rise, order):
    order = np.array(order)
    judged = verdict.judge(line(targeted, rise))
    renamed = verdict.judge(line(targeted[order], rise[order]))
    np.testing.assert_allclose(renamed["z"], np.array(judged["z"])[order], atol=1e-9)
    np.testing.assert_allclose(renamed["score"], judged["score"], atol=1e-9)
    top = np.sort(judged["z"])[-2:]
    if top[1] - top[0] > 1e-6:
        assert order[renamed["target"]] == judged["target"]
        np.testing.assert_allclose(
            renamed["standard_error"], judged["standard_error"], rtol=1e-6
        )
    if abs(judged["score"] - judged["threshold"]) > 1e-6:
        assert renamed["verdict"] == judged["verdict"]


@EACH
@given(CROWDS, st.integers(0, 8), st.integers(1, 9))
def test_copies_of_a_file_change_no_other_verdict(crowd, index, copies):
    plain = verdict.judge_all(crowd, baseline="population")
    copied = [crowd[index] | {"path": f"copy{i}.pt"} for i in range(copies)]
    more = verdict.judge_all([*crowd, *copied], baseline="population")
    assert more[: len(crowd)] == plain
    assert all(one["z"] == plain[index]["z"] for one in more[len(crowd) :])


@EACH
@given(CROWDS, st.sampled_from(["within", "population"]))
def test_judging_twice_is_judging_once(crowd, baseline):
    once = verdict.judge_all(crowd, baseline=baseline)
    assert verdict.judge_all(once, baseline=baseline) == once


@EACH
@given(CROWDS, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_changes_no_verdict(crowd, random):
    shuffled = crowd.copy()
    random.shuffle(shuffled)
    by_path = {
        one["path"]: one for one in verdict.judge_all(shuffled, baseline="population")
    }
    for one in verdict.judge_all(crowd, baseline="population"):
        assert by_path[one["path"]] == one


@EACH
@given(SPREAD, SPREAD, st.floats(0, 20))
def test_the_verdict_is_whether_the_score_is_above_the_threshold(targeted, rise, limit):
    judged = verdict.judge(line(targeted, rise), threshold=limit)
    assert judged["score"] == max(judged["z"])
    assert judged["verdict"] == ("backdoored" if judged["score"] > limit else "clean")
