"""ResNets, VGGs, DenseNets, Wide ResNets against torchvision, timm and CIFAR programs.

`make_classical_goldens` wrote the logits.
"""

import math

import jax
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from tests.models import drawn, parity

GOLDENS = parity.Goldens("classical")
LIBRARIES = ("torchvision", "timm")
BY_BATCH = ("torchvision_resnet50", "timm_resnet50", "xternalman_wide_resnet")
"""Compared under the statistics of the batch too: compiling is slow."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classical")


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_recognised_and_written_back_under_its_own_names(case, folder):
    spec = checkpoints.read(GOLDENS.write(case, folder)).spec
    program, _, name = case.partition("_")
    assert (spec.architecture, spec.num_classes) == (name, 5)
    wide = program in LIBRARIES and "vgg" not in name
    assert spec.stem == ("imagenet" if wide else "cifar")
    GOLDENS.check_written_back(case, folder)


@pytest.mark.parametrize(
    "case, mode",
    [(case, "stored") for case in GOLDENS.cases]
    + [(case, "batch") for case in BY_BATCH],
)
def test_logits_agree_with_pytorch(case, mode, folder):
    size = 64 if case.startswith(LIBRARIES) else 16
    GOLDENS.check_logits(case, mode, folder, size)


@pytest.mark.parametrize(
    "name, parameters, fields",
    [
        ("resnet50", 25_557_032, {"stem": "imagenet"}),
        ("resnet101", 44_549_160, {"stem": "imagenet"}),
        ("resnet152", 60_192_808, {"stem": "imagenet"}),
        ("wide_resnet50_2", 68_883_240, {"stem": "imagenet"}),
        ("wide_resnet101_2", 126_886_696, {"stem": "imagenet"}),
        ("resnext50_32x4d", 25_028_904, {"stem": "imagenet"}),
        ("resnext101_32x8d", 88_791_336, {"stem": "imagenet"}),
        ("resnext101_64x4d", 83_455_272, {"stem": "imagenet"}),
        ("densenet121", 7_978_856, {"stem": "imagenet"}),
        ("densenet161", 28_681_000, {"stem": "imagenet", "width": 96}),
        ("densenet169", 14_149_480, {"stem": "imagenet"}),
        ("densenet201", 20_013_928, {"stem": "imagenet"}),
        ("vgg11", 132_868_840, {"hidden": 4096}),
        ("vgg13", 133_053_736, {"hidden": 4096}),
        ("vgg16", 138_365_992, {"hidden": 4096}),
        ("vgg19", 143_678_248, {"hidden": 4096}),
        ("vgg11_plain", 132_863_336, {"hidden": 4096}),
        ("vgg16_plain", 138_357_544, {"hidden": 4096}),
        ("vgg19_plain", 143_667_240, {"hidden": 4096}),
    ],
)
def test_the_sizes_that_torchvision_publishes(name, parameters, fields):
    parity.check_full_size(name, parameters, **fields)


@pytest.mark.parametrize(
    "depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_the_sizes_of_the_cifar_resnets_in_their_paper(depth, millions):
    module = models.create(f"resnet{depth}", num_classes=10, width=16, projects=False)
    params = models.abstract_variables(module)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    "blocks, factor, millions", [(4, 10, 36.5), (6, 2, 2.2), (2, 8, 11.0)]
)
def test_the_sizes_of_wide_resnets_in_their_paper(blocks, factor, millions):
    module = models.create(
        "wide_resnet", num_classes=10, width=16, blocks=blocks, factor=factor
    )
    params = models.abstract_variables(module)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_old_files_of_torchvision_have_a_dot_in_a_densenets_names(folder, tmp_path):
    tensors = GOLDENS.state("torchvision_densenet121")
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for name, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    safetensors_numpy.save_file(old, tmp_path / "old.safetensors")
    assert checkpoints.read(tmp_path / "old.safetensors").spec.architecture == (
        "densenet121"
    )


def test_a_resnet18_without_its_shortcuts_is_not_taken_for_one_that_pads(tmp_path):
    shapes = models.architecture.shapes_of(models.create("resnet18", num_classes=5))
    state = {name: drawn.tensor(name, shape) for name, (_, shape) in shapes.items()}
    cut = {name: value for name, value in state.items() if ".shortcut." not in name}
    safetensors_numpy.save_file(cut, tmp_path / "cut.safetensors")
    with pytest.raises(checkpoints.CheckpointError, match=r"layer2\.0\.shortcut"):
        checkpoints.read(tmp_path / "cut.safetensors")


def test_timm_keeps_the_hidden_layers_of_a_vgg_as_convolutions(folder, tmp_path):
    case = "torchvision_vgg11"
    tensors = GOLDENS.state(case)
    for old, new in (
        ("classifier.0", "pre_logits.fc1"),
        ("classifier.3", "pre_logits.fc2"),
        ("classifier.6", "head.fc"),
    ):
        weight = tensors.pop(f"{old}.weight")
        if new != "head.fc":
            side = 7 if new.endswith("fc1") else 1
            weight = weight.reshape(len(weight), -1, side, side)
        tensors[f"{new}.weight"], tensors[f"{new}.bias"] = (
            weight,
            tensors.pop(f"{old}.bias"),
        )
    path, back = tmp_path / "timm.safetensors", tmp_path / "back.safetensors"
    safetensors_numpy.save_file(tensors, path)
    read = checkpoints.read(path)
    assert dict(read.spec.further)["hidden_conv"]
    GOLDENS.check_logits_of(read, case, "stored", 64)
    checkpoints.write_safetensors(back, read.variables, read.spec, names=read.names)
    again = safetensors_numpy.load_file(back)
    assert {n: v.shape for n, v in again.items()} == {
        n: v.shape for n, v in tensors.items()
    }


@pytest.mark.parametrize("width, groups", [(64, 32), (96, 32), (8, 8), (6, 2)])
def test_a_resnet_without_statistics_is_normalised_in_groups(width, groups):
    module = models.create("resnet18", num_classes=5, width=width, normalised_groups=1)
    table = models.architecture.shapes_of(module)
    shapes = {name: shape for name, (_, shape) in table.items()}
    found = models.ARCHITECTURES["resnet18"].fields(shapes)
    assert found["normalised_groups"] == groups


def test_a_note_says_how_many_groups_are_assumed(tmp_path):
    module = models.create("resnet18", num_classes=5, width=2, normalised_groups=2)
    table = models.architecture.shapes_of(module)
    path = tmp_path / "groups.safetensors"
    state = drawn.state({name: shape for name, (_, shape) in table.items()})
    safetensors_numpy.save_file(state, path)
    (note,) = checkpoints.read(path).notes
    assert note.startswith("GroupNorm: 2 groups are assumed")
