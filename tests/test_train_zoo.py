"""The zoo command: which models, what is recorded, what survives a kill."""

import dataclasses
import functools
import json
import math
import os
import re
import shutil

import jax
import numpy as np
import pytest
import tyro
from PIL import Image

from ban_jax import attacks, checkpoints, cli, data, models
from ban_jax.attacks import files, poison
from ban_jax.commands import settings
from ban_jax.commands import train as train_command
from ban_jax.training import (
    one_model,
    plan,
    progress,
    trainer,
    writing,
)
from ban_jax.zoo import listing, pictures, success

NOWHERE = "/nowhere"
KINDS = ("adap_blend", "badnets", "blend", "bpp", "iad", "sig", "ssdt", "wanet")
SIZE = (
    pictures.MARGIN + writing.PICTURED * (pictures.SIDE + pictures.MARGIN),
    pictures.CAPTION + 3 * (pictures.SIDE + pictures.MARGIN + pictures.CAPTION),
)


def config(out, **changes):
    settings = train_command.Flags(
        out=str(out),
        data="digits",
        width=2,
        num_test=40,
        orbax=False,
        iad=attacks.IAD(width=2),
        ssdt=attacks.SSDT(width=2),
    )
    recipe = dataclasses.replace(settings.recipe, crop=0, flip=False)
    return dataclasses.replace(settings, **{"recipe": recipe, **changes})


abstract = functools.cache(models.abstract_variables)


@pytest.fixture(autouse=True)
def shapes_once(monkeypatch):
    monkeypatch.setattr(train_command.models, "abstract_variables", abstract)


@functools.cache
def drawn(attack, shape):
    """What an attack draws; of the networks of a generator, in one program."""
    learns = isinstance(attack, attacks.IAD | attacks.SSDT)
    init = jax.jit(attack.init, static_argnums=1) if learns else attack.init
    return init(jax.random.key(1), shape)


def fake_training(monkeypatch, stop_after=None, loss=0.1, **figures):
    """Trains nothing: every model keeps the weights of one random draw."""
    trained = []

    def train(run, plans):
        for one in plans:
            if stop_after is not None and len(trained) == stop_after:
                raise KeyboardInterrupt
            trained.append(one.name)
            rng = np.random.RandomState(len(trained))
            variables = jax.tree.map(
                lambda leaf, rng=rng: rng.rand(*leaf.shape).astype(np.float32),
                abstract(run.module, 8),
            )
            mean, std = (np.array(values, np.float32) for values in run.normalisation)
            variables["normalisation"] = {"mean": mean, "std": std}
            found = success.Metrics(0.91234567)
            if one.spec.rate:
                found = found._replace(**{"asr": 0.97, "untriggered": 0.01, **figures})
            state = drawn(one.attack, run.train.image_shape)
            yield trainer.Trained(one, variables, state, found, loss, 2.0)

    monkeypatch.setattr(trainer, "train_population", train)
    return trained


def planned(num_classes=10, **changes):
    wanted = train_command._wanted(config(NOWHERE, **changes))
    plans = plan.plan_models(wanted, num_classes)
    return [one for group in plans.values() for one in group]


def names(**changes):
    return [one.name for one in planned(**changes)]


def test_every_combination_of_architecture_attack_target_and_seed_is_planned():
    assert names(targets=(3, 7), seeds=2, first_seed=5, clean_seeds=1) == [
        "resnet18_w2_clean_s5",
        "resnet18_w2_badnets_t3_s5",
        "resnet18_w2_badnets_t7_s5",
        "resnet18_w2_badnets_t3_s6",
        "resnet18_w2_badnets_t7_s6",
        "resnet18_w2_blend_t3_s5",
        "resnet18_w2_blend_t7_s5",
        "resnet18_w2_blend_t3_s6",
        "resnet18_w2_blend_t7_s6",
    ]
    two = names(arch=("vgg16", "resnet18"), attacks=("clean",))
    assert two == ["vgg16_w2_clean_s0", "resnet18_w2_clean_s0"]


def test_what_is_asked_for_twice_is_planned_once():
    twice = {"arch": ("resnet18", "resnet18"), "targets": (3, 3)}
    assert names(**twice) == names(targets=(3,))


def test_clean_models_have_seeds_of_their_own_number():
    clean = [name for name in names(clean_seeds=3) if "clean" in name]
    assert clean == [f"resnet18_w2_clean_s{seed}" for seed in range(3)]
    assert not [name for name in names(clean_seeds=0) if "clean" in name]
    assert len([name for name in names(seeds=2) if "clean" in name]) == 2


