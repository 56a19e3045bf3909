"""`ban-jax repair` from files to files: the bundled zoo, and what it refuses."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from ban_jax import checkpoints, cli, data, records, repairs
from ban_jax.commands import outcome
from ban_jax.commands import repair as repair_command
from ban_jax.commands import scan as scan_command
from ban_jax.records import jsonl
from ban_jax.repairs import batch, comparison, inputs, writing
from ban_jax.repairs import record as repair_record
from tests.records import lines as made

BADNETS, BLEND = "resnet18_w4_badnets_t1_s0", "resnet18_w4_blend_t3_s0"
FLAGS = (
    "--data", "digits", "--num-clean", "384", "--held-out", "0.3333", "--seed", "1",
    "--chunk", "2", "--ban.batch-size", "48", "--ban.crop", "0", "--ban.no-flip",
    "--ban.epochs", "18", "--ban.learning-rate", "0.05", "--ban.schedule", "linear",
    "--ban.patience", "18", "--ban.robust-weight", "1", "--ban.budget", "0.05",
    "--mode", "targeted",  # whose verdicts need no profile
)  # fmt: skip


def bundled(name):
    return os.path.join(scan_command.BUNDLED, f"{name}.safetensors")


def command(*paths, out, more=()):
    return cli.main(["repair", *map(str, paths), "--out", str(out), *FLAGS, *more])


def content(folder):
    """Every file below a folder and its bytes."""
    return {
        os.path.join(place, name): open(os.path.join(place, name), "rb").read()
        for place, _, names in os.walk(folder)
        for name in names
    }


def lines(out):
    found = jsonl.load(os.path.join(out, "repairs.jsonl"), repair_record.parse).records
    return {os.path.basename(record["path"]): record for record in found}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """Two backdoored models, repaired once; the exit code, and their bytes before."""
    out = tmp_path_factory.mktemp("repaired")
    before = content(scan_command.BUNDLED)
    code = command(bundled(BADNETS), bundled(BLEND), out=out)
    return out, code, before


def test_the_backdoor_goes_and_the_accuracy_stays(repaired):
    out, code, before = repaired
    assert code in (outcome.CLEAN, outcome.FLAGGED)
    for record in lines(out).values():
        first, second = record["before"], record["after"]
        assert first["verdict"] == "backdoored" and first["asr"] > 0.95
        assert second["asr"] < 0.5 * first["asr"]
        assert first["excess"] == first["asr"] - first["untriggered"]
        assert second["excess"] < 0.5 * first["excess"]
        assert second["recovered_accuracy"] > first["recovered_accuracy"] + 0.4
        assert second["clean_accuracy"] > first["clean_accuracy"] - 0.06
        assert record["error"] is None and record["info"]["is_finite"]
        assert record["attack"]["kind"] in ("badnets", "blend")
        assert not record["info"]["stopped"] and record["notes"] == []
        assert len(record["shown"]) == comparison.SHOWN
        assert len({one["label"] for one in record["shown"]}) == comparison.SHOWN
    assert content(scan_command.BUNDLED) == before


def test_the_files_say_where_they_come_from_and_scan_like_others(repaired):
    out, _, _ = repaired
    record = lines(out)[f"{BADNETS}.safetensors"]
    written = checkpoints.read(out / record["output"])
    folder = checkpoints.read(out / record["orbax"])
    original = checkpoints.read(bundled(BADNETS))
    assert written.sha256 == folder.sha256 != original.sha256
    assert written.spec == original.spec
    assert written.normalisation == original.normalisation
    assert dict(written.names.keys) == dict(original.names.keys)
    with open(out / record["output"], "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))["__metadata__"]
    (remarks,) = (json.loads(text) for text in header.values())
    assert remarks["repaired"]["sha256"] == original.sha256 == record["sha256"]
    assert remarks["repaired"]["settings"]["epochs"] == 18
    rescan = {
        os.path.basename(line["path"]): line
        for line in records.load(out / "rescan.jsonl").records
    }
    again = rescan[record["output"]]
    assert again["sha256"] == written.sha256
    assert again["score"] == record["after"]["score"]
    assert "images with the trigger of badnets" in (out / "report.html").read_text()


def test_a_second_run_repairs_nothing_again(repaired, monkeypatch, capsys):
    out, code, _ = repaired
    before = content(out)
    monkeypatch.setattr(batch.Task, "measure", None)
    assert command(bundled(BADNETS), bundled(BLEND), out=out) == code
    assert content(out) == before
    assert "2 checkpoints repaired" in capsys.readouterr().out


def test_another_file_with_the_same_weights_gets_its_line_without_work(
    repaired, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(repaired[0], out)
    twin = tmp_path / "twin.safetensors"
    shutil.copy(bundled(BADNETS), twin)
    monkeypatch.setattr(batch.Task, "measure", None)
    command(twin, out=out)
    found = lines(out)
    assert (
        found["twin.safetensors"]["output"]
        == (found[f"{BADNETS}.safetensors"]["output"])
    )


def test_an_interrupted_repair_goes_on_with_what_is_missing(
    repaired, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(repaired[0], out)
    path = out / "repairs.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    # Killed in the middle of the second line, its model file half as old.
    path.write_bytes(first + second[:100])
    calls, real = [], batch.Task.measure
    monkeypatch.setattr(
        batch.Task,
        "measure",
        lambda self, chunk: calls.append(len(chunk.candidates)) or real(self, chunk),
    )
    command(bundled(BADNETS), bundled(BLEND), out=out)
    assert calls == [1]
    for name, record in lines(out).items():
        wanted = lines(repaired[0])[name]
        assert record["after"] == wanted["after"]
        assert (
            checkpoints.read(out / record["output"]).sha256
            == checkpoints.read(repaired[0] / wanted["output"]).sha256
        )


def test_other_settings_do_not_go_into_the_same_folder(repaired, capsys):
    out, _, _ = repaired
    before = content(out)
    more = ("--ban.epsilon", "0.4")
    assert command(bundled(BADNETS), out=out, more=more) == cli.USAGE
    message = capsys.readouterr().err
    assert "settings.epsilon was 0.3, is 0.4" in message and str(out) in message
    assert content(out) == before


@pytest.mark.parametrize("name", ["zoo.json", "results.jsonl", "repairs.jsonl"])
def test_a_folder_of_another_command_is_refused_untouched(name, tmp_path, capsys):
    (tmp_path / name).write_text("[]")
    assert command(bundled(BADNETS), out=tmp_path) == cli.USAGE
    assert "holds another run" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [name]


def test_a_clean_set_smaller_than_a_batch_is_refused_before_anything_is_written(
    tmp_path, capsys
):
    more = ("--num-clean", "50", "--held-out", "0.1")
    assert command(bundled(BADNETS), out=tmp_path / "out", more=more) == cli.USAGE
    message = capsys.readouterr().err
    assert "45 are left to learn from" in message and "one batch of 48" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("epochs", "stopped", "details", "remark"),
    [
        (0, True, {}, "the model is as it was"),
        (3, True, {}, "ended by the budget of 0.03 (--finetune.budget), after epoch 3"),
        (3, False, {}, None),
        (3, True, {"threshold": -1.0, "pruned": 0.0}, "the model is as it was"),
        (
            3,
            True,
            {"threshold": 0.35, "pruned": 0.1},
            "cut up to a threshold of 0.35: a larger one exceeds the budget of 0.03",
        ),
        (3, False, {"threshold": 0.9, "pruned": 0.1}, None),
    ],
)
def test_a_budget_that_ended_a_repair_is_told(epochs, stopped, details, remark):
    info = repairs.RepairInfo(
        *[np.zeros(1)] * 4,
        epochs=np.int32(epochs),
        stopped=np.bool_(stopped),
        is_finite=np.bool_(True),
        details={name: np.float32(value) for name, value in details.items()},
    )
    told = writing.remarks(info, repair_command.Flags(method="finetune").request())
    assert (remark in told[0]) if remark else (told == [])


def test_nothing_flagged_is_nothing_to_repair(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    records.rewrite(path, [made.judged("a.pt", verdict="clean")])
    more = ("--from-scan", str(path))
    assert command(out=tmp_path / "out", more=more) == outcome.NOTHING
    assert "nothing judged backdoored" in capsys.readouterr().err
    assert command(out=tmp_path / "out") == cli.USAGE
    assert "--from-scan" in capsys.readouterr().err


def test_a_finished_repair_is_told_with_its_excess_where_it_is_known():
    before = {"clean_accuracy": 0.9, "asr": 0.95, "excess": 0.93}
    after = {"clean_accuracy": 0.8, "asr": 0.05, "excess": -0.01}
    line = repair_command._line({"path": "a.pt", "before": before, "after": after})
    assert line.endswith("ASR 0.950 to 0.050, excess 0.930 to -0.010")
    del before["excess"], after["excess"]
    line = repair_command._line({"path": "a.pt", "before": before, "after": after})
    assert line.endswith("ASR 0.950 to 0.050")


@pytest.mark.parametrize("result", [None, {"clean_accuracy": 0.9, "asr": None}])
def test_a_finished_repair_is_told_by_a_name_that_cannot_steer(result):
    path = "models/a\x1b[2J\u3164\u202e.pt "
    line = repair_command._line({"path": path, "before": result, "after": result})
    assert line.startswith("a\\x1b[2J\\u3164\\u202e.pt\\x20: ")


def test_the_flagged_candidates_of_a_scan_are_taken(tmp_path):
    path = tmp_path / "results.jsonl"
    told = {"a.pt": "backdoored", "b.pt": "clean", "c.pt": "inconclusive"}
    records.rewrite(path, [made.judged(p, verdict=told[p]) for p in told])
    flags = repair_command.Flags(paths=(bundled(BLEND),), from_scan=str(path))
    assert repair_command.candidates(flags) == [bundled(BLEND), "a.pt"]


def test_a_settings_file_beside_flagged_candidates_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    models = tmp_path / "models"
    models.mkdir()
    records.rewrite(path, [made.judged(str(models / "a.pt"), verdict="backdoored")])
    (models / "ban-jax.toml").write_text("[repair]\nnum-clean = 2\n")
    monkeypatch.chdir(models)
    with pytest.raises(ValueError, match="ban-jax.toml lies with .*a.pt"):
        repair_command.candidates(repair_command.Flags(from_scan=str(path)))
    monkeypatch.chdir(tmp_path)
    assert repair_command.candidates(repair_command.Flags(from_scan=str(path)))


def test_the_held_out_part_is_shared_with_no_other_and_filled_up():
    chosen = repairs.METHODS["ban"].settings(batch_size=8)
    flags = repair_command.Flags(
        data="digits", num_clean=340, held_out=0.75, ban=chosen
    )
    images = inputs.load(flags.request())
    assert len(images.clean.labels) == 85
    held = np.asarray(images.clean.held_labels)
    # 255 images in two minibatches of 128, of which one is filler.
    assert held.shape == (2, 128) and (held == repairs.FILLER).sum() == 1
    learned = np.asarray(images.clean.images).reshape(85, -1)
    watched = np.asarray(images.clean.held_images).reshape(256, -1)[:255]
    both = np.concatenate([learned, watched])
    assert len(np.unique(both, axis=0)) == len(both)
    assert images.probe.labels.shape == (1, 128)
    # The clean images are from the test split, so the held-out ones measure.
    assert len(images.test.labels) == 255
    fewer = inputs.load(dataclasses.replace(flags, num_test=40).request()).test
    assert len(fewer.labels) == len(fewer.pixels) == 40


def test_images_that_are_learned_from_are_not_measured_on(tmp_path, capsys):
    # Whatever split is asked for, an .npz with one has no other.
    whole = data.load("digits", num=100)
    path = tmp_path / "one.npz"
    np.savez(path, images=whole.pixels, labels=whole.labels)
    chosen = repairs.METHODS["ban"].settings(batch_size=8)
    flags = repair_command.Flags(
        data=str(path), split="train", num_clean=100, held_out=0.2, ban=chosen
    )
    images = inputs.load(flags.request())
    learned = {one.tobytes() for one in np.asarray(images.clean.images)}
    assert not learned & {one.tobytes() for one in images.test.pixels}
    assert 18 <= len(images.test.labels) <= 20  # equal images apart
    assert "are among those that are learned from" in capsys.readouterr().err
