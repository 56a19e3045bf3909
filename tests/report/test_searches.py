"""Curves of searches by round: one picture per name, ends where a class ended."""

import re

import pytest

from ban_jax import report
from tests.report import page_parser, report_sample

ROUNDS = [0, 2, 5, 9]


def record(**changes):
    """A flagged candidate whose class 1 ended its search early, with two curves."""
    size = [[30.0 + k - 2 * place for k in range(10)] for place in range(4)]
    size[3][1] = None
    search = {
        "rounds": [10] * 10,
        "round": ROUNDS,
        "curves": {"size": size, "other_thing": [[0.5] * 10] * 4},
        **changes,
    }
    found = report_sample.judged(mode="neural_cleanse", target=1)
    return {**found, "info": {"search": search}}


def pictures(found):
    page = page_parser.render([found])
    labels = [a["aria-label"] for a in page.having("svg", "aria-label")]
    return [one for one in labels if ", by round" in one], " ".join(page.text)


def test_every_curve_has_a_picture_in_the_words_of_its_detector():
    labels, text = pictures(record())
    assert [one.partition(":")[0] for one in labels] == [
        "Size of the mask, by round",
        "other thing, by round",
    ]
    assert "In pixels, mean of a round. One line per class" in text
    # The last that is known: class 1 ended a round before the others, at 27.
    assert "largest is class 9 with 33; suspected target class 1 has 27" in labels[0]


def test_a_search_for_all_classes_at_once_bears_no_class_s_name():
    found = record(curves={"image": [[0.4], [0.3], [0.25], [0.2]]})
    labels, text = pictures(found)
    assert labels == ["image, by round: ends at 0.2"]
    assert "all classes" in report.render([found])
    assert "One line per class" not in text


def test_the_axis_counts_rounds_from_one():
    html = report.render([record()])
    assert ">round<" in html and ">10<" in html and ">1<" in html


@pytest.mark.parametrize(
    "changes",
    [
        {"round": [0, 2, 5]},
        {"round": [5, 2, 0, 9]},
        {"round": None},
        {"curves": None},
        {"curves": {"size": [[1.0, 2.0], [1.0], [2.0, 3.0], [1.0, 1.0]]}},
        {"curves": {"size": [[], [], [], []]}},
        {"round": [0], "curves": {"size": [[1.0]]}},
    ],
)
def test_what_does_not_fit_together_is_left_out(changes):
    assert pictures(record(**changes))[0] == []


def test_numbers_on_an_axis_do_not_touch():
    many = list(range(33))
    found = record(round=many, curves={"size": [[1.0, 2.0]] * 33})
    found["num_classes"] = 2
    html = report.render([found])
    svg = next(
        part for part in re.findall(r"<svg.*?</svg>", html, re.S) if "by round" in part
    )
    places = [
        float(x) for x in re.findall(r'<text x="([\d.]+)" y="174"[^>]*>\d+</text>', svg)
    ]
    gaps = [b - a for a, b in zip(places, places[1:], strict=False)]
    assert len(places) >= 5 and min(gaps) >= 20
    assert "<circle" not in svg