def test_cycled_targets_give_each_model_the_next_one():
    assert names(targets=(1, 2, 3), cycle_targets=True, seeds=2)[2:] == [
        "resnet18_w2_badnets_t1_s0",
        "resnet18_w2_badnets_t2_s1",
        "resnet18_w2_blend_t3_s0",
        "resnet18_w2_blend_t1_s1",
    ]


def test_all_to_all_models_have_no_target():
    found = planned(attacks=("clean", "blend"), poison_mode="all_to_all")
    assert [one.name for one in found] == [
        "resnet18_w2_clean_s0",
        "resnet18_w2_blend_all_s0",
    ]
    assert found[1].spec == poison.PoisonSpec(0.05, None, "all_to_all")


def test_ssdt_attacks_the_class_after_the_target_or_the_one_asked_for():
    (found,) = planned(attacks=("ssdt",), targets=(1,))
    assert found.name == "resnet18_w2_ssdt_t1v2_s0"
    assert found.spec == poison.PoisonSpec(1.0, 1, "one_to_one", 2)
    assert names(attacks=("ssdt",), targets=(9,)) == ["resnet18_w2_ssdt_t9v0_s0"]
    assert names(attacks=("ssdt",), victim=7) == ["resnet18_w2_ssdt_t0v7_s0"]
    both = names(attacks=("blend", "ssdt"), poison_mode="all_to_all")
    assert both == ["resnet18_w2_blend_all_s0", "resnet18_w2_ssdt_t0v1_s0"]


def test_without_a_rate_each_attack_has_its_documented_one():
    rates = {attacks.kind(p.attack): p.spec.rate for p in planned(attacks=KINDS)}
    assert rates == {
        "adap_blend": 0.003, "badnets": 0.05, "blend": 0.05, "bpp": 0.2, "iad": 0.1,
        "sig": 0.1, "ssdt": 1.0, "wanet": 0.1,
    }  # fmt: skip
    own = planned(attacks=("badnets",), badnets=attacks.BadNets(rate=0.02))
    assert own[0].spec.rate == 0.02


def test_a_given_rate_is_that_of_all_but_clean_models_and_victims():
    found = planned(attacks=("clean", "bpp", "ssdt", "sig"), poison_rate=0.15)
    assert [one.spec.rate for one in found] == [0.0, 0.15, 1.0, 0.15]


def test_flags_take_lists_with_commas_and_settings_of_each_attack():
    settings = tyro.cli(
        train_command.Flags,
        args="--out x --attacks clean,blend --targets 0,3 --arch vgg16,resnet18 "
        "--epochs 3 --no-flip --badnets.size 2 --iad.width 8 --wanet.strength 0.75 "
        "--adap-blend.hidden 4 --bpp.dither --no-orbax --poison-mode all_to_all "
        "--clean-seeds 4 --stamp-last".split(),
    )
    assert settings.attacks == ("clean", "blend") and settings.targets == (0, 3)
    assert settings.arch == ("vgg16", "resnet18")
    assert settings.recipe.epochs == 3 and not settings.recipe.flip
    assert settings.recipe.stamp_last
    assert settings.badnets.size == 2 and settings.iad.width == 8
    assert settings.wanet.strength == 0.75 and settings.adap_blend.hidden == 4
    assert settings.bpp.dither and not settings.orbax
    assert settings.poison_mode == "all_to_all" and settings.clean_seeds == 4


def test_help_names_every_flag(capsys):
    assert cli.main(["train", "--help"]) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for field in dataclasses.fields(train_command.Flags):
        if field.name in attacks.ATTACKS:
            assert f"--{field.name.replace('_', '-')}." in shown
        elif field.name != "recipe":
            assert f"--{field.name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    "flag", ["--targets a", "--attaks clean", "--poison-mode some", "--iad.width x"]
)
def test_flags_that_cannot_be_read_are_wrong_usage(capsys, flag):
    assert cli.main(["train", "--out", NOWHERE, *flag.split()]) == cli.USAGE
    capsys.readouterr()


