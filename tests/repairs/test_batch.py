"""Many candidates through `ban-jax repair`: read once, repaired once, each told of."""

import collections
import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, cli, population, records, repairs, verdict
from ban_jax.commands import outcome
from ban_jax.detectors import witnesses
from ban_jax.records import jsonl
from ban_jax.repairs import batch, record
from tests.commands import processes
from tests.repairs import made
from tests.scanning import files


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A clean set that `expert` knows by heart."""
    return made.clean_set(tmp_path_factory.mktemp("data"))


def command(clean, *paths, out, more=()):
    arguments = ["repair", *paths, "--data", clean, *made.FLAGS, "--out", out, *more]
    return cli.main([str(argument) for argument in arguments])


def lines(out):
    found = jsonl.load(os.path.join(out, "repairs.jsonl"), record.parse).records
    return {os.path.basename(line["path"]): line for line in found}


@pytest.fixture
def measured(monkeypatch):
    """Candidates of each chunk that was repaired."""
    calls, real = [], batch.Task.measure
    monkeypatch.setattr(
        batch.Task,
        "measure",
        lambda self, chunk: calls.append(len(chunk.candidates)) or real(self, chunk),
    )
    return calls


def test_equal_weights_are_repaired_once_and_told_of_under_each_of_their_names(
    clean, measured, tmp_path
):
    names = [
        files.save(tmp_path, f"{name}.safetensors", made.expert()) for name in "abc"
    ]
    out = tmp_path / "out"
    # One at a time: the chunk is over before the second twin is read.
    code = command(clean, *names, out=out, more=("--chunk", 1))
    assert code in (outcome.CLEAN, outcome.FLAGGED)
    assert measured == [1]
    found = lines(out)
    assert sorted(found) == ["a.safetensors", "b.safetensors", "c.safetensors"]
    assert len({line["output"] for line in found.values()}) == 1
    (rescan,) = records.load(out / "rescan.jsonl").records
    assert rescan["path"] == str(out / found["a.safetensors"]["output"])


def test_equal_weights_on_images_of_two_sizes_have_an_output_each(clean, tmp_path):
    names = []
    for folder, side in (("a", 8), ("b", 9)):
        (tmp_path / folder).mkdir()
        names.append(files.save(tmp_path / folder, "model.safetensors", made.expert()))
        config = {"pretrained_cfg": {"input_size": [1, side, side], "crop_pct": 1.0}}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    command(clean, *names, out=out)
    found = jsonl.load(out / "repairs.jsonl", record.parse).records
    outputs = {line["output"] for line in found}
    assert len(outputs) == 2 and all((out / name).exists() for name in outputs)


def test_equal_weights_that_cannot_be_repaired_each_say_why(clean, tmp_path):
    broken = made.expert()
    broken["params"]["linear"]["kernel"][0, 0] = np.nan
    names = [files.save(tmp_path, f"{name}.safetensors", broken) for name in "ab"]
    out = tmp_path / "out"
    assert command(clean, *names, out=out) == outcome.INCONCLUSIVE
    assert all("not finite" in line["error"] for line in lines(out).values())
    assert len(lines(out)) == 2


def test_a_file_is_read_once_and_its_output_once(clean, tmp_path, monkeypatch):
    names = [
        files.save(tmp_path, f"{factor}.safetensors", made.expert(factor))
        for factor in (1, 2, 4)
    ]
    read = collections.Counter()

    def counted(real):
        def reading(path, **more):
            read[os.fspath(path)] += 1
            return real(path, **more)

        return reading

    for name in ("read", "read_all"):
        monkeypatch.setattr(checkpoints, name, counted(getattr(checkpoints, name)))
    out = tmp_path / "out"
    command(clean, *names, out=out)
    outputs = [str(out / line["output"]) for line in lines(out).values()]
    assert len(set(outputs)) == 3
    assert read == dict.fromkeys([*names, *outputs], 1)


def test_models_before_and_after_are_looked_at_closer_where_there_is_doubt(
    clean, tmp_path, monkeypatch
):
    """As a scan of the same files would: two are in doubt before, one of them after."""
    names = [
        files.save(tmp_path, f"{factor}.safetensors", made.expert(factor))
        for factor in (1, 2, 4)
    ]
    asked = []

    def asks(self, line):
        if "universal" in line["vectors"]:
            return None
        name = os.path.basename(line["path"])
        asked.append(name)
        if not name.startswith(("1", "2.safetensors")):
            return None
        return witnesses.Question((1, 3), ("targeted", "universal"))

    monkeypatch.setattr(verdict.Judge, "asks", asks)
    out = tmp_path / "out"
    command(clean, *names, out=out)
    assert len(asked) == 6
    rescan = {
        os.path.basename(line["path"]): line
        for line in records.load(out / "rescan.jsonl").records
    }
    for name, line in lines(out).items():
        again = rescan[os.path.basename(line["output"])]
        assert line["after"]["score"] == again["score"]
        assert ("universal" in again["vectors"]) == line["output"].startswith("1")
        if "universal" in again["vectors"]:
            said = again["vectors"]["universal"]
            assert [i for i, one in enumerate(said) if one is not None] == [1, 3]
            assert name == "1.safetensors"


def test_out_of_memory_halves_the_chunk_and_all_are_repaired(
    clean, tmp_path, monkeypatch
):
    names = [
        files.save(tmp_path, f"{factor}.safetensors", made.expert(factor))
        for factor in (1, 2, 4)
    ]
    sizes, real = [], population.for_each

    def failing(program, placement, placed, shared, count, size):
        if isinstance(shared[0], repairs.CleanSet):
            sizes.append(count)
            if count > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return real(program, placement, placed, shared, count, size)

    with monkeypatch.context() as patch:
        patch.setattr(population, "for_each", failing)
        command(clean, *names, out=tmp_path / "out", more=("--chunk", 3))
    assert sizes == [3, 1, 1, 1]
    assert all(line["error"] is None for line in lines(tmp_path / "out").values())
    command(clean, *names, out=tmp_path / "whole", more=("--chunk", 3))
    for name, line in lines(tmp_path / "whole").items():
        halved = lines(tmp_path / "out")[name]
        assert halved["output"] == line["output"]
        assert (
            checkpoints.read(tmp_path / "out" / line["output"]).sha256
            == checkpoints.read(tmp_path / "whole" / line["output"]).sha256
        )


def test_one_that_the_device_fails_on_says_so_and_is_tried_again(
    clean, tmp_path, monkeypatch
):
    path = files.save(tmp_path, "a.safetensors", made.expert())
    real = population.for_each

    def failing(program, placement, placed, shared, count, size):
        if isinstance(shared[0], repairs.CleanSet):
            raise jax.errors.JaxRuntimeError("INTERNAL: unplugged")
        return real(program, placement, placed, shared, count, size)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(population, "for_each", failing)
        assert command(clean, path, out=out) == outcome.INCONCLUSIVE
    (line,) = lines(out).values()
    assert line["error"].startswith("the device failed: INTERNAL: unplugged")
    assert line["output"] is None and line["key"] is None
    command(clean, path, out=out)
    (line,) = lines(out).values()
    assert line["error"] is None and (out / line["output"]).exists()


def test_what_is_told_of_a_repaired_model_is_read_from_its_file(
    clean, tmp_path, monkeypatch
):
    path = files.save(tmp_path, "a.safetensors", made.expert())
    real = checkpoints.write_safetensors

    def torn(target, *arguments):
        real(target, *arguments)
        with open(target, "r+b") as file:
            file.truncate(100)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_safetensors", torn)
        assert command(clean, path, out=out) == cli.USAGE
    assert lines(out) == {}
    assert command(clean, path, out=out) in (outcome.CLEAN, outcome.FLAGGED)
    (rescan,) = records.load(out / "rescan.jsonl").records
    assert rescan["sha256"] == checkpoints.read(rescan["path"]).sha256


def test_candidates_that_cannot_be_repaired_say_why_and_the_others_are_repaired(
    clean, tmp_path, capsys
):
    models = tmp_path / "models"
    models.mkdir()
    files.save(models, "good.safetensors", made.expert())
    chance = made.expert()
    linear = chance["params"]["linear"]
    linear["kernel"], linear["bias"] = -linear["kernel"], -linear["bias"]
    files.save(models, "chance.safetensors", chance)
    few = made.expert()
    few["params"]["linear"] = {
        name: leaf[..., :2] if name == "kernel" else leaf[:2]
        for name, leaf in few["params"]["linear"].items()
    }
    spec = dataclasses.replace(files.SPEC, num_classes=2)
    checkpoints.write_safetensors(models / "classes.safetensors", few, spec)
    (models / "broken.safetensors").write_bytes(b"not a checkpoint")
    out = tmp_path / "out"
    assert command(clean, models, out=out) == outcome.INCONCLUSIVE
    found = lines(out)
    assert "near chance" in found["chance.safetensors"]["error"]
    assert "tells 2 classes apart" in found["classes.safetensors"]["error"]
    assert "a text, no checkpoint" in found["broken.safetensors"]["error"]
    repaired = found["good.safetensors"]
    assert repaired["error"] is None and repaired["orbax"] is None
    assert sorted(os.listdir(out)) == [
        ".repairs.jsonl.lock", "config.json", repaired["output"], "repairs.jsonl",
        "report.html", "rescan.jsonl",
    ]  # fmt: skip
    assert "3 not repaired" in capsys.readouterr().out


def test_a_method_says_which_networks_it_cannot_repair():
    layer = {"kernel": np.ones(2), "bias": np.ones(2)}
    plain = {"params": {"conv": layer}}
    assert "no normalisation layer" in repairs.METHODS["anp"].unfit(plain)
    normalised = {"params": {"conv": layer, "bn": {"scale": np.ones(2)}}}
    assert not repairs.METHODS["anp"].unfit(normalised)
    assert not repairs.METHODS["ban"].unfit(plain)


def test_networks_that_a_method_cannot_repair_do_not_stop_the_others(
    clean, tmp_path, monkeypatch
):
    method = dataclasses.replace(
        repairs.METHODS["finetune"],
        unfit=lambda found: "is odd" * bool(found["params"]["linear"]["bias"][0] > 1e3),
    )
    monkeypatch.setitem(repairs.METHODS._things, "finetune", method)
    files.save(tmp_path, "good.safetensors", made.expert())
    odd = made.expert()
    odd["params"]["linear"]["bias"] = odd["params"]["linear"]["bias"] + np.float32(2e3)
    files.save(tmp_path, "odd.safetensors", odd)
    out = tmp_path / "out"
    assert command(clean, tmp_path, out=out) == outcome.INCONCLUSIVE
    found = lines(out)
    assert found["odd.safetensors"]["error"].endswith("odd.safetensors: is odd")
    assert found["good.safetensors"]["error"] is None


def test_a_file_of_several_classifiers_has_a_line_for_each(
    clean, tmp_path, monkeypatch, capsys
):
    path = str(tmp_path / "model.pt")

    def repaired(paths, request, *_, **__):
        for name in ("state_dict", "state_dict_ema"):
            one = record.empty(f"{path}#{name}", request, None, error=f"{name} is odd")
            yield batch.Outcome(one, None)

    monkeypatch.setattr(batch, "repair_all", repaired)
    (tmp_path / "model.pt").write_bytes(b"")
    assert command(clean, path, out=tmp_path / "out") == outcome.INCONCLUSIVE
    assert set(lines(tmp_path / "out")) == {
        "model.pt#state_dict",
        "model.pt#state_dict_ema",
    }
    assert "2 not repaired" in capsys.readouterr().out


def test_an_output_that_is_gone_is_made_again(clean, measured, tmp_path):
    path = files.save(tmp_path, "a.safetensors", made.expert())
    out = tmp_path / "out"
    command(clean, path, out=out)
    (line,) = lines(out).values()
    before = (out / line["output"]).read_bytes()
    command(clean, path, out=out)
    assert measured == [1]
    os.unlink(out / line["output"])
    command(clean, path, out=out)
    assert measured == [1, 1]
    assert (out / line["output"]).read_bytes() == before


def test_another_process_that_repairs_into_the_folder_is_told_of(
    clean, tmp_path, capsys
):
    path = files.save(tmp_path, "a.safetensors", made.expert())
    out = tmp_path / "out"
    command(clean, path, out=out)
    before = {name: (out / name).read_bytes() for name in os.listdir(out)}
    twin = shutil.copy(path, tmp_path / "twin.safetensors")
    capsys.readouterr()
    with processes.holding(out / "repairs.jsonl"):
        assert command(clean, twin, out=out) == cli.USAGE
    assert "repairs.jsonl: another ban-jax process" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in os.listdir(out)} == before


def test_repairs_that_somebody_else_tells_of_are_done_again(
    clean, measured, tmp_path, monkeypatch
):
    name = files.save(tmp_path, "a.safetensors", made.expert())
    out = tmp_path / "out"
    for _ in range(2):
        command(clean, name, out=out)
    assert measured == [1]
    monkeypatch.setenv("BAN_JAX_STATE", str(tmp_path / "another user"))
    command(clean, name, out=out)
    assert measured == [1, 1]
