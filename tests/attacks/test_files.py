"""Triggers on disk."""

import functools
import os

import chex
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import attacks
from ban_jax.attacks import files

SHAPE = (8, 8, 3)
KEY = jax.random.key(0)


def small(name):
    return attacks.create(name, **({"width": 2} if name in ("iad", "ssdt") else {}))


@functools.cache
def state_of(name, seed=0):
    init = jax.jit(small(name).init, static_argnums=1)
    return init(jax.random.key(seed), SHAPE)


def saved(folder, name="blend"):
    path = os.path.join(folder, f"model{files.SUFFIX}")
    files.save(path, state_of(name))
    return path


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_a_trigger_comes_back_with_every_bit(tmp_path, name):
    state = state_of(name)
    found = files.load(saved(tmp_path, name), small(name), SHAPE)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, state)
    chex.assert_trees_all_equal(found, state)
    assert os.listdir(tmp_path) == [f"model{files.SUFFIX}"]


def test_a_trigger_held_in_numpy_comes_back_too(tmp_path):
    state = jax.device_get(state_of("wanet"))
    path = os.path.join(tmp_path, "model.trigger")
    files.save(path, state)
    chex.assert_trees_all_equal(files.load(path, small("wanet"), SHAPE), state)


def test_a_second_save_replaces_the_first(tmp_path):
    path, attack = saved(tmp_path), small("blend")
    other = state_of("blend", seed=1)
    files.save(path, other)
    chex.assert_trees_all_equal(files.load(path, attack, SHAPE), other)


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = saved(tmp_path)

    def refuse(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        files.save(path, state_of("blend", seed=1))
    assert os.listdir(tmp_path) == ["model.trigger"]
    found = files.load(path, small("blend"), SHAPE)
    chex.assert_trees_all_equal(found, state_of("blend"))


def refusal(path, attack, image_shape=SHAPE):
    with pytest.raises(ValueError) as error:
        files.load(path, attack, image_shape)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 8, 1)])
def test_a_trigger_for_images_of_another_shape_is_refused(tmp_path, shape):
    message = refusal(saved(tmp_path), small("blend"), shape)
    assert f"expected fixed.scale as float32 of shape {shape}" in message
    assert "found float32 of shape (8, 8, 3)" in message


@pytest.mark.parametrize(("name", "other"), [("blend", "iad"), ("iad", "blend")])
def test_a_trigger_of_another_kind_is_refused(tmp_path, name, other):
    assert "found nothing" in refusal(saved(tmp_path, name), small(other))


def test_a_network_of_another_width_is_refused(tmp_path):
    message = refusal(saved(tmp_path, "iad"), attacks.create("iad", width=3))
    assert "of shape (3,)" in message and "of shape (2,)" in message


def test_a_scalar_where_an_array_belongs_is_named_as_such(tmp_path):
    path = saved(tmp_path)
    arrays = {**safetensors_numpy.load_file(path), "fixed.scale": np.ones((), "f4")}
    safetensors_numpy.save_file(arrays, path)
    assert "found float32 of shape ()" in refusal(path, small("blend"))


def test_numbers_of_another_type_are_refused(tmp_path):
    path = saved(tmp_path)
    arrays = safetensors_numpy.load_file(path)
    arrays["fixed.scale"] = arrays["fixed.scale"].astype(np.float64)
    safetensors_numpy.save_file(arrays, path)
    assert "found float64 of shape (8, 8, 3)" in refusal(path, small("blend"))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    path = saved(tmp_path)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:kept])
    assert "not a readable trigger" in refusal(path, small("blend"))


def test_a_missing_file_is_refused_by_name(tmp_path):
    path = os.path.join(tmp_path, "none.trigger")
    assert "not a readable trigger" in refusal(path, small("blend"))


def test_a_trained_trigger_fires_as_before_it_was_saved(tmp_path):
    """The statistics of the networks are kept, not only what the optimiser changes."""
    attack = small("iad")
    schedule = attacks.Schedule(1, 1, 10, "native")
    kernel = attack.kernel(schedule, 0.1, 5)
    images = jax.random.uniform(KEY, (10, *SHAPE))
    state, _ = jax.jit(kernel.preparation.step)(state_of("iad"), KEY, images)
    path = os.path.join(tmp_path, "model.trigger")
    files.save(path, state)
    loaded = files.load(path, attack, SHAPE)
    trigger = jax.jit(kernel.trigger)
    np.testing.assert_array_equal(trigger(loaded, images), trigger(state, images))
    fresh = trigger(state_of("iad"), images)
    assert np.any(np.array(fresh) != trigger(state, images))
