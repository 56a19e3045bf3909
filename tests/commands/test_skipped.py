"""What a scan meets besides checkpoints it can judge: told of, and counted right."""

import json
import os

import numpy as np
import pytest

from ban_jax import cli, records
from ban_jax.commands import outcome
from tests.checkpoints import builders
from tests.scanning import files

OPTIMIZER = builders.torch_zip(
    builders.pickle(
        builders.dictionary(
            {
                "state": b"}(K\0}"
                + builders.text("momentum_buffer")
                + builders.tensor(builders.storage("0", 6), [2, 3], [3, 1])
                + b"su",
                "param_groups": b"]",
            }
        )
    ),
    {"0": bytes(24)},
)
TRIGGER = builders.torch_zip(
    builders.pickle(builders.tensor(builders.storage("0", 12), [3, 2, 2], [4, 2, 1])),
    {"0": bytes(48)},
)
NUMBER = builders.torch_zip(builders.pickle(b"K\7"), {})
CALLING = builders.torch_zip(
    builders.pickle(b"cposix\nsystem\n" + builders.text("id") + b"\x85R"), {}
)
OTHERS = {
    "optimizer.pt": (OPTIMIZER, "the state of an optimizer"),
    "trigger.pt": (TRIGGER, "a single tensor (3, 2, 2)"),
    "target.pt": (NUMBER, "plain values, no tensors"),
}


def scan(folder, out, *more):
    arguments = ["scan", folder, "--mode", "weights", "--threshold", "1e9"]
    return cli.main([*map(str, [*arguments, "--out", out, *more])])


def lines(out):
    return {
        os.path.basename(line["path"]): line
        for line in records.load(out / "results.jsonl").records
    }


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    files.save(folder, "good.safetensors", files.variables(0))
    return folder


def test_files_beside_a_model_that_are_none_do_not_make_it_inconclusive(
    models, tmp_path, capsys
):
    for name, (content, _) in OTHERS.items():
        (models / name).write_bytes(content)
    (models / "notes.txt").write_text("hello")
    out = tmp_path / "out"
    assert scan(models, out) == outcome.CLEAN
    printed = capsys.readouterr().out
    for name, (_, reason) in OTHERS.items():
        assert lines(out)[name]["other"] == reason
        assert f"{reason}: 1 file, {name}" in printed
    assert (
        "1 checkpoint: 0 backdoored, 0 suspicious, 0 inconclusive, 1 clean" in printed
    )
    assert "text: 1 file" in printed and "notes.txt" not in printed
    page = (out / "report.html").read_text()
    for told in ("the state of an optimizer", "a single tensor", "notes.<wbr>txt"):
        assert told in page
    scan(models, out, "--show-skipped")
    assert f"  {models / 'notes.txt'}: text" in capsys.readouterr().out.splitlines()


def test_clean_images_that_lie_beside_the_models_are_no_checkpoint(
    models, tmp_path, capsys
):
    clean, strange = models / "clean.npz", models / "strange.npz"
    for path in (clean, strange):
        np.savez(path, images=np.zeros((4, 8, 8, 1), np.uint8), labels=np.arange(4))
    out = tmp_path / "out"
    assert scan(models, out, "--data", clean, "--show-skipped") == outcome.INCONCLUSIVE
    assert set(lines(out)) == {"good.safetensors", "strange.npz"}
    assert f"{clean}: the clean images (--data)" in capsys.readouterr().out
    strange.unlink()
    assert scan(models, tmp_path / "again", "--data", clean) == outcome.CLEAN


def test_the_passed_files_are_told_of_again_by_report(models, tmp_path, capsys):
    (models / "optimizer.pt").write_bytes(OPTIMIZER)
    (models / "notes.txt").write_text("hello")
    out, again = tmp_path / "out", tmp_path / "again"
    scan(models, out)
    capsys.readouterr()
    code = cli.main(["report", str(out / "results.jsonl"), "--out", str(again)])
    assert code in (outcome.CLEAN, outcome.FLAGGED)
    printed = capsys.readouterr().out
    assert "optimizer.pt" in printed and "text: 1 file" in printed
    assert "notes.txt" in (again / "passed.jsonl").read_text()


