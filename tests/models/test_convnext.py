"""ConvNeXt against torchvision and timm; `make_convnext_goldens` wrote the logits."""

import re

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models, perturb
from ban_jax.models import inverted_residual
from tests.models import parity

GOLDENS = parity.Goldens("convnext")
TIMM_TO_AUTHORS = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
    (r"\.blocks\.", "."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)
TIMM_TO_HUGGING_FACE = (
    (r"^stem\.0", "convnext.embeddings.patch_embeddings"),
    (r"^stem\.1", "convnext.embeddings.layernorm"),
    (r"^head\.norm", "convnext.layernorm"),
    (r"^head\.fc", "classifier"),
    (r"^stages\.(\d)\.downsample", r"convnext.encoder.stages.\1.downsampling_layer"),
    (r"^stages\.(\d)\.blocks", r"convnext.encoder.stages.\1.layers"),
    (r"\.norm\.", ".layernorm."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"gamma", "layer_scale_parameter"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("convnext")


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_file_is_recognised_and_written_back_under_its_own_names(case, folder):
    spec = checkpoints.read(GOLDENS.write(case, folder)).spec
    assert (spec.architecture, spec.stem) == (case.partition("_")[2], "imagenet")
    assert (spec.num_classes, spec.width) == (5, 8)
    GOLDENS.check_written_back(case, folder)


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_logits_agree_with_pytorch(case, folder):
    GOLDENS.check_logits(case, "stored", folder, 32)


@pytest.mark.parametrize("rules", [TIMM_TO_AUTHORS, TIMM_TO_HUGGING_FACE])
def test_other_programs_names_are_the_same_network(rules, folder, tmp_path):
    renamed = {}
    for name, value in GOLDENS.state("timm_convnext").items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    safetensors_numpy.save_file(renamed, tmp_path / "other.safetensors")
    read = checkpoints.read(tmp_path / "other.safetensors")
    same = checkpoints.read(GOLDENS.write("timm_convnext", folder))
    assert (read.spec, read.sha256) == (same.spec, same.sha256)


def test_every_layer_norm_and_layer_scale_takes_noise_per_channel(folder):
    variables = checkpoints.read(
        GOLDENS.write("torchvision_convnext_tiny", folder)
    ).variables
    chosen = perturb.neurons(variables)
    assert {leaf.ndim for leaf in chosen.values()} == {1}
    scales = [path for path in chosen if path.endswith("/scale")]
    # 18 blocks with a norm and a layer scale each; stem, three between stages, the head.
    assert len(scales) == 2 * 18 + 5
    assert sum("layer_scale" in path for path in scales) == 18


def test_a_kernel_of_another_size_is_named(folder, tmp_path):
    tensors = GOLDENS.state("timm_convnext")
    tensors["stem.0.weight"] = np.zeros((8, 3, 3, 3), np.float32)
    safetensors_numpy.save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(checkpoints.CheckpointError, match="3x3, known are"):
        checkpoints.read(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("convnext_tiny", 28_589_128),
        ("convnext_small", 50_223_688),
        ("convnext_base", 88_591_464),
    ],
)
def test_full_size_has_the_published_number_of_weights_and_is_known(name, parameters):
    parity.check_full_size(name, parameters, stem="imagenet")


def test_images_too_small_for_the_last_stage_are_refused():
    module = models.create("convnext", num_classes=3, width=4)
    assert module.minimum_size == 8
    with pytest.raises(ValueError, match="at least 8x8"):
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 4, 4, 3)))


def test_it_learns_on_images_of_eight_pixels():
    module = models.create("convnext", num_classes=2, width=4, blocks=(1, 1))
    images = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype(np.float32)
    labels = np.arange(8) % 2
    variables = jax.jit(module.init)(jax.random.key(0), images)

    def loss(params):
        logits = module.apply({**variables, "params": params}, images)
        return perturb.weighted_cross_entropy(logits, labels, np.ones(8, np.float32))

    both = jax.jit(jax.value_and_grad(loss))
    before, gradient = both(variables["params"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    step = jax.tree.map(lambda a, b: a - 0.1 * b, variables["params"], gradient)
    assert both(step)[0] < before


def test_the_gradient_of_a_large_depthwise_kernel_is_autodiffs():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 2, 3, 2, 2)).astype(np.float32)
    kernel = rng.normal(size=(7, 7, 1, 2)).astype(np.float32)
    layer = inverted_residual.Depthwise(7, 1, False)

    @jax.jit
    def gradients(x, kernel):
        def ours(x, kernel):
            return (weights * layer.apply({"params": {"kernel": kernel}}, x)).sum()

        def plain(x, kernel):
            return (weights * inverted_residual._filtered(x, kernel, 1, False)).sum()

        return [jax.grad(one, (0, 1))(x, kernel) for one in (ours, plain)]

    ours, autodiffs = gradients(x, kernel)
    for one, other in zip(ours, autodiffs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
