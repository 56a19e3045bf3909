"""A population gives each member what it would get alone."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import config, detectors, population
from tests import tiny

CONFIG = config.BanConfig(steps=2, mask_steps=3)
SHA = ["%064x" % (7**index) for index in range(5)]


def evidence(members, *, tile, size=None, mode="targeted"):
    size = size or len(members)
    variables = [tiny.variables(member) for member in members]
    keys = [population.identity_key(0, SHA[member]) for member in members]
    stacked = population.run(
        detectors.DETECTORS[mode].detect,
        tiny.NETWORK,
        population.stack(population.pad(variables, size)),
        jnp.stack(population.pad(keys, size)),
        tiny.probe(),
        CONFIG,
        tile=tile,
        count=len(members),
    )
    return population.unstack(stacked, len(members))


@pytest.mark.parametrize("mode", ["targeted", "ban"])
def test_a_member_gets_what_it_gets_alone_whatever_its_neighbours_and_their_order(mode):
    alone = [evidence([member], tile=1, mode=mode)[0] for member in range(3)]
    for members, tile, size in (
        ([0, 1, 2], 1, 3),
        ([2, 0, 1], 1, 3),
        ([2, 0, 1], 1, 4),
    ):
        together = evidence(members, tile=tile, size=size, mode=mode)
        for member, found in zip(members, together, strict=True):
            chex.assert_trees_all_close(found, alone[member], atol=1e-6)


def test_side_by_side_equals_one_after_another():
    chex.assert_trees_all_close(
        evidence([0, 1, 2, 3], tile=4), evidence([0, 1, 2, 3], tile=1), atol=1e-4
    )


def test_a_new_epsilon_compiles_nothing():
    traced = []

    def detect(network, variables, probe, *, key, config):
        traced.append(config)
        return config.epsilon * jnp.sum(variables["params"]["linear"]["kernel"])

    variables = population.stack([tiny.variables()])
    for epsilon in (0.1, 0.2, 0.3):
        population.run(
            detect,
            tiny.NETWORK,
            variables,
            jax.random.split(jax.random.key(0), 1),
            tiny.probe(),
            config.BanConfig(epsilon=epsilon, radii=(epsilon, 1.0)),
            tile=1,
            count=1,
        )
    assert len(traced) == 1


def test_the_key_is_the_seeds_and_the_weights_alone():
    data = jax.random.key_data
    key = population.identity_key(0, SHA[1])
    np.testing.assert_array_equal(data(key), data(population.identity_key(0, SHA[1])))
    for other in (
        population.identity_key(1, SHA[1]),
        population.identity_key(0, SHA[2]),
    ):
        assert not np.array_equal(data(key), data(other))


def test_every_word_of_the_hash_counts():
    base = bytearray(32)
    keys = {
        bytes(jax.random.key_data(population.identity_key(0, base.hex())).tobytes())
    }
    for byte in (0, 5, 31):
        changed = bytearray(base)
        changed[byte] = 1
        key = population.identity_key(0, changed.hex())
        keys.add(bytes(np.asarray(jax.random.key_data(key)).tobytes()))
    assert len(keys) == 4
