"""The results file: what is written can be read, whatever interrupted the writing."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ban_jax import records
from ban_jax.records import jsonl
from ban_jax.storage import atomic


def load(path):
    """Lines of any content: `test_record.py` is about what a line must hold."""
    return jsonl.load(path, dict)


def writing(path, **more):
    return jsonl.Writer(path, dict, **more)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = {
        "path": "a.pt",
        "score": 3.25,
        "vectors": {"t": [0.5, None]},
        "error": None,
    }
    with writing(tmp_path / "results.jsonl") as writer:
        writer.write(record)
    assert load(tmp_path / "results.jsonl") == ([record], False)


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
    with writing(path) as writer:
        writer.write({"path": odd_name, "score": float("inf")})
    (line,) = path.read_bytes().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse) == {"path": odd_name, "score": None}


def test_each_line_is_in_the_file_before_the_next_candidate(tmp_path):
    path = tmp_path / "results.jsonl"
    with writing(path, sync=True) as writer:
        writer.write({"path": "a"})
        assert [r["path"] for r in load(path).records] == ["a"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_last_line_cut_anywhere_is_dropped_and_written_anew(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    whole = records.encode({"path": "a"}) + records.encode({"path": "bé", "score": 1.5})
    path.write_bytes(whole[:-cut])
    loaded = load(path)
    complete = cut == 1  # only the newline is missing: the record itself is whole
    assert [r["path"] for r in loaded.records] == ["a", "bé"][: 1 + complete]
    assert loaded.torn is (not complete)
    assert path.read_bytes() == whole[:-cut]

    with writing(path) as writer:
        assert writer.records == loaded.records
        assert writer.torn is loaded.torn
        writer.write({"path": "bé", "score": 1.5})
    kept, torn = load(path)
    assert not torn
    assert [r["path"] for r in kept] == ["a", "bé"]


def test_zeros_left_by_a_power_cut_count_as_a_torn_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(records.encode({"path": "a"}) + b"\0" * 64)
    assert load(path) == ([{"path": "a"}], True)


def test_an_invalid_line_in_the_middle_names_file_and_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "a"}\n{"path": \n{"path": "c"}\n')
    with pytest.raises(
        records.ResultsError, match=r"results\.jsonl: line 2 is not valid"
    ):
        load(path)
    with pytest.raises(records.ResultsError, match="line 2"):
        writing(path)


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
        load(path)


def test_another_file_given_by_mistake_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(records.ResultsError, match="line 1 is not valid JSON"):
        writing(path)
    assert path.read_text() == "my notes\n"


def test_nan_in_a_line_is_not_valid(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "a", "score": NaN}\n{"path": "b"}\n')
    with pytest.raises(records.ResultsError, match="NaN"):
        load(path)


def test_the_later_line_of_a_path_wins(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(
        '{"path": "a", "score": 1}\n\n{"path": "b"}\n{"path":"a","score":2}\n'
    )
    assert load(path).records == [{"path": "b"}, {"path": "a", "score": 2}]


def test_a_writer_without_resume_starts_empty(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("anything at all")
    with writing(path, resume=False) as writer:
        assert writer.records == []
        writer.write({"path": "a"})
    assert path.read_text() == '{"path": "a"}\n'


def test_a_missing_file_says_which_command_writes_it(tmp_path):
    with pytest.raises(
        records.ResultsError, match=r"no such results file.*ban-jax scan"
    ):
        load(tmp_path / "results.jsonl")


def test_rewriting_sorts_by_path_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "old"}\n')
    records.rewrite(path, [{"path": "b"}, {"path": "a"}])
    assert [r["path"] for r in load(path).records] == ["a", "b"]
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
        writing(tmp_path / "taken" / "results.jsonl")
    with pytest.raises(atomic.OutputError, match=expected):
        records.write_csv(tmp_path / "taken" / "results.csv", [])


def test_a_full_disk_says_that_the_scan_can_go_on(tmp_path):
    class Full:
        name = "results.jsonl"

        def write(self, line):
            raise OSError(28, "No space left on device")

    with pytest.raises(records.ResultsError, match="goes on where it stopped"):
        records.append(Full(), {"path": "a"})


def test_a_name_that_is_not_unicode_comes_back_as_it_was(tmp_path):
    name = b"bad\xff.pt".decode(errors="surrogateescape")
    records.rewrite(tmp_path / "results.jsonl", [{"path": name}])
    assert load(tmp_path / "results.jsonl").records == [{"path": name}]


@pytest.mark.parametrize("resume", [True, False])
def test_links_and_pipes_in_a_shipped_folder_are_not_written_through(tmp_path, resume):
    target, path = tmp_path / "precious", tmp_path / "results.jsonl"
    target.write_text("")
    path.symlink_to(target)
    with pytest.raises(atomic.OutputError, match="results.jsonl: cannot be written"):
        jsonl.Writer(path, dict, resume=resume)
    target.unlink()
    with pytest.raises(atomic.OutputError):
        jsonl.Writer(path, dict, resume=resume)
    assert not target.exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(atomic.OutputError):
        jsonl.Writer(path, dict, resume=resume)


def test_a_disk_that_is_full_leaves_nothing_to_be_written_at_the_end(tmp_path):
    code = (
        "import resource, sys\n"
        "from ban_jax.records import jsonl\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    with jsonl.Writer(sys.argv[1], dict) as writer:\n"
        "        for number in range(9):\n"
        "            writer.write({'path': str(number), 'padding': 'x' * 30})\n"
        "except jsonl.ResultsError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert "goes on where it stopped" in done.stdout and not done.stderr
    assert path.stat().st_size == 100
    assert [line["path"] for line in load(path).records] == ["0"]
    assert load(path).torn
