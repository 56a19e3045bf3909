"""The terminal table: complete, plain without a terminal, never wider than asked."""

import io
import re

import pytest

from ban_jax import checkpoints, report
from tests.report import report_sample


def _printed(records, **options):
    file = io.StringIO()
    report.print_table(records, file=file, **options)
    return file.getvalue()


def test_without_a_terminal_there_are_no_escape_codes():
    text = _printed(report_sample.mixed())
    assert "\x1b" not in text
    assert "▲ backdoored" in text


def _rows(records, **options):
    """The lines of the table below its head, as lists of cells."""
    lines = _printed(records, **options).splitlines()[2:]
    return [re.split(r"\s{3,}", line.rstrip()) for line in lines]


def test_the_gravest_rows_come_first_and_those_of_a_grade_by_score():
    records = report_sample.graded()
    rows = _rows(records, class_names=report_sample.CLASS_NAMES, width=200)
    assert [row[1] for row in rows[:5]] == [
        "blend_2.pt",
        "badnets_0.pt",
        "odd_9.pt",
        "truncated.pt",
        "clean_0.pt",
    ]
    assert _printed(records) == _printed(records[::-1])


def test_backdoored_and_suspicious_rows_name_their_target_and_others_do_not():
    rows = _rows(
        report_sample.graded(), class_names=report_sample.CLASS_NAMES, width=90
    )
    targets = {row[1]: row[2] for row in rows[:5] if len(row) > 2}
    assert targets["badnets_0.pt"] == "1 (automobile)"
    assert targets["odd_9.pt"] == "9 (truck)"
    assert "truncated.pt" not in targets
    assert targets["clean_0.pt"].strip().startswith("1.60")


def test_a_class_that_is_called_by_its_number_is_named_once():
    text = _printed([report_sample.judged()], class_names=[*map(str, range(10))])
    assert "(1)" not in text
    assert re.search(r"badnets_0.pt .* 1   ", text)


def test_a_score_has_its_interval_beside_it_and_below_one_another():
    lines = _printed(report_sample.graded(), width=100).splitlines()
    assert "score ±95 %" in lines[0]
    assert "22.70 ±0.82" in lines[2]
    assert lines[2].index("±") == lines[3].index("±") == lines[4].index("±")
    lopsided = report_sample.witnessed(interval=[4.0, 9.5])
    assert "5.20 (4.00–9.50)" in _printed([lopsided])
    assert "±" not in _printed(report_sample.graded(), width=50)
    bare = report_sample.judged(standard_error=None)
    assert "±" not in _printed([bare])


def test_the_smallest_possible_p_is_told_from_a_measured_one():
    text = _printed(report_sample.graded(), width=100)
    assert re.search(r"badnets_0.pt .* ≤\.04 ", text)
    assert re.search(r"clean_0.pt .*  \.52 ", text)
    exact = report_sample.witnessed(p_value=0.08)
    assert "≤" not in _printed([exact])


def test_wide_tables_say_which_witnesses_exceed_the_limit_at_the_target():
    lines = _printed(report_sample.graded(), width=140).splitlines()
    assert " UBLT " in lines[2]
    assert " U··T " in lines[3]
    suspicious = report_sample.witnessed("a.pt", verdict="suspicious", score=3.1)
    suspicious["witnesses"]["targeted"][1] = 2.6
    suspicious["witnesses"]["last_layer"][1] = None
    assert " U· ·  " in _printed([suspicious], width=140)
    legend = next(line for line in lines if line.startswith("witnesses that"))
    assert "U undirected noise, B batch statistics" in legend
    assert "witnesses" not in _printed(report_sample.graded(), width=70)
    assert "witnesses" not in _printed(report_sample.mixed(), width=200)


def test_thresholds_have_a_column_only_where_they_differ():
    records = report_sample.graded()
    assert "backdoored above 3.50, suspicious above 2.70" in _printed(records)
    assert "threshold" not in _printed(records)
    records[0]["threshold"] = 4.25
    text = _printed(records, width=200)
    assert "threshold" in text.splitlines()[0]
    assert re.search(r"badnets_0.pt .* 4\.25 ", text)
    assert "backdoored above 3.50 to 4.25" in text


def test_long_names_are_broken_at_their_seams_and_nothing_of_them_is_lost():
    name = "preact_resnet18_w8_badnets_target3/rate-0.05_seed2.safetensors"
    records = [report_sample.judged(f"zoo/{name}"), report_sample.judged("zoo/b")]
    lines = _printed(records, width=72).splitlines()
    pieces = [line[15:47].split("   ")[0].strip() for line in lines[3:6]]
    assert "".join(pieces) == name
    assert [piece[-1] for piece in pieces[:-1]] == ["_", "."]


def test_what_comes_below_the_table_is_the_summary_then_trust_then_steps():
    text = _printed(
        report_sample.graded(), trust="Wrong in 1 % of cases.", steps=["Do this."]
    )
    places = [
        text.index(told)
        for told in (
            "5 checkpoints: 2 backdoored, 1 suspicious",
            "are expected to be false alarms",
            "Wrong in 1 % of cases.",
            "Do this.",
        )
    ]
    assert places == sorted(places)


