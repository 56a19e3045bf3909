"""The page of a scan with all grades: how they look, and what is told of them."""

import re

from ban_jax import report
from ban_jax.report import environment, fields
from tests.report import page_parser, report_sample


def test_every_grade_has_a_glyph_and_colours_of_its_own_that_can_be_read():
    css = str(environment.static("page.css"))
    assert len(set(fields.GLYPHS.values())) == len(fields.VERDICTS)
    grades = {"hot": "backdoored", "warn": "suspicious", "open": "inconclusive"}
    grades["ok"] = "clean"
    blocks = re.findall(r":root\{([^}]*)\}", css)
    schemes = [block for block in blocks if "--paper" in block]
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", scheme))
        assert len({colours[name] for name in grades}) == 4
        for name in grades:
            for ground in (colours[f"{name}bg"], colours["card"], colours["paper"]):
                assert _contrast(colours[name], ground) >= 4.5
    for name, grade in grades.items():
        assert f".{grade}{{color:var(--{name})}}" in css
        assert f".badge.{grade}{{background:var(--{name}bg)" in css


def _contrast(one, other):
    """The ratio of WCAG 2.1."""

    def light(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [
            p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        ]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_rows_and_sections_stand_in_the_order_of_the_table_on_the_terminal():
    page = page_parser.render(report_sample.graded()[::-1])
    grades = [a["data-verdict"] for a in page.having("tr", "data-verdict")]
    wanted = ["backdoored", "backdoored", "suspicious", "inconclusive", "clean"]
    assert grades == wanted
    assert [a["data-verdict"] for a in page.having("details")] == wanted


def test_a_suspicious_candidate_names_and_marks_its_class():
    record = report_sample.witnessed(verdict="suspicious", score=3.1)
    text = report.render([record], class_names=report_sample.CLASS_NAMES)
    assert '<td data-label="target">1 (automobile)</td>' in text
    assert "▸ automobile" in text
    assert "suspected target 1 (automobile) · score 3.10" in text


def test_a_class_that_is_called_by_its_number_is_a_class_in_words():
    text = report.render([report_sample.judged()], class_names=[*map(str, range(10))])
    assert "▸ class 1<" in text
    assert "suspected target class 1 ·" in text


def test_all_score_bars_begin_at_the_same_place():
    records = report_sample.graded()
    records += [report_sample.judged("a.pt", score=123.4, standard_error=40.0)]
    text = report.render(records)
    width = int(re.search(r'style="--score:(\d+)ch"', text)[1])
    scores = re.findall(
        r'data-sort="[^"]*"><span>([^<]*)</span><svg class="mini"', text
    )
    assert len(scores) == 5
    assert max(map(len, scores)) == width
    css = str(environment.static("page.css"))
    assert (
        ".score span{display:inline-block;width:var(--score);text-align:right}" in css
    )


def test_the_page_opens_with_comparison_trust_and_what_to_do():
    records = report_sample.graded()
    steps = report.steps(records, "out/results.jsonl", {"data": "cifar10"})
    text = report.render(records, trust="Right in 98 % of cases.", steps=steps)
    head = text[text.index("<h1>") : text.index("</header>")]
    for told in (
        "compared with profile cifar10, 24 clean models; "
        "backdoored above 3.50, suspicious above 2.70",
        "Right in 98 % of cases.",
        "Of the 2 called backdoored at most about 0.1 are expected to be false alarms",
        '<code class="command"><span>ban-jax</span> <span>repair</span> '
        "<span>--from-scan</span> <span>out/results.jsonl</span> ",
        "<code>--exhaustive</code>",
    ):
        assert told in head
    bare = report.render([report_sample.unreadable()])
    assert "How far to trust it" not in bare
    assert "What to do next" not in bare


def test_p_and_q_are_told_with_what_they_come_from():
    text = report.render([report_sample.witnessed()])
    assert "<dt>p-value</dt><dd>at most 0.04, from 24 clean models</dd>" in text
    assert "<dt>q-value</dt><dd>0.06</dd>" in text
    assert '<td data-label="p" data-sort="0.04">≤.04</td>' in text
    assert "<strong>p and q.</strong>" in text
    without = report.render([report_sample.judged()])
    assert "p-value" not in without
    assert 'data-label="p"' not in without
    assert "p and q" not in without


def test_rows_show_the_letters_of_the_witnesses_that_speak():
    text = report.render(report_sample.graded())
    row = text[text.index('data-verdict="suspicious"') :]
    cell = re.search(r'<td data-label="witnesses">(.*?)</td>', row)[1]
    assert re.findall(r'<abbr title="([^"]*)">(\w)</abbr>', cell) == [
        ("undirected noise", "U"),
        ("noise towards it", "T"),
    ]
    assert 'data-label="witnesses"' not in report.render(report_sample.mixed())


def test_long_names_may_be_broken_after_their_seams():
    text = report.render([report_sample.judged("a/b_c-d.pt")])
    assert '<a class="path" href="#candidate-1">b_<wbr>c-<wbr>d.<wbr>pt</a>' in text
    assert "<code>a</code>" in text


def test_nothing_on_the_page_needs_the_script():
    text = report.render(report_sample.graded())
    body = text[text.index("<body>") : text.index("<script>")]
    hidden = re.findall(r"<(\w+)[^>]*\shidden\b", body)
    assert hidden == ["div"]  # the tools, which the script shows
    assert '<div class="tools" hidden>' in body
