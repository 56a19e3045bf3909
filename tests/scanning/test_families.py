"""A folder of everything: one file of each family, in every format, from weights alone."""

import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, cli, records
from tests.checkpoints import builders

FAMILIES = {
    "convnext": {"width": 4},
    "densenet121": {"width": 2},
    "efficientnet_b0": {"width": 8},
    "mlp_mixer": {"width": 8, "depth": 2, "patch": 4, "image_size": 32},
    "mobilenet_v2": {"width": 8},
    "mobilenet_v3_small": {"width": 8},
    "plain_cnn": {"width": 2},
    "preact_resnet18": {"width": 2},
    "resnet18": {"width": 2},
    "resnet20": {"width": 2},
    "resnet50": {"width": 2, "stem": "imagenet"},
    "resnext50_32x4d": {"width": 16, "stem": "imagenet"},
    "vgg11": {"width": 2},
    "vgg11_plain": {"width": 2},
    "vit": {"width": 8, "depth": 2, "patch": 4, "image_size": 32},
    "wide_resnet": {"width": 2},
    "wide_resnet50_2": {"width": 2, "stem": "imagenet"},
}
"""Name -> the fields of a small one."""
SUFFIXES = (".pt", ".pth", ".safetensors", ".npz", ".msgpack")


def write(folder, name: str, suffix: str) -> None:
    """A file of random weights; Flax's formats under our names, the others PyTorch's."""
    spec = checkpoints.ModelSpec.of(name, num_classes=5, **FAMILIES[name])
    state = builders.state_dict(spec)
    path = folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        safetensors_numpy.save_file(state, path)
    elif suffix in (".pt", ".pth"):
        path.write_bytes(builders.torch_file(state))
    elif suffix == ".npz":
        np.savez(
            path, **traverse_util.flatten_dict(builders.flax_tree(state, spec), sep="/")
        )
    else:
        path.write_bytes(serialization.to_bytes(builders.flax_tree(state, spec)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("families")
    for index, name in enumerate(FAMILIES):
        write(made, name, SUFFIXES[index % len(SUFFIXES)])
    return made


def test_every_file_of_a_folder_of_all_families_is_recognised(folder, tmp_path):
    cli.main(["scan", str(folder), "--mode", "weights", "--out", str(tmp_path / "o")])
    lines = records.load(tmp_path / "o" / "results.jsonl").records
    assert len(lines) == len(FAMILIES)
    found = {line["path"].rpartition("/")[2]: line for line in lines}
    assert [line["error"] for line in lines if line["error"]] == []
    named = {path.partition(".")[0]: line for path, line in found.items()}
    assert {name: line["architecture"] for name, line in named.items()} == {
        name: name for name in FAMILIES
    }
