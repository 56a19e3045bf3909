"""Converted PyTorch weights give PyTorch's numbers, in every family and mode.

`tests/testdata/make_goldens.py` says what the files hold.
"""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import checkpoints, models
from ban_jax.checkpoints import hashing, network_search
from tests.testdata import goldens

FAMILIES = ["resnet18", "preact_resnet18", "vgg16", "densenet121"]


@functools.cache
def golden(family):
    """The golden file, the network it was made with, and that network's variables."""
    file = goldens.load(f"forward_{family}")
    settings = file["settings"]
    spec = checkpoints.ModelSpec(
        settings["architecture"], settings["num_classes"], settings["width"]
    )
    flat = {}
    for name, (ours, shape) in network_search.expected(spec).items():
        value = file["weights"][name].reshape(shape)
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
        flat[ours] = jnp.asarray(value.transpose(axes) if axes else value)
    pixels = {key: jnp.asarray(settings[key], jnp.float32) for key in ("mean", "std")}
    variables = hashing.unflatten(flat) | {"normalisation": pixels}
    return file, models.network(spec.create()), variables, spec


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(network, variables, images, mode):
    """Features, logits, and the variables after the whole forward pass."""
    features, variables = network.features(variables, images, mode)
    logits, variables = network.head(variables, features, mode)
    return features, logits, variables


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["stored", "batch", "update"])
def test_features_and_logits_agree_with_pytorch(family, mode):
    file, network, variables, _ = golden(family)
    features, logits, _ = run(network, variables, file["images"], mode)
    reference = "stored" if mode == "stored" else "batch"
    np.testing.assert_allclose(logits, file[f"logits/{reference}"], atol=1e-4)
    expected = file[f"features/{reference}"]
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_updated_statistics_agree_with_pytorch(family):
    file, network, variables, spec = golden(family)
    *_, updated = run(network, variables, file["images"], "update")
    stats = hashing.flatten({"batch_stats": updated["batch_stats"]})
    expected = file["statistics/updated"]
    assert len(stats) == len(expected)
    for name, (ours, _) in network_search.expected(spec).items():
        if ours in stats:
            np.testing.assert_allclose(
                stats[ours], expected[name], rtol=1e-4, atol=1e-5, err_msg=name
            )
    chex.assert_trees_all_equal(updated["params"], variables["params"])
    chex.assert_trees_all_equal(updated["normalisation"], variables["normalisation"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["stored", "batch"])
def test_only_mode_update_writes_statistics(family, mode):
    file, network, variables, _ = golden(family)
    *_, after = run(network, variables, file["images"], mode)
    chex.assert_trees_all_equal(after, variables)
