"""Where a file has a classifier, the rest of it is judged, recognised or told."""

import pickle
from typing import Any

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    accounting,
    classifiers,
    contents,
    limits,
    pickle_objects,
    pickle_reader,
    recognise,
    tensor,
)
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)


def of(root: Any) -> Any:
    """The same with tensors of a file in place of arrays."""
    if isinstance(root, np.ndarray):
        return tensor.from_array(root)
    if type(root) is dict:
        return {name: of(value) for name, value in root.items()}
    if type(root) in (list, tuple):
        return type(root)(of(value) for value in root)
    return root


STATE = of(builders.state_dict(SPEC))
OTHER = of(builders.state_dict(SPEC, seed=1))
BUFFERS = {name for name in STATE if "running" in name}
PARAMETERS = {name: OTHER[name] for name in OTHER if name not in BUFFERS}
UNKNOWN = {f"kern{i}": value for i, value in enumerate(OTHER.values())}
RNG = np.random.default_rng(0)


def parts(root: Any) -> dict[str, bool]:
    """Name of each part -> whether it is a candidate."""
    found = classifiers.of("x", contents.Contents(root, {}, 2**26), None)
    return {one.path.partition("#")[2]: one.candidate is not None for one in found}


def inert(items: Any = None, state: Any = None) -> pickle_objects.Placeholder:
    made = pickle_objects.Placeholder("collections.deque")
    made.items = {pickle_objects.OddKey(None): items} if items is not None else None
    made.state = state
    return made


@pytest.mark.parametrize(
    "beside",
    [
        list(OTHER.items()),
        tuple(OTHER.values()),
        {name: {"v": value} for name, value in OTHER.items()},
        {name: [value] for name, value in OTHER.items()},
        {"y" * 301: OTHER},
        UNKNOWN,
        {f"{name}.num_batches_tracked": value for name, value in OTHER.items()},
        {"loss": UNKNOWN},
        {name: value for name, value in OTHER.items() if name != "bn1.running_mean"},
        {"shadow_params": list(PARAMETERS.values())[:-1]},
        {"state": {0: {"master": list(OTHER.values())}}, "param_groups": []},
        {"state": dict(enumerate(OTHER.values())), "param_groups": []},
        of(np.ones(40_000, np.float32)),
        {"weight": OTHER["linear.weight"], "bias": OTHER["linear.bias"]},
        memoryview(bytes(100_000)),
        inert(items=list(OTHER.items())),
        inert(state={"deep": [[OTHER["layer4.1.conv2.weight"]]]}),
        {"opt_state": {"0": {"slow": PARAMETERS}}, "step": 3},
    ],
    ids=range(18),
)
def test_what_nothing_accounts_for_is_a_part_that_is_not_judged(beside):
    assert parts({"net": STATE, "beside": beside}) == {"net": True, "rest": False}


@pytest.mark.parametrize(
    "key", [5000, -1, None, (1, 2), b"model", 0.5], ids=lambda key: str(key)
)
def test_a_network_under_a_key_that_is_no_text_is_judged(key):
    made = pickle_reader.PickleMachine(
        pickle.dumps({"a": 1, key: 2}), limits.objects(1000)
    ).load()
    odd = next(name for name in made if name != "a")
    assert made[odd] == 2
    assert parts({"net": STATE, odd: OTHER}) == {"net": True, "?": True}


@pytest.mark.parametrize(
    "beside",
    [
        {
            "state": {
                i: {"step": of(np.float32([9])), "exp_avg": value, "exp_avg_sq": value}
                for i, value in enumerate(PARAMETERS.values())
            },
            "param_groups": [{"lr": 0.1, "params": list(range(62))}],
        },
        {"opt_state": {"0": {"mu": PARAMETERS, "nu": PARAMETERS}, "1": {}}},
        {"last_epoch": 7, "_last_lr": [0.1], "milestones": {60: 1}},
        [of(RNG.integers(0, 255, 5056).astype(np.uint8)), of(np.zeros(16, np.uint8))],
        of(np.arange(50_000)),
        {"losses": of(np.ones(100, np.float32)), "epoch": 3, "best_acc": 0.93},
        {"confmat": of(np.ones((10, 10))), "weight": of(np.ones(10))},
        {"mask": of(np.ones((1, 32, 32))), "pattern": of(np.ones((3, 32, 32)))},
        {"identity_grid": of(np.ones((1, 32, 32, 2), np.float32))},
        dict(STATE),
        {
            "down.weight": of(np.ones((32, 3, 3, 3), np.float32)),
            "mid.weight": of(np.ones((32, 32, 3, 3), np.float32)),
            "mid.bias": of(np.ones(32, np.float32)),
            "up.weight": of(np.ones((1, 32, 3, 3), np.float32)),
        },
    ],
    ids=range(11),
)
def test_what_ordinary_files_hold_beside_a_model_leaves_it_judged(beside):
    assert parts({"net": STATE, "beside": beside}) == {"": True}


def test_weights_of_two_kinds_of_names_in_one_flat_dict_are_both_judged():
    flax = {
        "params/a/kernel": STATE["linear.weight"],
        "params/a/bias": STATE["linear.bias"],
    }
    group = contents.StateDict("", {**flax, **OTHER})
    first, second = recognise.split(group)
    assert (first.tensors, second.tensors) == (flax, OTHER)


def test_the_same_tensors_in_other_places_are_another_network():
    """Two layers of one shape swapped."""
    swapped = {f"b.{name}": value for name, value in STATE.items()}
    one, two = "b.layer1.0.conv1.weight", "b.layer1.1.conv1.weight"
    swapped[one], swapped[two] = swapped[two], swapped[one]
    first = {f"a.{name}": value for name, value in STATE.items()}
    assert parts({**first, **swapped}) == {"a": True, "b": True}


def test_a_mask_of_neurons_that_takes_some_away_is_not_left_out():
    for kept, expected in ((1, {"": True}), (0, None)):
        state = {**STATE, "bn1.neuron_mask": of(np.full(2, kept, np.float32))}
        if expected is not None:
            assert parts(state) == expected
            continue
        with pytest.raises(checkpoints.CheckpointError, match=r"bn1\.neuron_mask"):
            parts(state)


def test_what_is_not_accounted_for_is_said_with_its_place():
    told = accounting.unjudged(
        {"net": STATE, "more": [list(OTHER.items())]}, [STATE.values()], []
    )
    assert "102 tensors" in told and "'more/0/0/1' (2, 3, 3, 3)" in told
