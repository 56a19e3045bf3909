"""Flags that come from registries: ours, and those of an installed package."""

import json
import os
import types

import pytest

from ban_jax import cli, detectors, records
from ban_jax.commands import scan, settings, train
from ban_jax.data import normalisation
from tests.commands import processes

TOY = """
import dataclasses, jax
from jax import numpy as jnp
from ban_jax.detectors import evidence, rules
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words

@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Settings:
    strength: float = 1.0
    how_often: int = dataclasses.field(default=3, metadata={"static": True, "minimum": 2})

def detect(network, variables, probe, *, key, config):
    vector = config.strength * evidence.last_layer(network, variables)
    return evidence.Evidence(
        {"toy": vector}, {"toy": jnp.zeros_like(vector)}, jnp.nan * vector[0],
        jnp.all(jnp.isfinite(vector)))

DETECTOR = Detector(
    detect, Settings, rules.AverageZ(
        ("toy",), {"within": 4.0, "trusted": 5.0, "population": 3.5}),
    lambda config, num_classes, num_images: 0, "a toy",
    {"toy": Words("Toy", "the last layer, times a number", "weight")}, frozenset())
"""
ENTRY_POINTS = """
[ban_jax.detectors]
toy = toy_detector:DETECTOR
broken = no_such_module:DETECTOR
"""


@pytest.fixture
def installed(tmp_path):
    """A folder with a package as `pip` leaves it, one of whose two detectors is broken."""
    site = tmp_path / "site"
    metadata = site / "toy-0.1.dist-info"
    metadata.mkdir(parents=True)
    (site / "toy_detector.py").write_text(TOY)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy\nVersion: 0.1\n"
    )
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


SEVERAL = """
import json, sys
from ban_jax import cli
from tests.scanning import files
with files.known():
    for arguments in json.loads(sys.argv[1]):
        print("code", cli.main(arguments), flush=True)
"""