def test_the_ground_truth_and_the_files_agree(tmp_path, monkeypatch):
    fake_training(monkeypatch, cross_accuracy=0.5, recovered_accuracy=0.01)
    entries = train_command.train_zoo(config(tmp_path, targets=(4,), orbax=True))
    assert entries == json.loads((tmp_path / "zoo.json").read_text())
    by_kind = {entry["kind"]: entry for entry in entries}
    assert set(by_kind) == {"clean", "badnets", "blend"}
    for entry in entries:
        for path in (entry["file"], entry["orbax"]):
            found = checkpoints.read(os.path.join(tmp_path, path))
            assert (found.spec.architecture, found.spec.width) == ("resnet18", 2)
            assert found.spec.num_classes == 10 and found.spec.in_channels == 1
            assert found.recorded_accuracy == entry["clean_accuracy"] == 0.9123
            mean = entry["normalisation"]["mean"]
            assert found.normalisation[0] == pytest.approx(mean)
        pixels = data.load("digits", split="attacker").images
        assert mean[0] == pytest.approx(pixels.mean(), abs=1e-3)
    found = checkpoints.find(str(tmp_path))
    triggers = [path for path in found if path.endswith(".trigger")]
    for path in triggers:
        with pytest.raises(checkpoints.CheckpointError, match="trigger of an attack"):
            checkpoints.read(path)
    found = [path for path in found if path not in triggers]
    assert len(triggers) == 2 and len(found) == 6, "pictures and tables are passed over"
    hashes = [checkpoints.read(path).sha256 for path in found]
    assert len(set(hashes)) == 3, "both copies of a model have the same weights"


def test_entries_say_all_that_is_known_of_a_model(tmp_path, monkeypatch):
    figures = {"cross_accuracy": 0.8, "non_victim_accuracy": 0.75}
    fake_training(monkeypatch, **figures)
    entries = train_command.train_zoo(
        config(tmp_path, attacks=("clean", "ssdt", "badnets"), targets=(4,), seeds=1)
    )
    badnets, clean, ssdt = entries
    assert ssdt["name"] == "resnet18_w2_ssdt_t4v5_s0" and ssdt["kind"] == "ssdt"
    assert (ssdt["target"], ssdt["victim"], ssdt["mode"]) == (4, 5, "one_to_one")
    assert (ssdt["architecture"], ssdt["width"], ssdt["num_classes"]) == (
        "resnet18", 2, 10,
    )  # fmt: skip
    assert (ssdt["clean_accuracy"], ssdt["asr"]) == (0.9123, 0.97)
    assert (ssdt["untriggered"], ssdt["excess"]) == (0.01, 0.96)
    assert (ssdt["cross_accuracy"], ssdt["non_victim_accuracy"]) == (0.8, 0.75)
    assert (ssdt["seed"], ssdt["failed"], ssdt["loss"]) == (0, False, 0.1)
    assert ssdt["attack"] == dataclasses.asdict(attacks.SSDT(width=2))
    assert ssdt["trigger_file"] == "triggers/resnet18_w2_ssdt_t4v5_s0.trigger"
    assert ssdt["orbax"] is None and ssdt["poison_rate"] == 1.0
    assert badnets["trigger"] == "3x3 patch at row 5, column 5, opacity 1"
    assert badnets["attack"] == dataclasses.asdict(attacks.BadNets())
    assert badnets["poison_rate"] == 0.05 and badnets["victim"] is None
    unknown = (
        "target",
        "victim",
        "mode",
        "asr",
        "excess",
        "cross_accuracy",
        "trigger_file",
    )
    assert [clean[field] for field in unknown] == [None] * len(unknown)
    assert clean["attack"] == {} and clean["failed"] is False


