"""Vision Transformers against torchvision, timm and Hugging Face's transformers.

`make_vit_goldens` wrote the logits.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, data, models, perturb
from ban_jax.models import patches
from ban_jax.scanning import fitness
from ban_jax.training import api
from tests.models import parity

GOLDENS = parity.Goldens("vit")
CASES = [case for case in GOLDENS.cases if case.endswith("vit")]
SIZE = 16
HEADS = {"timm": 4, "averaged": 4, "classless": 4, "unplaced": 4, "distilled": 1}
"""Of each case's network; two where it is not told."""
TOLD = {
    "averaged_vit": {"averaged": True, "hidden": 32},
    "classless_vit": {"class_token": False, "scaled": True},
    "distilled_vit": {"distilled": True},
    "unplaced_vit": {"placed": False},
    "transformers_vit": {"apart": True, "hidden": 24},
    "transformers_deit_vit": {"apart": True, "hidden": 24, "distilled": True},
    "torchvision_vit": {"hidden": 24},
}
"""What is recognised besides sizes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vit")


def stem_of(module, heads):
    """The stem under which a network has so many attention heads."""
    return next(stem for stem in module.alike if module.heads(stem) == heads)


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_recognised_and_written_back_under_its_own_names(case, folder):
    spec = checkpoints.read(GOLDENS.write(case, folder)).spec
    assert (spec.architecture, spec.num_classes, spec.width) == ("vit", 5, 16)
    sizes = {"depth": 2, "image_size": SIZE, "patch": 4}
    assert dict(spec.further) == {**sizes, **TOLD.get(case, {})}
    GOLDENS.check_written_back(case, folder)


FIVE = (
    (".encoder.layer.", ".layers."),
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)
"""Names of transformers before version 5, and in the memory of those since."""


@pytest.mark.parametrize("case", ["transformers_vit", "transformers_deit_vit"])
def test_names_of_transformers_5_are_the_same_network(case, folder, tmp_path):
    def new(name):
        return functools.reduce(lambda name, pair: name.replace(*pair), FIVE, name)

    old = GOLDENS.state(case)
    tensors = {new(name): value for name, value in old.items()}
    assert len(tensors) == len(old) and not tensors.keys() & {
        name for name in old if ".encoder." in name
    }
    path = tmp_path / "five.safetensors"
    safetensors_numpy.save_file(tensors, path)
    found, known = (checkpoints.read(p) for p in (path, GOLDENS.write(case, folder)))
    assert found.spec == known.spec
    assert all(
        np.array_equal(one, other)
        for one, other in zip(
            jax.tree.leaves(found.variables),
            jax.tree.leaves(known.variables),
            strict=True,
        )
    )


@pytest.mark.parametrize("case", CASES)
def test_logits_agree_with_pytorch(case, folder):
    module = checkpoints.read(GOLDENS.write(case, folder)).spec.create()
    heads = HEADS.get(case.partition("_")[0], 2)
    GOLDENS.check_logits(case, "stored", folder, SIZE, stem=stem_of(module, heads))


def test_names_of_old_files_of_torchvision_are_known(folder, tmp_path):
    tensors = {
        name.replace("mlp.0.", "mlp.linear_1.").replace(
            "mlp.3.", "mlp.linear_2."
        ): value
        for name, value in GOLDENS.state("torchvision_vit").items()
    }
    safetensors_numpy.save_file(tensors, tmp_path / "old.safetensors")
    old = checkpoints.read(tmp_path / "old.safetensors")
    new = checkpoints.read(GOLDENS.write("torchvision_vit", folder))
    assert old.sha256 == new.sha256


@pytest.mark.parametrize("width, parameters", [(192, 5_717_416), (768, 86_567_656)])
def test_full_size_has_the_published_number_of_weights_and_is_known(width, parameters):
    parity.check_full_size("vit", parameters, width=width)


def test_heads_of_published_sizes_are_known_and_of_others_are_tried(folder):
    tiny = models.create("vit", num_classes=1000, width=192)
    assert not tiny.alike and tiny.heads(tiny.stem) == 3
    read = checkpoints.read(GOLDENS.write("timm_vit", folder))
    module = read.spec.create()
    assert [module.heads(stem) for stem in module.alike] == [1, 2, 4]
    assert "attention heads: 1 of 16 channels is assumed" in read.notes


def test_noise_acts_on_the_normalisations_alone():
    module = models.create(
        "vit", num_classes=5, width=8, depth=1, image_size=8, patch=4
    )
    chosen = perturb.neurons(models.abstract_variables(module))
    layers = ("blocks_0/norm1", "blocks_0/norm2", "norm")
    assert set(chosen) == {
        f"{one}/{leaf}" for one in layers for leaf in ("scale", "bias")
    }


def test_noise_changes_the_logits_and_nothing_else_of_the_weights():
    module = models.create(
        "vit", num_classes=5, width=8, depth=1, image_size=8, patch=4
    )
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    noise = perturb.init_noise(jax.random.key(1), variables, 0.5)
    noisy = perturb.apply_noise(variables, noise)
    kernels = [
        one["params"]["blocks_0"]["attn"]["qkv"]["kernel"] for one in (variables, noisy)
    ]
    assert kernels[0] is kernels[1]
    apply = jax.jit(module.apply)
    plain, moved = apply(variables, images), apply(noisy, images)
    assert not np.allclose(plain, moved, atol=1e-3)


def test_images_of_another_size_are_refused():
    module = models.create("vit", num_classes=5, width=8, image_size=8, patch=4)
    with pytest.raises(ValueError, match="8x8 pixels alone, got 16x16"):
        models.abstract_variables(module, 16)
    with pytest.raises(ValueError, match="patches of 5 and images of 8"):
        models.create("vit", num_classes=5, image_size=8, patch=5)


@pytest.mark.parametrize("side, patch", [(8, 2), (28, 4), (32, 4), (64, 8), (224, 16)])
def test_patches_of_a_network_to_be_trained_suit_the_images(side, patch):
    spec = checkpoints.ModelSpec.for_images("vit", 10, 32, (side, side, 3))
    assert dict(spec.further) == {"image_size": side, "patch": patch}


def test_positions_of_no_square_of_patches_are_told(tmp_path):
    tensors = GOLDENS.state("timm_vit")
    tensors["pos_embed"] = tensors["pos_embed"][:, :15].copy()
    safetensors_numpy.save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(checkpoints.CheckpointError, match=r"shape \(1, 15, 16\)"):
        checkpoints.read(tmp_path / "odd.safetensors")


def test_one_that_was_trained_here_is_recognised(monkeypatch, tmp_path):
    family = models.ARCHITECTURES["vit"]
    shallow = functools.partial(family.constructor, depth=1)
    changed = dataclasses.replace(family, constructor=shallow)
    monkeypatch.setitem(models.ARCHITECTURES._things, "vit", changed)
    images = data.load("digits", split="test", num=64)
    (trained,) = api.train(
        images, images, architecture="vit", width=4, epochs=1, batch_size=32
    )
    spec = checkpoints.ModelSpec.for_images("vit", 10, 4, images.image_shape)
    path = tmp_path / "model.safetensors"
    checkpoints.write_safetensors(path, trained.variables, spec)
    read = checkpoints.read(path)
    assert dict(read.spec.further) == {"image_size": 8, "patch": 2, "depth": 1}
    assert np.isfinite(trained.loss)


@pytest.mark.parametrize("name", ["vit", "mlp_mixer"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_features_and_logits_are_float32_whatever_the_precision(name, precision):
    module = models.create(
        name,
        num_classes=5,
        width=8,
        depth=2,
        image_size=8,
        patch=4,
        precision=precision,
    )
    variables = models.abstract_variables(module)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    network = models.network(module)
    for kind, shape in ((network.features, (2, 1, 1, 8)), (network.logits, (2, 5))):
        made, _ = jax.eval_shape(
            lambda v, x, kind=kind: kind(v, x, "stored"), variables, images
        )
        assert (made.shape, made.dtype) == (shape, np.float32)


def test_a_scan_says_which_size_of_images_a_file_takes():
    spec = checkpoints.ModelSpec.for_images("vit", 10, 8, (16, 16, 3))
    assert not fitness.wrong_size(spec, (16, 16))
    assert "16x16 pixels alone" in fitness.wrong_size(spec, (32, 32))
    assert "--image-size 16" in fitness.wrong_size(spec, (32, 32))


def test_gelu_is_the_exact_one_not_the_approximation():
    x = np.linspace(-3, 3, 13, dtype=np.float32)[:, None]
    one = {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    mlp = patches.Mlp(1, 1, "float32")
    y = jax.jit(mlp.apply)({"params": {"fc1": one, "fc2": one}}, x)
    exact = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x[:, 0].tolist()]
    np.testing.assert_allclose(y[:, 0], exact, atol=1e-6)
