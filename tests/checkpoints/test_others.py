"""What is certainly no classifier, and what only looks like it."""

import numpy as np
import pytest

from ban_jax.checkpoints import others, pickle_objects, tensor


def made(*shape, dtype="float32", value=0):
    count = int(np.prod(shape))
    held = (
        np.full(8 * count, value, np.int8).tobytes()
        if value
        else bytes(8 * (count + 1))
    )
    storage = tensor.Storage(dtype, count, "", memoryview(held))
    return tensor.Tensor(storage, shape, None)


def what(root, size=1000):
    return others.what(root, size)


MOMENTS = {n: {"step": made(), "exp_avg": made(9, 3, 3, 3)} for n in range(3)}
OPTIMIZER = {"state": MOMENTS, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}
BY_NAME = {**OPTIMIZER, "state": {"conv.w": made(9, 3, 3, 3), "conv.b": made(9)}}
MODULE = pickle_objects.Placeholder("torch.nn.modules.linear.Linear")
MODULE.state = {"_parameters": {"anything": made(10, 64)}}
ARGUMENTS = pickle_objects.Placeholder("argparse.Namespace")
ARGUMENTS.state = {"lr": 0.1, "out": "x"}


@pytest.mark.parametrize(
    ("root", "told"),
    [
        (OPTIMIZER, "the state of an optimizer"),
        ({"optimizer": OPTIMIZER, "epoch": 3}, "the state of an optimizer"),
        ([OPTIMIZER, OPTIMIZER], "the state of an optimizer"),
        ({"base_lrs": [0.1], "last_epoch": 3}, "the state of a scheduler"),
        (ARGUMENTS, "arguments"),
        (7, "plain values, no tensors"),
        ({"scale": 65536.0, "growth": 2.0}, "plain values, no tensors"),
        ({"train": made(9_000_000, dtype="int64")}, "indices, counters"),
        (made(1, 3, 224, 224), "a single tensor"),
        (made(3, 32, 32), "a single tensor (3, 32, 32)"),
        ({"mask": made(32, 32), "pattern": made(3, 32, 32)}, "2 tensors that are no"),
        ([made(1, 32, 32), made(3, 32, 32)], "2 tensors that are no layers"),
        (
            {"a": made(50, dtype="int64"), "b": made(9, dtype="uint8")},
            "indices, counters",
        ),
        ({"images": made(10, 32, 32, 3), "labels": made(10)}, "2 tensors that are no"),
        ({"images": made(10, 1, 28, 28), "labels": made(10)}, "2 tensors that are no"),
        (
            {"losses": made(200, 391), "accuracies": made(2, 200)},
            "2 tensors that are no",
        ),
        ({"identity": made(1, 32, 32, 2), "noise": made(1, 2, 4, 4)}, "2 tensors that"),
    ],
)
def test_what_programs_leave_beside_models_is_recognised(root, told):
    assert str(what(root)).startswith(told)


@pytest.mark.parametrize(
    "root",
    [
        {"weight": made(10, 64), "bias": made(10)},
        {"w1": made(64, 32), "b1": made(64), "w2": made(10, 64), "b2": made(10)},
        [made(64, 3, 3, 3), made(10, 64, 1, 1), made(10, 10)],
        {"conv": made(8, 3, 3, 3), "scale": made(8)},
        {"lora_A": made(8, 64), "lora_B": made(10, 8)},
        {"lora_up": made(32, 4, 1, 1), "lora_down": made(4, 16, 3, 3)},
        {f"layer{n}": made(4, 4) for n in range(9)},
        {"w1": made(784, 512), "w2": made(512, 10)},
        [("0", made(512, 784)), ("2", made(10, 512))],
        {"a": made(64, 3, 5, 5), "b": made(10, 50176)},
        [made(16, 3, 3, 3, 3), made(16, 16, 3, 3, 3), made(10, 1600)],
        {"weight": made(10, 3072)},
        {"lora_A.weight": made(16, 768), "lora_B.weight": made(10, 16)},
        MODULE,
        {"w": made(9000, dtype="int64", value=2)},
        {"fc1": made(9000, dtype="int8", value=-7), "fc2": made(5120, dtype="int8")},
        {**OPTIMIZER, "weights": {"a": made(4, 4), "b": made(4)}},
        {"model": {"a": made(4, 4), "b": made(4)}, "optimizer": OPTIMIZER},
        BY_NAME,
        {"state": MOMENTS},
        made(11_000),  # all weights of a network, one behind the other
        made(5500, 2),
        made(1, 1, 11_000),
        {"p": made(3_000_000, dtype="uint8")},
        {"a": made(400_000, dtype="int32"), "b": made(400_000, dtype="int32")},
        {**OPTIMIZER, "state": {0: made(9, 3, 3, 3), 1: made(9)}},
    ],
)
def test_what_could_be_weights_is_nothing_else(root):
    assert what(root) is None


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        ({"fixed.scale": made(32, 32, 3), "fixed.strength": made()}, True),
        ({"learned.convblock_up_0.conv2d.kernel": made(3, 3, 64, 32)}, True),
        ({"learned.convblock_up_0.conv2d.kernel": made(512, 64, 1, 1)}, False),
        ({"fixed.features.0.weight": made(64, 3, 3, 3)}, False),
        ({"fixed.0.weight": made(512, 784), "fixed.2.weight": made(10, 512)}, False),
    ],
)
def test_a_trigger_is_known_by_the_names_and_shapes_that_training_writes(names, is_one):
    told = others.what(names, 2**20, "model.trigger")
    expected = "the trigger of an attack, written by ban-jax train" if is_one else None
    assert told == expected


def test_bytes_that_are_not_accounted_for_could_be_anything():
    assert what({"epoch": 3}, size=1000) is not None
    assert what({"epoch": 3}, size=1_000_000) is None
