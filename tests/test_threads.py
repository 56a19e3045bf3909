"""Host threads side by side: order, failures, what is free afterwards."""

import threading

import pytest

from ban_jax import population


def test_results_come_in_the_order_of_the_items():
    assert population.side_by_side(lambda x: x * x, (3, 1, 2), 2) == [9, 1, 4]


def test_a_failure_is_raised_when_its_neighbours_have_ended():
    """Else half a chunk is placed while the other half still holds its memory."""
    all_began, ended = threading.Barrier(3), []

    def work(number):
        all_began.wait(10)
        if number == 0:
            raise MemoryError("no room")
        threading.Event().wait(0.3)
        ended.append(number)

    with pytest.raises(MemoryError, match="no room"):
        population.side_by_side(work, range(3), 3)
    assert sorted(ended) == [1, 2]
