"""The table of classes by witnesses: what is warm, what is marked, what is left out."""

import pytest

from ban_jax import report
from ban_jax.report import heat
from ban_jax.report.subject import Subject
from tests.report import page_parser, report_sample


def _subject(record, names=report_sample.CLASS_NAMES):
    return Subject(record, "candidate-1", record["path"], names)


def _made(**changes):
    return heat.heat(_subject(report_sample.witnessed(**changes)))


def test_there_is_a_column_for_each_witness_and_one_for_the_score():
    found = _made()
    assert found.heads == [
        "undirected noise",
        "batch statistics",
        "last layer",
        "noise towards it",
        "score",
    ]
    assert [row.label for row in found.rows] == report_sample.CLASS_NAMES
    assert all(len(row.cells) == 5 for row in found.rows)
    assert found.rows[1].cells[-1].value == "5.20"
    assert _made(z=None).heads[-1] == "noise towards it"
    assert _made(witnesses={}) is None
    assert _made(witnesses=None) is None


def test_only_the_target_of_a_flagged_candidate_is_marked():
    assert [row.is_target for row in _made().rows].index(True) == 1
    assert sum(row.is_target for row in _made(verdict="suspicious").rows) == 1
    assert not any(row.is_target for row in _made(verdict="clean").rows)


@pytest.mark.parametrize(
    ("z", "warmth", "glyph"),
    [
        (3.51, "alarm", "▲"),
        (3.5, "doubt", "◆"),
        (2.71, "doubt", "◆"),
        (2.7, "half", ""),
        (1.76, "half", ""),
        (1.75, "", ""),
        (-9.0, "", ""),
        (None, "", ""),
    ],
)
def test_a_cell_is_as_warm_as_it_is_odd_and_says_so_without_colour(z, warmth, glyph):
    found = _made(witnesses={"untargeted": [z, *[0.5] * 9]})
    assert found.rows[0].cells[0][1:] == (warmth, glyph)


def test_without_a_suspicious_grade_there_is_no_doubt():
    found = _made(witnesses={"untargeted": [3.4] * 10}, suspicious_above=None)
    assert found.rows[0].cells[0].warmth == "half"
    assert "◆" not in found.note
    assert "▲ above 3.50." in found.note


def test_of_many_classes_those_that_stand_out_and_the_target_are_shown():
    record = report_sample.witnessed(num_classes=200, target=150, score=-5.0)
    found = heat.heat(_subject(record, None))
    assert len(found.rows) == 12
    assert [row.label for row in found.rows if row.is_target] == ["class 150"]
    assert found.note.endswith("12 of 200 classes.")


def test_void_witnesses_are_listed_with_their_reasons():
    text = " ".join(page_parser.render([report_sample.witnessed()]).text)
    assert (
        "Left out: one change of pixels: no class differs from the others by more than "
        "chance"
    ) in text
    assert "Left out" not in report.render([report_sample.witnessed(void={})])
    only = report_sample.witnessed(witnesses={})
    assert "Left out" in report.render([only])


def test_the_table_has_heads_for_its_rows_and_columns_and_can_be_scrolled():
    page = page_parser.render([report_sample.witnessed()])
    table = report.render([report_sample.witnessed()]).split('<table class="heat">')[1]
    table = table[: table.index("</table>")]
    assert table.count('scope="row"') == 10
    assert table.count('scope="col"') == 6
    assert '<tr class="target"><th scope="row">▸ class 1</th>' in table
    assert "▲ 5.20</td>" in table
    assert page.having("div", "class").count({"class": "scroll"}) == 1
