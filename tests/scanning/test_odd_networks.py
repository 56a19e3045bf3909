"""Scans of networks and image sets that are unlike the usual: files to verdicts."""

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, cli, models, records, verdict
from ban_jax.baselines import usable
from ban_jax.commands import outcome
from ban_jax.detectors import directed
from ban_jax.models import common
from tests.scanning import files

QUICK = (
    "--ban.steps", "1", "--ban.mask-steps", "1", "--directed.steps", "1",
    "--directed.pixel-steps", "1", "--directed.pixel-images", "16",
    "--normalisation", "0/1", "--profile", "none",
)  # fmt: skip
MORE = set(directed.WORDS)


class Plain(common.Classifier):
    """A convolution and a last layer, without normalisation."""

    def setup(self):
        super().setup()
        self.stem_conv = self.make_conv(self.width)
        self.linear = common.Linear(self.num_classes)

    def features(self, images, mode):
        return common.widened(jax.nn.relu(self.stem_conv(self.normalise(images))))

    def head(self, features, mode):
        return self.linear(common.global_average(features))


@pytest.fixture(autouse=True)
def plain_network():
    models.register_architecture("plain", Plain)
    yield
    del models.ARCHITECTURES._things["plain"]


def scan(folder, *more, architecture="small", classes=5, images=256):
    """A network that knows its images by heart is scanned; the code and its line."""
    spec = checkpoints.ModelSpec(architecture, classes, width=4, in_channels=1)
    pixels, _ = files.images(images)
    found, labels = files.expert(0, pixels, spec=spec)
    path = files.save(folder, "model.safetensors", found, spec)
    np.savez(folder / "clean.npz", images=pixels, labels=labels)
    told = (path, "--data", folder / "clean.npz", *QUICK, "--out", folder, *more)
    code = cli.main(["scan", *map(str, told)])
    (line,) = records.load(folder / "results.jsonl").records
    assert line["error"] is None and line["clean_accuracy"] == 1.0
    return code, line


def known(line, name):
    return [i for i, value in enumerate(line["vectors"][name]) if value is not None]


def test_of_many_classes_no_more_than_the_most_are_searched_towards(tmp_path):
    _, line = scan(tmp_path, classes=15)
    most = verdict.MOST_CLASSES
    for name in MORE:
        assert len(known(line, name)) == most
        assert len(line["witnesses"].get(name, [0] * 15)) == 15
        assert known(line, name) == known(line, "targeted")
    assert line["target"] in known(line, "targeted")
    assert line["verdict"] != "inconclusive"
    # What is known is kept; the rest is asked with it.
    _, whole = scan(tmp_path, "--exhaustive", classes=15)
    for name in MORE:
        assert known(whole, name) == list(range(15))
        for i in known(line, name):
            value = pytest.approx(line["vectors"][name][i], abs=1e-5)
            assert whole["vectors"][name][i] == value


def test_too_few_classes_are_inconclusive_and_not_looked_at_closer(tmp_path):
    code, line = scan(tmp_path, classes=3)
    assert code == outcome.INCONCLUSIVE
    assert "3 classes are too few" in line["reason"]
    assert not MORE & set(line["vectors"])


def test_fewer_images_than_a_minibatch_do(tmp_path):
    code, line = scan(tmp_path, images=40)
    assert code in (outcome.CLEAN, outcome.FLAGGED) and line["num_probe"] == 40
    further = directed.Settings(steps=1, pixel_steps=1, pixel_images=16)
    # 2 x 40 without noise, a search on 40 and a count on them; then towards each class.
    assert line["forward_equivalents"] == 80 + 2 * 40 + 40 + directed.work(
        further, 5, 40
    )
    for name in MORE:
        assert known(line, name) == list(range(5))
        assert min(line["errors"][name]) > 0


def test_a_network_without_normalisation_lacks_a_witness_and_is_never_clean(tmp_path):
    code, line = scan(tmp_path, architecture="plain")
    assert code == outcome.INCONCLUSIVE
    found = verdict.judge_all([line], profiles=None)[0]
    assert (
        found["verdict"] == "inconclusive" and usable.NOISE_IS_BLIND in found["reason"]
    )
    assert "batch_minus_stored" not in {*line["vectors"], *line["witnesses"]}
    assert {"untargeted", "last_layer", "universal"} <= {
        *line["witnesses"],
        *line["void"],
    }
    assert "untargeted" in line["void"] and "targeted" not in line["vectors"]
    assert line["score"] is not None
