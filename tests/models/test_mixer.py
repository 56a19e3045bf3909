"""MLP-Mixer against timm; `make_vit_goldens` wrote the logits."""

import pytest

from ban_jax import checkpoints
from tests.models import parity

GOLDENS = parity.Goldens("vit")
CASE = "timm_mlp_mixer"


def test_a_file_is_recognised_and_written_back_under_its_own_names(tmp_path):
    spec = checkpoints.read(GOLDENS.write(CASE, tmp_path)).spec
    assert (spec.architecture, spec.num_classes, spec.width) == ("mlp_mixer", 5, 16)
    inner = {"across": 12, "hidden": 48}
    sizes = {"depth": 2, "image_size": 16, "patch": 4}
    assert dict(spec.further) == {**sizes, **inner}
    GOLDENS.check_written_back(CASE, tmp_path)


def test_logits_agree_with_timm(tmp_path):
    GOLDENS.check_logits(CASE, "stored", tmp_path, 16)


@pytest.mark.parametrize(
    "width, depth, parameters", [(512, 8, 18_528_264), (768, 12, 59_880_472)]
)
def test_full_size_has_the_published_number_of_weights(width, depth, parameters):
    parity.check_full_size("mlp_mixer", parameters, width=width, depth=depth)