def test_a_command_to_copy_is_never_broken():
    step = "ban-jax repair " + "--flag value " * 30
    assert step.rstrip() in _printed(report_sample.graded(), steps=[step], width=60)


@pytest.mark.parametrize("width", [44, 50, 72, 80, 100, 120, 200])
def test_no_line_of_the_table_is_wider_than_asked(width):
    records = [
        *report_sample.mixed(),
        report_sample.judged("zoo/" + "x" * 300 + "_7.pt"),
    ]
    records += report_sample.graded()
    lines = _printed(records, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("_7.pt" in line for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_why_a_file_was_not_judged_is_shown_at_every_width(width):
    text = " ".join(_printed(report_sample.mixed(), width=width).split())
    assert "expected 11,173,962 bytes of tensors" in text


def test_a_reason_longer_than_its_column_is_told_below_the_table():
    long = "the clean images have one channel, " * 5 + "and that is all"
    record = report_sample.mixed()[0] | {
        "verdict": "inconclusive", "reason": long, "error": None, "path": "zoo/a.pt",
    }  # fmt: skip
    for width in (80, 120):
        lines = _printed([record, *report_sample.mixed()[1:]], width=width)
        assert "and that is all" in " ".join(lines.split())


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
        [
            *report_sample.mixed(),
            *report_sample.graded(),
            report_sample.judged("zoo/é" * 60),
        ],
        file=file,
        class_names=names,
        width=200,
    )
    file.flush()
    assert b"! backdoored" in raw.getvalue()
    assert b"* suspicious" in raw.getvalue()
    assert re.search(rb"5.20 \+-0.82 .* <=.04 .* U--T ", raw.getvalue())


def test_the_summary_counts_each_verdict_and_names_mode_and_baseline():
    assert report.summary(report_sample.mixed()) == (
        "7 checkpoints: 3 backdoored, 0 suspicious, 2 inconclusive, 2 clean · "
        "backdoored above 3.50 · baseline population, within · mode targeted, weights"
    )
    assert report.summary(report_sample.graded()).endswith(
        " · backdoored above 3.50, suspicious above 2.70 · "
        "compared with profile cifar10, 24 clean models · mode ban"
    )
    assert report.summary([]) == (
        "0 checkpoints: 0 backdoored, 0 suspicious, 0 inconclusive, 0 clean"
    )


def test_an_unknown_verdict_is_not_called_clean():
    assert "1 inconclusive" in report.summary([{"path": "a", "verdict": "fine"}])


def test_records_without_fields_can_be_printed():
    assert "a.pt" in _printed([{"path": "a.pt"}])
    assert "0 checkpoints" in _printed([])


def test_of_long_names_that_share_their_ends_the_part_that_differs_is_left():
    names = [f"preact_resnet18_width16_{n}_rate05_seed2.safetensors" for n in "ab"]
    records = [report_sample.judged(f"zoo/{name}") for name in names]
    narrow = _printed(records, width=60)
    rows = [line for line in narrow.splitlines() if "backdoored  " in line]
    assert {row.split("   ")[1].strip() for row in rows} == {"…a…", "…b…"}
    caption = " ".join(narrow.split())
    assert "in front: preact_resnet18_width16_" in caption
    assert all(name in _printed(records, width=200) for name in names)


def test_a_class_without_a_name_is_told_to_be_one():
    assert " class 1 " in _printed([report_sample.judged()])


def test_the_same_weights_in_two_formats_have_one_row():
    one = report_sample.judged("zoo/a.pt")
    same = {**one, "path": "zoo/a.safetensors"}
    graver = {**one, "path": "zoo/c.pt", "calls": ["posix.system"]}
    unread = [{"path": f"zoo/u{n}.pt", "error": "cut short"} for n in range(2)]
    text = _printed([one, same, graver, *unread], width=100)
    assert text.count("▲ backdoored") == 2  # what calls has a row of its own
    assert "also as a.safetensors" in text
    assert "5 checkpoints: 3 backdoored" in text
    assert "u0.pt" in text and "u1.pt" in text


def test_the_same_weights_in_two_folders_are_told_apart_by_these():
    one = report_sample.judged("zoo/a/3")
    text = _printed([one, {**one, "path": "zoo/b/3"}], width=100)
    assert "backdoored   a/3 " in text and "also as b/3 " in text


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_of_80_columns_gets_lines_of_80_and_a_command_whole(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    command = f"ban-jax repair --from-scan {'a' * 60}/results.jsonl --data cifar10"
    steps = [f"2 backdoored: do not use; get the models elsewhere: {command}"]
    passed = [checkpoints.Passed(f"notes{n}.md", "text that is long") for n in range(9)]
    file = Terminal()
    report.print_table(
        report_sample.graded(), steps=steps, passed=passed, file=file, width=80
    )
    plain = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())
    lines = [line.rstrip() for line in plain.splitlines()]
    assert f"  {command}" in lines
    assert max(len(line) for line in lines if command not in line) <= 80
    assert "2 backdoored: do not use; get the models elsewhere:" in lines