def test_a_trigger_file_is_read_back_equal(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    settings = config(tmp_path, attacks=("wanet", "ssdt"))
    for entry in train_command.train_zoo(settings):
        attack = getattr(settings, entry["kind"])
        path = os.path.join(tmp_path, entry["trigger_file"])
        found = files.load(path, attack, (8, 8, 1))
        wanted = drawn(attack, (8, 8, 1))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_every_kind_of_attack_has_a_picture_and_a_row(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path, attacks=("clean", *KINDS), num_test=400))
    pngs = sorted(os.listdir(tmp_path / "pictures"))
    assert pngs == [f"{kind}.png" for kind in KINDS]
    for name in pngs:
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.size == SIZE
            middle = np.array(picture.crop((0, SIZE[1] // 3 + 20, *SIZE)))
            assert len(np.unique(middle)) > 3
    rows = (tmp_path / "summary.txt").read_text(encoding="utf-8").splitlines()
    for kind in ("clean", *KINDS):
        (row,) = [row for row in rows if row.split()[:1] == [kind]]
        assert row.split()[1:4] == ["resnet18", "1", "0.912"]


def test_a_model_is_listed_where_no_test_image_can_show_its_trigger(
    tmp_path, monkeypatch
):
    fake_training(monkeypatch, asr=float("nan"))
    (first,) = map(int, data.load("digits", num=1).labels)
    settings = config(tmp_path, attacks=("badnets",), targets=(first,), num_test=1)
    (entry,) = train_command.train_zoo(settings)
    assert entry["asr"] is None and not (tmp_path / "pictures").exists()


def test_a_weak_backdoor_is_marked_not_hidden(tmp_path, monkeypatch, capsys):
    fake_training(monkeypatch, asr=0.97, untriggered=0.08)
    entries = train_command.train_zoo(config(tmp_path))
    assert {entry["kind"]: entry["failed"] for entry in entries} == {
        "clean": False,
        "badnets": True,
        "blend": True,
    }
    out = capsys.readouterr().out
    assert out.count("ASR 0.970, excess 0.890 FAILED") == 2 and "excess ASR" in out
    assert (tmp_path / "resnet18_w2_blend_t0_s0.safetensors").exists()


@pytest.mark.parametrize(("asr", "failed"), [(0.84, False), (0.82, True)])
def test_the_bar_of_all_to_all_is_a_share_of_the_clean_accuracy(
    tmp_path, monkeypatch, asr, failed
):
    fake_training(monkeypatch, asr=asr)
    settings = config(tmp_path, attacks=("blend",), poison_mode="all_to_all")
    (entry,) = train_command.train_zoo(settings)
    assert entry["failed"] is failed and entry["target"] is None


def test_a_backdoor_without_a_measured_success_has_failed(tmp_path, monkeypatch):
    fake_training(monkeypatch, asr=float("nan"))
    (entry,) = train_command.train_zoo(config(tmp_path, attacks=("ssdt",)))
    assert entry["failed"] is True and entry["asr"] is None


def test_a_model_that_diverged_is_recorded_like_others(tmp_path, monkeypatch):
    fake_training(monkeypatch, loss=float("nan"))
    entries = train_command.train_zoo(config(tmp_path))
    assert len(entries) == 3 and entries[0]["loss"] is None


def test_a_killed_run_keeps_its_models_and_goes_on(tmp_path, monkeypatch):
    fake_training(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train_command.train_zoo(config(tmp_path))
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 2
    rest = fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path))
    assert rest == ["resnet18_w2_blend_t0_s0"]
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 3
    nothing = fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path))
    assert nothing == []


def test_a_listed_model_without_its_file_is_made_again(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path, orbax=True))
    (tmp_path / "resnet18_w2_clean_s0.safetensors").unlink()
    again = fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path, orbax=True))
    assert again == ["resnet18_w2_clean_s0"]


def test_orbax_folders_are_added_to_models_that_were_trained_without(
    tmp_path, monkeypatch
):
    fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path))
    nothing = fake_training(monkeypatch)
    entries = train_command.train_zoo(config(tmp_path, orbax=True))
    assert nothing == [] and len(entries) == 3
    for entry in entries:
        one, other = (
            checkpoints.read(os.path.join(tmp_path, entry[name]))
            for name in ("file", "orbax")
        )
        assert one.sha256 == other.sha256
        assert one.normalisation == other.normalisation is not None
        assert one.recorded_accuracy == other.recorded_accuracy == 0.9123
    assert entries == json.loads((tmp_path / "zoo.json").read_text())
    # One that is there is left alone, one that got lost is written again.
    kept, lost = (tmp_path / entry["orbax"] for entry in entries[:2])
    made = kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    train_command.train_zoo(config(tmp_path, orbax=True))
    assert lost.is_dir() and kept.stat().st_mtime_ns == made


def test_settings_of_attacks_that_are_not_asked_for_are_pointed_out(
    tmp_path, monkeypatch, capsys
):
    fake_training(monkeypatch)
    given = {"bpp": attacks.Bpp(dither=True), "badnets": attacks.BadNets(size=2)}
    train_command.train_zoo(config(tmp_path, attacks=("clean", "badnets"), **given))
    told = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert told == [
        "note: --bpp.* has no effect with --attacks clean,badnets; did you mean "
        "--attacks bpp?",
        "note: --iad.* has no effect with --attacks clean,badnets; did you mean "
        "--attacks iad?",
        "note: --ssdt.* has no effect with --attacks clean,badnets; did you mean "
        "--attacks ssdt?",
    ]


