"""A population gives each member what it would get alone."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from ban_jax import detectors, population
from ban_jax.detectors import ban, targeted
from ban_jax.population import programs
from tests import tiny

CONFIGS = {
    "targeted": targeted.Settings(steps=2, radii=(1.0,)),
    "ban": ban.Settings(steps=2, restarts=1, mask_steps=2, radii=(1.0,)),
}
SHA = ["%064x" % (7**index) for index in range(5)]


def evidence(seeds, *, mode="targeted", placement=tiny.ONE_ON_THREADS, size=None):
    function = tiny.examiner(detectors.DETECTORS[mode].detect)
    members = [tiny.member(seed) for seed in seeds]
    return population.run(
        function, placement, members, tiny.common(CONFIGS[mode]), size or len(seeds)
    )


@pytest.mark.parametrize("mode", ["targeted", "ban"])
def test_a_member_gets_what_it_gets_alone_whatever_its_neighbours_and_their_order(mode):
    alone = [evidence([seed], mode=mode)[0] for seed in range(3)]
    for seeds in ([0, 1, 2], [2, 0, 1]):
        together = evidence(seeds, mode=mode)
        for seed, found in zip(seeds, together, strict=True):
            chex.assert_trees_all_equal(found, alone[seed])


def test_stacked_and_padded_a_member_gets_what_it_gets_alone():
    alone = [evidence([seed])[0] for seed in range(3)]
    together = evidence([2, 0, 1], placement=tiny.ONE_STACKED, size=4)
    for seed, found in zip([2, 0, 1], together, strict=True):
        chex.assert_trees_all_close(found, alone[seed], atol=1e-4)


@pytest.mark.parametrize("placement", [tiny.ONE_ON_THREADS, tiny.ONE_STACKED])
def test_new_numbers_and_a_new_seed_compile_nothing(placement):
    function = chex.assert_max_traces(
        tiny.examiner(detectors.DETECTORS["ban"].detect), n=1
    )
    members = [tiny.member(0)]
    changes = (
        {},
        {"epsilon": 0.3},
        {"radii": (0.2,)},
        {"start": 0.5},
        {"l1_weight": 0.1},
        {"mask_learning_rate": 0.1},
    )
    before = programs._compiled.cache_info().currsize
    found = [
        population.run(
            function,
            placement,
            members,
            tiny.common(dataclasses.replace(CONFIGS["ban"], **change), seed),
            1,
        )
        for seed, change in enumerate(changes)
    ]
    assert programs._compiled.cache_info().currsize == before + 1
    first, second = (one.vectors["untargeted"] for (one,) in found[:2])
    assert not np.array_equal(first, second)  # the radius did arrive


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
