"""State dicts in memory are read as files of the same tensors are."""

import collections
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import checkpoints
from tests.checkpoints import builders


class Tensor:
    """What of a PyTorch tensor is asked for: `detach().cpu().numpy()`."""

    def __init__(self, array, steps=()):
        self.array, self.steps = array, steps
        self.dtype = f"torch.{array.dtype.name}"

    def detach(self):
        return Tensor(self.array, (*self.steps, "detach"))

    def cpu(self):
        return Tensor(self.array, (*self.steps, "cpu"))

    def float(self):
        return Tensor(self.array.astype(np.float32), self.steps)

    def numpy(self):
        assert self.steps == ("detach", "cpu"), "on a device, or part of a graph"
        if self.array.dtype == ml_dtypes.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.fixture
def in_file(tmp_path):
    def read(state):
        path = tmp_path / "model.pt"
        path.write_bytes(builders.torch_file(state))
        return checkpoints.read(path)

    return read


@pytest.mark.parametrize(
    "make", [np.asarray, jnp.asarray, Tensor], ids=["numpy", "jax", "torch"]
)
def test_the_same_tensors_have_the_hash_of_their_file(make, in_file):
    state = builders.state_dict()
    state["bn1.num_batches_tracked"] = np.asarray(7, np.int64)
    loaded = collections.OrderedDict((k, make(v)) for k, v in state.items())
    del loaded["bn1.num_batches_tracked"]
    found = checkpoints.read_state_dict(loaded)
    expected = in_file(state)
    assert (found.sha256, found.spec) == (expected.sha256, expected.spec)
    assert found.names.keys == expected.names.keys
    assert found.path == "state dict in memory"
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)


@pytest.mark.parametrize(
    "make", [np.asarray, jnp.asarray, Tensor], ids=["numpy", "jax", "torch"]
)
def test_bfloat16_is_read_as_the_numbers_it_stands_for(make):
    state = {
        name: value.astype(ml_dtypes.bfloat16)
        for name, value in builders.state_dict().items()
    }
    found = checkpoints.read_state_dict({k: make(v) for k, v in state.items()})
    wide = {name: value.astype(np.float32) for name, value in state.items()}
    assert found.sha256 == checkpoints.read_state_dict(wide).sha256
    assert found.variables["params"]["conv1"]["kernel"].dtype == np.float32


def test_a_loaded_checkpoint_around_the_state_dict_is_looked_into():
    state = builders.state_dict()
    found = checkpoints.read_state_dict(
        {"state_dict": {f"module.{k}": v for k, v in state.items()}, "clean_acc": 91.0}
        | {"optimizer": [1, (2, None)], "key": jax.random.key(0), "who": np.array("me")}
    )
    assert found.sha256 == checkpoints.read_state_dict(state).sha256
    assert found.names.container == "state_dict"
    assert found.recorded_accuracy == pytest.approx(0.91)


def test_flax_collections_are_read_too():
    state = builders.state_dict()
    tree = builders.flax_tree(state)
    found = checkpoints.read_state_dict(tree)
    assert found.sha256 == checkpoints.read_state_dict(state).sha256


def test_the_arrays_are_copies():
    state = builders.state_dict()
    found = checkpoints.read_state_dict(state)
    before = found.variables["params"]["conv1"]["kernel"].copy()
    state["conv1.weight"][:] = 7
    np.testing.assert_array_equal(found.variables["params"]["conv1"]["kernel"], before)


def test_nothing_beside_the_working_folder_is_taken_for_its_remarks(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.json").write_text("not json")
    assert checkpoints.read_state_dict(builders.state_dict()).notes == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bn1.bias": None}, "1 missing: bn1.bias"),
        ({"linear.bias": np.ones(7, np.float32)}, "should be (5,), is (7,)"),
        ({"linear.bias": np.ones(5, np.int32)}, "should be floating point, is int32"),
        (
            {"linear.bias": np.ones(5, np.complex64)},
            "should be floating point, is complex64",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, words):
    state = {**builders.state_dict(), **changes}
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.read_state_dict(state)
    assert words in str(caught.value)
    assert str(caught.value).startswith("state dict in memory: ")


def test_an_unknown_network_lists_what_was_found_and_what_is_known():
    state = {"a.weight": np.ones((3, 4)), "a.bias": np.ones(3)}
    with pytest.raises(checkpoints.CheckpointError, match="'a.weight' \\(3, 4\\)"):
        checkpoints.read_state_dict(state)
    with pytest.raises(checkpoints.CheckpointError, match="known: convnext, "):
        checkpoints.read_state_dict(state, architecture="resnet19")
    with pytest.raises(checkpoints.CheckpointError, match="holds no named tensors"):
        checkpoints.read_state_dict({})


def test_torch_is_not_imported():
    code = (
        "import sys; from ban_jax import checkpoints; from ban_jax.models import "
        "adapters; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
