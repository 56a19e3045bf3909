"""Training on eight devices: each model is what it is when trained alone."""

import os
import subprocess
import sys

import jax

CODE = """
import chex, jax, numpy as np
from ban_jax import models, population
from tests import test_train_population as alone
from tests import tiny

models.network = lambda module: tiny.NETWORK
assert len(jax.devices()) == 8
one = population.Placement(tuple(jax.devices()[:1]), stacked=False)
five = alone.EIGHT[:5]
expected = [model for plan in five for model in alone.train_tiny([plan], placement=one)]
assert population.default_placement().devices == tuple(jax.devices())
for stacked in (False, True):
    placement = population.Placement(tuple(jax.devices()), stacked)
    found = alone.train_tiny(five, placement=placement, chunk=1)
    alone.assert_as_alone(found, expected, 1e-5)
    for here, there in zip(found, expected):
        chex.assert_trees_all_close(here.attack, there.attack, atol=1e-5)
        np.testing.assert_allclose(here.metrics, there.metrics, atol=1e-6)
print("eight devices agree")
"""


def test_a_population_on_eight_devices_agrees_with_each_model_trained_alone():
    """Tolerance: ten steps of rounding, on weights of size one."""
    process = subprocess.run(
        [sys.executable, "-c", CODE],
        env={
            **os.environ,
            "JAX_NUM_CPU_DEVICES": "8",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    assert "eight devices agree" in process.stdout
    assert "donated" not in process.stdout, process.stdout
