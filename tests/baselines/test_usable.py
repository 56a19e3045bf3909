"""Whether evidence may be judged, against numbers derived by hand."""

import pytest

from ban_jax.baselines import usable
from tests.baselines import made

FLAT = {"a": [0.1] * 10, "b": [0.1] * 10}


def reason_of(crowd_like=True, **changes):
    return usable.why_inconclusive(
        made.evidence(FLAT, **changes), crowd_like=crowd_like
    )


@pytest.mark.parametrize("crowd_like", [True, False])
@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"error": "x.pt: torn"}, "torn"),
        ({"is_finite": False}, "not finite"),
        ({"num_classes": None}, "nothing was measured"),
        ({"clean_accuracy": 0.1}, "normalisation or the order of the classes"),
        ({"clean_accuracy": 0.749, "recorded_accuracy": 0.85}, "recorded 0.85"),
    ],
)
def test_what_may_not_be_judged_says_why(changes, reason, crowd_like):
    assert reason in reason_of(crowd_like, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clean_accuracy": None, "num_probe": 0},
        {"clean_accuracy": 0.751, "recorded_accuracy": 0.85},
        {"clean_accuracy": 0.8, "recorded_accuracy": 0.7},
    ],
)
def test_sound_evidence_may_be_judged(changes):
    assert reason_of(**changes) == reason_of(crowd_like=False, **changes) == ""


@pytest.mark.parametrize("classes, few", [(2, True), (4, True), (5, False)])
def test_few_classes_are_compared_with_other_models_alone(classes, few):
    flat = {"a": [0.1] * classes, "b": [0.1] * classes}
    line = made.evidence(flat, clean_accuracy=0.99)
    assert usable.why_inconclusive(line, crowd_like=True) == ""
    reason = usable.why_inconclusive(line, crowd_like=False)
    assert ("--calibrate" in reason) == few


@pytest.mark.parametrize(
    "classes, accuracy, count, judged",
    [
        # Ten classes: 0.217 on 60 images may be 0.131, which is below 2 / 10.
        (10, 0.217, 60, False),
        (10, 0.340, 60, True),  # at least 0.233
        (10, 0.250, 400, True),  # at least 0.210
        (10, 0.230, 400, False),  # at least 0.191
        # Two classes: 2 / 2 would refuse all; half way from chance to 1 is 0.75.
        (2, 0.85, 400, True),  # at least 0.812
        (2, 0.77, 400, False),  # at least 0.726
    ],
)
def test_a_model_that_may_be_near_chance_is_not_judged(
    classes, accuracy, count, judged
):
    lower = usable.wilson_lower(accuracy, count)
    assert (lower > min(2 / classes, (1 + 1 / classes) / 2)) == judged
    flat = {"a": [0.1] * classes, "b": [0.1] * classes}
    line = made.evidence(flat, clean_accuracy=accuracy, num_probe=count)
    reason = usable.why_inconclusive(line, crowd_like=True)
    assert ("near chance" in reason) != judged and (reason == "") == judged


def test_the_lower_bound_is_wilsons():
    # Textbook value: 10 of 20 gives (0.299, 0.701).
    assert usable.wilson_lower(0.5, 20) == pytest.approx(0.2993, abs=1e-4)
    assert usable.wilson_lower(0.0, 20) == 0.0


def test_copies_and_what_may_not_be_judged_are_not_counted():
    first = made.clean(0)
    found = usable.distinct(
        [
            first,
            first | {"path": "copy.pt"},
            made.clean(1, is_finite=False),
            made.clean(2, error="torn"),
            made.clean(3) | {"vectors": {}, "errors": {}},
            made.clean(4),
        ]
    )
    assert [line["sha256"] for line in found] == ["m00", "m04"]
