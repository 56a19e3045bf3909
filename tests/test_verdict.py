"""Verdicts from evidence, against numbers derived by hand."""

import math

import numpy as np
import pytest

from ban_jax import detectors, verdict
from ban_jax.detectors import rules
from ban_jax.records import record as records

FLAT = [0.10, 0.11, 0.12, 0.13, 0.14]


def record(vector=FLAT, **changes):
    """A line of evidence in the one-vector mode `weights`."""
    known = {
        "sha256": str(vector),
        "mode": "weights",
        "architecture": "resnet18",
        "num_classes": len(vector),
        "config_hash": "c",
        "vectors": {"last_layer": vector},
        "errors": {"last_layer": [0.0] * len(vector)},
        "clean_accuracy": 0.9,
        "num_probe": 500,
    }
    return records.empty("a.pt") | known | changes


def two(targeted, rise, error=(0.0, 0.0), **changes):
    """Evidence in mode `targeted`, which judges by two vectors."""
    vectors = {"targeted": list(targeted), "batch_minus_stored": list(rise)}
    errors = {name: [e] * len(targeted) for name, e in zip(vectors, error, strict=True)}
    digest = str((list(targeted), list(rise)))
    known = {"mode": "targeted", "vectors": vectors, "errors": errors}
    return record(targeted, **(known | {"sha256": digest} | changes))


def test_z_values_within_leave_the_largest_class_out_of_the_unit():
    z, unit = rules.z_values(np.array(FLAT), "last_layer", rules.WITHIN)
    # Median 0.12. Of 0.10 0.11 0.12 0.13 the mean is 0.115, the deviations 0.015 and
    # 0.005 twice each: a variance of (0.000225 + 0.000025) / 2.
    assert unit == pytest.approx(0.000125**0.5)
    np.testing.assert_allclose(z, np.array([-2, -1, 0, 1, 2]) * 0.01 / 0.000125**0.5)


def test_a_class_far_above_the_others_is_the_target_of_a_backdoored_model():
    judged = verdict.judge(record([0.10, 0.11, 0.12, 0.13, 0.50]))
    assert judged["verdict"] == "backdoored"
    assert judged["target"] == 4
    assert judged["score"] > judged["threshold"]


def test_a_class_far_below_the_others_is_not_a_backdoor():
    assert verdict.judge(record([0.10, 0.11, 0.12, 0.13, -0.50]))["verdict"] == "clean"


def test_the_threshold_itself_is_clean_and_a_flag_overrides_it():
    judged = verdict.judge(record(), threshold=verdict.judge(record())["score"])
    assert judged["verdict"] == "clean" and judged["threshold_source"] == "flag"
    assert verdict.judge(record(), threshold=1.0)["verdict"] == "backdoored"


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_no_score_is_compared_with_a_threshold_that_is_no_number(threshold):
    with pytest.raises(ValueError, match="threshold must be a finite number"):
        verdict.Judge(threshold=threshold)


def test_equal_entries_score_zero():
    assert verdict.judge(record([0.1] * 5))["score"] == 0.0


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"error": "x.pt: torn"}, "torn"),
        ({"is_finite": False}, "not finite"),
        ({"clean_accuracy": 0.1}, "normalisation or the order of the classes"),
        ({"clean_accuracy": 0.7, "recorded_accuracy": 0.85}, "recorded 0.85"),
        ({"vectors": {"last_layer": [float("nan")] * 5}}, "not finite"),
    ],
)
def test_what_cannot_be_judged_is_inconclusive_and_says_why(changes, reason):
    judged = verdict.judge(record(**changes))
    assert judged["verdict"] == "inconclusive"
    assert reason in judged["reason"]


def test_too_few_classes_cannot_be_compared_with_one_another():
    judged = verdict.judge(record([0.1, 0.9]))
    assert judged["verdict"] == "inconclusive"
    assert "--calibrate" in judged["reason"]


def test_accuracy_a_little_below_the_recorded_one_is_judged():
    judged = verdict.judge(record(clean_accuracy=0.8, recorded_accuracy=0.85))
    assert judged["verdict"] == "clean"


