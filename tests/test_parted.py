"""Functions that a CPU computes in parts: the same results, on all of its cores."""

import threading

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import checkpoints, detectors, population, records
from ban_jax.detectors import neural_cleanse
from ban_jax.population import parted, programs, stored, threads
from ban_jax.scanning import examination, runner, timeline
from ban_jax.storage import compile_cache
from tests import tiny

PARTS = 3


def whole(member, shared):
    """Each of the parts is `member * index + shared`."""
    return {"all": member * jnp.arange(PARTS) + shared}


def part(job, shared):
    """One of them."""
    member, index = job
    return (member * index + shared)[None]


def join(job, shared):
    """Parts in order, and the member again."""
    del shared
    _, found = job
    return {"all": found}


TIMES = population.Parted(whole, part, join, PARTS)
MEMBERS = [np.float32(value) for value in (1, 10, 100)]
EXPECTED = [np.arange(PARTS) * value + 5 for value in MEMBERS]


@pytest.mark.parametrize("placement", [tiny.ONE_ON_THREADS, tiny.ONE_STACKED])
@pytest.mark.parametrize("count", [1, 3])
def test_each_member_gets_its_own_parts_in_order(placement, count):
    found = population.run(TIMES, placement, MEMBERS[:count], np.float32(5), 4)
    np.testing.assert_array_equal([one["all"] for one in found], EXPECTED[:count])


def test_only_threads_of_a_cpu_compute_parts_apart(monkeypatch):
    def compiled(placement):
        return population.program(TIMES, placement, MEMBERS[0], np.float32(5), 4)

    program = compiled(tiny.ONE_ON_THREADS)
    assert isinstance(program, parted.Program)
    found = program(MEMBERS[0], np.float32(5))
    np.testing.assert_array_equal(found["all"], EXPECTED[0])
    assert not isinstance(compiled(tiny.ONE_STACKED), parted.Program)
    device = type("Device", (), {"platform": "gpu"})()
    elsewhere = population.Placement((device,), stacked=False)
    assert elsewhere.on_threads and not TIMES.is_parted(elsewhere)


def test_one_member_keeps_as_many_threads_busy_as_a_chunk_has_members():
    meet = threading.Barrier(2, timeout=30)  # nobody comes alone

    def one_part(job, shared):
        meet.wait()
        return part(job, shared)

    step = parted.Program(one_part, join, 2)
    found = population.for_each(
        step, tiny.ONE_ON_THREADS, MEMBERS[:1], np.float32(5), 1, 2
    )
    np.testing.assert_array_equal(found[0]["all"], EXPECTED[0][:2])


@pytest.mark.parametrize(("chunk", "workers"), [(None, 3), (1, 1)])
def test_a_scans_last_chunk_uses_the_threads_that_were_asked_for(
    monkeypatch, chunk, workers
):
    monkeypatch.setattr(population, "default_chunk", lambda backend: 3)
    asked, real = [], threads.side_by_side

    def noted(function, items, workers, stop=None):
        asked.append(workers)
        return real(function, items, workers, stop)

    monkeypatch.setattr(threads, "side_by_side", noted)
    runs = runner.Runner(timeline.Timeline(), tiny.ONE_ON_THREADS, chunk)
    placed = runs.place("kind", MEMBERS[:1], last=True)
    (found,) = runs.run("kind", TIMES, placed, np.float32(5))
    np.testing.assert_array_equal(found["all"], EXPECTED[0])
    assert asked == [workers, workers]


def test_memory_is_planned_with_the_larger_of_the_programs():
    def needing(count):
        return type("Needing", (), {"needed": count})()

    assert parted.Program(needing(3), needing(7), 2).needed == 7
    assert parted.Program(needing(9), needing(7), 2).needed == 9
    assert parted.Program(needing(9), needing(None), 2).needed is None


CONFIG = neural_cleanse.Settings(rounds=2, batches=2, batch_size=4)
SPEC = checkpoints.ModelSpec("plain_cnn", tiny.CLASSES, 2)


def member(seed):
    """A network whose programs are kept: the tiny one's code is not this package's."""
    images = jnp.zeros((1, 4, 4, 3))
    variables = SPEC.create().init(jax.random.key(seed), images)
    return tiny.member(seed)._replace(variables=jax.device_get(variables))


def no_tracing(*arguments):
    raise AssertionError("traced, though an earlier process had done so")


def test_searches_of_classes_apart_are_one_candidates_evidence(tmp_path, monkeypatch):
    settings = records.Settings(mode="neural_cleanse", config=CONFIG)
    network = settings.network(SPEC)
    function = examination.examiner(network, neural_cleanse.detect)
    assert isinstance(function, population.Parted) and function.count == tiny.CLASSES
    members, common = [member(0), member(1)], tiny.common(CONFIG)
    with compile_cache.tracing_into(str(tmp_path / "traced")):
        found = population.run(function, tiny.ONE_ON_THREADS, members, common, 2)
        programs._compiled.cache_clear()
        monkeypatch.setattr(stored, "trace", no_tracing)
        again = population.run(function, tiny.ONE_ON_THREADS, members, common, 2)
    chex.assert_trees_all_equal(found, again)
    for one, expected in zip(found, members, strict=True):
        whole = jax.jit(function.whole)(expected, common)
        chex.assert_trees_all_close(one, jax.device_get(whole), rtol=1e-4, atol=1e-4)


def test_a_detector_without_searches_by_class_is_examined_whole():
    detect = detectors.DETECTORS["weights"].detect
    function = examination.examiner(tiny.NETWORK, detect)
    assert not isinstance(function, population.Parted)
