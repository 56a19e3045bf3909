"""Zoos packed into one, and variants of their models."""

import dataclasses
import functools
import json
import os
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp
from safetensors import numpy as safetensors_numpy

from ban_jax import attacks, checkpoints, data, models
from ban_jax.attacks import poison
from ban_jax.commands import train as train_command
from ban_jax.models import common
from ban_jax.repairs import batch
from ban_jax.training import model_plan, one_model, trainer, writing
from ban_jax.zoo import ground_truth, listing, success
from benchmarks import _zoo_changes, quarter_turns, zoo_pack, zoo_variants

SPEC = checkpoints.ModelSpec("resnet18", 10, 2, 1)
NORMALISATION = {
    "mean": np.full(1, 0.3, np.float32),
    "std": np.full(1, 0.4, np.float32),
}
NETWORK = models.network(SPEC.create())
NAME = "resnet18_w2_badnets_t3_s0"


@functools.cache
def digits(split="test", num=60):
    return data.load("digits", split=split, num=num)


@functools.cache
def weights(seed):
    """Random, but of a scale that lets images through."""
    rng = np.random.RandomState(seed)

    def leaf(path, like):
        name = path[-1].key
        drawn = rng.randn(*like.shape).astype(np.float32)
        if name == "kernel":
            return drawn / np.sqrt(np.prod(like.shape[:-1]), dtype=np.float32)
        return (1 + 0.2 * np.abs(drawn)) if name in ("scale", "var") else 0.1 * drawn

    shapes = models.abstract_variables(SPEC.create(), 8)
    drawn = jax.tree_util.tree_map_with_path(leaf, shapes)
    return {**drawn, "normalisation": NORMALISATION}


def train_zoo(path, seeds=(0,), kind="badnets", figures=(0.9, 0.8, 0.1), start=None):
    """A folder as `ban-jax train` leaves it, with random models of one kind."""
    recipe = one_model.Recipe(epochs=3, batch_size=32, learning_rate=0.07)
    flags = train_command.Flags(
        out=str(path), data="digits", width=2, num_train=500, recipe=recipe,
        start_from=start,
    )  # fmt: skip
    making = dataclasses.asdict(flags)
    folder = listing.ZooFolder(
        str(path),
        {key: making[key] for key in making if key not in train_command.SELECTION},
    )
    zoo = writing.Zoo(folder, SPEC, digits(), digits(), recipe, 0.9, False)
    attack = attacks.create(kind, **({"width": 2} if kind == "iad" else {}))
    for seed in seeds:
        spec = poison.PoisonSpec(0.1, 3)
        name = f"resnet18_w2_{kind}_t3_s{seed}"
        if kind == "clean":
            spec = poison.PoisonSpec(0.0, mode="all_to_all")
            name = f"resnet18_w2_clean_s{seed}"
        plan = model_plan.ModelPlan(name, attack, spec, seed)
        state = attack.init(jax.random.key(seed), (8, 8, 1))
        metrics = success.Metrics(*(figures[:1] if kind == "clean" else figures))
        trained = trainer.Trained(plan, weights(seed), state, metrics, 0.5, 2.0)
        writing.save(zoo, trained)
    return str(path)


def pack(out, *sources, **settings):
    zoo_pack.main(zoo_pack.Flags(sources=sources, out=str(out), **settings))
    return listed(out)


def listed(folder):
    with open(os.path.join(folder, "zoo.json"), encoding="utf-8") as file:
        return {entry["name"]: entry for entry in json.load(file)}


def files_of(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".trigger")
    }


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        ("zoo/07_smooth", "smooth"),
        ("zoo/07_label_smoothing/", "label_smoothing"),
        ("smooth", "smooth"),
        ("zoo/07_smooth=step-4", "step-4"),
    ],
)
def test_a_recipe_is_named_by_the_user_or_by_its_folder(source, recipe):
    folder, found = zoo_pack.recipe_of(source)
    assert found == recipe and folder == source.removesuffix("=step-4")


