"""Models that bring a `config.json` get clean images prepared as it says."""

import json

import numpy as np
import pytest

from ban_jax import cli, records, repairs
from ban_jax.commands import outcome, preparing, repair, scan
from ban_jax.repairs import inputs
from ban_jax.scanning import engines
from tests.commands import test_two_passes
from tests.scanning import files

TIMM = {"pretrained_cfg": {"input_size": [1, 12, 12], "crop_pct": 1.0}}
OTHER = {"pretrained_cfg": {"input_size": [1, 10, 10], "crop_pct": 0.8}}
WORDS = "shorter side resized to 12 pixels (bicubic), the middle 12x12 taken"


@pytest.fixture
def clean(tmp_path):
    """64 grey images of 8x8."""
    path = tmp_path / "clean.npz"
    images, labels = files.images(64)
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture
def folder(tmp_path):
    """A model without a config, two of 12 pixels, one of 10, and one of the images' own."""
    top = tmp_path / "models"
    own = {"pretrained_cfg": {"input_size": [1, 8, 8], "crop_pct": 0.8}}
    told = {"a": None, "b": TIMM, "c": OTHER, "d": TIMM, "e": own}
    for seed, (name, config) in enumerate(told.items()):
        (top / name).mkdir(parents=True)
        files.save(top / name, "model.safetensors", files.variables(seed))
        if config:
            (top / name / "config.json").write_text(json.dumps(config))
    return top


class Told(engines.InProcess):
    """An engine that measures nothing and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def measure(self, paths, job, *, known=(), clock=None):
        names = [path.split("/")[-2] for path in paths]
        shape = job.probe and job.probe.images.shape[2:4]
        self.asked.append((names, shape, job.preparation, job.digest))
        return iter(())


def asked(folder, clean, *names, mode="ban", **more):
    """What an engine is asked of files, and what is said of it."""
    flags = scan.Flags(mode=mode, data=str(clean), num_clean=64, **more)
    paths = [str(folder / name / "model.safetensors") for name in names]
    ways = preparing.Ways(flags, paths)
    told = Told()
    job = scan.prepare(flags, ways.usual)
    assert not list(ways.engine(told).measure(paths, job))
    return told.asked


def test_files_of_one_preparation_are_measured_together(folder, clean, capsys):
    found = asked(folder, clean, *"abcde")
    assert [one[:2] for one in found] == [
        (["a"], (8, 8)),
        (["b", "d"], (12, 12)),
        (["c"], (10, 10)),
        (["e"], (8, 8)),
    ]
    assert [one[2] for one in found[:2]] == ["", WORDS]
    digests = [one[3] for one in found]
    assert digests[0] == digests[3] and len(set(digests)) == 3
    assert capsys.readouterr().err.count("2 of the files take other clean images") == 1


def test_what_is_measured_of_a_file_does_not_hang_on_its_neighbours(folder, clean):
    alone, beside = asked(folder, clean, "b"), asked(folder, clean, *"ab")
    assert alone[0][1:] == beside[1][1:]
    assert asked(folder, clean, *"cb")[1][1:] == alone[0][1:]


def test_flags_prepare_images_alike_for_all(folder, clean, capsys):
    (found,) = asked(folder, clean, *"abc", image_size=9)
    assert found[:3] == (["a", "b", "c"], (9, 9), "")
    assert "other clean images" not in capsys.readouterr().err


def test_a_mode_without_images_prepares_none(folder, clean):
    (found,) = asked(folder, clean, *"bc", mode="weights")
    assert found[:3] == (["b", "c"], None, "")


def test_images_of_many_sizes_need_no_flag_where_every_model_brings_its_own(
    folder, tmp_path
):
    from PIL import Image

    for label in "xy":
        (tmp_path / "images" / label).mkdir(parents=True)
        for side in (9, 14):
            image = Image.new("L", (side, side + 2), color=side)
            image.save(tmp_path / "images" / label / f"{side}.png")
    (found,) = asked(folder, tmp_path / "images", *"bd")
    assert found[1] == (12, 12)
    with pytest.raises(ValueError, match="differ in size"):
        asked(folder, tmp_path / "images", *"ab")


def test_configs_that_ask_for_what_images_are_already_prepare_nothing(folder, clean):
    """Or a model could keep the profile of its data away by saying their size."""
    paths = [str(folder / "e" / "model.safetensors")]
    flags = scan.Flags(mode="ban", data=str(clean), num_clean=64)
    ways = preparing.Ways(flags, paths)
    assert ways.usual is not None
    job = scan.prepare(flags, ways.usual)
    assert not job.preparation and job.digest == scan.prepare(flags).digest
    (found,) = asked(folder, clean, "b")
    assert found[2] == WORDS


def test_a_repair_takes_images_as_each_model_says(folder, clean, monkeypatch, capsys):
    found = []

    def repair_all(paths, request, images, folder, *, known):
        names = [path.split("/")[-2] for path in paths]
        shapes = {
            images.clean.images.shape[1:3],
            images.probe.images.shape[2:4],
            images.test.pixels.shape[1:3],
        }
        found.append((names, shapes, images.preparation))
        return iter(())

    monkeypatch.setattr(repair.batch, "repair_all", repair_all)
    paths = [str(folder / name / "model.safetensors") for name in "abcde"]
    told = {"data": str(clean), "num_clean": 64, "held_out": 0.5}
    chosen = repairs.METHODS["ban"].settings(batch_size=16)
    flags = repair.Flags(ban=chosen, **told)
    ways = preparing.Ways(flags, paths)
    images = inputs.load(flags.request(), ways.usual)
    assert not list(repair._repaired(flags, ways, images, None, paths, ()))
    assert found[:2] == [(["a"], {(8, 8)}, ""), (["b", "d"], {(12, 12)}, WORDS)]
    assert [one[1] for one in found[2:]] == [{(10, 10)}, {(8, 8)}]
    assert WORDS in capsys.readouterr().err


def test_lines_say_how_their_images_were_made_and_serve_again(
    folder, clean, tmp_path, capsys
):
    def run():
        given = [folder / "b", "--data", clean, "--out", tmp_path / "out"]
        words = ["scan", *given, "--profile", "none", *test_two_passes.QUICK]
        assert cli.main(list(map(str, words))) != outcome.NOTHING
        (line,) = records.load(tmp_path / "out" / "results.jsonl").records
        return line

    found = run()
    assert found["error"] is None
    assert found["data"]["image_shape"] == [12, 12, 1]
    assert found["data"]["preparation"] == WORDS
    note = f"clean images are made as the model's own config says: {WORDS}"
    assert note in found["notes"]
    assert WORDS in capsys.readouterr().err
    assert run()["seconds"] == found["seconds"]