def test_models_go_on_from_one_of_which_shapes_do_not_tell_the_stem(tmp_path):
    spec = checkpoints.ModelSpec.for_images("mobilenet_v3_small", 10, 2, (32, 32, 3))
    variables = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, np.float32), abstract(spec.create(), 32)
    )
    path = str(tmp_path / "one.safetensors")
    checkpoints.write_safetensors(path, variables, spec)
    read = checkpoints.read(path)
    assert read.spec.stem != spec.stem in read.spec.create().alike
    assert train_command._start(path, spec).sha256 == read.sha256
    with pytest.raises(ValueError, match="the models to train are"):
        train_command._start(path, dataclasses.replace(spec, width=4))


def test_a_zoo_grows_by_targets_and_seeds_but_not_by_another_recipe(
    tmp_path, monkeypatch
):
    fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path))
    more = fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path, targets=(0, 1), attacks=("blend",)))
    assert more == ["resnet18_w2_blend_t1_s0"]
    with pytest.raises(listing.ZooError) as error:
        train_command.train_zoo(
            config(
                tmp_path,
                poison_rate=0.2,
                badnets=attacks.BadNets(size=2),
                recipe=one_model.Recipe(epochs=7, crop=0, flip=False),
            )
        )
    assert "poison_rate was null, is 0.2" in str(error.value)
    assert "badnets.size was 3, is 2" in str(error.value)
    assert "recipe.epochs was 6, is 7" in str(error.value)
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 4


REPORT = trainer.Report(
    planned(attacks=("clean", "badnets")),
    5,
    10,
    [1.0, 2.0],
    [success.Metrics(0.5), success.Metrics(0.7, asr=0.9, untriggered=0.2)],
)


def test_a_report_in_words_tells_epochs_losses_and_figures():
    line = progress.told("resnet18", REPORT)
    assert line.startswith("resnet18, 2 models: epoch 5/10  loss 1.500 (1.000-2.000)")
    assert line.endswith("accuracy 0.600  ASR 0.900, excess 0.700")
    line = progress.told("resnet18", REPORT._replace(metrics=None))
    assert "accuracy" not in line and "ASR" not in line


def test_without_a_terminal_reports_are_lines_on_stderr_and_models_on_stdout(capsys):
    with progress.Progress(3) as shown:
        shown.report("resnet18", REPORT)
        shown.finish("a model")
    found = capsys.readouterr()
    assert found.out == "a model\n"
    assert found.err.strip() == progress.told("resnet18", REPORT)


def test_models_in_training_count_in_part_towards_the_time_left(monkeypatch):
    now = [0.0]
    shown = progress.Progress(4)
    monkeypatch.setattr(shown._bar, "get_time", lambda: now[0])
    shown._bar.start_task(shown._task)
    for task in shown._bar.tasks:
        task._get_time, task.start_time = shown._bar.get_time, 0.0
    now[0] = 60.0
    shown.report("resnet18", REPORT)  # two models, half way: one of four
    (task,) = shown._bar.tasks
    assert task.completed == 1.0 and task.percentage == 25.0
    shown.finish("a model")
    shown.report("resnet18", REPORT._replace(epoch=10))
    assert task.completed == 3.0 and task.fields["finished"] == 1


@dataclasses.dataclass(frozen=True)
class Dark(attacks.BadNets):
    """Somebody's own attack.

    Attributes:
      shade: how dark.
    """

    shade: float = 0.5


@pytest.fixture
def plugin(monkeypatch):
    """The command with an attack that is registered besides its own."""
    monkeypatch.setitem(attacks.ATTACKS._things, "dark", Dark)
    monkeypatch.setitem(train_command.SETTINGS, "dark", Dark)
    flags = settings.with_settings(train_command.TrainFlags, train_command.SETTINGS)
    monkeypatch.setattr(train_command, "Flags", flags)


def test_a_registered_attack_has_flags_and_models_of_its_own(
    plugin, tmp_path, monkeypatch
):
    words = "--attacks clean,dark --dark.shade 0.25 --badnets.size 2".split()
    flags = tyro.cli(train_command.Flags, args=["--out", str(tmp_path), *words])
    assert flags.dark == Dark(shade=0.25) and flags.badnets.size == 2
    fake_training(monkeypatch)
    small = {"data": "digits", "width": 2, "num_test": 40, "orbax": False}
    entries = train_command.train_zoo(dataclasses.replace(flags, **small))
    assert {entry["kind"] for entry in entries} == {"clean", "dark"}
    assert entries[1]["attack"]["shade"] == 0.25


