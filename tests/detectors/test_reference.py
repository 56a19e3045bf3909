"""The released procedure against PyTorch's numbers, from the same draws.

`tests/testdata/make_goldens.py` says what the files hold.
"""

import dataclasses
import functools
import re

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors, population
from ban_jax.data import augmentation
from ban_jax.detectors import evidence, reference
from ban_jax.types import Probe
from tests import tiny
from tests.models import test_goldens
from tests.testdata import goldens

TINY = reference.Settings(steps=2, mask_epochs=2, batches=2, batch_size=8, crop=1)


def leaves(layer):
    """PyTorch's name of a normalisation layer -> the paths of its scale and bias."""
    path = re.sub(r"\.(\d+)", r"_\1", layer).replace(".", "/")
    return f"{path}/scale", f"{path}/bias"


def to_noise(named):
    """`{layer: (delta, xi)}` -> noise by our paths."""
    return {
        path: jnp.asarray(value)
        for layer, pair in named.items()
        for path, value in zip(leaves(layer), pair, strict=True)
    }


def moved(variables, named):
    """The variables with the statistics of a golden file."""
    stats = {}
    for name, value in named.items():
        layer, _, kind = name.rpartition(".")
        *path, _ = leaves(layer)[0].split("/")
        inner = functools.reduce(lambda d, key: d.setdefault(key, {}), path, stats)
        inner[kind.removeprefix("running_")] = jnp.asarray(value)
    chex.assert_trees_all_equal_shapes(stats, dict(variables["batch_stats"]))
    return {**variables, "batch_stats": stats}


def assert_statistics(variables, named):
    expected = moved(variables, named)["batch_stats"]
    chex.assert_trees_all_close(
        variables["batch_stats"], expected, rtol=1e-4, atol=1e-5
    )


def assert_gradient(gradient, expected):
    """Values relative to the largest, signs wherever they do not hang on rounding.

    In NumPy: JAX would compile each operation for each shape of a layer.

    Returns:
      `{path: [C] bool}` where signs were compared.
    """
    gradient, expected = jax.device_get((gradient, expected))
    top = max(float(np.max(np.abs(value))) for value in expected.values())
    assert set(gradient) == set(expected)
    clear = {path: np.abs(value) > 1e-6 * top for path, value in expected.items()}
    for path, value in expected.items():
        found = gradient[path]
        np.testing.assert_allclose(found, value, atol=1e-4 * top, err_msg=path)
        np.testing.assert_array_equal(
            np.sign(found)[clear[path]], np.sign(value)[clear[path]], err_msg=path
        )
    return clear


noise_step = jax.jit(reference.noise_step, static_argnums=0)
mask_step = jax.jit(reference.mask_step, static_argnums=0)


# At DenseNet's second and third state an activation lies so near a ReLU's kink that
# noise moved by 1e-7 changes the gradient by 1e-3, in float64 too.
@pytest.mark.parametrize(
    "family, steps", [("resnet18", 3), ("preact_resnet18", 3), ("densenet121", 1)]
)
def test_noise_steps_agree_with_pytorch(family, steps):
    """Each step starts from PyTorch's own state."""
    _, network, variables, _ = test_goldens.golden(family)
    file = goldens.load(f"noise_{family}")
    told = file["settings"]
    settings = reference.Settings(epsilon=told["epsilon"], steps=told["steps"])
    noise = to_noise(file["noise/start"])
    for step in range(1, steps + 1):
        variables, noise, info = noise_step(
            network, variables, noise, file["images"], file["labels"], settings
        )
        gradient = to_noise(file[f"gradient/{step}"])
        clear = assert_gradient(info.gradient, gradient)
        np.testing.assert_allclose(info.loss, file["loss"][step - 1], rtol=1e-4)
        assert_statistics(variables, file[f"statistics/after_{step}"])
        after = to_noise(file[f"noise/after_{step}"])
        noise = jax.device_get(noise)
        for path, value in jax.device_get(after).items():
            found, expected = noise[path][clear[path]], value[clear[path]]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=path)
        noise, variables = after, moved(variables, file[f"statistics/after_{step}"])


