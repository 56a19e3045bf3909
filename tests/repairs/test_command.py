"""`ban-jax repair` from files to files: the bundled zoo, and what it refuses."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, cli, records, repairs
from ban_jax.commands import scan as scan_command
from ban_jax.repairs import batch, comparison, inputs

BADNETS, BLEND = "resnet18_w4_badnets_t1_s0", "resnet18_w4_blend_t3_s0"
FLAGS = (
    "--data", "digits", "--num-clean", "300", "--seed", "1", "--chunk", "2",
    "--ban.batch-size", "48", "--ban.crop", "0", "--ban.no-flip", "--ban.epochs", "12",
    "--ban.learning-rate", "0.05", "--ban.schedule", "linear", "--ban.patience", "12",
    "--ban.robust-weight", "1", "--ban.budget", "0.05",
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
    found = records.load(os.path.join(out, "repairs.jsonl")).records
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
    assert code in (scan_command.CLEAN, scan_command.FLAGGED)
    for record in lines(out).values():
        first, second = record["before"], record["after"]
        assert first["verdict"] == "backdoored" and first["asr"] > 0.95
        assert second["asr"] < 0.5 * first["asr"]
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
    assert remarks["repaired"]["settings"]["epochs"] == 12
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
    monkeypatch.setattr(batch, "repair_population", None)
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
    monkeypatch.setattr(batch, "repair_population", None)
    command(twin, out=out)
    found = lines(out)
    assert (
        found["twin.safetensors"]["output"]
        == (found[f"{BADNETS}.safetensors"]["output"])
    )


def test_equal_weights_are_repaired_once_and_told_of_under_each_of_their_names(
    monkeypatch, tmp_path
):
    names = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path in names:
        shutil.copy(bundled(BADNETS), path)
    calls = []
    real = batch.repair_population
    monkeypatch.setattr(
        batch,
        "repair_population",
        lambda network, variables, *rest, **more: (
            calls.append(len(variables)) or real(network, variables, *rest, **more)
        ),
    )
    out = tmp_path / "out"
    # One at a time: the chunk is over before the second twin is read.
    short = ("--ban.epochs", "1", "--chunk", "1")
    assert command(*names, out=out, more=short) in (
        scan_command.CLEAN,
        scan_command.FLAGGED,
    )
    assert calls == [1]
    found = lines(out)
    assert sorted(found) == ["a.safetensors", "b.safetensors", "c.safetensors"]
    assert len({record["output"] for record in found.values()}) == 1


def test_equal_weights_that_cannot_be_repaired_each_say_why(tmp_path):
    names = [tmp_path / f"{name}.safetensors" for name in "ab"]
    candidate = checkpoints.read(bundled(BADNETS))
    broken = jax.tree.map(np.copy, dict(candidate.variables))
    broken["params"]["linear"]["kernel"][0, 0] = np.nan
    for path in names:
        checkpoints.write_safetensors(str(path), broken, candidate.spec)
    out = tmp_path / "out"
    assert command(*names, out=out) == scan_command.INCONCLUSIVE
    assert all("not finite" in record["error"] for record in lines(out).values())
    assert len(lines(out)) == 2


def test_an_interrupted_repair_goes_on_with_what_is_missing(
    repaired, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(repaired[0], out)
    path = out / "repairs.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    # Killed in the middle of the second line, its model file half as old.
    path.write_bytes(first + second[:100])
    calls = []
    real = batch.repair_population

    def counted(network, variables, *args, **kwargs):
        calls.append(len(variables))
        return real(network, variables, *args, **kwargs)

    monkeypatch.setattr(batch, "repair_population", counted)
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
    ("epochs", "stopped", "remark"),
    [
        (0, True, "the model is as it was"),
        (3, True, "ended by the budget of 0.03 (--finetune.budget), after epoch 3"),
        (3, False, None),
    ],
)
def test_a_budget_that_ended_a_repair_is_told(epochs, stopped, remark):
    info = repairs.RepairInfo(
        *[np.zeros(1)] * 4,
        epochs=np.int32(epochs),
        stopped=np.bool_(stopped),
        is_finite=np.bool_(True),
        details={},
    )
    told = batch._remarks(info, inputs.RepairFlags(method="finetune"))
    assert (remark in told[0]) if remark else (told == [])


def test_nothing_flagged_is_nothing_to_repair(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_text('{"path": "a.pt", "verdict": "clean"}\n')
    more = ("--from-scan", str(path))
    assert command(out=tmp_path / "out", more=more) == scan_command.NOTHING
    assert "nothing flagged" in capsys.readouterr().err
    assert command(out=tmp_path / "out") == cli.USAGE
    assert "--from-scan" in capsys.readouterr().err


def test_the_flagged_candidates_of_a_scan_are_taken(tmp_path):
    path = tmp_path / "results.jsonl"
    records = [
        {"path": name, "verdict": verdict}
        for name, verdict in (("a.pt", "backdoored"), ("b.pt", "clean"))
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    flags = inputs.RepairFlags(paths=(bundled(BLEND),), from_scan=str(path))
    assert inputs.candidates(flags) == [bundled(BLEND), "a.pt"]


def test_candidates_that_cannot_be_repaired_say_why_and_the_others_are_repaired(
    tmp_path, capsys
):
    original = checkpoints.read(bundled(BADNETS))
    state = safetensors_numpy.load_file(bundled(BADNETS))
    rng = np.random.default_rng(0)
    state["linear.weight"] = rng.normal(size=(10, 32)).astype(np.float32)
    chance = tmp_path / "chance.safetensors"
    safetensors_numpy.save_file(state, chance)
    few = dict(state)
    few["linear.weight"], few["linear.bias"] = few["linear.weight"][:6], np.zeros(6)
    few["linear.bias"] = few["linear.bias"].astype(np.float32)
    classes = tmp_path / "classes.safetensors"
    safetensors_numpy.save_file(few, classes)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a checkpoint")
    good = bundled(BADNETS)
    normalisation = "/".join(
        ",".join(map(str, part)) for part in original.normalisation
    )
    code = command(
        chance, classes, broken, good,
        out=tmp_path / "out", more=("--normalisation", normalisation, "--no-orbax"),
    )  # fmt: skip
    assert code == scan_command.INCONCLUSIVE
    found = lines(tmp_path / "out")
    assert "near chance" in found["chance.safetensors"]["error"]
    assert "tells 6 classes apart" in found["classes.safetensors"]["error"]
    assert "not a checkpoint" in found["broken.safetensors"]["error"]
    repaired = found[f"{BADNETS}.safetensors"]
    assert repaired["error"] is None and repaired["orbax"] is None
    assert sorted(os.listdir(tmp_path / "out")) == [
        "config.json", "repairs.jsonl", "report.html", "rescan.jsonl",
        repaired["output"],
    ]  # fmt: skip
    assert "3 not repaired" in capsys.readouterr().out


def test_the_held_out_part_is_shared_with_no_other_and_filled_up():
    flags = inputs.RepairFlags(
        data="digits", num_clean=340, held_out=0.75, ban=repairs.BanConfig(batch_size=8)
    )
    images = inputs.load(flags)
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
