"""The terminal table: complete, plain without a terminal, never wider than asked."""

import io

import pytest

from ban_jax import report
from tests.report import report_sample


def _printed(records, **options):
    file = io.StringIO()
    report.print_table(records, file=file, **options)
    return file.getvalue()


def test_without_a_terminal_there_are_no_escape_codes():
    text = _printed(report_sample.mixed())
    assert "\x1b" not in text
    assert "▲ backdoored" in text


def test_rows_are_sorted_by_path_and_show_target_and_threshold():
    text = _printed(report_sample.mixed(), class_names=report_sample.CLASS_NAMES)
    names = ["badnets_0", "blend_2", "clean_0", "only_weights", "truncated"]
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    assert "1 (automobile)" in text
    assert "8.71 > 3.50" in text
    assert "1.63 ≤ 3.50" in text


@pytest.mark.parametrize("width", [44, 50, 72, 80, 100, 120, 200])
def test_no_line_of_the_table_is_wider_than_asked(width):
    records = [
        *report_sample.mixed(),
        report_sample.judged("zoo/" + "x" * 300 + "_7.pt"),
    ]
    lines = _printed(records, width=width).splitlines()[:-1]  # the summary may wrap
    assert max(map(len, lines)) <= width
    assert any("_7.pt" in line for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_why_a_file_was_not_judged_is_shown_at_every_width(width):
    text = " ".join(_printed(report_sample.mixed(), width=width).split())
    assert "expected 11,173,962 bytes of tensors" in text


def test_a_path_cannot_steer_the_terminal():
    text = _printed([report_sample.judged("zoo/\x1b[2J\u202eevil[red].pt")])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "evil[red].pt" in text


def test_an_ascii_terminal_gets_ascii():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    names = ["Flugzeug", "Käfer", *"cdefghij"]
    report.print_table(
        [*report_sample.mixed(), report_sample.judged("zoo/é" * 60)],
        file=file,
        class_names=names,
        width=200,
    )
    file.flush()
    assert b"! backdoored" in raw.getvalue()


def test_the_summary_counts_each_verdict_and_names_mode_and_baseline():
    assert report.summary(report_sample.mixed()) == (
        "7 checkpoints: 3 backdoored, 2 inconclusive, 2 clean · "
        "baseline population, within · mode targeted, weights"
    )
    assert report.summary([]) == "0 checkpoints: 0 backdoored, 0 inconclusive, 0 clean"


def test_an_unknown_verdict_is_not_called_clean():
    assert "1 inconclusive" in report.summary([{"path": "a", "verdict": "fine"}])


def test_records_without_fields_can_be_printed():
    assert "a.pt" in _printed([{"path": "a.pt"}])
    assert "0 checkpoints" in _printed([])