def elsewhere(site, *commands):
    """Runs commands in a process where that folder is one packages are found in."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    told = json.dumps([[str(argument) for argument in one] for one in commands])
    path = os.pathsep.join([root, str(site)])
    process = processes.start(SEVERAL, told, PYTHONPATH=path, PYTHONWARNINGS="always")
    out, _ = process.communicate(timeout=120)
    return out


def test_a_detector_of_another_package_has_flags_and_scans_and_a_broken_one_warns(
    installed, folder, tmp_path
):
    out = tmp_path / "out"
    told = elsewhere(
        installed,
        ("scan", "--help"),
        ("scan", folder, "--mode", "toy", "--toy.strength", "2", "--out", out),
        ("scan", folder, "--mode", "toy", "--toy.how-often", "1", "--out", out),
        ("scan", folder, "--mode", "broken", "--out", out),
        ("scan", folder, "--mode", "weights", "--out", tmp_path / "other"),
    )
    codes = [line for line in told.splitlines() if line.startswith("code")]
    assert codes[0] == "code 0" and codes[1] in ("code 0", "code 1")
    assert codes[2:4] == ["code 4", "code 4"] and codes[4] in ("code 0", "code 1")
    for flag in ("--toy.strength", "--toy.how-often", "--ban.epsilon"):
        assert flag in told
    assert "--toy.how-often must be at least 2, got 1" in told
    assert "detector 'broken': no_such_module:DETECTOR cannot be loaded" in told
    assert "Traceback" not in told
    found = records.load(out / "results.jsonl").records
    assert len(found) == 4
    for line in found:
        assert line["mode"] == "toy" and line["config"]["strength"] == 2
        assert line["error"] is None and len(line["vectors"]["toy"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "ban", "--ban.epsilon", "-1"), "--ban.epsilon must be at least 0"),
        (("--mode", "targeted", "--targeted.steps", "-1"), "--targeted.steps must be"),
        (
            ("--mode", "targeted", "--targeted.radii", "0.5", "-1"),
            "--targeted.radii must be at least 0, got -1",
        ),
        (("--directed.steps", "0"), "--directed.steps must be at least 1, got 0"),
        (("--fail-on", "clean"), "--fail-on"),
        (("--mode", "harmful"), "unknown detector 'harmful'; known: ban,"),
        (("--num-clean", "1"), "--num-clean must be at least 2, got 1"),
        (("--chunk", "0"), "--chunk must be at least 1, got 0"),
        (
            ("--baseline", "trusted"),
            "--baseline trusted must be together with --calibrate",
        ),
        (("--epsilon", "0.1"), "epsilon"),
        (("--threshold", "nan"), "--threshold must be a finite number, got nan"),
        (("--threshold", "inf"), "--threshold must be a finite number, got inf"),
        (("--seed", "-1"), "--seed must be in 0..4294967295, got -1"),
        (("--image-size", "0"), "(--image-size) must be at least 1, got 0"),
        (("--trace", "."), "--trace must be a file, got the folder ."),
        (("--arch", "lenet"), "unknown architecture 'lenet'; known:"),
    ],
)
def test_a_bad_flag_of_a_scan_is_refused_by_name(
    folder, tmp_path, capsys, arguments, message
):
    out = tmp_path / "out"
    assert run("scan", folder, "--out", out, *arguments) == cli.USAGE
    told = capsys.readouterr()
    assert message in " ".join((told.err + told.out).split())
    assert "Traceback" not in told.err and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ban.epsilon", "-1"), "--ban.epsilon must be at least 0, got -1"),
        (("--method", "magic"), "unknown repair 'magic'; known: anp, ban, finetune"),
        (("--mode", "weights"), "--mode must be a detector that looks at images"),
        (("--mode", "harmful"), "unknown detector 'harmful'; known: ban,"),
        (
            ("--held-out", "1.5", "--data", "digits"),
            "--held-out must be between 0 and 1",
        ),
        (("--chunk", "0"), "--chunk must be at least 1, got 0"),
        (("--num-test", "0"), "--num-test must be at least 1, got 0"),
        (("--num-clean", "0"), "--num-clean must be at least 2, got 0"),
        (("--seed", "-1"), "--seed must be in 0..4294967295, got -1"),
        (("--image-size", "-4"), "(--image-size) must be at least 1, got -4"),
        (("--arch", "lenet"), "unknown architecture 'lenet'; known:"),
    ],
)
def test_a_bad_flag_of_a_repair_is_refused_by_name(
    folder, tmp_path, capsys, arguments, message
):
    out = tmp_path / "out"
    assert run("repair", folder, "--out", out, *arguments) == cli.USAGE
    told = capsys.readouterr()
    assert message in " ".join((told.err + told.out).split())
    assert "Traceback" not in told.err and not out.exists()


def test_only_the_settings_of_what_was_chosen_are_checked_and_given():
    refused = type(scan.Flags().ban)(epsilon=-0.5)
    flags = scan.Flags(mode="weights", ban=refused)
    assert flags.config == detectors.DETECTORS["weights"].settings()
    with pytest.raises(ValueError, match="--ban.epsilon must be at least 0, got -0.5"):
        scan.Flags(mode="ban", ban=refused)
    endless = type(refused)(epsilon=float("inf"))
    with pytest.raises(ValueError, match="--ban.epsilon must be finite, got inf"):
        scan.Flags(mode="ban", ban=endless)
    flags = scan.Flags(mode="ban")
    assert flags.config is flags.ban
    assert settings.chosen(object(), "ban", type(refused)) == type(refused)()


def test_training_takes_the_known_constants_of_a_data_set():
    images = types.SimpleNamespace(name="cifar10", image_shape=(32, 32, 3))
    known = normalisation.NORMALISATIONS["cifar10"]
    assert train._normalisation("auto", images) == next(iter(known.values()))
    assert train._normalisation("half", images) == ((0.5,) * 3, (0.5,) * 3)
