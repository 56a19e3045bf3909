"""A population gives each member what it would get alone."""

import dataclasses
import functools
import threading

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors, population
from ban_jax.detectors import ban, targeted
from ban_jax.population import compilation, programs
from tests import tiny

pytestmark = pytest.mark.usefixtures("optimized")

CONFIGS = {
    "targeted": targeted.Settings(steps=2, radii=(1.0,)),
    "ban": ban.Settings(steps=2, restarts=1, mask_steps=2, radii=(1.0,)),
}
SHA = ["%064x" % (7**index) for index in range(5)]


@functools.cache
def examiner(mode):
    """One function for each mode: what is compiled for it is kept."""
    return tiny.examiner(detectors.DETECTORS[mode].detect)


def evidence(seeds, *, mode="targeted", placement=tiny.ONE_ON_THREADS, size=None):
    members = [tiny.member(seed) for seed in seeds]
    return population.run(
        examiner(mode),
        placement,
        members,
        tiny.common(CONFIGS[mode]),
        size or len(seeds),
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


def test_a_program_that_advances_uses_up_its_members_and_keeps_their_shapes():
    def move(member, shared):
        return {"at": member["at"] + shared, "key": member["key"]}, member["at"] * 10

    members = [{"at": np.full(3, i, "f4"), "key": jax.random.key(i)} for i in range(2)]
    placement, by = tiny.ONE_STACKED, np.float32(2)
    step = population.program(move, placement, members[0], by, 4, advances=True)
    placed = population.place(members, placement, 4)
    after, told = step(placed, by)
    assert placed["at"].is_deleted()
    again, _ = step(after, by)
    found = population.unstack(again["at"], 2)
    np.testing.assert_array_equal(found, [[4, 4, 4], [5, 5, 5]])
    np.testing.assert_array_equal(told[:, 0], [0, 10, 10, 10])


def test_compiled_functions_are_compiled_once_for_each_static_value(monkeypatch):
    traced = []

    @population.compiled
    def power(x, *, exponent):
        """Documented."""
        traced.append(exponent)
        return x**exponent

    assert power.__doc__ == "Documented." and power.__name__ == "power"
    for value in (2.0, 3.0):
        assert power(value, exponent=2) == value**2
        assert power(value, exponent=3) == value**3
    assert traced == [2, 3]


def test_no_more_than_so_many_programs_of_a_function_are_kept():
    traced = []

    @population.compiled
    def shifted(x, *, by):
        traced.append(by)
        return x + by

    most = compilation.PROGRAMS
    for by in (*range(most + 1), 0, most):
        assert shifted(1, by=by) == 1 + by
    assert traced == [*range(most + 1), 0], "0 was dropped, the last one was not"
    assert programs._compiled.cache_info().maxsize == most


def test_a_donated_argument_is_used_up():
    add = population.compiled(lambda x, y: x + y, donated=True)
    first, second = jnp.ones(3), jnp.ones(3)
    assert add(first, second)[0] == 2
    assert first.is_deleted() and not second.is_deleted()


def test_over_models_shares_the_last_arguments_alone():
    def scale(x, offset, factor):
        return x * factor + offset

    together = population.over_models(scale, shared=1)
    np.testing.assert_array_equal(
        together(np.arange(3), np.array([10, 20, 30]), 2), [10, 22, 34]
    )


def test_side_by_side_keeps_the_order_and_an_error_stops_the_neighbours():
    found = population.side_by_side(lambda n: n * n, range(5), 2)
    assert found == [0, 1, 4, 9, 16]
    stop, stopped = threading.Event(), []

    def fails(index):
        if index:
            raise OSError("broken")
        stopped.append(stop.wait(20))

    with pytest.raises(OSError, match="broken"):
        population.side_by_side(fails, range(2), 2, stop)
    assert stopped == [True]


def test_xla_knows_the_options_it_is_told_on_an_accelerator():
    assert compilation.options("cpu") is None
    for backend in compilation.OPTIONS:
        told = compilation.options(backend)
        assert jax.jit(lambda x: x + 1, compiler_options=told)(1.0) == 2


def test_every_program_is_compiled_with_the_options_of_its_backend(monkeypatch):
    monkeypatch.setattr(compilation, "OPTIONS", {"cpu": {"xla_no_such": True}})

    def add(member, shared):
        return member + shared

    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such"):
        population.compiled(lambda x: x + 1)(1.0)
    for placement in (tiny.ONE_ON_THREADS, tiny.ONE_STACKED):
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such"):
            population.run(add, placement, [np.float32(1)], np.float32(2), 1)
