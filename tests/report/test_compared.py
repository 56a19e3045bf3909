"""The page and the table of a comparison, from figures made by hand."""

import io

import pytest

from ban_jax import records, report
from ban_jax.comparing import figures
from ban_jax.report import compared, compared_table, plots
from tests.comparing import test_figures
from tests.report import page_parser

COST = figures.runs.Spent(4, 8.0, 2.0, 3 * 2**30)


def told(**changes):
    ran = figures.runs.Run([], {"resnet18": COST}, {"resnet18": {"steps": 3}})
    one, other = (
        figures.method(name, f"{name} by hand", test_figures.JUDGED, test_figures.TRUTH,
                       ran, {})
        for name in ("first", "second")
    )  # fmt: skip
    other["total"] = {**other["total"], "auc": None}
    return {
        "zoo": "made",
        "models": 7,
        "clean": 3,
        "failed": ["broken"],
        "budget": None,
        "passes": None,
        "flags": {"data": "toy"},
        "versions": {"ban_jax": "0"},
        "methods": [one, other],
        **changes,
    }


def test_the_page_says_what_was_found_left_out_and_not_judged():
    page = page_parser.Page(compared.render(told()))
    words = " ".join(" ".join(page.text).split())
    assert "first has the largest AUC, .89." in words
    assert "1 model whose backdoor failed in training is left out" in words
    assert "7 models whose truth is known, 3 clean and 4 backdoored" in words
    assert "first: 1 model b2 inconclusive by hand" in words
    assert "3.0 GiB" in words and "steps" in words
    assert len(page.having("svg", "aria-label")) == 2


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_narrow_terminal_gets_all_figures_whole(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    compared_table.print_methods(told()["methods"], file=out)
    assert max(map(len, out.getvalue().splitlines())) <= width
    words = " ".join(out.getvalue().split())
    assert "…" not in words
    for method in told()["methods"]:
        shown = compared_table.cells(records.finite(method))
        for head in compared_table.NARROW:
            assert shown[head] in words, head


def test_a_budget_is_told():
    words = " ".join(page_parser.Page(compared.render(told(budget=2.5))).text)
    assert "2.5 seconds" in words
    words = " ".join(page_parser.Page(compared.render(told(passes=4000))).text)
    assert "4,000 forward passes" in words and "documented" not in words


def test_where_nothing_could_be_judged_the_page_says_so():
    found = told()
    for one in found["methods"]:
        one["total"] = {**one["total"], "auc": None}
    words = " ".join(page_parser.Page(compared.render(found)).text)
    assert "No detector could be judged." in words
    assert "nothing was measured" in str(compared.scatter(found["methods"]))


def test_detectors_that_are_equally_good_are_all_named():
    found = told()
    found["methods"][1]["total"] = found["methods"][0]["total"]
    words = " ".join(page_parser.Page(compared.render(found)).text)
    assert "first, second share the largest AUC, .89." in words


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (640, "640"), (12_345, "12.3 k"), (2.5e6, "2.5 M")]
)
def test_passes_are_short(count, text):
    assert compared_table.passes(count) == text


def test_a_dash_stands_where_nothing_is_known():
    assert compared_table.memory(None) == compared_table.area(None) == "–"
    assert compared_table.share(None) == "–"
    file = io.StringIO()
    report.print_methods(told()["methods"], file)
    second = next(line for line in file.getvalue().splitlines() if "second" in line)
    assert "–" in second and "1/3" in second


def test_a_perfect_curve_goes_up_the_left_side():
    drawn = str(plots.roc({"a": [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)], "b": []}))
    left, top, bottom = plots._LEFT, plots._TOP, plots._BOTTOM
    assert f"M{left:g} {bottom:g}L{left:g} {top:g}L{plots._RIGHT:g} {top:g}" in drawn
    assert ">a<" in drawn and ">b<" not in drawn


def test_a_detector_keeps_its_colour_where_another_has_no_points():
    curves = {"a": [], "b": [(0.0, 0.0), (1.0, 1.0)]}
    assert 'class="p1 line"' in str(plots.roc(curves))
    assert 'class="p1 spot"' in str(plots.scatter({"a": None, "b": (1.0, 0.5)}))
    found = records.finite(told())
    found["methods"].reverse()  # the first has no AUC
    assert 'class="p1 spot"' in str(compared.scatter(found["methods"]))


def test_ten_times_the_seconds_are_equally_far_apart():
    drawn = str(plots.scatter({"a": (1.0, 0.5), "b": (10.0, 0.75), "c": (100.0, 1.0)}))
    x = [float(part.split('"')[0]) for part in drawn.split('cx="')[1:4]]
    y = [float(part.split('"')[0]) for part in drawn.split('cy="')[1:4]]
    assert abs((x[1] - x[0]) - (x[2] - x[1])) < 0.2 and x[0] < x[1]
    assert abs((y[0] - y[1]) - (y[1] - y[2])) < 0.2 and y[0] > y[1]
