"""Networks under Hugging Face's names against its own programs.

`make_hugging_face_goldens` wrote the logits.
"""

import pytest

from ban_jax import checkpoints
from tests.models import parity

GOLDENS = parity.Goldens("hugging_face")
PADDED = ("mobilenet_v2", "efficientnet_b0")
"""Those that were TensorFlow's: shapes do not tell."""
SLOW = ("resnet50",)
"""To compile, and it has no other layers than ResNet18 and torchvision's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hugging_face")


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_recognised_and_written_back_under_its_own_names(case, folder):
    spec = checkpoints.read(GOLDENS.write(case, folder)).spec
    assert (spec.architecture, spec.num_classes) == (case, 5)
    assert (case in PADDED) == ("tf" in spec.create().alike)
    GOLDENS.check_written_back(case, folder)


@pytest.mark.parametrize("case", [one for one in GOLDENS.cases if one not in SLOW])
def test_logits_agree_with_pytorch(case, folder):
    fields = {"stem": "tf"} if case in PADDED else {}
    GOLDENS.check_logits(case, "stored", folder, 64, **fields)
