"""Chunks, memory and failing devices: the programs are replaced by stand-ins."""

import types

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, config, models, population, records
from ban_jax.data import probe as probes
from ban_jax.detectors import evidence
from ban_jax.population import memory
from ban_jax.scanning import chunks, timeline
from tests import tiny

SPEC = checkpoints.ModelSpec("resnet18", num_classes=5, width=2, in_channels=1)
PROBE = probes.minibatches(np.zeros((128, 8, 8, 1), np.float32), np.zeros(128, int))
ABSTRACT = models.abstract_variables(SPEC.create())


def candidate(number):
    """Weights that are all `number`: a stand-in device can tell which one it is given."""
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, number, np.float32), dict(ABSTRACT)
    )
    del variables["normalisation"]
    return checkpoints.Candidate(
        path=f"{number}.pt",
        sha256=f"{number:064x}",
        spec=SPEC,
        variables=variables,
        normalisation=((0.0,), (1.0,)),
        normalisation_source="file",
        recorded_accuracy=None,
        names=checkpoints.Names("", ()),
    )


def measured(number):
    vector = np.full(5, number, np.float32)
    return evidence.Evidence({"v": vector}, {}, {}, vector, vector, number, True)


class Device:
    """Replaces compiling and running; fails above `room` candidates per program."""

    def __init__(self, monkeypatch, *, room=99, error="RESOURCE_EXHAUSTED: oh", need=0):
        self.sizes, self.need = [], need
        self.room, self.error = room, error
        monkeypatch.setattr(population, "program", self.program)
        monkeypatch.setattr(population, "for_each", self.for_each)

    def program(self, function, placement, member, shared, size):
        analysis = types.SimpleNamespace(
            argument_size_in_bytes=0,
            output_size_in_bytes=0,
            temp_size_in_bytes=self.need * size,
            alias_size_in_bytes=0,
        )
        return types.SimpleNamespace(memory_analysis=lambda: analysis)

    def for_each(self, step, placement, placed, shared, count):
        member, _ = placed
        numbers = member.variables["params"]["linear"]["bias"][:, 0]
        self.sizes.append(len(numbers))
        if len(numbers) > self.room:
            raise jax.errors.JaxRuntimeError(self.error)
        return [(measured(int(number)), None) for number in numbers[:count]]


def an_engine(chunk=4, placement=tiny.ONE_STACKED):
    settings = records.Settings(config=config.BanConfig(), chunk=chunk)
    return chunks.Engine(PROBE, settings, "digest", timeline.Timeline(), placement)


def run(machine, numbers, **last):
    chunk = machine.prepare(SPEC, [candidate(number) for number in numbers], **last)
    return machine.measure(chunk)


def told(found):
    """(path, what was measured) of each record."""
    return [(record["path"], record["clean_accuracy"]) for record in found]


def right(numbers):
    return [(f"{number}.pt", number) for number in numbers]


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
def test_out_of_memory_halves_the_chunk_and_the_scan_goes_on(monkeypatch, error):
    device = Device(monkeypatch, room=1, error=error)
    machine = an_engine(chunk=4)
    assert told(run(machine, [3, 1, 4, 2])) == right([3, 1, 4, 2])
    assert device.sizes == [4, 2, 1, 1, 1, 1]
    assert machine.wanted(SPEC) == 1
    assert told(run(machine, [5])) == right([5])
    assert device.sizes[6:] == [1]


def test_a_chunk_that_was_ready_before_memory_ran_out_is_cut_up_too(monkeypatch):
    device = Device(monkeypatch, room=2)
    machine = an_engine(chunk=4)
    first = machine.prepare(SPEC, [candidate(n) for n in range(4)])
    second = machine.prepare(SPEC, [candidate(n) for n in range(4, 8)])
    assert told(machine.measure(first) + machine.measure(second)) == right(range(8))
    assert device.sizes == [4, 2, 2, 2, 2]


def test_one_that_does_not_fit_alone_becomes_a_record_that_says_so(monkeypatch):
    Device(monkeypatch, room=0)
    found = run(an_engine(chunk=2), [1, 2])
    assert [record["path"] for record in found] == ["1.pt", "2.pt"]
    for record in found:
        assert record["error"] == "the device failed: RESOURCE_EXHAUSTED: oh"
        assert record["key"] is None


def test_another_failure_is_not_tried_again(monkeypatch):
    device = Device(monkeypatch, room=0, error="INTERNAL: unplugged")
    assert all(record["error"] for record in run(an_engine(chunk=4), [1, 2, 3, 4]))
    assert device.sizes == [4]


def test_the_size_is_planned_from_what_the_program_needs(monkeypatch):
    """16 candidates of 10 bytes each in 80 % of 100 free bytes: 8 fit."""
    monkeypatch.setattr(memory, "free", lambda device: 100)
    monkeypatch.setattr(population, "default_chunk", lambda backend: 16)
    device = Device(monkeypatch, need=10)
    machine = an_engine(chunk=None)
    assert told(run(machine, range(16))) == right(range(16))
    assert device.sizes == [8, 8] and machine.wanted(SPEC) == 8


def test_the_flag_overrides_the_plan(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 1)
    device = Device(monkeypatch, need=10)
    run(an_engine(chunk=4), range(4))
    assert device.sizes == [4]


def test_the_last_chunk_takes_the_compiled_size_and_a_small_population_its_own(
    monkeypatch,
):
    device = Device(monkeypatch)
    machine = an_engine(chunk=4)
    run(machine, range(4))
    assert told(run(machine, [7], last=True)) == right([7])
    assert told(run(an_engine(chunk=4), [7, 8, 9], last=True)) == right([7, 8, 9])
    assert device.sizes == [4, 4, 3]


def test_no_room_for_the_next_chunk_yet_is_no_failure(monkeypatch):
    Device(monkeypatch)
    place, full = population.place, iter([True, False])

    def placing(*arguments):
        if next(full):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: not yet")
        return place(*arguments)

    monkeypatch.setattr(population, "place", placing)
    assert told(run(an_engine(chunk=2), [1, 2])) == right([1, 2])


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