def test_what_looks_like_a_checkpoint_and_was_not_judged_forbids_exit_code_0(
    models, tmp_path
):
    (models / "elsewhere").symlink_to(tmp_path)
    assert scan(models, tmp_path / "out") == outcome.INCONCLUSIVE
    (models / "elsewhere").unlink()
    (models / "step").mkdir()
    (models / "step" / "__0_0.distcp").write_bytes(b"x")
    assert scan(models, tmp_path / "out") == outcome.INCONCLUSIVE
    assert "torch.distributed" in lines(tmp_path / "out")["step"]["error"]


def test_a_folder_without_any_classifier_is_nothing_to_scan(tmp_path, capsys):
    (tmp_path / "optimizer.pt").write_bytes(OPTIMIZER)
    assert scan(tmp_path / "optimizer.pt", tmp_path / "out") == outcome.NOTHING
    assert "optimizer.pt" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes").write_text("hello")
    assert scan(tmp_path / "empty", tmp_path / "out") == outcome.NOTHING
    assert "text: 1 file" in capsys.readouterr().out


def test_a_call_is_told_of_where_there_is_no_classifier(models, tmp_path, capsys):
    (models / "calling.pt").write_bytes(CALLING)
    out = tmp_path / "out"
    assert scan(models, out) == outcome.FLAGGED
    line = lines(out)["calling.pt"]
    assert (line["verdict"], line["calls"]) == ("suspicious", ["posix.system"])
    printed = capsys.readouterr().out
    assert "asks to call posix.system when loaded by pickle" in printed
    assert "1 suspicious for calls" in printed
    assert '"posix.system"' in (out / "results.csv").read_text()
    assert "posix.system" in (out / "report.html").read_text()


def test_a_clean_model_that_asks_for_a_call_is_suspicious(tmp_path):
    state = builders.state_dict()
    body = builders.state_pickle(state)[2:-1]
    called = b"cposix\nsystem\n" + builders.text("id") + b"\x85R0"
    content = {str(i): array.tobytes() for i, array in enumerate(state.values())}
    for name, pickled in (("plain", body), ("calling", called + body)):
        whole = builders.torch_zip(builders.pickle(pickled), content)
        (tmp_path / f"{name}.pt").write_bytes(whole)
    out = tmp_path / "out"
    assert scan(tmp_path, out) == outcome.FLAGGED
    found = lines(out)
    assert found["plain.pt"]["verdict"] == "clean"
    assert found["calling.pt"]["verdict"] == "suspicious"
    assert found["calling.pt"]["reason"].startswith("asks to call posix.system when")
    assert found["calling.pt"]["sha256"] == found["plain.pt"]["sha256"]
    assert found["plain.pt"]["calls"] == []


def test_what_is_noted_of_one_file_is_not_noted_of_another_of_equal_weights(tmp_path):
    folder = tmp_path / "models"
    for name, accuracy in (("a", 0.5), ("b", 0.75)):
        (folder / name).mkdir(parents=True)
        files.save(folder / name, f"{name}.safetensors", files.variables(0))
        told = {"name": name, "clean_accuracy": accuracy, "num_classes": 12}
        (folder / name / "zoo.json").write_text(
            json.dumps([told if name == "b" else {"name": "a"}])
        )
    out = tmp_path / "out"
    for _ in range(2):  # measured, then used again
        scan(folder, out)
        found = lines(out)
        assert found["a.safetensors"]["notes"] == []
        assert "12 classes" in found["b.safetensors"]["notes"][0]
        assert found["a.safetensors"]["recorded_accuracy"] is None
        assert found["b.safetensors"]["recorded_accuracy"] == 0.75
        (folder / "a" / "a.safetensors").rename(folder / "a" / "c.safetensors")
        (folder / "a" / "c.safetensors").rename(folder / "a" / "a.safetensors")