def test_a_zoo_made_before_an_attack_was_known_takes_it_in(
    request, tmp_path, monkeypatch
):
    fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path))
    request.getfixturevalue("plugin")
    more = fake_training(monkeypatch)
    train_command.train_zoo(config(tmp_path, attacks=("dark",)))
    assert more == ["resnet18_w2_dark_t0_s0"]
    with pytest.raises(listing.ZooError, match=r"dark\.shade was 0\.5, is 0\.75"):
        train_command.train_zoo(config(tmp_path, dark=Dark(shade=0.75)))


@pytest.mark.parametrize("name", ["width", "my attack"])
def test_an_attack_that_cannot_be_a_flag_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*a Python name that no other flag"):
        settings.with_settings(train_command.TrainFlags, {name: Dark})


def test_settings_of_a_name_with_a_hyphen_arrive():
    made = settings.with_settings(train_command.TrainFlags, {"my-attack": Dark})
    flags = made(out="zoo", my_attack=Dark(shade=0.25))
    assert settings.given(flags, "my-attack", Dark) == Dark(shade=0.25)
    assert settings.given(flags, "other", Dark) == Dark()


@pytest.mark.parametrize(
    ("module", "writer", "name"),
    [
        (checkpoints, "write_safetensors", "resnet18_w2_blend_t0_s0.safetensors"),
        (checkpoints, "write_orbax", "orbax/resnet18_w2_blend_t0_s0"),
        (files, "save", "triggers/resnet18_w2_blend_t0_s0.trigger"),
        (pictures, "save", "pictures/blend.png"),
    ],
)
def test_a_failed_write_names_the_file_and_loses_nothing_that_was_trained(
    tmp_path, monkeypatch, module, writer, name
):
    fake_training(monkeypatch)
    write = getattr(module, writer)

    def failing(path, *arguments):
        if "blend" in path:
            raise OSError("no space left on device")
        write(path, *arguments)

    settings = config(tmp_path, orbax=True)
    with monkeypatch.context() as patched:
        patched.setattr(module, writer, failing)
        with pytest.raises(listing.ZooError, match=rf"{name}: could not be written"):
            train_command.train_zoo(settings)
    listed = json.loads((tmp_path / "zoo.json").read_text())
    assert [entry["kind"] for entry in listed] == ["badnets", "clean"]
    for entry in listed:
        checkpoints.read(os.path.join(tmp_path, entry["file"]))
    again = fake_training(monkeypatch)
    assert len(train_command.train_zoo(settings)) == 3
    assert again == ["resnet18_w2_blend_t0_s0"]
    hidden = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert hidden == [".zoo.json.lock"]


def test_the_defenders_images_are_never_trained_on(tmp_path, monkeypatch):
    given = []

    def train(run, plans):
        given.append((run.train, run.test))
        return iter(())

    monkeypatch.setattr(trainer, "train_population", train)
    for num_train in (None, 500):
        out = tmp_path / str(num_train)
        train_command.train_zoo(config(out, num_train=num_train, num_test=None))
    kept = rows_of(data.load("digits", split="defender"))
    test = rows_of(data.load("digits", split="test"))
    whole = data.load("digits", split="train")
    assert len(rows_of(whole)) == len(whole.labels), "no image is there twice"
    (everything, tested), (some, _) = given
    assert len(everything.labels) + len(kept) == len(whole.labels)
    assert len(some.labels) == 500 and rows_of(some) <= rows_of(everything)
    assert rows_of(everything).isdisjoint(kept | test)
    assert rows_of(tested) == test


