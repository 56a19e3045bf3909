"""What commands leave behind: exit codes, and what is told to do next."""

import pytest

from ban_jax.commands import outcome
from tests.records import lines
from tests.report import page_parser

LETTERS = {
    "b": "backdoored",
    "s": "suspicious",
    "c": "clean",
    "i": "inconclusive",
}


def judged(letters):
    return [{"verdict": LETTERS[letter]} for letter in letters]


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [
        ("backdoored", {"": 3, "c": 0, "cs": 0, "cb": 1, "sb": 1, "ci": 2, "bi": 2}),
        ("suspicious", {"": 3, "c": 0, "cs": 1, "cb": 1, "sb": 1, "ci": 2, "si": 2}),
        ("never", {"": 3, "c": 0, "cs": 0, "cb": 0, "sb": 0, "ci": 0, "sbi": 0}),
    ],
)
def test_the_exit_code_is_1_from_the_asked_grade_on_and_inconclusive_wins(
    fail_on, codes
):
    found = {key: outcome.exit_code(judged(key), fail_on) for key in codes}
    assert found == codes


def test_where_nothing_was_judged_nothing_is_clean_unless_there_was_nothing_to_do():
    assert outcome.exit_code([]) == outcome.NOTHING
    assert outcome.exit_code([], may_be_none=True) == outcome.CLEAN


def test_a_suspicious_candidate_fails_a_scan_unless_told_otherwise():
    assert outcome.exit_code(judged("cs")) == outcome.FLAGGED


def test_every_choice_of_fail_on_is_known_and_another_is_refused():
    assert outcome.FAIL_ON == ("backdoored", "suspicious", "never")
    with pytest.raises(ValueError, match="--fail-on must be .*, got clean"):
        outcome.exit_code([], "clean")


def test_reports_hold_the_line_of_trust_and_what_to_do_next(tmp_path, capsys):
    lines_judged = [
        lines.judged("a.pt", verdict="backdoored"),
        lines.judged("b.pt", verdict="clean"),
    ]
    out = str(tmp_path)
    outcome.write_reports(
        lines_judged, out, None, {"data": "digits"}, trust="Wrong in 1 %."
    )
    printed = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    step = "ban-jax repair --from-scan {} --data digits"
    assert "Wrong in 1 %." in printed and "Wrong in 1 %." in page
    assert step.format(tmp_path / "results.jsonl") in printed
    # A page is handed on.
    words = " ".join(" ".join(page_parser.Page(page).text).split())
    assert step.format("…/results.jsonl") in words
    assert (tmp_path / "results.csv").exists()
    outcome.write_reports(lines_judged, out, None, {})
    assert "Wrong in" not in capsys.readouterr().out
