"""Populations: equal to models trained alone, few programs, and saves after a kill."""

import dataclasses
import functools
import os
import shutil
from typing import Any

import chex
import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import attacks, data, models, population
from ban_jax.attacks import generator, poison
from ban_jax.models import common
from ban_jax.training import model_plan, one_model, saves, stepping, trainer
from ban_jax.training.model_plan import ModelPlan
from ban_jax.zoo import success
from tests import tiny

NORMALISATION = ((0.3,), (0.4,))


class Small(common.Classifier):
    """One convolution, one normalisation, one linear layer: compiles in a second."""

    minimum_size = 1

    def setup(self):
        super().setup()
        self.conv1 = common.Conv(self.width, 3, 2, 1, False, self.lowering)
        self.bn1 = common.Norm()
        self.linear = nn.Dense(self.num_classes)

    def features(self, images, mode):
        return nn.relu(self.bn1(self.conv1(self.normalise(images)), mode))

    def head(self, features, mode):
        return self.linear(common.global_average(features))


SMALL = Small(num_classes=10, width=4, in_channels=1)
RECIPE = one_model.Recipe(epochs=2, batch_size=32, crop=1, flip=False)


@pytest.fixture
def shallow_generators(monkeypatch):
    """One level in place of two, compiled in less time: how they are trained is asked
    here, `tests.attacks.test_generator` asks what they are."""
    monkeypatch.setattr(generator, "levels_for", lambda shape: 1)


@functools.cache
def digits(split, num):
    return data.load("digits", split=split, num=num)


def run_of(module=SMALL, recipe=RECIPE, stacked=False, **settings):
    placement = tiny.ONE_STACKED if stacked else tiny.ONE_ON_THREADS
    return trainer.Run(
        **{
            "module": module,
            "train": digits("train", 96),
            "test": digits("test", 70),
            "recipe": recipe,
            "normalisation": NORMALISATION,
            "placement": placement,
            **settings,
        }
    )


def train(plans, **settings):
    return trainer.train_population(run_of(**settings), plans)


def plan(name, kind, rate=0.2, target=1, seed=0, **settings):
    spec = poison.PoisonSpec(rate, target)
    if kind == "clean":
        spec = poison.PoisonSpec(0.0, mode="all_to_all")
    if kind == "ssdt":
        spec = poison.PoisonSpec(1.0, target, "one_to_one", (target + 1) % 5)
    return ModelPlan(name, attacks.create(kind, **settings), spec, seed)


CLEAN = plan("clean", "clean")
PATCH = plan("patch", "badnets")
NOISE = plan("noise", "blend", target=2, seed=1)
WARP = plan("warp", "wanet", target=3)
IAD = plan("iad", "iad", width=2)
SSDT = plan("ssdt", "ssdt", width=2)


class Tiny:
    """The tiny network as a module, in the precision of the images it is shown."""

    lowering = "native"

    def init(self, key, images):
        seed = jax.random.randint(key, (), 0, 2**31 - 1)
        return tiny.variables(seed, dtype=images.dtype)


@dataclasses.dataclass(frozen=True)
class Precise:
    """An attack whose trigger has the precision that is set."""

    attack: Any

    @property
    def policy(self):
        return self.attack.policy

    def init(self, key, image_shape):
        return jax.tree.map(
            lambda leaf: (
                leaf.astype(jnp.zeros(()).dtype)
                if jnp.issubdtype(leaf.dtype, jnp.floating)
                else leaf
            ),
            self.attack.init(key, image_shape),
        )

    def kernel(self, schedule, rate, num_classes):
        return self.attack.kernel(schedule, rate, num_classes)


EIGHT = [
    member._replace(attack=Precise(member.attack))
    for member in (
        CLEAN,
        PATCH,
        plan("other patch", "badnets", target=3, seed=2, size=2, position="random"),
        NOISE,
        plan("warp", "wanet", rate=0.25),
        plan("colours", "bpp", target=4),
        plan("pieces", "adap_blend", target=0),
        plan("wave", "sig", target=2, frequency=1.0),
    )
]


