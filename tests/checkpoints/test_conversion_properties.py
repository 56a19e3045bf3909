"""Names and layouts there and back, whatever wrapper put a prefix before every name."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ban_jax import checkpoints, models

ARCHITECTURES = ("densenet121", "preact_resnet18", "resnet18", "resnet34", "vgg16")


@functools.cache
def shapes(architecture, width, channels):
    spec = checkpoints.ModelSpec(architecture, 5, width, channels)
    variables = dict(models.abstract_variables(spec.create()))
    del variables["normalisation"]
    return spec, variables


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    width=st.sampled_from((4, 8)),
    channels=st.sampled_from((1, 3)),
    prefix=st.sampled_from(("", "module.", "model.module.", "_orig_mod.")),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_state_dict_is_read_to_the_very_weights_it_was_made_of(
    architecture, width, channels, prefix, seed
):
    spec, abstract = shapes(architecture, width, channels)
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract
    )
    state = checkpoints.to_torch_names(variables)
    found = checkpoints.read_state_dict(
        {prefix + name: array for name, array in state.items()}
    )
    assert found.spec == spec
    assert found.sha256 == checkpoints.weights_hash(variables)
    back = checkpoints.to_torch_names(found.variables, found.names)
    assert list(back) == [prefix + name for name in state]
    for name, array in state.items():
        np.testing.assert_array_equal(back[prefix + name], array)


def test_another_layout_is_another_model():
    """The hash sees what a wrong transposition would do."""
    spec, abstract = shapes("resnet18", 4, 3)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract)
    state = checkpoints.to_torch_names(ones)
    state["linear.weight"] = state["linear.weight"].T
    with pytest.raises(checkpoints.CheckpointError, match=r"linear"):
        checkpoints.read_state_dict(state)
