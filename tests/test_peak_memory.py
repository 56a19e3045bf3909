"""The most memory in use at once, begun anew between two measurements."""

import jax
import numpy as np
import pytest

from ban_jax.population import memory

CPU = jax.local_devices(backend="cpu")[0]
MIB = 2**20


@pytest.mark.skipif(memory.peak(CPU) is None, reason="the system does not tell")
def test_what_was_held_in_between_is_seen_until_the_peak_begins_anew():
    memory.reset_peak()
    before = memory.peak(CPU)
    held = np.ones(64 * MIB, np.uint8)
    during = memory.peak(CPU)
    assert during - before > 48 * MIB
    del held
    assert memory.peak(CPU) > during - 8 * MIB  # the system counts in batches
    memory.reset_peak()
    if memory.peak(CPU) == during:
        pytest.skip("the system does not let a peak begin anew")
    assert memory.peak(CPU) < during - 32 * MIB


def test_an_accelerator_tells_its_own_and_one_that_does_not_is_unknown():
    class Device:
        platform = "gpu"

        def __init__(self, stats):
            self.memory_stats = lambda: stats

    assert memory.peak(Device({"peak_bytes_in_use": 7})) == 7
    assert memory.peak(Device({})) is None and memory.peak(Device(None)) is None


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
