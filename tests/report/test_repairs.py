"""The repair section: before and after, pictures, and nothing that can run."""

import base64
import io

import numpy as np

from ban_jax import report
from ban_jax.report import repair_section, repairs
from ban_jax.zoo import pictures
from tests.report import page_parser, report_sample

PNG = base64.b64encode(pictures.png(np.zeros((4, 4, 1), np.float32))).decode()


def repaired(path="zoo/badnets_0.pt", **changes):
    shown = [
        {"label": 3, "before": 1, "after": 3, "png": PNG},
        {"label": 9, "before": 1, "after": 1, "png": PNG},
    ]
    figures = {
        "clean_accuracy": 0.81,
        "asr": 0.997,
        "excess": 0.977,
        "recovered_accuracy": 0.002,
    }
    record = {
        "path": path,
        "num_classes": 10,
        "method": "ban",
        "attack": {"kind": "badnets", "target": 1},
        "before": {"verdict": "backdoored", "score": 8.7, **figures},
        "after": {
            "verdict": "clean",
            "score": 1.25,
            "clean_accuracy": 0.79,
            "asr": 0.031,
            "excess": -0.001,
            "recovered_accuracy": 0.77,
        },
        "shown": shown,
        "notes": ["ended by the budget"],
        "error": None,
    }
    return {**record, **changes}


def test_a_narrow_terminal_gets_all_figures_whole(monkeypatch):
    for width in ("70", "100", "200"):
        monkeypatch.setenv("COLUMNS", width)
        out = io.StringIO()
        report.print_repairs([repaired()], file=out)
        assert max(map(len, out.getvalue().splitlines())) <= int(width)
        words = " ".join(out.getvalue().split())
        for told in (
            "0.810 → 0.790",
            "0.997 → 0.031",
            "8.70 → 1.25",
            "backdoored → clean",
        ):
            assert told in words


def unknown(path="zoo/found.pt"):
    """Repaired, but with no known trigger."""
    record = repaired(path, attack=None, shown=[])
    for when in ("before", "after"):
        record[when] |= {"asr": None, "excess": None, "recovered_accuracy": None}
    return record


FAILED = {"path": "zoo/odd.pt", "error": "zoo/odd.pt: near chance", "shown": []}


def test_the_page_shows_figures_and_pictures_before_and_after():
    page = page_parser.render(
        [report_sample.judged()],
        repaired=[repaired(), unknown(), FAILED],
        class_names=report_sample.CLASS_NAMES,
    )
    text = " ".join(page.text)
    for figure in (
        "0.810 → 0.790", "0.997 → 0.031", "0.977 → -0.001", "0.002 → 0.770",
        "8.70 → 1.25",
    ):  # fmt: skip
        assert figure in text
    images = page.having("img")
    assert [image["src"] for image in images] == [f"data:image/png;base64,{PNG}"] * 2
    assert "shows 3 (cat)" in images[0]["alt"]
    assert "1 (automobile) ✗" in text and "3 (cat) ✓" in text
    assert "2 checkpoints repaired: 2 flagged before, 0 after · 1 not repaired" in text
    assert "near chance" in text
    assert text.count("ended by the budget") == 2


def test_a_trigger_that_still_works_is_told_before_a_clean_verdict():
    works = repaired()
    works["after"] |= {"asr": 0.99, "excess": 0.5}
    page = page_parser.render(
        [report_sample.judged()], repaired=[repaired(), works, unknown()]
    )
    text = " ".join(page.text)
    assert "The known trigger still works in 1 repaired checkpoint." in text
    assert "3 flagged before, 0 after · in 1 the known trigger still takes most" in text
    assert repair_section.answer([repaired()], []) == "Nothing was scanned."


def test_success_that_images_have_without_the_trigger_is_none_of_its():
    same = repaired()
    same["after"] |= {"asr": 0.8, "excess": 0.01}
    older = repaired()
    older["after"]["asr"] = 0.8
    del older["after"]["excess"]
    assert repairs.still_works([same]) == 0 and repairs.still_works([older]) == 1
    excess = next(column for column in repairs.COLUMNS if column.field == "excess")
    assert repairs.before_and_after(older, excess) == "0.977 → –"


def test_a_page_without_repairs_has_no_such_section():
    text = report.render([report_sample.judged()])
    assert "repair" not in text.partition("<body>")[2].lower()


def test_the_table_tells_what_was_and_what_was_not_repaired():
    file = io.StringIO()
    report.print_repairs([repaired(), unknown(), FAILED], file=file)
    lines = file.getvalue().splitlines()
    row = next(line for line in lines if "badnets_0.pt" in line)
    assert "0.997 → 0.031" in row and "backdoored → clean" in row
    row = next(line for line in lines if "found.pt" in line)
    assert "0.810 → 0.790" in row and "0.997" not in row
    assert any("found.pt" in line and "ended by the budget" in line for line in lines)
    assert any("odd.pt" in line and "near chance" in line for line in lines)
    assert lines[-1].startswith("2 checkpoints repaired")


def test_long_names_in_the_table_are_broken_at_their_seams(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    file = io.StringIO()
    name = "preact_resnet18_w8_badnets_target3_rate0.05_seed2.safetensors"
    report.print_repairs([repaired(f"zoo/{name}"), unknown()], file=file)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 150
    start = next(i for i, line in enumerate(lines) if line.startswith("preact"))
    pieces = [lines[start].split("   ")[0], lines[start + 1].strip()]
    assert "".join(pieces) == name
    assert pieces[0][-1] in "_."


def test_a_suspicious_repaired_model_counts_as_flagged():
    after = repaired()["after"] | {"verdict": "suspicious"}
    told = repairs.summary([repaired(after=after), repaired()])
    assert told.startswith("2 checkpoints repaired: 2 flagged before, 1 after")


def test_the_table_of_repairs_can_be_printed_in_ascii():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    report.print_repairs([repaired("zoo/é.pt"), FAILED], file=file)
    file.flush()
    assert b"backdoored -> clean" in raw.getvalue()