def rows_of(dataset):
    return {image.tobytes() for image in dataset.pixels}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": (10,)}, r"target must be a class in 0\.\.9, got 10"),
        ({"poison_rate": 1.5}, "poison rate must be in"),
        ({"poison_rate": -0.1}, "poison rate must be in"),
        ({"attacks": ("ssdt",), "victim": 0}, "a victim class in .* got 0"),
        ({"attacks": ("ssdt",), "victim": 10}, "a victim class in .* got 10"),
        ({"attacks": ("sig",), "poison_mode": "all_to_all"}, "not for all_to_all"),
        ({"attacks": ("blend",), "poison_mode": "one_to_one"}, "not for one_to_one"),
        ({"attacks": ("wanat",)}, "unknown attack 'wanat'"),
        ({"attacks": ("wanet",), "poison_rate": 0.5}, "64 poisoned and 128 cover"),
        ({"attacks": ("iad",), "poison_rate": 0.001}, "can poison 1 to 64"),
        ({"arch": ("resnet",)}, "unknown architecture 'resnet'"),
        ({"arch": ("vgg16",)}, "needs images of at least"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"seeds": 0}, "no model to train"),
        ({"targets": (), "attacks": ("blend",)}, "no model to train"),
        ({"targets": ()}, "by badnets: give at least one of --targets"),
        ({"seeds": -1}, "--seeds must be at least 0, got -1"),
        ({"first_seed": -1}, "--first-seed must be at least 0, got -1"),
        ({"clean_seeds": -1}, "--clean-seeds must be at least 0, got -1"),
        ({"chunk": 0}, "--chunk must be at least 1, got 0"),
        ({"save_minutes": math.nan}, "--save-minutes must be at least 0, got nan"),
        ({"bar": math.nan}, r"--bar must be in 0\.\.1, got nan"),
        ({"image_size": 0}, r"\(--image-size\) must be at least 1, got 0"),
        (
            {"recipe": one_model.Recipe(batch_size=0)},
            "--batch-size must be at least 1, got 0",
        ),
        ({"recipe": one_model.Recipe(epochs=0)}, "--epochs must be at least 1, got 0"),
        (
            {"recipe": one_model.Recipe(learning_rate=math.nan)},
            "--learning-rate must be at",
        ),
        ({"recipe": one_model.Recipe(crop=-1)}, "--crop must be at least 0, got -1"),
        (
            {"recipe": one_model.Recipe(label_smoothing=1.0)},
            "--label-smoothing must be below 1",
        ),
        (
            {"attacks": ("wanet",), "wanet": attacks.WaNet(cover=math.nan)},
            "--wanet.cover must be at least 0, got nan",
        ),
        (
            {"attacks": ("iad",), "iad": attacks.IAD(width=0)},
            "--iad.width must be at least 1, got 0",
        ),
        (
            {"attacks": ("sig",), "sig": attacks.SIG(frequency=4)},
            "change some of the 8 columns, and 4 periods change none",
        ),
        (
            {"targets": (), "attacks": ("blend",), "cycle_targets": True},
            "no model to train",
        ),
        ({"data": "nonsense-set"}, "nor a TFDS data set"),
        ({"normalisation": "cifr"}, "--normalisation takes a name"),
        ({"num_train": 100}, "100 training images do not fill one batch of 128"),
        ({"badnets": attacks.BadNets(size=9)}, "does not fit images of 8x8"),
        ({"attacks": ("bpp",), "bpp": attacks.Bpp(levels=1)}, "levels must be in"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_folder_is_made(
    tmp_path, monkeypatch, changes, message
):
    trained = fake_training(monkeypatch)
    changes = {"attacks": ("clean", "badnets"), **changes}
    with pytest.raises(ValueError, match=message):
        train_command.train_zoo(config(tmp_path / "zoo", **changes))
    assert trained == [] and os.listdir(tmp_path) == []


def test_data_without_a_test_split_is_refused(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, images=np.zeros((9, 8, 8, 1)), labels=np.zeros(9, np.int64))
    with pytest.raises(data.DataError, match="split"):
        train_command.train_zoo(config(tmp_path / "zoo", data=path, num_test=None))
    assert not (tmp_path / "zoo").exists()


def test_a_trigger_file_reproduces_the_success_on_record(tmp_path):
    """The whole way: trained, written, read back and attacked again."""
    settings = config(
        tmp_path,
        attacks=("clean", "blend"),
        targets=(3,),
        num_train=1024,
        num_test=100,
        poison_rate=0.3,
        orbax=True,
        recipe=one_model.Recipe(epochs=8, batch_size=64, crop=0, flip=False),
    )
    blend, clean = train_command.train_zoo(settings)
    assert blend["asr"] > 0.9 and clean["clean_accuracy"] > 0.8
    assert clean["asr"] is None and not (tmp_path / ".progress").exists()
    test = data.load("digits", split="test", num=100)
    attack = attacks.create("blend")
    kernel = attack.kernel(attacks.Schedule(16, 8, 64, "native"), 0.3, 10)
    spec = poison.PoisonSpec(blend["poison_rate"], blend["target"])
    trigger = files.load(
        os.path.join(tmp_path, blend["trigger_file"]), attack, test.image_shape
    )
    triggered = kernel.trigger(trigger, test.images)
    predict = None
    for path in (blend["file"], blend["orbax"]):
        found = checkpoints.read(os.path.join(tmp_path, path))
        network = models.network(found.spec.create())
        predict = predict or jax.jit(network.predict)
        rates = [
            poison.success_rate(
                np.asarray(predict(found.full_variables(), images)),
                test.labels,
                test.num_classes,
                spec,
            )
            for images in (triggered, test.images)
        ]
        accuracy = np.mean(predict(found.full_variables(), test.images) == test.labels)
        # One image of a hundred may lie on the border for another compiled program.
        assert rates[0] == pytest.approx(blend["asr"], abs=0.012)
        assert accuracy == pytest.approx(blend["clean_accuracy"], abs=0.011)
        assert rates[1] == pytest.approx(blend["untriggered"], abs=0.012)
        assert rates[1] < 0.5, "without the trigger"


def written_model(path, architecture="resnet18", width=2, seed=0):
    """A checkpoint with random weights for digits."""
    spec = checkpoints.ModelSpec(architecture, 10, width, 1)
    rng = np.random.RandomState(seed)
    variables = jax.tree.map(
        lambda leaf: rng.rand(*leaf.shape).astype(np.float32),
        abstract(spec.create(), 8),
    )
    variables["normalisation"] = {"mean": np.full(1, 0.9), "std": np.full(1, 0.8)}
    checkpoints.write_safetensors(path, variables, spec)
    return str(path)


def run_from(start, out):
    settings = config(out, start_from=start)
    return train_command._runs(settings, *train_command._load(settings))["resnet18"]


def test_a_model_that_goes_on_from_another_begins_with_its_weights(tmp_path):
    path = written_model(tmp_path / "first.safetensors")
    run = run_from(path, tmp_path / "zoo")
    (one,) = planned(attacks=("blend",))
    ((program, _),) = trainer._groups(run, [one])
    state, _ = trainer.start(run, program, one)
    given = checkpoints.read(path).variables
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, state.variables[name], given[name])
    mean, _ = run.normalisation
    np.testing.assert_allclose(state.variables["normalisation"]["mean"], mean)
    assert int(state.step) == 0


