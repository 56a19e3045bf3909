"""Bytes of storages that no tensor reaches, and what a file with such is called."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ban_jax.checkpoints import classifiers, contents, others, tensor, unreached
from tests.checkpoints import holders


def storage(count, dtype="float32"):
    size = count * tensor.ITEMSIZES[dtype]
    return tensor.Storage(dtype, count, "0", np.zeros(size, np.uint8).data)


def by_hand(views, count):
    """Elements of one storage that `(shape, strides, offset)` do not reach."""
    reached = set()
    for shape, strides, offset in views:
        for place in np.ndindex(*shape):
            reached.add(offset + sum(map(math.prod, zip(place, strides, strict=True))))
    return count - len(reached & set(range(count)))


VIEW = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=3)


@given(st.lists(st.tuples(VIEW, st.integers(0, 20)), min_size=1, max_size=4))
@settings(deadline=None)
def test_it_is_what_counting_one_by_one_finds(drawn):
    views = [
        (tuple(n for n, _ in axes), tuple(step for _, step in axes), offset)
        for axes, offset in drawn
    ]
    root = storage(150)
    made = [tensor.Tensor(root, *view) for view in views]
    assert unreached.count(made) == 4 * by_hand(views, 150)


def test_a_storage_seen_as_another_type_is_one():
    root = storage(6, "float64")
    halves = tensor.Storage("float32", 6, base=root, start=16)
    one = tensor.Tensor(halves, (3,))
    assert unreached.count([one]) == 48 - 12
    assert unreached.count([one, tensor.Tensor(root, (6,))]) == 0
    assert unreached.count([tensor.Tensor(storage(9), (0,))]) == 36


def test_one_that_lies_past_the_end_of_its_base_is_not_followed():
    halves = tensor.Storage("float32", 60, base=storage(6), start=16)
    assert unreached.count([tensor.Tensor(halves, (60,))]) == 24


@pytest.mark.parametrize("name", ["conv1.weight", "epoch"])
def test_a_slice_that_brings_a_network_with_it_keeps_a_file_from_being_clean(name):
    whole = sum(value.size for value in holders.OTHER.values())
    state = dict(holders.STATE)
    sliced = state.get(name) or tensor.from_array(np.ones(1, np.float32))
    buffer = np.zeros(sliced.size + whole, np.float32)
    large = tensor.Storage("float32", buffer.size, "0", buffer.view(np.uint8).data)
    root = {"state_dict": {**state, name: tensor.Tensor(large, sliced.shape)}}
    parts = classifiers.of("x", contents.Contents(root, {}, 2**26), None)
    last = parts[-1]
    assert last.path == "x#rest" and "bytes of storages that no tensor" in str(
        last.error
    )


def test_a_counter_that_brings_a_network_with_it_is_not_passed_over():
    count = np.zeros(1, np.int64)
    size = 2**20
    root = {"epoch": tensor.from_array(count)}
    assert others.what(root, size) is None
    whole = tensor.Storage("int64", size // 8, "0", np.zeros(size, np.uint8).data)
    assert others.what({"epoch": tensor.Tensor(whole, (1,))}, size) is None
    assert others.what({"epoch": tensor.from_array(count)}, 600) is not None
