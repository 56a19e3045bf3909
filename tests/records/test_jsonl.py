"""The results file: what is written can be read, whatever interrupted the writing."""

import csv
import json
import os
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ban_jax import records
from ban_jax.storage import atomic


def _read_rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = {
        "path": "a.pt",
        "score": 3.25,
        "vectors": {"t": [0.5, None]},
        "error": None,
    }
    with records.Writer(tmp_path / "results.jsonl") as writer:
        writer.write(record)
    assert records.load(tmp_path / "results.jsonl") == ([record], False)


def test_non_finite_numbers_become_null_at_any_depth():
    found = records.finite(
        {
            "a": float("nan"),
            "b": [np.float32("inf"), 1.0],
            "c": {"d": np.array([1.0, -np.inf])},
            "e": jnp.array([np.nan, 2.0]),
        }
    )
    assert found == {
        "a": None,
        "b": [None, 1.0],
        "c": {"d": [1.0, None]},
        "e": [None, 2],
    }


def test_arrays_and_named_tuples_become_plain_values_with_short_decimals():
    class Pair(NamedTuple):
        left: np.ndarray
        right: np.int64

    found = records.finite(Pair(np.array([0.1, 0.2], np.float32), np.int64(3)))
    assert found == {"left": [0.1, 0.2], "right": 3}
    assert records.finite(np.bool_(True)) is True
    assert records.finite(jnp.bfloat16(0.5)) == 0.5
    assert records.finite(np.float64(0.1)) == 0.1


def test_a_value_without_a_json_form_is_refused_by_type():
    with pytest.raises(TypeError, match="set"):
        records.finite({"path": {1, 2}})


def test_every_line_is_strict_json(tmp_path):
    path = tmp_path / "results.jsonl"
    odd_name = b"bad\xff\nname\x1b[31m.pt".decode(errors="surrogateescape")
    with records.Writer(path) as writer:
        writer.write({"path": odd_name, "score": float("inf")})
    (line,) = path.read_bytes().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse) == {"path": odd_name, "score": None}


