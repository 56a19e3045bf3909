"""Saves of models in training: read back equal, never lost to a full disk."""

import os
import resource
import signal

import chex
import numpy as np
import pytest
from jax import numpy as jnp
from orbax.checkpoint import v1 as ocp

from ban_jax.training import saves


def states(value, count=2, size=3):
    return [
        {"kernel": jnp.full((size, 2), value + index), "step": jnp.int32(value)}
        for index in range(count)
    ]


@pytest.fixture
def progress(tmp_path):
    return saves.Progress(str(tmp_path), "models")


def test_without_a_save_training_starts_at_the_beginning(progress):
    like = states(0.0)
    assert progress.load(like) == (0, like)


def test_the_newest_save_is_read_back_equal_and_the_older_one_dropped(progress):
    progress.save(1, states(1.0))
    progress.save(12, states(2.0))
    epoch, found = progress.load(states(0.0))
    assert epoch == 12
    chex.assert_trees_all_equal_shapes_and_dtypes(found, states(2.0))
    chex.assert_trees_all_equal(found, states(2.0))
    assert os.listdir(progress.path) == ["epoch_00012"]


def test_a_save_that_was_not_finished_is_passed_over(progress):
    progress.save(1, states(1.0))
    os.mkdir(os.path.join(progress.path, "epoch_00002.orbax-checkpoint-tmp"))
    assert progress.load(states(0.0))[0] == 1


@pytest.mark.parametrize(
    "other",
    [
        states(0.0, count=3),
        states(0.0, count=1),
        states(0.0, size=2),
        [{"kernel": jnp.zeros((3, 2)), "step": jnp.zeros(())}] * 2,
    ],
    ids=["more models", "fewer models", "narrower models", "another dtype"],
)
def test_a_save_of_other_models_is_refused_by_path(progress, other):
    progress.save(1, states(1.0))
    with pytest.raises(
        saves.SaveError,
        match="epoch_00001: not a save of this model; delete the folder",
    ):
        progress.load(other)


def test_a_damaged_save_is_refused_by_path(progress):
    progress.save(1, states(1.0))
    path = os.path.join(progress.path, "epoch_00001")
    for folder, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(folder, name), "wb"):
                pass
    with pytest.raises(saves.SaveError, match="epoch_00001: not a readable"):
        progress.load(states(0.0))


def test_an_error_in_the_middle_of_a_save_leaves_the_older_one_intact(
    progress, monkeypatch
):
    progress.save(1, states(1.0))

    def half(path, *arguments, **settings):
        del arguments, settings
        os.mkdir(f"{path}.orbax-checkpoint-tmp")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(saves.ocp, "save", half)
        with pytest.raises(
            saves.SaveError,
            match="epoch_00002: the training state could not be saved: no space.*"
            "goes on from epoch 1",
        ):
            progress.save(2, states(2.0))
    epoch, found = progress.load(states(0.0))
    assert epoch == 1
    chex.assert_trees_all_equal(found, states(1.0))
    progress.save(2, states(2.0))
    assert progress.load(states(0.0))[0] == 2


def test_a_disk_that_refuses_orbax_is_a_save_error_too(progress):
    progress.save(1, states(1.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        random = np.random.RandomState(0).rand(20_000)
        with pytest.raises(saves.SaveError, match="could not be saved"):
            progress.save(2, [random])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert progress.load(states(0.0))[0] == 1


def test_cleared_saves_leave_no_trace_but_those_of_others_stay(tmp_path):
    first, second = (saves.Progress(str(tmp_path), name) for name in "ab")
    first.save(1, states(1.0))
    second.save(1, states(2.0))
    first.clear()
    assert second.load(states(0.0))[0] == 1
    second.clear()
    assert os.listdir(tmp_path) == []
    second.clear()


def test_what_is_saved_is_an_orbax_checkpoint(progress):
    progress.save(3, states(1.0))
    loaded = ocp.load(os.path.join(progress.path, "epoch_00003"))
    assert sorted(loaded) == ["00000", "00001", "00002", "00003"]
