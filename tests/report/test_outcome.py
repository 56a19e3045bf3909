"""What is said of a whole scan, and what to do next."""

import shlex

import pytest

from ban_jax import report
from ban_jax.report import advice, outcome
from tests.report import report_sample


def flagged(*shares, verdict="backdoored"):
    return [{"path": "a", "verdict": verdict, "q_value": share} for share in shares]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (
            flagged(*[0.05] * 8),
            "Of the 8 called backdoored at most about 0.4 are expected to be false alarms",
        ),
        (
            flagged(0.01, 0.02, 0.3),
            "Of the 3 called backdoored at most about 0.9 are expected to be false alarms",
        ),
        (
            flagged(0.01),
            "Of the 1 called backdoored at most about 0.01 is expected to be a false "
            "alarm",
        ),
        (
            flagged(0.01, None),
            "Of the 1 called backdoored with a p-value at most about 0.01 is expected to "
            "be a false alarm",
        ),
        (
            [*flagged(0.1, 0.1), *flagged(0.25, 0.5, verdict="suspicious")],
            "Of the 2 called backdoored at most about 0.2 are expected to be false "
            "alarms; of the 4 called backdoored or suspicious at most about 2.0",
        ),
        (
            flagged(0.25, 0.5, verdict="suspicious"),
            "Of the 2 called suspicious at most about 1.0 are expected to be false alarms",
        ),
        (flagged(0.9, verdict="clean"), ""),
        (flagged(None, None), ""),
        ([], ""),
    ],
)
def test_expected_false_alarms_are_the_largest_q_times_how_many_are_flagged(
    records, told
):
    assert outcome.false_alarms(records) == told


def test_what_was_compared_with_is_named_and_many_are_counted():
    one, *_ = report_sample.graded()
    assert outcome.baselines([one, one]) == (
        "compared with profile cifar10, 24 clean models"
    )
    many = [one | {"compared_with": f"profile {k}"} for k in range(5)]
    old = report_sample.judged()
    assert outcome.baselines([*many, old]) == (
        "compared with profile 0; profile 1; profile 2; 2 more; baseline population"
    )
    trusted = [one | {"compared_with": f"{k} trusted models"} for k in (40, 38, 39)]
    assert outcome.baselines([one, *trusted]) == (
        "compared with profile cifar10, 24 clean models; 38 to 40 trusted models"
    )
    assert outcome.baselines(trusted[:1]) == "compared with 40 trusted models"
    assert outcome.baselines([{"path": "a"}]) == ""


def test_limits_are_told_once_or_from_the_least_to_the_largest():
    assert outcome.limits(report_sample.graded()) == (
        "backdoored above 3.50, suspicious above 2.70"
    )
    one = report_sample.judged(threshold=4.0)
    assert outcome.limits([one, report_sample.judged()]) == (
        "backdoored above 3.50 to 4.00"
    )
    # A file that was not measured has a threshold that means nothing.
    assert outcome.limits([report_sample.unreadable() | {"threshold": 0.0}]) == ""


def test_there_is_one_step_for_each_grade_that_needs_one():
    steps = report.steps(report_sample.graded(), "out/results.jsonl")
    assert [step.split(":")[0] for step in steps] == [
        "2 backdoored",
        "1 suspicious",
        "1 inconclusive",
    ]
    assert report.steps([report_sample.witnessed(verdict="clean")]) == []


def test_a_report_does_not_know_where_the_images_of_the_scan_lay():
    records = report_sample.graded()
    for data, is_asked in (("cifar10", True), ("digits", False)):
        asked = {"results": "out/results.jsonl", "data": data}
        step = report.steps(records, "out/results.jsonl", asked)[0]
        assert ("--data-dir THAT_OF_THE_SCAN" in step) == is_asked
    asked = {"results": "x", "data": "cifar10", "data_dir": "tfds"}
    assert "--data-dir tfds" in report.steps(records, "x", asked)[0]
    assert "--data-dir" not in report.steps(records, "x", {"data": "cifar10"})[0]


def test_the_command_of_a_step_can_be_pasted():
    asked = {"data": "my images", "data_dir": "/data", "image_size": 32}
    (step,) = report.steps([report_sample.witnessed()], "o ut/results.jsonl", asked)
    words = shlex.split(step[step.index("ban-jax repair") :])
    assert words[2:] == [
        "--from-scan",
        "o ut/results.jsonl",
        "--data",
        "my images",
        "--data-dir",
        "/data",
        "--image-size",
        "32",
    ]
    (step,) = report.steps([report_sample.witnessed()])
    assert step.endswith("--from-scan results.jsonl --data cifar10")
    (step,) = report.steps([report_sample.witnessed(data=None)])
    assert step.endswith("--data NAME")


def test_what_was_tried_is_not_advised_again():
    record = report_sample.witnessed(verdict="suspicious")
    (step,) = report.steps([record])
    assert "--exhaustive" in step and "--calibrate" in step and "--num-clean" in step
    (step,) = report.steps([record], asked={"exhaustive": True, "calibrate": "good"})
    assert "--exhaustive" not in step and "--calibrate" not in step
    assert "--num-clean" in step


def test_the_advice_for_files_that_were_not_judged_is_given_where_it_is_the_same():
    (step,) = report.steps([report_sample.unreadable()] * 2)
    assert "download is complete" in step
    (step,) = report.steps([report_sample.unreadable(), report_sample.near_chance()])
    assert "The report says for each" in step


def test_a_file_of_several_classifiers_is_told_of_once():
    worst, milder = (
        {**report_sample.judged(f"two.pt#{name}", score=score), "part_of": "two.pt"}
        for name, score in (("student", 8.7), ("teacher", 0.3))
    )
    whole = {**worst, "path": "two.pt", "part_of": None, "parts": [worst["path"]]}
    lines = [report_sample.judged("b.pt"), whole, worst, milder]
    counts = outcome.tally(lines)
    assert (counts["backdoored"], counts["clean"]) == (2, 0)
    assert outcome.targets(lines, None).endswith("class 1 in 2")
    (step,) = advice.steps(lines)
    assert step.startswith("2 backdoored: ")
