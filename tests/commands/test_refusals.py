"""What commands refuse before they compute: a number, a name, a mode that cannot be."""

import json
import math

import pytest
import tyro

from ban_jax import cli
from ban_jax.commands import outcome, scan, settings
from ban_jax.zoo import BUNDLED

FILE = f"{BUNDLED}/resnet18_w4_badnets_t1_s0.safetensors"
TARGETED = ("scan", FILE, "--mode", "targeted")


@pytest.mark.parametrize(
    "words, message",
    [
        ((*TARGETED, "--targeted.restarts", "0"), "--targeted.restarts must be at"),
        ((*TARGETED, "--targeted.epsilon", "-1"), "--targeted.epsilon must be at"),
        ((*TARGETED, "--targeted.radii"), "--targeted.radii must be at least one"),
        ((*TARGETED, "--targeted.epsilon", "nan"), "--targeted.epsilon must be at"),
        (("scan", FILE, "--directed.epsilon", "-1"), "--directed.epsilon must be at"),
        (("profile", FILE, "--ban.steps", "0"), "--ban.steps must be at least 1"),
        (("profile", FILE, "--directed.steps", "0"), "--directed.steps must be at"),
        (("repair", FILE, "--ban.batch-size", "0"), "--ban.batch-size must be at"),
        (("bench", "--mode", "weights"), "--mode must be a detector whose settings"),
        (("bench", "--table", "."), "--table must be a file, got the folder ."),
        (("bench", "--seed", "-1"), "--seed must be in 0..4294967295, got -1"),
        (("profile", FILE, "--mode", "magic"), "unknown detector 'magic'; known: ban"),
        (("profile", FILE, "--null", "none.jsonl"), "none.jsonl: there is no such"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_flag(
    words, message, tmp_path, capsys
):
    more = () if words[0] == "bench" else ("--data", "digits")
    out = ("--out", str(tmp_path / "out"))
    assert cli.main([*words, *more, *out]) == cli.USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_a_folder_where_a_file_will_be_written_is_refused(command, tmp_path, capsys):
    words = [command, *([FILE] if command == "profile" else [])]
    assert cli.main([*words, "--out", str(tmp_path)]) == cli.USAGE
    assert f"--out must be a file, got the folder {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("command", ["report", "merge"])
def test_a_threshold_that_judges_nothing_is_refused(command, threshold, capsys):
    assert cli.main([command, "results", f"--threshold={threshold}"]) == cli.USAGE
    assert "--threshold must be a finite number" in capsys.readouterr().err


def test_a_threshold_of_a_plan_is_not_trusted_either(tmp_path, capsys):
    words = ["--mode", "weights", "--out", str(tmp_path)]
    assert cli.main(["scan", FILE, *words, "--shard", "0/1"]) in (0, 1)
    path = tmp_path / "plan.0-of-1.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "threshold": math.nan}))
    capsys.readouterr()
    assert cli.main(["merge", str(tmp_path)]) == cli.USAGE
    assert "nan" in capsys.readouterr().err.lower()


def test_names_of_other_classes_are_refused(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert cli.main(["scan", FILE, "--mode", "weights", "--out", out]) in (0, 1)
    words = ["report", f"{out}/results.jsonl", "--class-names", "cat", "dog"]
    assert cli.main([*words, "--out", str(tmp_path / "new")]) == cli.USAGE
    assert "--class-names must be 10, one for each class" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_flag_is_no_attack(tmp_path, capsys):
    words = ["train", "--data", "digits", "--attacks", "bar"]
    assert cli.main([*words, "--out", str(tmp_path / "zoo")]) == cli.USAGE
    assert "unknown attack 'bar'; known: adap_blend" in capsys.readouterr().err


def test_weights_are_judged_whatever_the_pixel_constants(tmp_path):
    words = ["scan", FILE, "--mode", "weights", "--normalisation", "cifar10"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) in (0, 1)


def test_settings_of_a_mode_that_does_not_run_are_told_of(tmp_path, capsys):
    words = ["scan", FILE, "--mode", "weights", "--ban.epsilon", "0.3"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) in (0, 1)
    told = capsys.readouterr().err
    assert "--ban.* has no effect with --mode weights" in told
    assert "--targeted" not in told


def test_a_baseline_that_lacks_models_is_told_of_beside_the_table(tmp_path, capsys):
    words = ["scan", FILE, "--mode", "weights", "--baseline", "population"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) in (0, 1)
    told = capsys.readouterr().err
    reason = "the population baseline needs at least 8 models"
    assert f"note: 1 judged against its own classes: {reason}" in told


def test_settings_of_the_closer_look_have_an_effect_and_are_shown(tmp_path, capsys):
    job = ["--data", "digits", "--directed.epsilon", "0.25", "--seed", "7"]
    flags = tyro.cli(scan.Flags, args=[FILE, *job])
    settings.warn_of_idle(flags, flags.mode, "--mode", *flags.at_work)
    assert capsys.readouterr().err == ""
    told = outcome.describe(flags, *flags.at_work)
    assert told["directed"]["epsilon"] == 0.25 and told["ban"]["steps"] == 4
    assert "targeted" not in told
    assert scan.prepare(flags).settings.told_config()["directed"]["epsilon"] == 0.25
