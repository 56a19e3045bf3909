"""What verdicts were worth, on verdicts made by hand."""

import pytest

from ban_jax.comparing import figures, runs
from ban_jax.records import record


def entry(kind="clean", architecture="resnet18", target=None, **more):
    return {"kind": kind, "architecture": architecture, "target": target, **more}


def judged(path, verdict, score=None, target=None, **more):
    return record.empty(path, **more) | {
        "verdict": verdict,
        "score": score,
        "target": target,
        "reason": f"{verdict} by hand",
        "baseline": "within",
    }


TRUTH = {
    "c0": entry(),
    "c1": entry(),
    "c2": entry(architecture="vgg16"),
    "b0": entry("badnets", target=3),
    "b1": entry("badnets", target=5),
    "b2": entry("blend", "vgg16", target=1),
    "b3": entry("blend", "vgg16", mode="all_to_all"),
}
JUDGED = [
    judged("c0", "clean", 1.0, 0, forward_equivalents=100),
    judged("c1", "backdoored", 5.0, 0, forward_equivalents=300),
    judged("c2", "suspicious", 3.0, 0),
    judged("b0", "backdoored", 6.0, 3),
    judged("b1", "backdoored", 7.0, 9),
    judged("b2", "inconclusive", 9.0, 1),
    judged("b3", "backdoored", 4.0, 2),
]


@pytest.fixture(scope="module")
def found():
    spent = {
        "resnet18": runs.Spent(4, 8.0, 2.0, 100),
        "vgg16": runs.Spent(1, 12.0, 1.0, 900),
    }
    ran = runs.Run([], spent, {"resnet18": {"steps": 3}, "vgg16": {"steps": 3}})
    return figures.method("made", "made by hand", JUDGED, TRUTH, ran, {})


def row(found, attack, architecture):
    (one,) = [
        one
        for one in found["rows"]
        if (one["attack"], one["architecture"]) == (attack, architecture)
    ]
    return one


def test_what_could_not_be_judged_is_neither_found_nor_clean(found):
    assert found["total"]["inconclusive"] == 1
    assert found["total"]["flagged"][:2] == (3, 4)
    # c0, c2 (suspicious is not flagged), b0, b1, b3.
    assert found["total"]["right"][:2] == (5, 7)
    alone = row(found, "blend", "vgg16")
    assert alone["flagged"][:2] == (0, 1) and alone["inconclusive"] == 1
    assert alone["auc"] is None  # its score is in no curve


def test_false_alarms_are_the_clean_ones_that_are_flagged(found):
    assert found["false_alarms"][:2] == (1, 3)
    assert row(found, "clean", "all")["flagged"][:2] == (1, 3)
    assert row(found, "clean", "vgg16")["flagged"][:2] == (0, 1)
    assert row(found, "clean", "resnet18")["auc"] is None


def test_a_target_counts_where_there_is_one(found):
    assert found["total"]["right_target"][:2] == (1, 3)
    assert row(found, "badnets", "resnet18")["right_target"][:2] == (1, 2)
    assert row(found, "blend (all to all)", "vgg16")["right_target"] is None
    assert row(found, "clean", "all")["right_target"] is None


def test_an_attack_is_set_against_clean_models_of_its_architecture(found):
    assert row(found, "badnets", "resnet18")["auc"].value == 1.0
    assert row(found, "blend (all to all)", "vgg16")["auc"].value == 1.0
    # 6, 7, 4 against 1, 5, 3.
    assert found["total"]["auc"].value == 8 / 9


def test_clean_models_stand_first_and_sums_only_where_there_are_several(found):
    keys = [(one["attack"], one["architecture"]) for one in found["rows"]]
    assert keys[:3] == [("clean", "all"), ("clean", "resnet18"), ("clean", "vgg16")]
    assert ("badnets", "all") not in keys


def test_costs_are_per_candidate_that_was_measured(found):
    costs = {one["architecture"]: one for one in found["costs"]}
    assert costs["resnet18"]["seconds"] == 2.0 and costs["vgg16"]["seconds"] == 12.0
    assert costs["resnet18"]["forward_equivalents"] == 100
    assert found["seconds"] == 20 / 5 and found["chunk_bytes"] == 900
    assert found["forward_equivalents"] == 400 / 7


def test_a_file_that_could_not_be_read_costs_nothing():
    failed = judged("b0", "inconclusive", error="it is cut short")
    ran = runs.Run([], {"resnet18": runs.Spent()}, {"resnet18": {}})
    found = figures.method("made", "", [failed], TRUTH, ran, {})
    assert found["seconds"] is None and found["forward_equivalents"] is None
    assert found["roc"] == [] and found["total"]["auc"] is None
