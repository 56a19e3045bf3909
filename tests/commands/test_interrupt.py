"""Ctrl-C while the device is busy with a chunk that takes minutes."""

import contextlib
import importlib
import os
import signal
import time

import pytest

from ban_jax import cli, records
from ban_jax.records import record
from tests.commands import processes
from tests.repairs import made
from tests.scanning import files

BUSY = """
import os, sys, time
from ban_jax import cli
from ban_jax.{room} import {module}
from tests.scanning import files
measure, calls = {module}.{task}.measure, []
def busy(self, chunk):
    calls.append(chunk)
    if len(calls) > 1:
        os.write(1, b"\\nbusy\\n")  # Whole: another thread prints too.
        time.sleep(600)
    return measure(self, chunk)
{module}.{task}.measure = busy
{more}
with files.known():
    cli.entry()
"""
SCAN = {"room": "scanning", "module": "chunks", "task": "Scan"}
REPAIR = {"room": "repairs", "module": "batch", "task": "Task"}


@contextlib.contextmanager
def busy(*arguments, more="", **where):
    """A command whose device is busy from the second chunk on."""
    code = BUSY.format(more=more, **where)
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    with processes.started(code, *arguments, PYTHONPATH=root) as process:
        processes.until(process, "busy")
        yield process


def wait_for_lines(path, count):
    """What was measured before is written by another thread than the busy one."""
    for _ in range(10 * processes.PROMPT):
        if path.exists() and path.read_bytes().count(b"\n") == count:
            return
        time.sleep(0.1)
    pytest.fail(f"{path} has not {count} lines")


def test_a_scan_ends_promptly_keeps_what_is_done_and_goes_on(folder, tmp_path):
    out = tmp_path / "out"
    arguments = ["scan", folder, "--mode", "weights", "--chunk", 1, "--out", out]
    with busy(*arguments, **SCAN) as process:
        wait_for_lines(out / "results.jsonl", 1)
        code, told = processes.ended(process, signal.SIGINT)
    assert code == cli.INTERRUPTED
    assert "the same command goes on from there" in told and "Traceback" not in told
    (first,) = records.load(out / "results.jsonl").records
    assert cli.main([str(argument) for argument in arguments]) in (0, 1)
    found = records.load(out / "results.jsonl").records
    assert len(found) == 4
    # Its seconds too: it was not measured again.
    assert first in [record.evidence_of(line) for line in found]


def test_a_second_ctrl_c_ends_a_process_that_does_not_come_to_an_end(folder, tmp_path):
    stuck = """
from ban_jax import records
def close(self):
    os.write(1, b"\\nclosing\\n")
    time.sleep(600)
records.Writer.close = close
"""
    out = tmp_path / "out"
    arguments = ["scan", folder, "--mode", "weights", "--chunk", 1, "--out", out]
    with busy(*arguments, more=stuck, **SCAN) as process:
        process.send_signal(signal.SIGINT)
        processes.until(process, "closing")
        code, _ = processes.ended(process, signal.SIGINT)
    assert code == -signal.SIGINT


def test_a_repair_ends_promptly_keeps_what_is_done_and_goes_on(tmp_path):
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    for factor in (1, 2):
        files.save(models, f"{factor}.safetensors", made.expert(factor))
    clean = made.clean_set(tmp_path)
    arguments = [
        "repair", models, "--data", clean, *made.FLAGS, "--chunk", 1, "--out", out,
    ]  # fmt: skip
    with busy(*arguments, **REPAIR) as process:
        wait_for_lines(out / "repairs.jsonl", 1)
        code, told = processes.ended(process, signal.SIGINT)
    assert code == cli.INTERRUPTED
    assert "the same command goes on from there" in told and "Traceback" not in told
    first = (out / "repairs.jsonl").read_bytes()
    assert cli.main([str(argument) for argument in arguments]) in (0, 1)
    assert len((out / "repairs.jsonl").read_bytes().splitlines()) == 2
    assert first in (out / "repairs.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "is_kept"), [(["bench"], False), (["scan", "models"], True)]
)
def test_only_of_commands_that_go_on_it_is_said(words, is_kept, monkeypatch, capsys):
    def interrupted(flags):
        raise KeyboardInterrupt

    command = importlib.import_module(f"ban_jax.commands.{words[0]}")
    monkeypatch.setattr(command, "run", interrupted)
    assert cli.main(words) == cli.INTERRUPTED
    told = capsys.readouterr().err
    assert "interrupted" in told and ("what is done is kept" in told) == is_kept
