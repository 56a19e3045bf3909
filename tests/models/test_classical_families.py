"""ResNets, VGGs, DenseNets and Wide ResNets against torchvision and CIFAR programs.

`make_classical_goldens` wrote the logits; weights are drawn from names and shapes.
"""

import functools
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from tests.models import drawn_mobile

GOLDENS = np.load(pathlib.Path(__file__).parent / "testdata" / "classical.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDENS})
BY_BATCH = ("torchvision_resnet50", "xternalman_wide_resnet")
"""Compared under the statistics of the batch too: compiling is slow."""


@functools.cache
def written(case, folder):
    """A file of the program the case is named after, and its tensors."""
    shapes = json.loads(str(GOLDENS[f"{case}/shapes"]))
    tensors = {name: drawn_mobile.tensor(name, shape) for name, shape in shapes.items()}
    path = folder / f"{case}.safetensors"
    safetensors_numpy.save_file(tensors, path)
    return path, tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classical")


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_recognised_and_written_back_under_its_own_names(
    case, folder, tmp_path
):
    path, tensors = written(case, folder)
    read = checkpoints.read(path)
    program, _, name = case.partition("_")
    assert (read.spec.architecture, read.spec.num_classes) == (name, 5)
    wide = program == "torchvision" and "vgg" not in name
    assert read.spec.stem == ("imagenet" if wide else "cifar")
    back = tmp_path / "back.safetensors"
    checkpoints.write_safetensors(back, read.variables, read.spec, names=read.names)
    again = safetensors_numpy.load_file(back)
    assert again.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


@functools.partial(jax.jit, static_argnums=(0, 3))
def logits_of(module, variables, images, mode):
    identity = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    return module.apply({**variables, "normalisation": identity}, images, mode)


@pytest.mark.parametrize(
    "case, mode",
    [(case, "stored") for case in CASES] + [(case, "batch") for case in BY_BATCH],
)
def test_logits_agree_with_pytorch(case, mode, folder):
    path, _ = written(case, folder)
    read = checkpoints.read(path)
    times = 8 if case.startswith("torchvision") else 2
    small = GOLDENS[f"{case}/images"]
    images = small.repeat(times, axis=1).repeat(times, axis=2) / np.float32(255)
    logits = logits_of(read.spec.create(), read.variables, images, mode)
    expected = GOLDENS[f"{case}/{mode}"]
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * largest)


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
    module = models.create(name, num_classes=1000, **fields)
    params = models.abstract_variables(module)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == parameters


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
    _, tensors = written("torchvision_densenet121", folder)
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for name, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    safetensors_numpy.save_file(old, tmp_path / "old.safetensors")
    assert checkpoints.read(tmp_path / "old.safetensors").spec.architecture == (
        "densenet121"
    )
