"""The pictures: lengths in proportion, nothing outside the frame, gaps stay gaps."""

import re

import pytest

from ban_jax.report import charts


def _show(value):
    return "–" if value is None else f"{value:.2f}"


def _bars(svg, name):
    path = re.search(rf'<path class="{name}" d="([^"]*)"', svg)
    pattern = r"M([-\d.]+) ([-\d.]+)h([-\d.]+)v([-\d.]+)"
    return [tuple(map(float, bar)) for bar in re.findall(pattern, path[1])]


def test_bars_are_as_long_as_their_values():
    svg = charts.rows("abc", [1.0, 0.5, 0.25], show=_show, description="d", highlight=0)
    longest = _bars(svg, "h")[0][2]
    assert [bar[2] for bar in _bars(svg, "b")] == pytest.approx(
        [longest / 2, longest / 4], abs=0.1
    )


def test_negative_values_reach_to_the_left_inside_the_frame():
    svg = charts.rows("ab", [-0.5, 0.5], show=_show, description="d")
    (x, _, left, _), (other, _, right, _) = _bars(svg, "b")
    assert x == other
    assert left == -right
    assert x + left >= 0


def test_a_gap_is_a_dash_and_no_bar():
    svg = charts.rows("ab", [None, 0.5], show=_show, description="d")
    assert len(_bars(svg, "b")) == 1
    assert ">–<" in svg


def test_values_that_are_all_zero_can_be_drawn():
    assert "nan" not in charts.rows("ab", [0.0, 0.0], show=_show, description="d")
    assert "nan" not in charts.columns([0.0, 0.0], caption="c", description="d")
    lines = [[0.0, 0.0]]
    svg = charts.curve([0.1, 0.1], lines, ["a"], show=_show, description="d")
    assert "nan" not in svg


@pytest.mark.parametrize("lower", [None, 2.7, 3.5])
@pytest.mark.parametrize(
    ("score", "threshold", "interval"),
    [
        (8.7, 3.5, (7.9, 9.5)),
        (0.0, 3.5, (0.0, 0.0)),
        (-2.0, 3.5, (-3.0, -1.0)),
        (0.9, None, None),
        (1e9, 3.5, (9e8, 2e9)),
        (40.0, 3.5, (-40.0, 1.0)),
    ],
)
def test_the_score_bar_and_its_words_stay_inside_the_frame(
    score, threshold, interval, lower
):
    svg = charts.score_bar(score, threshold, interval, lower)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    places = [float(x) for x in re.findall(r' (?:x|cx)="([-\d.]+)"', svg)]
    places += [float(x) for x in re.findall(r"M([-\d.]+) ", svg)]
    assert all(0 <= place <= width for place in places)
    for x, rest, told in re.findall(r'<text x="([\d.]+)"([^>]*)>([^<]*)<', svg):
        share = {"middle": 0.5, "end": 1.0}
        before = next((part for name, part in share.items() if name in rest), 0.0)
        start = float(x) - before * 6.5 * len(told)
        assert start >= 0
        assert start + 6.5 * len(told) <= width


def test_only_a_score_above_a_limit_has_the_alarming_colour():
    assert 'class="h dot"' in charts.score_bar(3.6, 3.5)
    assert 'class="h' not in charts.score_bar(3.5, 3.5)
    assert 'class="h dot"' in charts.score_bar(3.5, 3.5, None, 2.7)
    assert 'class="h' not in charts.score_bar(2.7, 3.5, None, 2.7)
    assert 'class="h' in charts.mini_score(3.6, 3.5, 10.0)
    assert 'class="h' not in charts.mini_score(3.5, 3.5, 10.0)
    assert 'class="h' in charts.mini_score(3.5, 3.5, 10.0, 2.7)
    assert 'class="h' not in charts.mini_score(2.7, 3.5, 10.0, 2.7)


def test_the_suspicious_zone_ends_where_the_threshold_begins():
    svg = charts.score_bar(3.0, 3.5, (2.5, 3.6), 2.7)
    zones = {
        name: (float(x), float(wide))
        for name, x, wide in re.findall(
            r'<rect class="(\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg
        )
    }
    assert sum(zones["doubt"]) == pytest.approx(zones["zone"][0], abs=0.1)
    assert zones["doubt"][0] < zones["zone"][0]
    assert "doubt" not in charts.score_bar(3.0, 3.5, (2.5, 3.6))


def test_the_whisker_reaches_from_end_to_end_of_the_interval():
    svg = charts.score_bar(3.0, 3.5, (2.0, 6.0))
    first, last = re.search(r'class="b w" d="M([\d.]+) [\d.]+H([\d.]+)', svg).groups()
    dot = float(re.search(r'cx="([\d.]+)"', svg)[1])
    assert float(last) - dot == pytest.approx(3 * (dot - float(first)), abs=0.3)
    assert "95 % from 2.00 to 6.00" in svg
    assert ' w"' not in charts.score_bar(3.0, 3.5)


def test_no_value_beside_a_bar_is_cut_off():
    svg = charts.rows("ab", [1.0, -1.0], show="{:+.6f} %".format, description="d")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    x = max(float(x) for x in re.findall(r'<text x="([\d.]+)"', svg))
    assert x + 7.0 * len("+1.000000 %") <= width


def test_few_classes_keep_their_order_and_many_are_ranked():
    assert charts.choose([1.0, 3.0, 2.0], None) == [0, 1, 2]
    values = [float(k) for k in range(100)]
    assert charts.choose(values, None) == list(range(99, 99 - charts.TOP_ROWS, -1))
    assert charts.choose(values, 4)[-1] == 4
    assert charts.choose([None] * 50 + values, None)[0] == 149


def test_a_curve_rises_on_the_page_with_its_values():
    lines = [[0.0, 0.5, 1.0], [0.1, None, 0.2]]
    svg = charts.curve(
        [0.1, 0.2, 0.3], lines, ["a", "b"], show=_show, description="d", highlight=0
    )
    path = re.search(r'<path class="h line" d="([^"]*)"', svg)[1]
    points = [tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", path)]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    gap = re.search(r'<path class="b line" d="([^"]*)"', svg)[1]
    assert gap.count("M") == 2


def test_labels_are_escaped():
    svg = charts.rows(["<b>"], [1.0], show=_show, description='"><x')
    assert "<b>" not in svg
    assert "<x" not in svg
