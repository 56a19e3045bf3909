"""PyTorch files as PyTorch wrote them, read without it."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import hashing, limits
from tests.checkpoints import builders

EXPECTED = json.loads((builders.TESTDATA / "expected.json").read_text())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_of_each_layout_gives_the_weights_pytorch_saved(name):
    read = checkpoints.read(builders.TESTDATA / name)
    assert read.sha256 == EXPECTED[name]
    assert read.spec == checkpoints.ModelSpec("resnet18", 5, 1)
    assert all(
        leaf.dtype == np.float32 and leaf.flags.c_contiguous
        for leaf in hashing.flatten(read.variables).values()
    )


def test_the_classifier_is_taken_from_its_container():
    containers = {
        name: checkpoints.read(builders.TESTDATA / name).names.container
        for name in EXPECTED
    }
    assert containers == {
        "zip.pt": "model_state_dict",
        "legacy.th": "",
        "bfloat16.pt": "",
        "iad.pth.tar": "netC",
        "attack_result.pt": "model",
        "whole_module.ckpt": "",
        "shared_storage.pt": "net",
    }


def test_recorded_accuracies_are_shares_whatever_the_file_calls_them():
    assert checkpoints.read(
        builders.TESTDATA / "iad.pth.tar"
    ).recorded_accuracy == pytest.approx(0.935)
    assert checkpoints.read(
        builders.TESTDATA / "shared_storage.pt"
    ).recorded_accuracy == pytest.approx(0.8125)


def test_counters_of_normalisation_layers_survive_a_round_trip():
    read = checkpoints.read(builders.TESTDATA / "iad.pth.tar")
    state = checkpoints.to_torch_names(read.variables, read.names)
    assert len(state) == 122
    assert all(name.startswith("module.") for name in state)
    assert state["module.bn1.num_batches_tracked"] == 17


def test_reading_never_imports_torch():
    program = (
        "import sys; from ban_jax import checkpoints; "
        f"checkpoints.read({str(builders.TESTDATA / 'zip.pt')!r}); "
        "assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_hand_built_file_is_read_like_a_real_one(tmp_path):
    state = builders.state_dict()
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state))
    read = checkpoints.read(path)
    back = checkpoints.to_torch_names(read.variables, read.names)
    assert list(back) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)


def test_big_endian_files_are_read(tmp_path):
    state = builders.state_dict()
    storages = {
        str(index): array.astype(">f4").tobytes()
        for index, array in enumerate(state.values())
    }
    data = builders.torch_zip(builders.state_pickle(state), storages)
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    little = checkpoints.read(path).sha256
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/data.pkl", builders.state_pickle(state))
        archive.writestr("m/byteorder", "big")
        for key, content in storages.items():
            archive.writestr(f"m/data/{key}", content)
    path.write_bytes(file.getvalue())
    read = checkpoints.read(path)
    assert read.sha256 != little
    np.testing.assert_array_equal(
        checkpoints.to_torch_names(read.variables)["linear.weight"],
        state["linear.weight"],
    )


def test_double_and_half_precision_become_float32(tmp_path):
    state = builders.state_dict()
    state = {name: array.astype(np.float16) for name, array in state.items()}
    for kind, dtype in (("HalfStorage", np.float16), ("DoubleStorage", np.float64)):
        changed = {
            name: builders.tensor(
                builders.storage(str(index), array.size, kind),
                array.shape,
                builders.contiguous(array.shape),
            )
            for index, (name, array) in enumerate(state.items())
        }
        path = tmp_path / "model.pt"
        wide = {name: array.astype(dtype) for name, array in state.items()}
        path.write_bytes(builders.torch_file(wide, changed))
        back = checkpoints.to_torch_names(checkpoints.read(path).variables)
        for name, array in state.items():
            np.testing.assert_array_equal(back[name], array.astype(np.float32))


def test_weights_that_are_not_finite_are_read(tmp_path):
    state = builders.state_dict()
    state["linear.weight"][0, 0] = np.nan
    state["linear.bias"][1] = np.inf
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state))
    linear = checkpoints.read(path).variables["params"]["linear"]
    assert np.isnan(linear["kernel"][0, 0]) and np.isinf(linear["bias"][1])


def test_integer_weights_are_refused_by_name(tmp_path):
    state = builders.state_dict()
    index = list(state).index("linear.bias")
    changed = {
        "linear.bias": builders.tensor(
            builders.storage(str(index), 5, "IntStorage"), [5], [1]
        )
    }
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state, changed))
    with pytest.raises(checkpoints.CheckpointError, match=r"linear\.bias.*int32"):
        checkpoints.read(path)


def test_large_files_are_mapped_and_read_the_same(monkeypatch):
    monkeypatch.setattr(limits, "READ_WHOLE", 0)
    for name, expected in EXPECTED.items():
        assert checkpoints.read(builders.TESTDATA / name).sha256 == expected


def test_the_weights_are_copies_of_the_files():
    read = checkpoints.read(builders.TESTDATA / "zip.pt")
    for leaf in hashing.flatten(read.variables).values():
        assert leaf.flags.writeable
