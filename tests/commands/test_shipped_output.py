"""A folder of results that came with what is scanned leads to no other place."""

import json
import os

import pytest

from ban_jax import cli
from ban_jax.commands import outcome
from ban_jax.storage import run_folder
from ban_jax.training import saves
from tests.records import lines
from tests.scanning import files

MARK = "not of a scan"


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def contents(folder):
    return {
        name: (folder / name).read_text()
        for name in os.listdir(folder)
        if not name.endswith(".lock")  # empty, and a lock alone
    }


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with a model and results, and one that is none of a scan's business."""
    for name in ("ship", "victim"):
        (tmp_path / name).mkdir()
    for name in outcome.WRITTEN:
        (tmp_path / "victim" / name).write_text(MARK)
    files.save(tmp_path / "ship", "model.safetensors", files.variables(0))
    (tmp_path / "ship" / "r.jsonl").write_text(json.dumps(lines.judged("a.pt")) + "\n")
    shard = tmp_path / "ship" / "results.0-of-1.jsonl"
    shard.write_text(json.dumps(lines.judged("a.pt")) + "\n")
    monkeypatch.chdir(tmp_path / "ship")
    return tmp_path


COMMANDS = {
    "ban-results": ["scan", "--mode", "weights", "model.safetensors"],
    "ban-report": ["report", "r.jsonl"],
    "merged": ["merge", "results.0-of-1.jsonl", "--out", "merged"],
    "given": ["scan", "--mode", "weights", "model.safetensors", "--out", "given/"],
    "here": ["scan", "--mode", "weights", "model.safetensors", "--out", "here/."],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_of_results_that_is_a_link_is_refused(shipped, capsys, name):
    before = contents(shipped / "victim")
    os.symlink("../victim", name)
    assert run(*COMMANDS[name]) == 4
    told = capsys.readouterr().err
    assert (
        f"{name}: is a symbolic link to ../victim" in told and "Traceback" not in told
    )
    assert contents(shipped / "victim") == before
    assert not (shipped / "victim" / ".results.jsonl.lock").exists()


@pytest.mark.parametrize("command", ["ban-results", "ban-report", "merged"])
@pytest.mark.parametrize("name", outcome.WRITTEN)
def test_a_file_of_results_that_is_a_link_is_refused(shipped, capsys, command, name):
    os.mkdir(command)
    os.symlink(f"../../victim/{name}", os.path.join(command, name))
    assert run(*COMMANDS[command]) == 4
    assert f"{name}: is a symbolic link" in capsys.readouterr().err
    assert os.listdir(command) == [name]
    assert (shipped / "victim" / name).read_text() == MARK


@pytest.mark.parametrize("command", ["ban-results", "ban-report", "merged"])
def test_beside_foreign_results_nothing_is_replaced(shipped, capsys, command):
    os.rename(shipped / "victim", command)
    before = contents(shipped / "ship" / command)
    assert run(*COMMANDS[command]) == 4
    assert "results.jsonl: line 1 is not" in capsys.readouterr().err
    assert contents(shipped / "ship" / command) == before


@pytest.mark.parametrize("command", ["ban-results", "ban-report", "merged"])
@pytest.mark.parametrize("name", outcome.WRITTEN[1:])
def test_a_page_or_table_without_results_is_not_replaced(
    shipped, capsys, command, name
):
    os.mkdir(command)
    page = shipped / "ship" / command / name
    page.write_text(MARK)
    assert run(*COMMANDS[command]) == 4
    assert f"{command}/{name}: would be replaced" in capsys.readouterr().err
    assert contents(page.parent) == {name: MARK}


def test_a_shard_minds_its_own_files_alone(shipped, capsys):
    os.mkdir("ban-results")
    folder = shipped / "ship" / "ban-results"
    (folder / "report.html").write_text(MARK)
    (folder / "plan.0-of-1.json").write_text(MARK)
    command = [*COMMANDS["ban-results"], "--shard", "0/1"]
    assert run(*command) == 4
    assert "plan.0-of-1.json: would be replaced" in capsys.readouterr().err
    (folder / "plan.0-of-1.json").unlink()
    assert run(*command) < 4
    assert contents(folder)["report.html"] == MARK


def test_beside_foreign_trusted_models_nothing_is_replaced(shipped, capsys):
    os.mkdir("ban-results")
    folder = shipped / "ship" / "ban-results"
    for name in ("passed.jsonl", "trusted.jsonl"):
        (folder / name).write_text(MARK)
    flags = ["--mode", "weights", "--calibrate", "model.safetensors"]
    assert run("scan", "model.safetensors", *flags) == 4
    assert "trusted.jsonl: line 1 is not" in capsys.readouterr().err
    assert contents(folder) == {"passed.jsonl": MARK, "trusted.jsonl": MARK}


@pytest.mark.parametrize("link", ["out", "out/.progress", "out/.progress/model"])
def test_training_is_not_saved_or_removed_through_a_link(shipped, link):
    os.makedirs(os.path.dirname(link) or ".", exist_ok=True)
    os.symlink(shipped / "victim", link)
    with pytest.raises(saves.SaveError, match="is a symbolic link"):
        saves.Progress("out", "model")


@pytest.mark.parametrize("link", ["out", "out/models", "out/config.json"])
def test_a_run_is_not_written_through_a_link(shipped, link):
    if link != "out":
        os.mkdir("out")
    os.symlink(shipped / "victim", link)
    before = contents(shipped / "victim")
    with pytest.raises(run_folder.FolderError, match="is a symbolic link"):
        folder = run_folder.RunFolder("out", {"seed": 0})
        folder.write_text("models/one.txt", "text")
    assert contents(shipped / "victim") == before
