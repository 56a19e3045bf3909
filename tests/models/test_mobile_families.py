"""MobileNetV2, MobileNetV3 and EfficientNet against torchvision and timm.

`make_mobile_goldens` wrote the logits; weights are drawn from names and shapes.
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

GOLDENS = np.load(pathlib.Path(__file__).parent / "testdata" / "mobile.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDENS})
BY_BATCH = (
    "kuangliu_mobilenet_v2",
    "tf_mobilenet_v3_small",
    "torchvision_efficientnet_b0",
    "torchvision_mobilenet_v2",
    "torchvision_mobilenet_v3_large",
)
"""Compared under the statistics of the batch too: one of each kind, compiling is slow."""


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
    return tmp_path_factory.mktemp("mobile")


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_recognised_by_names_and_shapes(case, folder):
    path, _ = written(case, folder)
    spec = checkpoints.read(path).spec
    assert case.endswith(spec.architecture)
    stem = {"kuangliu": "cifar", "torchvision": "imagenet"}
    program = case.partition("_")[0]
    hidden_conv = program in ("timm", "tf") and "v3" in case
    assert spec.stem == stem.get(program, "timm" if hidden_conv else "imagenet")
    assert spec.num_classes == 5


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_written_back_under_its_own_names(case, folder, tmp_path):
    path, tensors = written(case, folder)
    read = checkpoints.read(path)
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
    fields = {"stem": "tf"} if case.startswith("tf_") else {}
    module = read.spec.create()
    module = module.clone(**fields) if fields else module
    small = GOLDENS[f"{case}/images"]
    times = 4 if case.startswith("kuangliu") else 8
    images = small.repeat(times, axis=1).repeat(times, axis=2) / np.float32(255)
    logits = logits_of(module, read.variables, images, mode)
    expected = GOLDENS[f"{case}/{mode}"]
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * largest)


def test_every_program_that_looks_alike_can_be_tried(folder):
    path, _ = written("tf_efficientnet_b0", folder)
    module = checkpoints.read(path).spec.create()
    assert "tf" in module.alike and module.stem in module.alike
    shapes = models.architecture.shapes_of(module)
    for stem in module.alike:
        assert models.architecture.shapes_of(module.clone(stem=stem)) == shapes


def test_a_note_says_what_is_assumed_of_the_stem(folder):
    notes = {
        case: checkpoints.read(written(case, folder)[0]).notes
        for case in ("torchvision_efficientnet_b0", "kuangliu_mobilenet_v2")
    }
    assumed = "3x3 stem: stride 2, epsilon 0.00001 is assumed"
    assert assumed in notes["torchvision_efficientnet_b0"]
    assert not notes["kuangliu_mobilenet_v2"]


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("mobilenet_v2", 3_504_872),
        ("mobilenet_v3_small", 2_542_856),
        ("mobilenet_v3_large", 5_483_032),
        ("efficientnet_b0", 5_288_548),
        ("efficientnet_b1", 7_794_184),
        ("efficientnet_b2", 9_109_994),
        ("efficientnet_b3", 12_233_232),
    ],
)
def test_full_size_has_the_published_number_of_weights_and_is_known(name, parameters):
    module = models.create(name, num_classes=1000, stem="imagenet")
    params = models.abstract_variables(module)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == parameters
    table = models.architecture.shapes_of(module)
    shapes = {name: shape for name, (_, shape) in table.items()}
    known = [
        other
        for other, architecture in models.ARCHITECTURES.items()
        if architecture.difference(shapes) is None
    ]
    assert known == [name]
    fields = models.ARCHITECTURES[name].fields(shapes)
    assert models.create(name, **fields) == module