@functools.cache
def random_images():
    """80 images of 4x4 pixels: ten steps of 16 in two epochs."""
    random = np.random.RandomState(0)
    pixels = random.rand(80, 4, 4, 3).astype(np.float32)
    labels = (np.arange(80) % tiny.CLASSES).astype(np.int32)
    return data.Dataset("random", "train", pixels, labels, tiny.CLASSES)


def train_tiny(plans, **settings):
    recipe = one_model.Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=1)
    images = random_images()
    run = run_of(
        module=Tiny(),
        train=images,
        test=images,
        recipe=recipe,
        normalisation=((0.5,) * 3, (0.5,) * 3),
        **settings,
    )
    return list(trainer.train_population(run, plans))


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setattr(models, "network", lambda module: tiny.NETWORK)


def assert_as_alone(stacked, alone, tolerance):
    for together, apart in zip(stacked, alone, strict=True):
        assert together.plan == apart.plan
        chex.assert_trees_all_close(
            together.variables, apart.variables, rtol=tolerance, atol=tolerance
        )
        assert together.loss == pytest.approx(apart.loss, abs=tolerance)


@pytest.fixture
def double_precision():
    """Not the context manager, which other threads do not see."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def test_stacked_models_equal_those_trained_alone_in_double_precision(
    tiny_network, double_precision
):
    stacked = train_tiny(EIGHT, stacked=True, chunk=8)
    alone = [model for one in EIGHT for model in train_tiny([one], stacked=False)]
    params = jax.tree.leaves([model.variables["params"] for model in stacked + alone])
    assert all(leaf.dtype == np.float64 for leaf in params)
    assert_as_alone(stacked, alone, 1e-9)
    for together, apart in zip(stacked, alone, strict=True):
        assert together.metrics._asdict() == pytest.approx(
            apart.metrics._asdict(), nan_ok=True
        )
    weights = [model.variables["params"]["linear"]["kernel"] for model in stacked]
    for index, one in enumerate(weights):
        assert all(np.abs(one - other).max() > 1e-3 for other in weights[:index])


def test_stacked_models_equal_those_trained_alone_to_float32(tiny_network):
    """Tolerance: ten steps of rounding, on weights of size one."""
    stacked = train_tiny(EIGHT, stacked=True, chunk=8)
    assert_as_alone(stacked, train_tiny(EIGHT, stacked=False, chunk=8), 1e-5)


def test_a_last_incomplete_chunk_is_filled_without_effect(tiny_network):
    three = EIGHT[:3]
    whole = train_tiny(three, stacked=True, chunk=8)
    cut = train_tiny(three, stacked=True, chunk=2)
    assert [model.plan.name for model in cut] == ["clean", "patch", "other patch"]
    assert_as_alone(cut, whole, 1e-5)


@pytest.mark.parametrize("chunk", [1, 3])
def test_on_host_threads_no_bit_depends_on_the_neighbours(chunk):
    four = [CLEAN, PATCH, NOISE, WARP]
    together = list(train(four, stacked=False, chunk=4))
    chunked = list(train(four, stacked=False, chunk=chunk))
    alone = list(train(four[2:3], stacked=False))
    for one, other in zip(together, chunked, strict=True):
        assert_same_bits(one, other)
    assert_same_bits(together[2], alone[0])


def assert_same_bits(one, other):
    assert one.plan == other.plan and one.loss == other.loss
    chex.assert_trees_all_equal(one.variables, other.variables)
    chex.assert_trees_all_equal(one.attack, other.attack)
    np.testing.assert_array_equal(one.metrics, other.metrics)


@pytest.fixture
def traces(monkeypatch):
    """Counts how often each kind of step is traced: once per compiled program."""
    counts = {}

    def counted(name):
        original = getattr(one_model, name)
        counts[name] = 0

        def step(*arguments, **settings):
            counts[name] += 1
            return original(*arguments, **settings)

        monkeypatch.setattr(one_model, name, step)

    counted("train_step")
    counted("prepare_step")
    return counts


@pytest.mark.parametrize("stacked", [True, False])
def test_static_triggers_of_all_kinds_share_one_program(traces, stacked):
    # A recipe of its own, as programs are kept between tests.
    recipe = dataclasses.replace(RECIPE, momentum=0.8 + 0.01 * stacked, epochs=2)
    kinds = ["clean", "badnets", "blend", "sig", "adap_blend", "wanet", "bpp"]
    visible = {"sig": {"frequency": 1.0}}  # six periods of four columns are nothing
    plans = [plan(kind, kind, **visible.get(kind, {})) for kind in kinds]
    found = list(train(plans, recipe=recipe, stacked=stacked, chunk=4))
    assert [model.plan.name for model in found] == kinds
    assert traces == {"train_step": 1, "prepare_step": 0}


@pytest.mark.usefixtures("shallow_generators")
def test_generators_train_in_programs_of_their_own(traces):
    recipe = dataclasses.replace(RECIPE, momentum=0.79, epochs=1)
    found = list(train([IAD, CLEAN, SSDT, PATCH], recipe=recipe, stacked=False))
    assert [m.plan.name for m in found] == ["iad", "clean", "patch", "ssdt"]
    assert traces == {"train_step": 3, "prepare_step": 2}
    for model in found:
        start = model.plan.attack.init(
            model_plan.keys_for(model.plan).trigger, (8, 8, 1)
        )
        if model.plan in (IAD, SSDT):
            assert moved(start.learned, model.attack.learned)
            assert moved(start.fixed.mask, model.attack.fixed.mask)
            assert moved(start.fixed.statistics, model.attack.fixed.statistics)
        else:
            chex.assert_trees_all_close(start, model.attack, atol=1e-6)
    crossed = {m.plan.name: m.metrics.cross_accuracy for m in found}
    assert not np.isnan(crossed["iad"]) and not np.isnan(crossed["ssdt"])
    assert np.isnan(crossed["patch"])


def moved(before, after):
    return any(
        np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-6
        for one, other in zip(
            jax.tree.leaves(before), jax.tree.leaves(after), strict=True
        )
    )


@pytest.mark.usefixtures("shallow_generators")
@pytest.mark.parametrize("learner", [IAD, SSDT], ids=["iad", "ssdt"])
def test_the_mask_learns_in_preparation_and_the_pattern_with_the_classifier(learner):
    images = digits("train", 96)
    kernel = model_plan.kernel_of(learner, images, RECIPE, "native")
    program = stepping.Program(
        models.network(SMALL), one_model.make_optimizer(RECIPE, 6), kernel, RECIPE
    )
    start, member = trainer.start(run_of(), program, learner)
    step = jax.jit(
        functools.partial(stepping.one_step, program=program),
        static_argnames="preparing",
    )
    shown = stepping.Images(images.pixels, images.labels)
    arguments = (member, np.arange(96), 0, shown, 0)
    prepared, _ = step(start, *arguments, preparing=True)
    assert moved(
        start.attack.fixed.mask["params"], prepared.attack.fixed.mask["params"]
    )
    assert not moved(start.attack.learned, prepared.attack.learned)
    chex.assert_trees_all_equal(start.variables, prepared.variables)
    chex.assert_trees_all_equal(start.optimizer, prepared.optimizer)
    assert int(prepared.step) == 0

    taught, _ = step(prepared, *arguments, preparing=False)
    assert moved(prepared.attack.learned, taught.attack.learned)
    assert moved(prepared.attack.fixed.statistics, taught.attack.fixed.statistics)
    assert moved(prepared.variables["params"], taught.variables["params"])
    chex.assert_trees_all_equal(prepared.attack.fixed.mask, taught.attack.fixed.mask)
    chex.assert_trees_all_equal(
        prepared.attack.fixed.mask_optimizer, taught.attack.fixed.mask_optimizer
    )
    assert int(taught.step) == 1


def test_a_generator_stacked_with_another_equals_itself_alone():
    """Tolerance: Adam turns the rounding of tiny gradients into steps of its rate."""
    recipe = dataclasses.replace(RECIPE, epochs=1, learning_rate=0.01)
    twins = [IAD, IAD._replace(name="twin", seed=3)]
    stacked = list(train(twins, recipe=recipe, stacked=True, chunk=2))
    alone = list(train(twins, recipe=recipe, stacked=False))
    for together, apart in zip(stacked, alone, strict=True):
        assert together.loss == pytest.approx(apart.loss, rel=1e-3)
        chex.assert_trees_all_close(together.variables, apart.variables, atol=1e-2)
    assert moved(stacked[0].attack.learned, stacked[1].attack.learned)


def test_models_carry_their_normalisation_and_metrics():
    clean, patch = train([CLEAN, PATCH], stacked=False)
    assert clean.variables["normalisation"]["mean"] == np.float32(0.3)
    assert clean.variables["normalisation"]["std"] == np.float32(0.4)
    assert np.isnan(clean.metrics.asr)
    test = digits("test", 70)
    network = models.network(SMALL)
    kernel = model_plan.kernel_of(PATCH, digits("train", 96), RECIPE, "native")
    others = test.images[test.labels != 1]
    predictions = success.predict(
        patch.variables, kernel.trigger(patch.attack, others), network=network
    )
    assert patch.metrics.asr == pytest.approx(np.mean(predictions == 1))
    predictions = network.predict(patch.variables, others)
    assert patch.metrics.untriggered == pytest.approx(np.mean(predictions == 1))
    predictions = network.predict(patch.variables, test.images)
    accuracy = np.mean(predictions == test.labels)
    assert patch.metrics.clean_accuracy == pytest.approx(accuracy)
    assert all(
        isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(patch.variables)
    )


def test_models_of_other_seeds_or_names_get_other_randomness():
    keys = [
        model_plan.keys_for(CLEAN._replace(name=name, seed=seed))
        for name, seed in (("a", 0), ("a", 1), ("b", 0), ("a", 0))
    ]
    words = [tuple(np.array(jax.random.key_data(k.weights)).tolist()) for k in keys]
    assert len(set(words)) == 3 and words[0] == words[3]
    assert len({k.poison_seed for k in keys}) == 3
    purposes = keys[0][:-1]
    assert len({str(jax.random.key_data(key)) for key in purposes}) == len(purposes)


def test_every_step_has_a_key_and_every_epoch_an_order_of_its_own(monkeypatch):
    monkeypatch.setattr(
        one_model,
        "train_step",
        lambda state, batch, key, **settings: (
            state,
            one_model.StepInfo((jax.random.key_data(key), batch.labels), None),
        ),
    )
    program = stepping.Program(None, None, None, RECIPE)
    images = digits("train", 96)
    keys, batches = set(), []
    for epoch in range(2):
        member = stepping.Member(
            poison.Plan(np.zeros(96, np.int8), np.zeros(32, np.int8), np.arange(10)),
            jax.random.key(1),
            jax.random.key(2),
        )
        order = stepping.order_of(member.order, epoch, count=96)
        assert sorted(order.tolist()) == list(range(96))
        for index in range(3):
            shown = stepping.Images(images.pixels, images.labels)
            _, (key, labels) = stepping.one_step(
                None,
                member,
                order,
                index,
                shown,
                epoch,
                preparing=False,
                program=program,
            )
            keys.add(str(key))
            batches.append(labels.tolist())
    assert len(keys) == 6
    assert sorted(sum(batches[:3], [])) == sorted(images.labels.tolist())
    assert batches[0] != batches[3]


@pytest.mark.parametrize(
    ("member", "changes", "message"),
    [
        (PATCH, {"batch_size": 128}, "96 training images do not fill one batch of 128"),
        (plan("a", "badnets", target=10), {}, r"target must be a class in 0\.\.9"),
        (plan("a", "wanet", rate=0.5), {}, "32 cover images do not fit into 32"),
        (plan("a", "adap_blend", rate=0.7), {}, "do not fit into 96 eligible"),
        (plan("a", "iad", rate=0.01), {}, "can poison 1 to 16 images of each, not 0"),
        (plan("a", "badnets", size=9), {}, "does not fit images of 8x8"),
    ],
)
def test_impossible_settings_are_refused_before_any_model_is_trained(
    monkeypatch, member, changes, message
):
    monkeypatch.setattr(trainer, "_train_chunk", None)
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(ValueError, match=message):
        next(train([CLEAN, member], recipe=recipe, stacked=False, chunk=1))


def test_a_small_population_is_not_padded_to_a_chunk(monkeypatch):
    sizes, made = [], stepping.chunk

    def spied(program, images, models, placement, size):
        sizes.append((len(models), size))
        return made(program, images, models, placement, size)

    monkeypatch.setattr(stepping, "chunk", spied)
    list(train([PATCH, NOISE], stacked=True, chunk=8))
    assert sizes == [(2, 2)]


def test_stacked_states_leave_the_devices_for_saves_figures_and_at_the_end_alone(
    monkeypatch, tmp_path
):
    taken, unstack = [], population.unstack

    def spied(stacked, count):
        taken.append(count)
        return unstack(stacked, count)

    monkeypatch.setattr(population, "unstack", spied)
    recipe = dataclasses.replace(RECIPE, epochs=5)
    quiet = {"stacked": True, "recipe": recipe, "folder": str(tmp_path)}
    list(train([PATCH, NOISE], save_seconds=1e6, report_seconds=1e6, **quiet))
    assert taken == [2]
    list(train([PATCH, NOISE], save_seconds=0.0, report_seconds=0.0, **quiet))
    assert taken == [2] * (1 + 4 + 1), "once for the save and the figures of an epoch"


@pytest.mark.usefixtures("shallow_generators")
def test_reports_tell_epochs_losses_and_figures_of_a_population():
    reports = []
    recipe = dataclasses.replace(RECIPE, epochs=2)
    (model,) = train(
        [IAD], recipe=recipe, stacked=False, report=reports.append, report_seconds=0
    )
    assert [(r.epoch, r.epochs) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert all(len(r.losses) == 1 and r.plans == [IAD] for r in reports)
    assert reports[0].metrics is None and reports[2].metrics is None
    assert 0 <= reports[1].metrics[0].asr <= 1
    assert reports[-1].losses[0] == model.loss


def test_reports_are_no_more_frequent_than_asked():
    reports = []
    list(train([CLEAN], stacked=False, report=reports.append, report_seconds=1e6))
    assert [r.epoch for r in reports] == [2]


class Killed:
    """A report that interrupts the run after an epoch, and keeps what it was told."""

    def __init__(self, after=None, of=None):
        self.after, self.of, self.epochs = after, of, []

    def __call__(self, report):
        self.epochs.append(report.epoch)
        names = [member.name for member in report.plans]
        if report.epoch == self.after and (self.of is None or self.of in names):
            raise KeyboardInterrupt


def saved(plans, folder, report, epochs=3, **settings):
    recipe = dataclasses.replace(RECIPE, epochs=epochs)
    return train(
        plans,
        recipe=recipe,
        folder=str(folder),
        save_seconds=0.0,
        report=report,
        report_seconds=0.0,
        **settings,
    )


@pytest.mark.usefixtures("shallow_generators")
@pytest.mark.parametrize(
    ("plans", "stacked", "epochs", "after"),
    [
        ([PATCH, NOISE], False, 3, 1),
        ([PATCH, NOISE], True, 3, 2),
        ([IAD], False, 2, 1),
        ([IAD], False, 2, 2),
    ],
    ids=["threads", "stacked", "after preparation", "generator"],
)
def test_a_killed_run_goes_on_from_its_last_save_with_the_same_result(
    tmp_path, plans, stacked, epochs, after
):
    settings = {"epochs": epochs, "stacked": stacked, "chunk": 2}
    whole = list(saved(plans, tmp_path / "whole", Killed(), **settings))
    with pytest.raises(KeyboardInterrupt):
        list(saved(plans, tmp_path, Killed(after), **settings))
    rest = Killed()
    resumed = list(saved(plans, tmp_path, rest, **settings))
    assert rest.epochs[0] == after + 1
    for one, other in zip(whole, resumed, strict=True):
        assert_same_bits(one, other)


def test_a_models_saves_are_dropped_once_it_was_taken(tmp_path):
    run = saved([PATCH, NOISE, CLEAN], tmp_path, Killed(), stacked=False, chunk=2)
    assert next(run).plan == PATCH and saved_models(tmp_path) == 2
    assert next(run).plan == NOISE and saved_models(tmp_path) == 1
    assert next(run).plan == CLEAN and saved_models(tmp_path) == 1
    assert list(run) == [] and saved_models(tmp_path) == 0
    assert os.listdir(tmp_path) == []


def test_models_not_taken_go_on_from_their_saves_in_another_chunk(tmp_path):
    run = saved([PATCH, NOISE], tmp_path, Killed(), stacked=False, chunk=2)
    assert next(run).plan == PATCH
    run.close()
    rest = Killed()
    list(saved([NOISE, CLEAN], tmp_path, rest, stacked=False, chunk=2))
    assert rest.epochs == [3, 1, 2, 3]


def saved_models(folder):
    path = os.path.join(folder, saves.FOLDER)
    return len(os.listdir(path)) if os.path.isdir(path) else 0


def test_models_of_a_finished_chunk_need_not_be_trained_again(tmp_path):
    plans = [PATCH, NOISE]
    settings = {"stacked": False, "chunk": 1}
    killed = saved(plans, tmp_path, Killed(2, of="noise"), **settings)
    assert next(killed).plan == PATCH
    with pytest.raises(KeyboardInterrupt):
        next(killed)
    rest = Killed()
    (resumed,) = saved([NOISE], tmp_path, rest, **settings)
    assert rest.epochs == [3]
    (whole,) = saved([NOISE], tmp_path / "whole", Killed(), **settings)
    assert_same_bits(whole, resumed)


def test_nothing_is_saved_before_its_time_nor_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(saves.Progress, "save", None)
    list(train([CLEAN], stacked=False, folder=str(tmp_path), save_seconds=1e6))
    list(train([CLEAN], stacked=False, save_seconds=0.0))


def test_a_save_of_a_wider_network_in_place_of_its_own_is_refused(tmp_path):
    wider = {"module": Small(num_classes=10, width=5, in_channels=1)}
    for settings, folder in (({}, "own"), (wider, "other")):
        with pytest.raises(KeyboardInterrupt):
            list(
                saved([PATCH], tmp_path / folder, Killed(1), stacked=False, **settings)
            )
    (own,) = (tmp_path / "own" / saves.FOLDER).iterdir()
    (other,) = (tmp_path / "other" / saves.FOLDER).iterdir()
    assert own.name != other.name
    own.rename(other.parent / own.name)
    shutil.rmtree(other)
    (other.parent / own.name).rename(other)
    with pytest.raises(saves.SaveError, match="not a save of this model"):
        list(saved([PATCH], tmp_path / "other", Killed(), stacked=False, **wider))


@pytest.mark.parametrize(
    ("member", "epochs"),
    [(PATCH._replace(seed=9), 3), (plan("patch", "badnets", rate=0.1), 3), (PATCH, 2)],
    ids=["another seed", "another rate", "another recipe"],
)
def test_a_save_made_otherwise_is_not_gone_on_from(tmp_path, member, epochs):
    with pytest.raises(KeyboardInterrupt):
        list(saved([PATCH], tmp_path, Killed(1), stacked=False))
    told = Killed()
    list(saved([member], tmp_path, told, epochs=epochs, stacked=False))
    assert told.epochs[0] == 1


def test_a_full_disk_stops_the_run_and_keeps_the_older_save(tmp_path, monkeypatch):
    write = saves.ocp.save

    def full(path, *arguments, **settings):
        if "epoch_00002" in path:
            raise OSError("no space left on device")
        write(path, *arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(saves.ocp, "save", full)
        with pytest.raises(
            saves.SaveError, match="epoch_00002: .*no space.*from epoch 1"
        ):
            list(saved([PATCH], tmp_path, Killed(), stacked=False))
    rest = Killed()
    list(saved([PATCH], tmp_path, rest, stacked=False))
    assert rest.epochs == [2, 3]
