"""A model written back: the names and layouts of the PyTorch file it came from."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from ban_jax.checkpoints import hashing
from tests.checkpoints import builders

EXPECTED = json.loads((builders.TESTDATA / "expected.json").read_text())


def through(path, written):
    """Reads a file, writes it back under its own names, and reads that."""
    read = checkpoints.read(path)
    checkpoints.write_safetensors(written, read.variables, read.spec, names=read.names)
    return read, checkpoints.read(written), safetensors_numpy.load_file(written)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_pytorch_wrote_comes_back_under_its_own_names(name, tmp_path):
    read, again, state = through(builders.TESTDATA / name, tmp_path / "x.safetensors")
    assert again.sha256 == EXPECTED[name]
    assert again.spec == read.spec
    keys = [theirs for _, theirs in read.names.keys]
    counters = dict(read.names.counters)
    assert set(state) == {*keys, *counters}
    for key, count in counters.items():
        assert state[key].dtype == np.int64 and state[key].shape == ()
        assert state[key] == count
    assert dict(again.names.keys) == dict(read.names.keys)
    assert again.names.counters == tuple(sorted(read.names.counters))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("architecture", sorted(models.ARCHITECTURES))
def test_every_architecture_comes_back_bit_for_bit(architecture, prefix, tmp_path):
    width = models.create(architecture, num_classes=5).minimum_width
    if "resnext" in architecture:
        width = 16  # as many channels inside as groups, or more
    spec = checkpoints.ModelSpec(architecture, 5, width)
    state = {prefix + key: value for key, value in builders.state_dict(spec, 1).items()}
    for index, key in enumerate([key for key in state if "running_mean" in key]):
        counter = key.replace("running_mean", "num_batches_tracked")
        state[counter] = np.asarray(100 + index, np.int64)
    path = tmp_path / "model.safetensors"
    safetensors_numpy.save_file(state, path)
    read, again, back = through(path, tmp_path / "back.safetensors")
    assert again.sha256 == read.sha256
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == value.dtype and back[key].shape == value.shape
        np.testing.assert_array_equal(back[key], value)


def test_a_flax_file_is_told_from_one_of_pytorchs(tmp_path):
    spec = builders.SPEC
    variables = builders.flax_tree(builders.state_dict())
    checkpoints.write_orbax(tmp_path / "flax", variables, spec)
    checkpoints.write_safetensors(tmp_path / "torch.safetensors", variables, spec)
    assert not checkpoints.read(tmp_path / "flax").names.is_torch
    assert checkpoints.read(tmp_path / "torch.safetensors").names.is_torch
    assert set(hashing.flatten(variables)) == {
        ours for ours, _ in checkpoints.read(tmp_path / "flax").names.keys
    }
