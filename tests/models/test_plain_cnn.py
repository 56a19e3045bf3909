"""Networks of tutorials against PyTorch; `make_plain_goldens` wrote the logits."""

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from ban_jax.checkpoints import stem_notes
from ban_jax.models import plain_names
from ban_jax.scanning import fitness
from tests.models import parity

GOLDENS = parity.Goldens("plain")
LAYOUTS = {
    "named": "bare",
    "normalised": "padded_stride",
    "sequential": "padded_second",
}


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_recognised_and_written_back_under_its_own_names(case, tmp_path):
    spec = checkpoints.read(GOLDENS.write(case, tmp_path)).spec
    assert (spec.architecture, spec.num_classes, spec.width) == ("plain_cnn", 5, 4)
    assert dict(spec.further)["side"] == {"named": 2, "sequential": 4}.get(case, 1)
    GOLDENS.check_written_back(case, tmp_path)


@pytest.mark.parametrize(
    "case, mode",
    [*((case, "stored") for case in GOLDENS.cases), ("normalised", "batch")],
)
def test_logits_agree_with_pytorch(case, mode, tmp_path):
    GOLDENS.check_logits(case, mode, tmp_path, 16, stem=LAYOUTS[case])


@pytest.mark.parametrize("case", ["named", "sequential"])
def test_of_all_layouts_those_are_tried_that_make_the_map_of_the_linear_layer(
    case, tmp_path
):
    module = checkpoints.read(GOLDENS.write(case, tmp_path)).spec.create()
    fitting = [
        stem for stem in module.alike if not module.clone(stem=stem).misfit(16, 16)
    ]
    assert fitting == [LAYOUTS[case]]


def test_a_note_says_which_layout_was_taken(tmp_path):
    module = checkpoints.read(GOLDENS.write("named", tmp_path)).spec.create()
    note = stem_notes.tried(module, {"bare": 1.0})
    assert note == (
        "padding and pooling: no padding and 2x2 max pooling behind each convolution is "
        "the one that suits images of this size"
    )
    assert stem_notes.is_one(note)


def test_images_of_which_no_layout_makes_the_map_are_refused(tmp_path):
    spec = checkpoints.read(GOLDENS.write("named", tmp_path)).spec
    assert spec.stem == "bare"  # of images of 16 pixels, a usual size
    assert fitness.wrong_size(spec, (16, 16)) == ""
    assert "takes a map of 2x2" in fitness.wrong_size(spec, (32, 32))
    assert "of 16x20 pixels" in fitness.wrong_size(spec, (16, 20))


def test_lenet_takes_the_images_it_was_made_for():
    part = plain_names.Part
    parts = (part("conv", 6, 5), part("conv", 16, 5), part("linear", 120, 0))
    module = models.create(
        "plain_cnn", num_classes=10, width=6, parts=parts, side=5, stem="lenet"
    )
    assert not module.misfit(28, 28) and not module.misfit(29, 29)
    assert not module.clone(stem="bare").misfit(32, 32)
    assert module.misfit(32, 32) and module.exact_size == 28


@pytest.mark.parametrize(
    "change",
    [
        {"conv2.weight": (6, 5, 3, 3)},
        {"conv2.weight": (6, 4, 3, 5)},
        {"fc1.weight": (12, 23)},
        {"fc1.weight": (12, 6 * 3)},
        {"fc2.weight": (8, 11)},
        {"fc3.bias": (4,)},
        {"norm.weight": (6,), "norm.bias": (6,)},
    ],
)
def test_layers_that_do_not_follow_each_other_are_no_such_network(change, tmp_path):
    state = GOLDENS.state("named")
    state |= {name: np.ones(shape, np.float32) for name, shape in change.items()}
    path = tmp_path / "other.safetensors"
    safetensors_numpy.save_file(state, path)
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.read(path)


def test_pixel_constants_beside_such_a_network_are_taken(tmp_path):
    constants = {name: np.full(3, 0.5, np.float32) for name in ("mean", "std")}
    path = tmp_path / "constants.safetensors"
    safetensors_numpy.save_file({**GOLDENS.state("named"), **constants}, path)
    read = checkpoints.read(path)
    assert read.spec.architecture == "plain_cnn"
    assert read.normalisation == ((0.5,) * 3, (0.5,) * 3)