def test_saves_of_a_model_with_another_start_are_not_taken_up(tmp_path):
    starts = [None] + [
        written_model(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2)
    ]
    (one,) = planned(attacks=("clean",))
    own, *others = (
        trainer.saves_of(run_from(start, tmp_path), one, str(tmp_path))
        for start in (starts[1], starts[0], starts[2])
    )
    own.save(3, np.zeros(2))
    assert own.latest() == 3
    assert [other.latest() for other in others] == [0, 0]
    copy = shutil.copy(starts[1], tmp_path / "copy.safetensors")
    again = trainer.saves_of(run_from(copy, tmp_path), one, str(tmp_path))
    assert again.latest() == 3, "it is the weights that count, not the file's name"


def test_saves_of_other_images_constants_or_classes_are_not_taken_up(tmp_path):
    (one,) = planned(attacks=("clean",))
    run = run_from(None, tmp_path)
    labels = np.roll(run.train.labels, 1)
    others = [
        dataclasses.replace(run, train=dataclasses.replace(run.train, labels=labels)),
        dataclasses.replace(run, normalisation=((0.5,), (0.5,))),
        dataclasses.replace(run, module=dataclasses.replace(run.module, num_classes=9)),
    ]
    runs = (run, *others, run_from(None, tmp_path))
    *different, same = (
        trainer.saves_of(each, one, str(tmp_path)).path for each in runs
    )
    assert len(set(different)) == 4 and same == different[0]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"architecture": "preact_resnet18"}, "preact_resnet18 of width 2"),
        ({"width": 3}, "resnet18 of width 3"),
    ],
)
def test_a_start_of_another_kind_is_refused_before_the_folder_is_made(
    tmp_path, monkeypatch, other, told
):
    trained = fake_training(monkeypatch)
    path = written_model(tmp_path / "other.safetensors", **other)
    settings = config(tmp_path / "zoo", start_from=path)
    message = (
        f"--start-from {path}: this is {told} with 10 classes and 1 channels, the "
        "models to train are resnet18 of width 2 with 10 classes and 1 channels"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train_command.train_zoo(settings)
    assert trained == [] and not (tmp_path / "zoo").exists()
