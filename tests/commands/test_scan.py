"""`ban-jax scan` from flags to files: what it leaves behind, and when."""

import os

import numpy as np
import pytest

from ban_jax import cli, records
from ban_jax.commands import outcome
from ban_jax.records import record
from ban_jax.scanning import chunks
from tests.commands import processes
from tests.scanning import files


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def scan(folder, out, *more):
    return run("scan", folder, "--mode", "weights", "--out", out, *more)


def lines(out):
    return records.load(out / "results.jsonl").records


def comparable(out):
    return [*map(files.comparable, lines(out))]


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "clean.npz"
    images, labels = files.images()
    np.savez(path, images=images, labels=labels)
    return path


def interrupted(count, *arguments):
    """Runs a command that is interrupted when `count` lines are written."""
    written, write = [], records.Writer.write

    def writing(self, line):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(line)
        write(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.Writer, "write", writing)
        return scan(*arguments)


def test_the_command_writes_lines_a_table_and_a_page(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert scan(folder, out) in (outcome.CLEAN, outcome.FLAGGED)
    assert {"results.jsonl", "results.csv", "report.html"} <= set(os.listdir(out))
    assert len(lines(out)) == 4
    assert "4 checkpoints" in capsys.readouterr().out


def test_a_torn_last_line_is_redone_and_the_file_ends_as_if_undisturbed(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    scan(folder, out)
    whole = comparable(out)
    text = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(text[: len(text) - 40])
    scan(folder, out)
    assert comparable(out) == whole
    assert "cut short" in capsys.readouterr().err


def test_report_draws_verdicts_again_without_the_models(folder, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    scan(folder, out)
    code = run("report", out / "results.jsonl", "--threshold", "-100", "--out", again)
    assert code == outcome.FLAGGED
    assert {line["verdict"] for line in lines(again)} == {"backdoored"}
    assert {line["threshold_source"] for line in lines(again)} == {"flag"}


def test_exit_codes_tell_what_happened(folder, tmp_path, npz, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    assert scan(empty, out) == 3
    assert scan(tmp_path / "nowhere", out) == 4
    assert run("scan", folder, "--mode", "ban", "--out", out) == 4
    assert "--mode ban needs clean images" in capsys.readouterr().err
    assert scan(folder, out, "--no-such-flag") == 4
    assert scan(folder, out, "--threshold", "1e9") == 0
    assert scan(folder, out, "--threshold", "-9") == 1
    (tmp_path / "file").write_text("x")
    capsys.readouterr()
    assert scan(folder, tmp_path / "file" / "out") == 4
    assert "file" in capsys.readouterr().err


def test_an_interrupted_scan_keeps_its_lines_and_goes_on(folder, tmp_path, monkeypatch):
    out, calls, measure = tmp_path / "out", [], chunks.Scan.measure
    assert interrupted(2, folder, out, "--chunk", 1) == 130
    assert len(lines(out)) == 2
    monkeypatch.setattr(
        chunks.Scan,
        "measure",
        lambda self, chunk: calls.append(len(chunk.candidates)) or measure(self, chunk),
    )
    assert scan(folder, out, "--chunk", 1) in (0, 1)
    assert calls == [1, 1]
    assert len(lines(out)) == 4


def test_trusted_models_judge_and_are_measured_once(folder, tmp_path):
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    for seed in (10, 11, 12, 13):
        files.save(trusted, f"t{seed}.safetensors", files.variables(seed))
    out = tmp_path / "out"
    scan(folder, out, "--calibrate", trusted)
    assert {line["baseline"] for line in lines(out)} == {"trusted"}
    assert {line["compared_with"] for line in lines(out)} == {"4 trusted models"}
    assert {line["p_models"] for line in lines(out)} == {4}
    before = (out / "trusted.jsonl").read_bytes()
    scan(folder, out, "--calibrate", trusted)
    assert (out / "trusted.jsonl").read_bytes() == before
    again = tmp_path / "again"
    run(
        "report", out / "results.jsonl", "--trusted", out / "trusted.jsonl",
        "--out", again,
    )  # fmt: skip
    assert comparable(again) == comparable(out)


def test_lines_of_an_unfinished_scan_carry_no_verdict_and_report_draws_it(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for seed in range(9):
        files.save(models, f"{seed}.safetensors", files.variables(seed))
    out, again, whole = (tmp_path / name for name in ("out", "again", "whole"))
    assert interrupted(8, models, out, "--baseline", "population") == 130
    assert len(lines(out)) == 8
    for line in lines(out):
        assert not set(line) & set(record.Verdict.__annotations__)
    code = run("report", out / "results.jsonl", "--baseline=population", "--out", again)
    assert code in (outcome.CLEAN, outcome.FLAGGED)
    assert {line["baseline"] for line in lines(again)} == {"population"}
    # The last one joins in; what is judged then is what one undisturbed scan gives.
    scan(models, out, "--baseline", "population")
    scan(models, whole, "--baseline", "population")
    assert comparable(out) == comparable(whole)


def test_a_second_scan_into_a_folder_is_told_and_takes_nothing_away(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    scan(folder, out)
    before = {name: (out / name).read_bytes() for name in os.listdir(out)}
    capsys.readouterr()
    with processes.holding(out / "results.jsonl"):
        for arguments in (
            ("scan", folder, "--mode", "weights", "--no-resume", "--out", out),
            ("report", out / "results.jsonl", "--out", out, "--threshold", "-9"),
        ):
            assert run(*arguments) == cli.USAGE
            told = capsys.readouterr().err
            assert f"{out / 'results.jsonl'}: another ban-jax process" in told
            assert "Traceback" not in told
    assert {name: (out / name).read_bytes() for name in os.listdir(out)} == before
    assert scan(folder, out, "--no-resume") in (0, 1)


def test_shards_of_a_scan_write_into_one_folder_at_once(folder, tmp_path, capsys):
    out = tmp_path / "out"
    with processes.holding(out / "results.0-of-2.jsonl"):
        assert scan(folder, out, "--shard", "1/2") in (0, 1)
        assert scan(folder, out, "--shard", "0/2") == cli.USAGE
        assert (
            "results.0-of-2.jsonl: another ban-jax process" in capsys.readouterr().err
        )
