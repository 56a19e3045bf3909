"""`ban-jax bench`: what is counted by hand, and a run on a network of four lines."""

import json

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, cli, detectors, models, records
from ban_jax.commands import bench, throughput
from tests import tiny


def test_products_of_a_forward_pass_are_those_counted_by_hand():
    spec = checkpoints.ModelSpec("resnet18", 10, 2)
    # 8x8 images, 2 channels: the stem has 3 inputs; stages of 2 blocks have 8x8, 4x4, 2x2
    # and 1x1 pixels with 2, 4, 8 and 16 channels; a stage's first convolution sees half of
    # its channels, and so does the 1x1 of its shortcut.
    stem = 64 * 9 * 3 * 2
    first = 4 * 64 * 9 * 2 * 2
    stages = [
        pixels * (9 * c * c // 2 + 3 * 9 * c * c + c * c // 2)
        for pixels, c in ((16, 4), (4, 8), (1, 16))
    ]
    by_hand = 2 * (stem + first + sum(stages) + 16 * 10)
    assert throughput.forward_products(spec, 8) == by_hand


@pytest.mark.parametrize(
    "mode, images",
    [
        ("targeted", 10 * 3 * 128),  # classes x steps x minibatch
        ("ban", 4 * 128),  # steps x minibatch, at one radius
        ("directed", 10 * 2 * 128),  # of neuron noise; of pixels none
    ],
)
def test_search_images_are_counted_once_per_step(mode, images):
    config = detectors.DETECTORS[mode].settings()
    settings = records.Settings(mode=mode, config=config)
    assert throughput.search_images(settings, 512) == images


def test_random_weights_have_the_shapes_of_the_network_and_survive_a_file(tmp_path):
    spec = checkpoints.ModelSpec("vgg16", 10, 2)
    member = throughput.random_member(spec, 0)
    expected = dict(models.abstract_variables(spec.create()))
    expected.pop("normalisation")
    assert jax.tree.map(np.shape, member.variables) == jax.tree.map(
        lambda leaf: leaf.shape, expected
    )
    assert throughput.read_seconds(spec, member) > 0
    other = throughput.random_member(spec, 1)
    assert not np.array_equal(member.words, other.words)


@pytest.mark.parametrize(
    ("mode", "num_clean"), [("targeted", "256"), ("ban", "256"), ("directed", "1")]
)
def test_the_command_writes_rates_and_stages(
    mode, num_clean, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(records.Settings, "network", lambda *_: tiny.NETWORK)
    monkeypatch.setattr(throughput, "random_member", lambda _, seed: tiny.member(seed))
    monkeypatch.setattr(throughput, "read_seconds", lambda *_: 0.5)
    monkeypatch.setattr(throughput, "matmul_peak", lambda _: 1e12)
    monkeypatch.setattr(throughput, "NUM_CLASSES", tiny.CLASSES)
    out = tmp_path / "figures.json"
    words = ["--mode", mode, "--image-size", "4", "--num-clean", num_clean]
    words += ["--arch", "resnet18", "--width", "2", "--candidates", "1", "2"]
    assert cli.main(["bench", *words, "--repeats", "2", "--out", str(out)]) == 0
    assert "candidates per second" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())["rows"]
    assert [each["candidates"] for each in row["per_candidate"]] == [1, 2]
    assert all(each["seconds"]["n"] == 2 for each in row["per_candidate"])
    # Of a difference of two times, which may tell nothing, but not that of no image.
    rate = row["image_gradients_per_second"]
    assert rate is None or rate > 0
    named = {"read_and_convert", "features", "noise", "evaluation"}
    assert set(row["stages"]) == named | ({"mask"} if mode == "ban" else set())
    inside = sum(row["stages"].values()) - 0.5
    assert inside == pytest.approx(1 / row["candidates_per_second"])


ROW = {
    "architecture": "resnet18",
    "width": 2,
    "candidates_per_second": 4.0,
    "stages": {"features": 0.05, "noise": 0.2, "evaluation": -0.001},
    "image_gradients_per_second": 2560.0,
    "share_of_peak": 0.25,
}
"""What of a row is printed."""


def test_no_rate_and_no_seconds_are_told_below_nothing():
    told = throughput.total_line(ROW)
    assert "features 0.050, noise 0.200, evaluation too short for the clock" in told
    assert "2560 image gradients per second, 25% of the matrix" in told
    unknown = {"image_gradients_per_second": None, "share_of_peak": None}
    told = throughput.total_line(ROW | unknown)
    assert "image gradients per second: too many for the clock to tell" in told


@pytest.mark.parametrize(
    ("noise", "is_told"), [(0.2, True), (0.01, False), (-0.1, False)]
)
def test_a_rate_follows_from_times_that_differ_by_more_than_chance(
    noise, is_told, monkeypatch
):
    def timed(*_):
        return 0.0, [1.0, 1.1]  # their standard deviation is 0.07

    monkeypatch.setattr(records.Settings, "network", lambda *_: tiny.NETWORK)
    monkeypatch.setattr(throughput, "random_member", lambda _, seed: tiny.member(seed))
    monkeypatch.setattr(throughput, "read_seconds", lambda *_: 0.5)
    monkeypatch.setattr(throughput.Stopwatch, "__call__", timed)
    monkeypatch.setattr(throughput, "_stages", lambda *_: {"noise": noise})
    flags = bench.Flags(width=2, image_size=8, num_clean=256, candidates=(1,))
    spec = checkpoints.ModelSpec("resnet18", 10, 2)
    row = throughput._row(spec, flags, 1e12)
    images = throughput.search_images(
        records.Settings(config=detectors.DETECTORS["ban"].settings()), 256
    )
    rate = images / noise if is_told else None
    assert row["image_gradients_per_second"] == rate
    assert (row["share_of_peak"] is None) == (not is_told)


@pytest.fixture
def rows(monkeypatch):
    """A row that costs nothing; the second is interrupted."""
    made = []

    def row(spec, *_):
        if made:
            raise KeyboardInterrupt
        made.append(spec.architecture)
        return ROW

    monkeypatch.setattr(throughput, "matmul_peak", lambda _: 1e12)
    monkeypatch.setattr(throughput, "_row", row)
    return made


@pytest.mark.parametrize(
    ("other", "message"),
    [("lenet", "unknown architecture 'lenet'"), ("vgg16", "images of at least")],
)
def test_an_impossible_architecture_is_refused_before_others_are_measured(
    rows, other, message, tmp_path, capsys
):
    words = ["bench", "--arch", "resnet18", other, "--width", "2", "--image-size", "8"]
    out = tmp_path / "figures.json"
    assert cli.main([*words, "--out", str(out)]) == cli.USAGE
    assert message in capsys.readouterr().err
    assert rows == [] and not out.exists()


def test_figures_are_written_as_they_come_and_told(rows, tmp_path, capsys):
    out = tmp_path / "figures.json"
    words = ["bench", "--arch", "resnet18", "preact_resnet18", "--width", "2"]
    assert cli.main([*words, "--out", str(out)]) == cli.INTERRUPTED
    assert json.loads(out.read_text())["rows"] == [ROW]
    told = capsys.readouterr().out
    assert "resnet18/2: 4 candidates per second" in told and f"Figures: {out}" in told
