"""Intervals, p-values and witnesses as they are read from a record."""

import pytest

from ban_jax.report import glossary, judgement
from tests.report import report_sample


def test_an_interval_comes_from_the_record_or_else_from_the_standard_error():
    assert judgement.interval({"score": 2.0, "interval": [1.0, 4.0]}) == (1.0, 4.0)
    found = judgement.interval({"score": 2.0, "standard_error": 1.0})
    assert found == pytest.approx((0.04, 3.96))
    for record in (
        {"score": 2.0},
        {"score": 2.0, "standard_error": 0.0},
        {"score": None, "interval": [1.0, 2.0]},
        {"score": 2.0, "interval": [None, 2.0]},
        {"score": 2.0, "interval": [1.0]},
    ):
        assert judgement.interval(record) is None


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ([1.58, 2.42], "±0.42"),
        ([-1.2, 5.2], "±3.2"),
        ([-48.0, 52.0], "±50"),
        ([1.5, 4.0], "(1.50–4.00)"),
        ([2.0, 2.0], ""),
        (None, ""),
    ],
)
def test_an_interval_is_told_in_few_characters(interval, told):
    assert judgement.spread({"score": 2.0, "interval": interval}) == told


@pytest.mark.parametrize(
    ("p", "models", "told"),
    [
        (0.04, 24, "≤.04"),
        (0.08, 24, ".08"),
        (1 / 1001, 1000, "≤.001"),
        (0.0123, 1000, ".012"),
        (1.0, 24, "1"),
        (1.0, 0, "1"),
        (None, 0, ""),
    ],
)
def test_a_p_value_is_told_with_whether_it_could_be_smaller(p, models, told):
    assert judgement.p_value({"p_value": p, "p_models": models}) == told


def test_a_witness_speaks_above_the_limit_that_its_grade_needs():
    record = report_sample.witnessed(speaking=("untargeted",), score=3.1)
    record["witnesses"]["targeted"][1] = None
    quiet = {"batch_minus_stored": False, "last_layer": False}
    assert judgement.speaking(record) == {"untargeted": False, **quiet}
    record["verdict"] = "suspicious"
    assert judgement.speaking(record) == {"untargeted": True, **quiet}
    for verdict in ("clean", "inconclusive"):
        assert judgement.speaking(record | {"verdict": verdict}) == {}
    for target in (None, 10, -1, "1", True):
        assert judgement.speaking(record | {"target": target}) == {}


def test_every_witness_has_a_letter_of_its_own():
    names = ["targeted", "universal", "odd", "untargeted", "tail", "__", "---"]
    found = glossary.witnesses(names)
    letters = [one.letter for one in found.values()]
    assert letters[:3] == ["U", "T", "X"]
    assert {name: one.letter for name, one in found.items()}["odd"] == "O"
    assert {name: one.letter for name, one in found.items()}["tail"] == "A"
    assert set(found) == set(names)
    assert all(one.letter for one in found.values())