@pytest.mark.parametrize("source", ["zoo/07_", "zoo/a b", "zoo=", "zoo=a/b"])
def test_a_recipe_without_a_usable_name_is_refused(source):
    with pytest.raises(ValueError, match=r"expected a recipe's name .* found"):
        zoo_pack.recipe_of(source)


def test_a_packed_model_predicts_as_it_did_up_to_half_precision(tmp_path):
    source = train_zoo(tmp_path / "01_plain")
    pack(tmp_path / "zoo", source)
    paths = [
        os.path.join(source, f"{NAME}.safetensors"),
        str(tmp_path / "zoo" / f"{NAME}_plain.safetensors"),
    ]
    before, after = map(checkpoints.read, paths)
    assert after.spec == SPEC and after.recorded_accuracy == 0.9
    assert after.normalisation == before.normalisation
    assert after.normalisation_source == "the file"
    state = safetensors_numpy.load_file(paths[1])
    assert {array.dtype for array in state.values()} == {np.dtype(np.float16)}
    logits = jax.jit(lambda v, x: NETWORK.logits(v, x, "stored")[0])
    first, second = (
        np.asarray(logits(one.full_variables(), digits().images))
        for one in (before, after)
    )
    difference = np.abs(first - second).max()
    assert 0 < difference < 0.005 * np.abs(first).max()
    ranked = np.sort(first, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * difference
    assert clear.sum() > 30
    same = first.argmax(axis=1) == second.argmax(axis=1)
    assert same[clear].all()


def test_a_packed_model_keeps_its_trigger(tmp_path):
    source = train_zoo(tmp_path / "01_plain")
    pack(tmp_path / "zoo", source)
    states = [
        ground_truth.find(str(path), (8, 8, 1), 10).state
        for path in (
            tmp_path / "01_plain" / f"{NAME}.safetensors",
            tmp_path / "zoo" / f"{NAME}_plain.safetensors",
        )
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_entries_tell_recipe_and_training(tmp_path):
    start = "/elsewhere/first.safetensors"
    source = train_zoo(tmp_path / "07_warm", start=start)
    (entry,) = pack(tmp_path / "zoo", source).values()
    assert (entry["recipe"], entry["source"]) == ("warm", "07_warm")
    assert entry["name"] == f"{NAME}_warm" and entry["target"] == 3
    training = entry["training"]
    assert (training["epochs"], training["learning_rate"]) == (3, 0.07)
    assert (training["optimizer"], training["num_train"]) == ("sgd", 500)
    assert training["start_from"] == "first.safetensors", "no folder of this machine"


def test_half_precision_is_refused_where_it_loses_more_than_digits():
    tiny = np.array([1e-9, 1.0], np.float32)
    assert zoo_pack.halved("bn1.running_var", tiny).dtype == np.float32
    np.testing.assert_array_equal(zoo_pack.halved("bn1.running_var", tiny), tiny)
    assert zoo_pack.halved("conv1.weight", tiny).dtype == np.float16
    large = np.array([7e4, 1.0], np.float32)
    assert zoo_pack.halved("conv1.weight", large).dtype == np.float32
    small = np.array([1e-7, 0.0, np.inf], np.float32)
    assert zoo_pack.halved("bn1.running_var", small).dtype == np.float16
    counter = np.array(5, np.int64)
    assert zoo_pack.halved("bn1.num_batches_tracked", counter).dtype == np.int64


def test_what_stays_in_float32_is_told(tmp_path, capsys):
    source = train_zoo(tmp_path / "01_plain")
    path = os.path.join(source, f"{NAME}.safetensors")
    arrays, remarks = zoo_pack.read(path)
    arrays["bn1.running_var"][0] = 1e-12
    safetensors_numpy.save_file(arrays, path, remarks)
    pack(tmp_path / "zoo", source)
    assert "added; in float32: bn1.running_var\n" in capsys.readouterr().out
    packed = checkpoints.read(str(tmp_path / "zoo" / f"{NAME}_plain.safetensors"))
    assert packed.variables["batch_stats"]["bn1"]["var"][0] == np.float32(1e-12)


def test_packing_again_adds_what_is_new_and_touches_nothing_else(tmp_path, capsys):
    first = train_zoo(tmp_path / "01_plain")
    out = tmp_path / "zoo"
    pack(out, first)
    before = files_of(out)
    second = train_zoo(tmp_path / "02_plain", seeds=(1, 2))
    capsys.readouterr()
    entries = pack(out, first, second)
    assert "1 there already, 2 added\n3 models, " in capsys.readouterr().out
    assert sorted(entries) == [
        f"resnet18_w2_badnets_t3_s{seed}_plain" for seed in range(3)
    ]
    after = files_of(out)
    assert before.items() <= after.items() and len(after) == 6


def test_a_model_that_was_trained_anew_takes_the_place_of_the_older(tmp_path, capsys):
    source = train_zoo(tmp_path / "01_plain")
    out = tmp_path / "zoo"
    pack(out, source)
    path = os.path.join(source, f"{NAME}.safetensors")
    arrays, remarks = zoo_pack.read(path)
    arrays["linear.bias"] += 1
    safetensors_numpy.save_file(arrays, path, remarks)
    pack(out, source)
    assert f"{NAME}_plain: replaced\n" in capsys.readouterr().out
    packed = checkpoints.read(str(out / f"{NAME}_plain.safetensors"))
    bias = packed.variables["params"]["linear"]["bias"]
    np.testing.assert_allclose(bias, arrays["linear.bias"], atol=1e-3)


@pytest.mark.parametrize("at_once", [True, False])
def test_two_models_of_one_name_and_recipe_are_refused(tmp_path, at_once):
    first = train_zoo(tmp_path / "01_plain")
    second = train_zoo(tmp_path / "02_plain")
    path = os.path.join(second, f"{NAME}.safetensors")
    arrays, remarks = zoo_pack.read(path)
    arrays["linear.bias"] += 1
    safetensors_numpy.save_file(arrays, path, remarks)
    out = tmp_path / "zoo"
    if not at_once:
        pack(out, first)
    before = files_of(out)
    message = f"02_plain: its {NAME} is another model than .* from 01_plain; .*=RECIPE"
    with pytest.raises(listing.ZooError, match=message):
        pack(out, *([first] if at_once else []), second)
    assert files_of(out) == before
    assert len(pack(out, first, f"{second}=other")) == 2


def test_a_copy_of_a_packed_model_is_not_another_one(tmp_path):
    first = train_zoo(tmp_path / "01_plain")
    second = shutil.copytree(first, tmp_path / "02_plain")
    assert len(pack(tmp_path / "zoo", first, str(second))) == 1


def test_a_large_trigger_is_left_out_and_told(tmp_path, capsys):
    source = train_zoo(tmp_path / "01_plain")
    (entry,) = pack(tmp_path / "zoo", source, largest_trigger=100).values()
    assert entry["trigger_file"] is None and entry["asr"] == 0.8
    assert f"{NAME}_plain: added; without its trigger\n" in capsys.readouterr().out
    assert not (tmp_path / "zoo" / "triggers").exists()


def test_a_folder_that_no_training_wrote_is_refused(tmp_path):
    with pytest.raises(
        listing.ZooError, match="config.json: expected what `ban-jax tr"
    ):
        pack(tmp_path / "zoo", str(tmp_path))
    assert not (tmp_path / "zoo").exists()


def test_a_training_that_lists_nothing_yet_adds_nothing(tmp_path):
    source = train_zoo(tmp_path / "01_plain")
    begun = train_zoo(tmp_path / "02_plain", seeds=())
    assert len(pack(tmp_path / "zoo", source, begun)) == 1


def test_an_entry_that_was_completed_is_listed_anew_beside_the_same_weights(
    tmp_path, capsys
):
    source = train_zoo(tmp_path / "01_plain", figures=(0.9, 0.8))
    out = tmp_path / "zoo"
    (entry,) = pack(out, source).values()
    assert entry["excess"] is None
    before = files_of(out)
    (known,) = listed(source).values()
    with open(os.path.join(source, "zoo.json"), "w", encoding="utf-8") as file:
        json.dump([{**known, "untriggered": 0.1, "excess": 0.7}], file)
    (entry,) = pack(out, source).values()
    assert entry["excess"] == 0.7
    assert f"{NAME}_plain: listed anew\n" in capsys.readouterr().out
    weights = f"{NAME}_plain.safetensors"
    names = {str(name): content for name, content in files_of(out).items()}
    assert names[weights] == {str(n): c for n, c in before.items()}[weights]


class OnlyNorm(common.Classifier):
    """Normalises pixels and tells their mean: its statistics are those of the images."""

    def setup(self):
        super().setup()
        self.bn1 = common.Norm()
        self.linear = nn.Dense(self.num_classes)

    def features(self, images, mode):
        return self.bn1(self.normalise(images), mode)

    def head(self, features, mode):
        return self.linear(common.global_average(features))


NORM = OnlyNorm(num_classes=10, in_channels=1)


def setting(network, num_clean=60, **changes):
    given = {
        "network": network,
        "clean": digits("train", num_clean),
        "test": digits(),
        "flip": False,
        "size": 2,
    }
    return _zoo_changes.Setting(**{**given, **changes})


def norm_model(seed=0):
    variables = NORM.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))
    variables = {**variables, "normalisation": NORMALISATION}
    return _zoo_changes.Model(jax.tree.map(np.asarray, variables), f"{seed:064x}")


