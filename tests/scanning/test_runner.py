"""How many at once, memory and failing devices: the programs are stand-ins."""

import jax
import numpy as np
import pytest

from ban_jax import population
from ban_jax.population import memory
from ban_jax.scanning import runner, timeline
from tests import tiny
from tests.scanning.device import Device

KIND = "a kind"


def read_back(member):
    return int(member["number"])


def a_runner(chunk=4):
    return runner.Runner(timeline.Timeline(), tiny.ONE_STACKED, chunk)


def placed(machine, numbers, **last):
    members = [{"number": np.float32(number)} for number in numbers]
    return machine.place(KIND, members, **last)


def finish(machine, chunk):
    return machine.run(KIND, None, chunk, None)


def run(machine, numbers, **last):
    return finish(machine, placed(machine, numbers, **last))


@pytest.mark.parametrize(
    "error",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.",
        "UNKNOWN: Failed to determine best cudnn convolution algorithm for:\n%conv",
        "INTERNAL: All algorithms tried for %cudnn-conv failed. Falling back",
        "NOT_FOUND: Autotuning failed for HLO: %conv. No valid config found!",
        "INTERNAL: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_out_of_memory_halves_the_chunk_and_the_work_goes_on(monkeypatch, error):
    device = Device(monkeypatch, read_back, room=1, error=error)
    machine = a_runner(chunk=4)
    assert run(machine, [3, 1, 4, 2]) == [3, 1, 4, 2]
    assert device.sizes == [4, 2, 1, 1, 1, 1]
    assert machine.wanted(KIND) == 1
    assert run(machine, [5]) == [5]
    assert device.sizes[6:] == [1]


def test_memory_that_ran_out_for_one_kind_leaves_the_others_as_they_are(monkeypatch):
    Device(monkeypatch, read_back, room=2)
    machine = a_runner(chunk=4)
    run(machine, [1, 2, 3, 4])
    assert (machine.wanted(KIND), machine.wanted("another")) == (2, 4)


def test_a_chunk_that_was_ready_before_memory_ran_out_is_cut_up_too(monkeypatch):
    device = Device(monkeypatch, read_back, room=2)
    machine = a_runner(chunk=4)
    first, second = placed(machine, range(4)), placed(machine, range(4, 8))
    assert finish(machine, first) + finish(machine, second) == list(range(8))
    assert device.sizes == [4, 2, 2, 2, 2]


def test_one_that_does_not_fit_alone_fails_with_the_devices_words(monkeypatch):
    device = Device(monkeypatch, read_back, room=0)
    reason = "the device failed: RESOURCE_EXHAUSTED: oh"
    assert run(a_runner(chunk=2), [1, 2]) == [runner.Failed(reason)] * 2
    assert device.sizes == [2, 1, 1]


def test_another_failure_is_not_tried_again_and_told_in_one_line(monkeypatch):
    device = Device(monkeypatch, read_back, room=0, error="INTERNAL: unplugged\nmore")
    reason = "the device failed: INTERNAL: unplugged"
    assert run(a_runner(chunk=4), [1, 2, 3, 4]) == [runner.Failed(reason)] * 4
    assert device.sizes == [4]


def test_the_size_is_planned_from_what_the_program_needs(monkeypatch):
    """16 candidates of 10 bytes each in 80 % of 100 free bytes: 8 fit."""
    monkeypatch.setattr(memory, "free", lambda device: 100)
    monkeypatch.setattr(population, "default_chunk", lambda backend: 16)
    device = Device(monkeypatch, read_back, need=10)
    machine = a_runner(chunk=None)
    assert run(machine, range(16)) == list(range(16))
    assert device.sizes == [8, 8] and machine.wanted(KIND) == 8


def test_the_flag_overrides_the_plan(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 1)
    device = Device(monkeypatch, read_back, need=10)
    run(a_runner(chunk=4), range(4))
    assert device.sizes == [4]


def test_the_last_chunk_takes_the_compiled_size_and_a_small_population_its_own(
    monkeypatch,
):
    device = Device(monkeypatch, read_back)
    machine = a_runner(chunk=4)
    run(machine, range(4))
    assert run(machine, [7], last=True) == [7]
    assert run(a_runner(chunk=4), [7, 8, 9], last=True) == [7, 8, 9]
    assert device.sizes == [4, 4, 3]


def test_a_short_chunk_that_was_not_the_last_after_all_sets_no_size_for_those_behind(
    monkeypatch,
):
    """A worker that lives on is given files in pieces, each told as the last."""
    device = Device(monkeypatch, read_back)
    machine = a_runner(chunk=4)
    for count in (2, 1, 4, 3):
        assert run(machine, range(count), last=True) == list(range(count))
    assert device.sizes == [2, 2, 4, 4]
    assert machine.wanted(KIND) == 4


def test_each_size_is_planned_on_its_own(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    monkeypatch.setattr(population, "default_chunk", lambda backend: 16)
    device = Device(monkeypatch, read_back, need=10)
    machine = a_runner(chunk=None)
    run(machine, range(2), last=True)
    run(machine, range(16), last=True)
    assert device.sizes == [2, 8, 8]


def test_no_room_for_the_next_chunk_yet_is_no_failure(monkeypatch):
    Device(monkeypatch, read_back)
    place, full = population.place, iter([True, False])

    def placing(*arguments):
        if next(full):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: not yet")
        return place(*arguments)

    monkeypatch.setattr(population, "place", placing)
    assert run(a_runner(chunk=2), [1, 2]) == [1, 2]


def test_a_device_holds_what_fits_but_at_least_one():
    assert memory.fitting(16, 160, 1000) == 16
    assert memory.fitting(16, 160, 100) == 8
    assert memory.fitting(16, 1600, 10) == 1
    assert memory.fitting(16, None, 10) == memory.fitting(16, 160, None) == 16


def test_what_a_program_needs_is_read_from_xla():
    compiled = jax.jit(lambda x: x[:2]).lower(np.ones(1000, np.float32)).compile()
    assert 4008 <= memory.needed(compiled) <= 6000
    assert memory.free(jax.devices("cpu")[0]) > 2**20
    assert memory.exhausted(MemoryError()) and not memory.exhausted(ValueError("x"))


@pytest.mark.parametrize(
    ("is_known", "told"), [(False, ["compiling a kind ..."]), (True, [])]
)
def test_what_is_compiled_is_told_once_and_what_was_kept_is_not(
    is_known, told, monkeypatch
):
    Device(monkeypatch, read_back)
    monkeypatch.setattr(population, "is_known", lambda *program: is_known)
    lines = []
    clock = timeline.Timeline()
    clock.say = lines.append
    machine = runner.Runner(clock, tiny.ONE_STACKED, 2)
    for numbers in ([3, 1], [4, 2]):
        run(machine, numbers)
    assert lines == told


def test_the_clock_knows_what_the_largest_chunk_took(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    monkeypatch.setattr(population, "default_chunk", lambda backend: 16)
    Device(monkeypatch, read_back, need=10)
    clock = timeline.Timeline()
    machine = runner.Runner(clock, tiny.ONE_STACKED, None)
    run(machine, range(16))
    assert clock.most_bytes == 80, "of the eight that ran, not of the sixteen planned"
    run(machine, range(2), last=True)
    assert clock.most_bytes == 80


def test_a_buffer_that_a_result_takes_over_counts_once():
    class Compiled:
        def __init__(self, analysis):
            self.memory_analysis = lambda: analysis

    class Analysis:
        argument_size_in_bytes = 100
        output_size_in_bytes = 70
        temp_size_in_bytes = 1000
        alias_size_in_bytes = 60

    assert memory.needed(Compiled(Analysis)) == 100 + 70 + 1000 - 60
    assert memory.needed(Compiled(None)) is None
