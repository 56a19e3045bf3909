"""The zoo command: which models, what is recorded, what survives a kill."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tyro

from ban_jax import checkpoints, data, train_population, train_zoo, zoo_folder

NOT_RUN = "/nowhere"


def config(out, **changes):
    settings = train_zoo.TrainConfig(out=str(out), data="digits", width=2, num_test=40)
    recipe = dataclasses.replace(settings.recipe, crop=0, flip=False)
    return dataclasses.replace(settings, **{"recipe": recipe, **changes})


def fake_training(monkeypatch, asr=0.97, stop_after=None):
    """Trains nothing: every model keeps the weights of one random draw."""
    trained = []

    def train(module, pupils, train, test, *, recipe, normalisation, progress):
        for pupil in pupils:
            if stop_after is not None and len(trained) == stop_after:
                raise KeyboardInterrupt
            trained.append(pupil.name)
            rng = np.random.RandomState(len(trained))
            abstract = train_zoo.models.abstract_variables(module, 8)
            variables = train_zoo.jax.tree.map(
                lambda leaf, rng=rng: rng.rand(*leaf.shape).astype(np.float32), abstract
            )
            mean, std = normalisation
            variables["normalisation"] = {"mean": np.array(mean), "std": np.array(std)}
            rate = float("nan") if pupil.spec.rate == 0 else asr
            yield train_population.Trained(pupil, variables, 0.91234567, rate, 0.1, 2.0)

    monkeypatch.setattr(train_population, "train_population", train)
    return trained


def names(settings):
    return [p.name for group in train_zoo.plan_pupils(settings).values() for p in group]


def test_every_combination_of_architecture_attack_target_and_seed_is_planned():
    settings = config(NOT_RUN, targets=(3, 7), seeds=2, first_seed=5, clean_seeds=1)
    assert names(settings) == [
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


def test_cycled_targets_give_each_model_the_next_one():
    settings = config(NOT_RUN, targets=(1, 2, 3), cycle_targets=True, seeds=2)
    assert names(settings)[2:] == [
        "resnet18_w2_badnets_t1_s0",
        "resnet18_w2_badnets_t2_s1",
        "resnet18_w2_blend_t3_s0",
        "resnet18_w2_blend_t1_s1",
    ]


def test_all_to_all_models_have_no_target():
    settings = config(NOT_RUN, attacks=("blend",), poison_mode="all_to_all")
    assert names(settings) == ["resnet18_w2_blend_all_s0"]


def test_flags_take_lists_with_commas():
    settings = tyro.cli(
        train_zoo.TrainConfig,
        args="--out x --attacks clean,blend --targets 0,3 --arch vgg16,resnet18 "
        "--epochs 3 --no-flip --badnets.size 2".split(),
    )
    assert settings.attacks == ("clean", "blend") and settings.targets == (0, 3)
    assert settings.arch == ("vgg16", "resnet18")
    assert settings.recipe.epochs == 3 and not settings.recipe.flip
    assert settings.badnets.size == 2


def test_the_ground_truth_and_the_files_agree(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    entries = train_zoo.train_zoo(config(tmp_path, targets=(4,)))
    assert entries == json.loads((tmp_path / "zoo.json").read_text())
    by_kind = {entry["kind"]: entry for entry in entries}
    assert set(by_kind) == {"clean", "badnets", "blend"}
    assert by_kind["clean"]["target"] is None and by_kind["clean"]["asr"] is None
    assert by_kind["blend"]["target"] == 4 and by_kind["blend"]["asr"] == 0.97
    assert by_kind["badnets"]["trigger"] == "3x3 patch at row 5, column 5, opacity 1"
    for entry in entries:
        found = checkpoints.read(os.path.join(tmp_path, entry["file"]))
        assert (found.spec.architecture, found.spec.width) == ("resnet18", 2)
        assert found.recorded_accuracy == entry["clean_accuracy"] == 0.9123
        mean = entry["normalisation"]["mean"]
        assert found.normalisation[0] == pytest.approx(mean)
        pixels = data.load("digits", split="train").images
        assert mean[0] == pytest.approx(pixels.mean(), abs=1e-3)


def test_a_weak_backdoor_is_marked_not_hidden(tmp_path, monkeypatch):
    fake_training(monkeypatch, asr=0.89)
    entries = train_zoo.train_zoo(config(tmp_path))
    assert {entry["kind"]: entry["failed"] for entry in entries} == {
        "clean": False,
        "badnets": True,
        "blend": True,
    }


def test_a_killed_run_keeps_its_models_and_goes_on(tmp_path, monkeypatch):
    fake_training(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train_zoo.train_zoo(config(tmp_path))
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 2
    rest = fake_training(monkeypatch)
    train_zoo.train_zoo(config(tmp_path))
    assert rest == ["resnet18_w2_blend_t0_s0"]
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 3


def test_a_listed_model_without_its_file_is_made_again(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    train_zoo.train_zoo(config(tmp_path))
    (tmp_path / "resnet18_w2_clean_s0.safetensors").unlink()
    again = fake_training(monkeypatch)
    train_zoo.train_zoo(config(tmp_path))
    assert again == ["resnet18_w2_clean_s0"]


def test_a_zoo_grows_by_targets_and_seeds_but_not_by_another_recipe(
    tmp_path, monkeypatch
):
    fake_training(monkeypatch)
    train_zoo.train_zoo(config(tmp_path))
    more = fake_training(monkeypatch)
    train_zoo.train_zoo(config(tmp_path, targets=(0, 1), attacks=("blend",)))
    assert more == ["resnet18_w2_blend_t1_s0"]
    with pytest.raises(zoo_folder.ZooError, match=r"poison_rate was 0\.05, is 0\.2"):
        train_zoo.train_zoo(config(tmp_path, poison_rate=0.2))
    assert len(json.loads((tmp_path / "zoo.json").read_text())) == 4


def test_a_failed_save_loses_nothing_that_was_trained(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    write = checkpoints.write_safetensors

    def failing(path, *arguments):
        if "blend" in path:
            raise OSError("no space left on device")
        write(path, *arguments)

    monkeypatch.setattr(checkpoints, "write_safetensors", failing)
    with pytest.raises(OSError, match="no space left"):
        train_zoo.train_zoo(config(tmp_path))
    listed = json.loads((tmp_path / "zoo.json").read_text())
    assert [entry["kind"] for entry in listed] == ["badnets", "clean"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_foreign_and_broken_folders_are_refused(tmp_path):
    (tmp_path / "zoo.json").write_text('[{"name": "x", "file": "x.pt"}]')
    with pytest.raises(zoo_folder.ZooError, match="making is not recorded"):
        zoo_folder.ZooFolder(str(tmp_path), {})
    (tmp_path / "zoo.json").write_text("[{")
    with pytest.raises(zoo_folder.ZooError, match="zoo.json: not valid JSON"):
        zoo_folder.ZooFolder(str(tmp_path), {})
    with pytest.raises(zoo_folder.ZooError, match="not a usable folder"):
        zoo_folder.ZooFolder(str(tmp_path / "zoo.json"), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": (10,)}, r"target must be a class in 0\.\.9, got 10"),
        ({"poison_rate": 1.5}, "poison rate must be in"),
        ({"attacks": ("wanat",)}, "unknown attack 'wanat'"),
        ({"arch": ("resnet",)}, "unknown architecture 'resnet'"),
        ({"arch": ("vgg16",)}, "needs images of at least"),
        ({"seeds": 0}, "no model to train"),
        ({"data": "nonsense-set"}, "nor a TFDS data set"),
        ({"normalisation": "cifr"}, "--normalisation takes a name"),
        ({"num_train": 100}, "do not fill one batch"),
        ({"badnets": train_zoo.Patch(size=9)}, "does not fit images of 8x8"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, changes, message
):
    out = tmp_path / "zoo"
    with pytest.raises(ValueError, match=message):
        train_zoo.train_zoo(config(out, **changes))
    assert not (out / "zoo.json").exists()


def test_data_without_a_test_split_is_refused(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, images=np.zeros((9, 8, 8, 1)), labels=np.zeros(9, np.int64))
    with pytest.raises(data.DataError, match="needs a train and a test split"):
        train_zoo.train_zoo(config(tmp_path / "zoo", data=path, num_test=None))