def test_statistics_are_the_plain_mean_over_minibatches():
    """300 images are three minibatches of 100; each variance is the unbiased one."""
    given = setting(models.network(NORM), num_clean=300)
    model = norm_model()
    (changed,) = _zoo_changes.reestimated([model], given)
    pixels = (given.clean.images - 0.3) / np.float32(0.4)
    parts = pixels.reshape(3, -1)
    stats = changed["batch_stats"]["bn1"]
    np.testing.assert_allclose(stats["mean"], [pixels.mean()], rtol=1e-5)
    np.testing.assert_allclose(
        stats["var"], [parts.var(axis=1, ddof=1).mean()], rtol=1e-5
    )
    jax.tree.map(
        np.testing.assert_array_equal, changed["params"], model.variables["params"]
    )


def test_the_order_of_minibatches_does_not_matter_to_statistics():
    given = setting(models.network(NORM), num_clean=300)
    backwards = dataclasses.replace(given.clean, pixels=given.clean.pixels[::-1])
    found = [
        _zoo_changes.reestimated([norm_model()], given._replace(clean=clean))[0]
        for clean in (given.clean, backwards)
    ]
    for one, other in zip(*(jax.tree.leaves(each) for each in found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_2500_images_are_20_even_minibatches():
    images = np.arange(2500, dtype=np.float32).reshape(2500, 1, 1, 1)
    minibatches = _zoo_changes.even(images, 128)
    assert minibatches.shape == (20, 125, 1, 1, 1)
    np.testing.assert_array_equal(minibatches.ravel(), images.ravel())
    assert _zoo_changes.even(images[:143], 128).shape[:2] == (2, 71)


def test_fine_tuning_takes_one_epoch_as_documented(monkeypatch):
    given = setting(models.network(NORM), num_clean=130, flip=True)
    kept, original = {}, batch.repair_population

    def spy(network, variables, keys, clean, method, settings, **further):
        kept.update(method=method, settings=settings, clean=clean)
        return original(network, variables, keys, clean, method, settings, **further)

    monkeypatch.setattr(batch, "repair_population", spy)
    model = norm_model()
    (changed,) = _zoo_changes.finetuned([model], given)
    settings = kept["settings"]
    assert kept["method"] == "finetune"
    assert (settings.learning_rate, settings.momentum) == (0.01, 0.9)
    assert (settings.weight_decay, settings.batch_size) == (5e-4, 64)
    assert (settings.epochs, settings.crop, settings.flip) == (1, 0, True)
    np.testing.assert_array_equal(kept["clean"].images, given.clean.pixels)
    moved = changed["params"]["linear"]["kernel"]
    assert not np.array_equal(moved, model.variables["params"]["linear"]["kernel"])


def test_a_fine_tuning_that_costs_all_accuracy_is_kept_all_the_same():
    """Watched on images whose labels are wrong after it and right before."""
    given = setting(models.network(NORM), num_clean=128)
    model = norm_model()
    right = np.asarray(given.network.predict(model.variables, given.test.images))
    given = given._replace(
        test=dataclasses.replace(given.test, labels=right.astype(np.int32)),
        clean=dataclasses.replace(
            given.clean, labels=np.full(128, (right[0] + 1) % 10, np.int32)
        ),
    )
    (changed,) = _zoo_changes.finetuned([model], given)
    moved = changed["params"]["linear"]["bias"]
    assert not np.array_equal(moved, model.variables["params"]["linear"]["bias"])


def test_a_fine_tuning_that_is_not_finite_gives_nothing():
    broken = norm_model()
    params = jax.tree.map(lambda leaf: leaf * np.nan, broken.variables["params"])
    broken = broken._replace(variables={**broken.variables, "params": params})
    given = setting(models.network(NORM), num_clean=64)
    fine, spoiled = _zoo_changes.finetuned([norm_model(), broken], given)
    assert fine is not None and spoiled is None


def test_a_fifth_of_each_layers_weights_is_pruned_the_smallest():
    (changed,) = _zoo_changes.pruned(
        [_zoo_changes.Model(weights(0), "")], setting(None)
    )
    before, after = (
        jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (weights(0), changed)
    )
    layers = 0
    for (path, old), (_, new) in zip(before, after, strict=True):
        if path[-1].key != "kernel":
            np.testing.assert_array_equal(old, new)
            continue
        layers += 1
        gone = new == 0
        assert gone.sum() == int(0.2 * old.size)
        if gone.any():
            assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()
        np.testing.assert_array_equal(old[~gone], new[~gone])
    assert layers == 21


def test_weights_of_one_size_are_pruned_to_the_share_too():
    ones = np.ones((3, 3, 2, 5), np.float32)
    pruned = _zoo_changes.without_smallest(ones)
    assert (pruned == 0).sum() == 18 and (ones == 1).all()


def test_bfloat16_keeps_eight_bits_of_weights_and_statistics():
    model = _zoo_changes.Model(weights(0), "")
    (changed,) = _zoo_changes.rounded([model], setting(None))
    for name in ("params", "batch_stats"):
        for leaf, old in zip(
            jax.tree.leaves(changed[name]),
            jax.tree.leaves(weights(0)[name]),
            strict=True,
        ):
            assert leaf.dtype == np.float32
            assert not (leaf.view(np.uint32) & 0xFFFF).any()
            np.testing.assert_allclose(leaf, old, rtol=2**-8)
    assert changed["normalisation"] is weights(0)["normalisation"]


def vary(zoo, out, **changes):
    given = {"data": "digits", "num_clean": 100, "num_test": 60, "flip": False}
    zoo_variants.main(zoo_variants.Flags(zoo=zoo, out=str(out), **{**given, **changes}))
    return listed(out)


def test_variants_are_a_zoo_with_figures_of_their_own(tmp_path):
    source = train_zoo(tmp_path / "zoo", seeds=(0,))
    train_zoo(source, seeds=(5,), kind="clean")
    entries = vary(source, tmp_path / "out", kinds=("pruned", "bfloat16"))
    clean = "resnet18_w2_clean_s5"
    assert sorted(entries) == [
        f"{name}_{kind}" for name in (NAME, clean) for kind in ("bfloat16", "pruned")
    ]
    original = listed(source)[NAME]
    entry = entries[f"{NAME}_pruned"]
    assert (entry["variant"], entry["of"]) == ("pruned", NAME)
    for field in ("kind", "target", "attack", "poison_rate", "architecture", "seed"):
        assert entry[field] == original[field]
    path = tmp_path / "out" / entry["file"]
    variant = checkpoints.read(str(path))
    expected = _zoo_changes.without_smallest(weights(0)["params"]["linear"]["kernel"])
    np.testing.assert_array_equal(
        variant.variables["params"]["linear"]["kernel"], expected
    )
    truth = ground_truth.find(str(path), (8, 8, 1), 10)
    metrics = success.measure(
        variant.full_variables(),
        digits(),
        network=NETWORK,
        kernel=truth.kernel,
        attack=truth.state,
        spec=truth.spec,
        policy=truth.attack.policy,
        key=jax.random.key(0),
    )
    assert entry["asr"] == pytest.approx(metrics.asr, abs=1e-4)
    assert entry["excess"] == pytest.approx(metrics.excess, abs=1e-4)
    assert entry["clean_accuracy"] == pytest.approx(metrics.clean_accuracy, abs=1e-4)
    assert entry["clean_accuracy"] != original["clean_accuracy"] and entry["failed"]
    unbroken = entries[f"{clean}_bfloat16"]
    assert (unbroken["asr"], unbroken["failed"]) == (None, False)


def test_only_missing_variants_are_made(tmp_path, monkeypatch):
    source = train_zoo(tmp_path / "zoo", seeds=(0, 1))
    made = []

    def spy(kind, originals, *further):
        made.extend((kind, one.entry["seed"]) for one in originals)
        return original(kind, originals, *further)

    original = zoo_variants.make
    monkeypatch.setattr(zoo_variants, "make", spy)
    out = tmp_path / "out"
    vary(source, out, kinds=("pruned",), limit=1)
    assert made == [("pruned", 0)]
    vary(source, out, kinds=("pruned", "bfloat16"))
    assert made[1:] == [("pruned", 1), ("bfloat16", 0), ("bfloat16", 1)]
    path = os.path.join(source, f"{NAME}.safetensors")
    arrays, remarks = zoo_pack.read(path)
    arrays["linear.bias"] += 1
    safetensors_numpy.save_file(arrays, path, remarks)
    vary(source, out, kinds=("pruned",))
    assert made[4:] == [("pruned", 0)], "of another model than before"


def test_without_a_trigger_success_is_not_measured_and_counts_as_failed(tmp_path):
    source = train_zoo(tmp_path / "01_plain", kind="iad")
    packed = tmp_path / "zoo"
    pack(packed, source, largest_trigger=100)
    (entry,) = vary(str(packed), tmp_path / "out", kinds=("bfloat16",)).values()
    assert (entry["asr"], entry["excess"], entry["failed"]) == (None, None, True)
    assert entry["clean_accuracy"] is not None and entry["trigger_file"] is None


def test_an_unknown_kind_of_variant_is_refused(tmp_path):
    message = "--kinds: expected some of statistics, finetuned, .* found prund"
    with pytest.raises(ValueError, match=message):
        vary(str(tmp_path), tmp_path / "out", kinds=("pruned", "prund"))
    assert not (tmp_path / "out").exists()


def test_variants_made_otherwise_are_not_mixed(tmp_path):
    source = train_zoo(tmp_path / "zoo")
    vary(source, tmp_path / "out", kinds=("pruned",))
    with pytest.raises(listing.ZooError, match="num_clean was 100, is 64"):
        vary(source, tmp_path / "out", kinds=("pruned",), num_clean=64)


def test_an_image_is_turned_by_the_quarters_that_its_label_tells(tmp_path):
    image = np.array([[[1], [2]], [[3], [4]]], np.uint8)
    images = quarter_turns.turned(np.stack([image] * 4), np.arange(4))
    expected = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert images[..., 0].tolist() == expected

    out = tmp_path / "turned.npz"
    quarter_turns.main(quarter_turns.Flags(out=str(out), data="digits"))
    whole = data.load("digits", split="test")
    found = data.load(str(out), split="test")
    assert found.num_classes == 40 and found.class_names[35] == "8 270"
    np.testing.assert_array_equal(found.labels // 4, whole.labels)
    back = quarter_turns.turned(found.pixels, -found.labels % 4)
    np.testing.assert_array_equal(back, whole.pixels)