@pytest.mark.parametrize("family", ["resnet18", "densenet121"])
def test_mask_steps_agree_with_pytorch(family):
    _, network, variables, _ = test_goldens.golden(family)
    file = goldens.load(f"mask_{family}")
    settings = reference.Settings(
        l1_weight=file["settings"]["mask_lambda"],
        mask_learning_rate=file["settings"]["mask_learning_rate"],
    )
    assert file["mask/start"].min() < 0 and file["mask/start"].max() > 1
    state = reference.start_mask(variables, jnp.asarray(file["mask/start"]))
    for step in (1, 2, 3):
        state, info = mask_step(
            network, state, file["images"][step - 1], file["labels"][step - 1], settings
        )
        expected = file[f"gradient/{step}"]
        np.testing.assert_allclose(
            info.gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )
        np.testing.assert_allclose(state.mask, file[f"mask/after_{step}"], atol=1e-4)
        _, *losses = file["losses"][step - 1]
        np.testing.assert_allclose(
            [info.kept, info.dropped, info.norm], losses, rtol=1e-4
        )
        assert_statistics(state.variables, file[f"statistics/after_{step}"])


def test_a_whole_run_agrees_with_pytorch():
    _, network, variables, _ = test_goldens.golden("resnet18")
    file = goldens.load("run_resnet18")
    told = file["settings"]
    settings = reference.Settings(
        epsilon=told["epsilon"],
        steps=told["steps"],
        l1_weight=told["mask_lambda"],
        mask_learning_rate=told["mask_learning_rate"],
        mask_epochs=told["mask_epochs"],
        batches=told["batches"],
        batch_size=told["batch_size"],
    )

    def views(part):
        fields = [file[f"draws/{part}_{name}"] for name in ("index", "offset", "flip")]
        index, shift, mirrored = fields
        size = index.shape[-1]
        return reference.Views(
            index.reshape(-1, size),
            shift.reshape(-1, size, 2),
            mirrored.reshape(-1, size),
        )

    starts = [to_noise(file[f"noise/start_{number}"]) for number in range(2)]
    draws = reference.Draws(
        inputs=file["shape_inputs"],
        mask=file["mask/start"],
        mask_views=views("mask"),
        noise=jax.tree.map(lambda *pair: jnp.stack(pair), *starts),
        noise_views=views("noise"),
        unmasked_views=views("unmasked"),
        negative_views=views("negative"),
    )
    probe = Probe(
        jnp.asarray(file["pool/images"]).reshape(4, 8, 32, 32, 3),
        jnp.asarray(file["pool/labels"]).reshape(4, 8),
    )
    found = jax.jit(reference.run, static_argnums=0)(
        network, variables, probe, draws, settings
    )
    _, kept, dropped, _ = file["mask/losses"].T
    np.testing.assert_allclose(found.kept, kept, rtol=1e-4)
    np.testing.assert_allclose(found.dropped, dropped, rtol=1e-4)
    np.testing.assert_allclose(found.mask, file["mask/final"], atol=1e-4)
    np.testing.assert_allclose(
        found.noise_loss.ravel(), file["noise/losses"], rtol=1e-4
    )
    chex.assert_trees_all_close(found.noise, to_noise(file["noise/final"]), atol=1e-6)
    assert_statistics(found.variables, file["statistics/final"])
    for part, logits in (("unmasked", found.unmasked), ("negative", found.negative)):
        np.testing.assert_allclose(
            logits.reshape(32, -1), file[f"{part}/logits"], atol=1e-3
        )
        np.testing.assert_allclose(
            32 * evidence.histogram(logits), file[f"{part}/histogram"], atol=1e-4
        )
        predictions = jnp.argmax(logits, axis=-1)
        assert float(jnp.mean(predictions == probe.labels)) == file[f"{part}/accuracy"]
    assert not np.array_equal(found.negative, found.negative_without_noise)


@jax.jit
def detect(variables, probe, key, settings):
    return detectors.DETECTORS["reference"].detect(
        tiny.NETWORK, variables, probe, key=key, config=settings
    )


