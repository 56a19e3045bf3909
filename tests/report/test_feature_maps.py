"""Maps of features under noise: drawn where a record has one that fits it."""

import pytest

from ban_jax import report
from tests.report import page_parser, report_sample


def record(**changes):
    """A flagged candidate, target 7, with four images at two radii."""
    told = {
        "radii": [0.0, 0.4],
        "labels": [0, 1, 7, 3],
        "answers": [[0, 1, 7, 3], [7, 7, 7, 3]],
        "points": [[[0.0, 0.5], [1.0, 0.25], [0.3, 0.1], [0.5, 0.5]]] * 2,
        **changes,
    }
    found = report_sample.judged(target=7)
    return {**found, "info": {**found["info"], "features": told}}


def maps(found):
    page = page_parser.render([found])
    labels = [a["aria-label"] for a in page.having("svg", "aria-label")]
    return [one for one in labels if "t-SNE" in one], page


def test_a_map_says_what_is_answered_at_each_radius():
    labels, page = maps(record())
    assert labels == [
        "Features under growing noise, by t-SNE: at radius 0 25% class 0; at radius 0.4 "
        "75% class 7"
    ]
    assert "others that are answered with class 7" in " ".join(page.text)


def test_images_led_to_the_target_are_crosses_and_its_own_are_dots():
    html = report.render([record()])
    picture = html.partition("by t-SNE")[2].partition("</svg>")[0]
    assert picture.count("m0 -4.8l-4.8 4.8") == 2  # classes 0 and 1 under noise
    assert picture.count("h0") == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 1, 7]},
        {"labels": [0, 1, 7, 10]},
        {"answers": [[0, 1, 7, "<b>"], [7, 7, 7, 3]]},
        {"radii": [0.0]},
        {"radii": [0.0, None]},
        {"points": [[[0.0, 0.5], [1.0, 0.25], [0.3, 0.1], [0.5, 2.0]]] * 2},
        {"points": "nonsense"},
    ],
)
def test_a_map_that_does_not_fit_its_record_is_not_drawn(changes):
    assert maps(record(**changes))[0] == []