def crowd_of(count, bump=None):
    """Models whose class 2 is always easy, and one whose class 0 is bumped."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        vector = np.array([0.1, 0.1, 0.4, 0.1, 0.1]) + 0.01 * rng.standard_normal(5)
        if index == bump:
            vector[0] += 0.2
        records.append(record(list(vector), path=f"{index}.pt"))
    return records


def test_a_population_shows_that_a_class_is_easy_in_every_model():
    records = crowd_of(9, bump=4)
    within = verdict.judge_all(records, baseline="within")
    crowd = verdict.judge_all(records, baseline="population")
    assert all(judged["target"] == 2 for judged in within if judged["path"] != "4.pt")
    assert [r["path"] for r in crowd if r["verdict"] == "backdoored"] == ["4.pt"]
    assert next(r for r in crowd if r["path"] == "4.pt")["target"] == 0
    assert all(judged["baseline"] == "population" for judged in crowd)


def test_too_small_a_population_falls_back_to_within_and_says_so():
    judged = verdict.judge_all(crowd_of(5), baseline="population")
    assert all(
        r["baseline"] == "within" and "at least 8" in r["notes"][-1] for r in judged
    )


def test_copies_of_a_file_do_not_make_a_population():
    judged = verdict.judge_all(
        [record(path=f"{i}.pt") for i in range(9)], baseline="population"
    )
    assert all(r["baseline"] == "within" for r in judged)


def test_trusted_models_are_the_default_baseline_where_they_are_of_the_same_kind():
    judged = verdict.judge_all([record()], trusted=crowd_of(4))
    assert judged[0]["baseline"] == "trusted"
    other = verdict.judge_all([record(architecture="vgg16")], trusted=crowd_of(4))
    assert other[0]["baseline"] == "within"


def test_trusted_models_that_score_high_among_themselves_raise_the_threshold():
    trusted = crowd_of(6, bump=1)
    judged = verdict.judge_all([record()], trusted=trusted)[0]
    assert judged["threshold_source"] == "calibrated"
    assert (
        judged["threshold"] > detectors.DETECTORS["weights"].rule.thresholds["trusted"]
    )


def test_verdicts_can_be_drawn_again_from_verdicts():
    once = verdict.judge_all(crowd_of(9, bump=4), baseline="population")
    twice = verdict.judge_all(once, baseline="population")
    assert once == twice


def test_both_vectors_count_the_same():
    line = two([0.1, 0.2, 0.3, 0.4, 0.9], [0.4, 0.3, 0.2, 0.1, 0.0])
    z = [
        rules.z_values(np.array(line["vectors"][name]), name, rules.WITHIN)[0]
        for name in ("targeted", "batch_minus_stored")
    ]
    judged = verdict.judge(line)
    np.testing.assert_allclose(judged["z"], (z[0] + z[1]) / 2)
    assert judged["target"] == int(np.argmax(z[0] + z[1]))
    # By hand: median 0.2; of 0.0 0.1 0.2 0.3 the deviation is sqrt(0.0125).
    assert z[1][0] == pytest.approx(0.2 / 0.0125**0.5)


def test_a_backdoor_that_only_the_statistics_betray_is_found():
    judged = verdict.judge(
        two([0.1, 0.2, 0.15, 0.12, 0.18], [0.0, 0.01, 0.02, 0.9, 0.03])
    )
    assert judged["verdict"] == "backdoored" and judged["target"] == 3


def test_errors_of_two_vectors_add_as_independent_ones_do():
    # In units of each vector's own spread, the errors of the class are 3 and 4.
    vector = [0.1, 0.11, 0.12, 0.13, 0.5]
    unit = 0.000125**0.5
    judged = verdict.judge(two(vector, vector, error=(3 * unit, 4 * unit)))
    assert judged["standard_error"] == pytest.approx(5 / 2)


def spread_of(count, **changes):
    """Models of one kind whose classes differ by a hundredth."""
    rng = np.random.default_rng(1)
    return [
        record(list(0.2 + 0.01 * rng.standard_normal(5)), path=f"{i}.pt", **changes)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "changes", [{"is_finite": False}, {"clean_accuracy": 0.1}, {"error": "torn"}]
)
def test_what_cannot_be_judged_is_no_member_of_a_crowd(changes):
    sound = spread_of(8)
    broken = [record([9.0, 0, 0, 0, float(i)]) | changes for i in range(9)]
    alone = verdict.judge_all(sound, baseline="population")
    among = verdict.judge_all([*sound, *broken], baseline="population")
    assert among[:8] == alone
    few = verdict.judge_all([*sound[:7], *broken], baseline="population")
    assert all(one["baseline"] == "within" for one in few)
    trusted = verdict.judge_all(sound[:1], trusted=broken)
    assert trusted[0]["baseline"] == "within"


def test_three_trusted_models_are_too_few_to_raise_the_threshold():
    def judged(count):
        return verdict.judge_all([record()], trusted=crowd_of(count, bump=1))[0]

    assert judged(3)["baseline"] == "trusted"
    assert judged(3)["threshold_source"] == "default"
    assert judged(4)["threshold_source"] == "calibrated"


def test_evidence_of_other_settings_is_of_another_kind():
    other = spread_of(8, config_hash="another")
    (judged,) = verdict.judge_all([record()], trusted=other)
    assert judged["baseline"] == "within"
    (judged,) = verdict.judge_all([record()], trusted=other, baseline="trusted")
    assert judged["baseline"] == "within" and "at least 2" in judged["notes"][-1]
    mixed = [*spread_of(4), *other[4:]]
    assert all(
        one["baseline"] == "within"
        for one in verdict.judge_all(mixed, baseline="population")
    )


@pytest.mark.parametrize(
    "field", ["mode", "architecture", "num_classes", "config_hash"]
)
def test_models_of_another_kind_are_no_yardstick(field):
    mine = record()
    other = mine | {field: 5 if field == "num_classes" else "another"}
    if field == "num_classes":
        mine |= {"num_classes": 6}
    assert verdict.kind_of(mine) != verdict.kind_of(other)


def test_a_crowd_of_equal_shares_measures_in_hundredths():
    def shares(values, digest):
        line = record(list(values), mode="reference", sha256=digest)
        vectors, errors = {"share": list(values)}, {"share": [0.0] * len(values)}
        return line | {"vectors": vectors, "errors": errors}

    trusted = [shares([0.2] * 5, str(i)) for i in range(3)]
    (judged,) = verdict.judge_all(
        [shares([0.24, 0.2, 0.2, 0.2, 0.16], "c")], trusted=trusted
    )
    # The crowd's spread is zero, and the smallest unit of a share is 0.01.
    assert judged["score"] == pytest.approx(0.04 / 0.01)
    assert judged["verdict"] == "clean"


def test_an_unknown_mode_is_inconclusive_and_says_so():
    judged = verdict.judge(record(mode="phrenology"))
    assert judged["verdict"] == "inconclusive" and "phrenology" in judged["reason"]


def test_the_reference_mode_judges_by_its_largest_share_unless_there_is_a_crowd():
    def shares(*values, path="a.pt"):
        vectors = {"share": list(values)}
        errors = {"share": [0.01] * len(values)}
        return record(mode="reference", vectors=vectors, errors=errors, path=path)

    judged = verdict.judge(shares(0.01, 0.02, 0.95, 0.01, 0.01))
    assert judged["verdict"] == "backdoored" and judged["target"] == 2
    assert (judged["score"], judged["threshold"]) == (0.95, 0.9)
    assert judged["standard_error"] == 0.01 and judged["z"] is None
    assert verdict.judge(shares(0.1, 0.0, 0.9, 0.0, 0.0))["verdict"] == "clean"
    trusted = [
        shares(0.2 + x, 0.2 - x, 0.2, 0.2 + x, 0.2 - x) | {"sha256": str(x)}
        for x in (0.01, 0.02, 0.03)
    ]
    (crowded,) = verdict.judge_all([shares(0.2, 0.2, 0.6, 0, 0)], trusted=trusted)
    assert crowded["baseline"] == "trusted" and crowded["verdict"] == "backdoored"
    assert crowded["score"] > 4 and len(crowded["z"]) == 5