def test_evidence_is_finite_and_its_shares_sum_to_one():
    found = detect(tiny.variables(), tiny.probe(), jax.random.key(0), TINY)
    assert {"share", "share_unmasked", "stored", "batch"} <= set(found.vectors)
    assert set(found.vectors) == set(found.errors)
    for share in (
        found.vectors["share"],
        found.vectors["share_unmasked"],
        found.info["histogram_without_noise"],
    ):
        assert float(jnp.sum(share)) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(found.info["histogram"], found.vectors["share"])
    assert bool(found.is_finite)
    broken = tiny.variables()
    broken["params"]["linear"]["kernel"] *= jnp.nan
    assert not bool(detect(broken, tiny.probe(), jax.random.key(0), TINY).is_finite)


def test_the_key_decides_everything():
    once, again, other = (
        detect(tiny.variables(), tiny.probe(), jax.random.key(seed), TINY)
        for seed in (0, 0, 1)
    )
    chex.assert_trees_all_equal(once, again)
    assert not np.array_equal(once.vectors["share"], other.vectors["share"])


def test_draws_have_the_released_ranges():
    variables, probe = tiny.variables(), tiny.probe()
    draw = jax.jit(reference.draw, static_argnums=0)
    draws = draw(tiny.NETWORK, variables, probe, key=jax.random.key(0), config=TINY)
    assert draws.mask_views.image.shape == (4, 8)
    assert draws.noise_views.shift.shape == (2, 8, 2)
    assert (
        0 <= int(draws.mask_views.shift.min()) < int(draws.mask_views.shift.max()) <= 2
    )
    for views in (draws.unmasked_views, draws.negative_views):
        np.testing.assert_array_equal(views.image.ravel(), np.arange(24))
    first, second = draws.noise["bn/scale"]
    assert first.shape == (tiny.CHANNELS,) and not np.array_equal(first, second)
    assert float(jnp.max(jnp.abs(draws.noise["bn/bias"]))) <= TINY.epsilon


def test_noise_may_leave_the_ball_and_no_further_than_twice_epsilon():
    variables, probe = tiny.variables(), tiny.probe()
    noise = {
        "bn/scale": jnp.full(tiny.CHANNELS, 0.3),
        "bn/bias": jnp.full(tiny.CHANNELS, -0.3),
    }
    settings = reference.Settings(steps=3)
    for _ in range(3):
        _, noise, _ = noise_step(
            tiny.NETWORK, variables, noise, probe.images[0], probe.labels[0], settings
        )
    largest = max(float(jnp.max(jnp.abs(value))) for value in noise.values())
    assert 0.3 < largest <= 0.6 + 1e-6


def test_side_by_side_equals_each_alone_and_a_new_epsilon_compiles_nothing():
    function = chex.assert_max_traces(tiny.examiner(reference.detect), n=1)
    members = [tiny.member(seed) for seed in range(3)]

    def run(settings):
        common = tiny.common(settings)
        return population.run(function, tiny.ONE_STACKED, members, common, 3)

    for member, found in zip(members, run(TINY), strict=True):
        key = population.fold_words(jax.random.key(0), member.words)
        alone = detect(member.variables, tiny.probe(), key, TINY)
        chex.assert_trees_all_close(found, jax.device_get(alone), atol=1e-4)
    run(dataclasses.replace(TINY, epsilon=0.1))


def test_the_work_is_that_of_the_readme():
    work = detectors.DETECTORS["reference"].work(reference.Settings(), 10, 512)
    # 5 x 512 images, the first forward, 400 mask steps, 600 noise steps and back.
    assert work == 5 * 512 + 128 + 400 * 128 + 2 * 600 * 128


def test_cropping_from_the_middle_and_not_mirroring_changes_no_bit():
    images = tiny.probe().images[0]
    shift, mirrored = jnp.full((8, 2), 3), jnp.zeros(8, bool)
    same = augmentation.crop_and_mirror(images, shift, mirrored, crop=3)
    np.testing.assert_array_equal(same, images)
