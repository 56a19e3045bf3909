"""The table for spreadsheets: flat, sorted, and safe to open."""

import csv

import numpy as np
import pytest

from ban_jax import records
from ban_jax.records import spreadsheet


def read_rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_the_flat_columns_sorted_by_path(tmp_path):
    path = tmp_path / "results.csv"
    record = {"path": "b", "score": np.float32(3.5), "target": 0, "vectors": {"x": [1]}}
    records.write_csv(path, [record, {"path": "a", "score": float("nan")}])
    rows = read_rows(path)
    assert tuple(rows[0]) == spreadsheet.CSV_COLUMNS
    assert [row["path"] for row in rows] == ["a", "b"]
    assert (rows[1]["score"], rows[1]["target"]) == ("3.5", "0")
    assert rows[0]["score"] == rows[0]["error"] == ""


def test_a_verdict_is_spread_over_flat_columns(tmp_path):
    path = tmp_path / "results.csv"
    verdict = {
        "path": "a",
        "target": 1,
        "interval": [3.5, 6.25],
        "p_value": 0.04,
        "p_models": 24,
        "q_value": None,
        "suspicious_above": 2.7,
        "compared_with": "profile digits, 24 clean models",
        "witnesses": {
            "untargeted": [0.0, 4.25],
            "targeted": [0.0, None],
            "short": [9.0],
            "last_layer": [0.0, -1.5],
        },
    }
    records.write_csv(path, [verdict])
    (row,) = read_rows(path)
    assert {name: row[name] for name in row if row[name]} == {
        "path": "a",
        "target": "1",
        "interval_low": "3.5",
        "interval_high": "6.25",
        "p_value": "0.04",
        "p_models": "24",
        "suspicious_above": "2.7",
        "compared_with": "profile digits, 24 clean models",
        "witnesses": "untargeted=4.25;last_layer=-1.5",
    }


@pytest.mark.parametrize("missing", ["interval", "witnesses", "target"])
def test_what_an_older_verdict_lacks_stays_empty(tmp_path, missing):
    path = tmp_path / "results.csv"
    known = {"interval": [1.0, 2.0], "witnesses": {"untargeted": [3.0]}, "target": 0}
    for verdict in (
        known | {missing: None},
        {k: known[k] for k in {*known} - {missing}},
    ):
        records.write_csv(path, [{"path": "a", **verdict}])
        (row,) = read_rows(path)
        empty = {"interval": "interval_low"}.get(missing, "witnesses")
        assert row[empty] == ""


@pytest.mark.parametrize(
    "text",
    ["=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "\t=1", "  =1", "\r=1", "＝1"]
    + ["\x01=cmd.pt", "\u200b=cmd.pt", "\u3164 =1", "\U000e0100-1", "\u3000\u0301@"],
)
def test_text_that_looks_like_a_formula_stays_text(tmp_path, text):
    path = tmp_path / "results.csv"
    records.write_csv(path, [{"path": text, "error": text, "score": -2.5}])
    (row,) = read_rows(path)
    assert row["path"].startswith("'")
    assert row["error"].startswith("'")
    assert row["score"] == "-2.5"


def test_a_semicolon_or_line_break_in_a_name_cannot_start_a_new_cell(tmp_path):
    path = tmp_path / "results.csv"
    records.write_csv(path, [{"path": 'a;=cmd()\n=b"c.pt', "verdict": "clean"}])
    assert len(path.read_text().splitlines()) == 2
    assert '"a;=cmd()\\n=b""c.pt"' in path.read_text()


def test_a_name_that_is_not_unicode_can_be_written(tmp_path):
    name = b"bad\xff.pt".decode(errors="surrogateescape")
    records.write_csv(tmp_path / "results.csv", [{"path": name}])
    (row,) = read_rows(tmp_path / "results.csv")
    assert row["path"] == "bad\\udcff.pt"


def test_different_names_stay_different_cells(tmp_path):
    names = ["a\tb", "a\nb", "a b", "a\\tb", "a\\\\tb", "a\u3164b", "a\ufe0fb", "ab"]
    names += ["=1", "'=1", "''=1", "\x01=1", "\\x01=1", " =1", "C:\\models\\b", "a\\"]
    records.write_csv(tmp_path / "results.csv", [{"path": name} for name in names])
    told = [row["path"] for row in read_rows(tmp_path / "results.csv")]
    assert len(set(told)) == len(names)
    assert "C:\\models\\b" in told and all(name.isprintable() for name in told)