def test_each_line_is_in_the_file_before_the_next_candidate(tmp_path):
    path = tmp_path / "results.jsonl"
    with records.Writer(path, sync=True) as writer:
        writer.write({"path": "a"})
        assert [r["path"] for r in records.load(path).records] == ["a"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_last_line_cut_anywhere_is_dropped_and_written_anew(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    whole = records.encode({"path": "a"}) + records.encode({"path": "bé", "score": 1.5})
    path.write_bytes(whole[:-cut])
    loaded = records.load(path)
    complete = cut == 1  # only the newline is missing: the record itself is whole
    assert [r["path"] for r in loaded.records] == ["a", "bé"][: 1 + complete]
    assert loaded.torn is (not complete)
    assert path.read_bytes() == whole[:-cut]

    with records.Writer(path) as writer:
        assert writer.records == loaded.records
        assert writer.torn is loaded.torn
        writer.write({"path": "bé", "score": 1.5})
    kept, torn = records.load(path)
    assert not torn
    assert [r["path"] for r in kept] == ["a", "bé"]


def test_zeros_left_by_a_power_cut_count_as_a_torn_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(records.encode({"path": "a"}) + b"\0" * 64)
    assert records.load(path) == ([{"path": "a"}], True)


def test_an_invalid_line_in_the_middle_names_file_and_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "a"}\n{"path": \n{"path": "c"}\n')
    with pytest.raises(
        records.ResultsError, match=r"results\.jsonl: line 2 is not valid"
    ):
        records.load(path)
    with pytest.raises(records.ResultsError, match="line 2"):
        records.Writer(path)


@pytest.mark.parametrize(
    ("line", "found"),
    [("[1, 2]", "a list"), ('{"file": "x"}', "an object with file"), ("3", "a int")],
)
def test_json_that_is_not_a_result_is_an_error_even_in_the_last_line(
    tmp_path, line, found
):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(records.ResultsError, match=found):
        records.load(path)


def test_another_file_given_by_mistake_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(records.ResultsError, match="line 1 is not valid JSON"):
        records.Writer(path)
    assert path.read_text() == "my notes\n"


def test_nan_in_a_line_is_not_valid(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "a", "score": NaN}\n{"path": "b"}\n')
    with pytest.raises(records.ResultsError, match="NaN"):
        records.load(path)


def test_the_later_line_of_a_path_wins(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(
        '{"path": "a", "score": 1}\n\n{"path": "b"}\n{"path":"a","score":2}\n'
    )
    assert records.load(path).records == [{"path": "b"}, {"path": "a", "score": 2}]


def test_a_writer_without_resume_starts_empty(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("anything at all")
    with records.Writer(path, resume=False) as writer:
        assert writer.records == []
        writer.write({"path": "a"})
    assert path.read_text() == '{"path": "a"}\n'


def test_a_missing_file_says_which_command_writes_it(tmp_path):
    with pytest.raises(
        records.ResultsError, match=r"no such results file.*ban-jax scan"
    ):
        records.load(tmp_path / "results.jsonl")


def test_rewriting_sorts_by_path_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "old"}\n')
    records.rewrite(path, [{"path": "b"}, {"path": "a"}])
    assert [r["path"] for r in records.load(path).records] == ["a", "b"]
    assert os.listdir(tmp_path) == ["results.jsonl"]


def test_a_failed_rewrite_keeps_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "old"}\n')

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(atomic.OutputError, match="No space left"):
        records.rewrite(path, [{"path": "a"}])
    assert path.read_text() == '{"path": "old"}\n'
    assert os.listdir(tmp_path) == ["results.jsonl"]


def test_an_output_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    expected = r"taken.*cannot be written.*--out"
    with pytest.raises(atomic.OutputError, match=expected):
        atomic.prepare_folder(tmp_path / "taken")
    with pytest.raises(atomic.OutputError, match=expected):
        records.Writer(tmp_path / "taken" / "results.jsonl")
    with pytest.raises(atomic.OutputError, match=expected):
        records.write_csv(tmp_path / "taken" / "results.csv", [])


def test_a_read_only_output_folder_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(records.ResultsError, match=r"Permission denied.*--out"):
        atomic.prepare_folder(tmp_path)


def test_a_full_disk_says_that_the_scan_can_go_on(tmp_path):
    class Full:
        name = "results.jsonl"

        def write(self, line):
            raise OSError(28, "No space left on device")

    with pytest.raises(records.ResultsError, match="goes on where it stopped"):
        records.append(Full(), {"path": "a"})


def test_the_csv_holds_the_flat_columns_sorted_by_path(tmp_path):
    path = tmp_path / "results.csv"
    record = {"path": "b", "score": np.float32(3.5), "target": 0, "vectors": {"x": [1]}}
    records.write_csv(path, [record, {"path": "a", "score": float("nan")}])
    rows = _read_rows(path)
    assert tuple(rows[0]) == records.CSV_COLUMNS
    assert [row["path"] for row in rows] == ["a", "b"]
    assert (rows[1]["score"], rows[1]["target"]) == ("3.5", "0")
    assert rows[0]["score"] == rows[0]["error"] == ""


@pytest.mark.parametrize(
    "text",
    ["=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "\t=1", "  =1", "\r=1", "＝1"],
)
def test_text_that_looks_like_a_formula_stays_text(tmp_path, text):
    path = tmp_path / "results.csv"
    records.write_csv(path, [{"path": text, "error": text, "score": -2.5}])
    (row,) = _read_rows(path)
    assert row["path"].startswith("'")
    assert row["error"].startswith("'")
    assert row["score"] == "-2.5"


def test_a_semicolon_or_line_break_in_a_name_cannot_start_a_new_cell(tmp_path):
    path = tmp_path / "results.csv"
    records.write_csv(path, [{"path": 'a;=cmd()\n=b"c.pt', "verdict": "clean"}])
    assert len(path.read_text().splitlines()) == 2
    assert '"a;=cmd() =b""c.pt"' in path.read_text()


def test_a_name_that_is_not_unicode_can_be_written(tmp_path):
    name = b"bad\xff.pt".decode(errors="surrogateescape")
    records.write_csv(tmp_path / "results.csv", [{"path": name}])
    records.rewrite(tmp_path / "results.jsonl", [{"path": name}])
    assert records.load(tmp_path / "results.jsonl").records == [{"path": name}]
