"""MobileNetV2, MobileNetV3 and EfficientNet against torchvision and timm.

`make_mobile_goldens` wrote the logits.
"""

import pytest

from ban_jax import checkpoints, models
from tests.models import parity

GOLDENS = parity.Goldens("mobile")
BY_BATCH = (
    "kuangliu_mobilenet_v2",
    "tf_mobilenet_v3_small",
    "torchvision_efficientnet_b0",
    "torchvision_mobilenet_v2",
    "torchvision_mobilenet_v3_large",
)
"""Compared under the statistics of the batch too: one of each kind, compiling is slow."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mobile")


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_recognised_by_names_and_shapes(case, folder):
    spec = checkpoints.read(GOLDENS.write(case, folder)).spec
    assert case.endswith(spec.architecture)
    stem = {"kuangliu": "cifar", "torchvision": "imagenet"}
    program = case.partition("_")[0]
    hidden_conv = program in ("timm", "tf") and "v3" in case
    assert spec.stem == stem.get(program, "timm" if hidden_conv else "imagenet")
    assert spec.num_classes == 5


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_written_back_under_its_own_names(case, folder):
    GOLDENS.check_written_back(case, folder)


@pytest.mark.parametrize(
    "case, mode",
    [(case, "stored") for case in GOLDENS.cases]
    + [(case, "batch") for case in BY_BATCH],
)
def test_logits_agree_with_pytorch(case, mode, folder):
    fields = {"stem": "tf"} if case.startswith("tf_") else {}
    size = 32 if case.startswith("kuangliu") else 64
    GOLDENS.check_logits(case, mode, folder, size, **fields)


def test_every_program_that_looks_alike_can_be_tried(folder):
    path = GOLDENS.write("tf_efficientnet_b0", folder)
    module = checkpoints.read(path).spec.create()
    assert "tf" in module.alike and module.stem in module.alike
    shapes = models.architecture.shapes_of(module)
    for stem in module.alike:
        assert models.architecture.shapes_of(module.clone(stem=stem)) == shapes


def test_a_note_says_what_is_assumed_of_the_stem(folder):
    notes = {
        case: checkpoints.read(GOLDENS.write(case, folder)).notes
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
    parity.check_full_size(name, parameters, stem="imagenet")
