"""Odd files read here and by PyTorch and the others; needs PyTorch, or does nothing."""

import pytest

pytest.importorskip("torch")

from benchmarks import _odd_archives, reader_differential  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kind", _odd_archives.FORMATS)
def test_what_a_library_loads_is_read_to_the_same_tensors_or_refused(kind):
    outcomes = set()
    for index in range(250):
        data = _odd_archives.make(kind, 7, index)
        outcome, told = reader_differential.compare(kind, data)
        outcomes.add(outcome)
        assert outcome != "different", f"{kind} {index}: {told}"
    assert {"same", "refused", "refused by both"} <= outcomes
