"""Where a file has a classifier, the rest of it is judged, recognised or told."""

import pickle

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    accounting,
    classifiers,
    contents,
    limits,
    pickle_reader,
    recognise,
)
from tests.checkpoints.holders import (
    BUFFERS,
    OTHER,
    PARAMETERS,
    RNG,
    STATE,
    UNKNOWN,
    inert,
    lacking,
    moments,
    of,
    optimizer,
    parts,
    squares,
)

GENERATOR = {
    "down.weight": of(np.ones((32, 3, 3, 3), np.float32)),
    "mid.weight": of(np.ones((32, 32, 3, 3), np.float32)),
    "mid.bias": of(np.ones(32, np.float32)),
    "up.weight": of(np.ones((1, 32, 3, 3), np.float32)),
}
"""From images to masks."""
CONVOLUTIONAL = {
    "first.weight": of(np.ones((32, 3, 3, 3), np.float32)),
    "mid.weight": of(np.ones((64, 32, 3, 3), np.float32)),
    "classifier.weight": of(np.ones((10, 64, 1, 1), np.float32)),
}
"""A classifier whose last layer is a convolution, as SqueezeNet's is."""
TURNED = {
    "a": of(np.ones((32, 1, 1, 1), np.float32)),
    "mid": CONVOLUTIONAL["mid.weight"],
    "last": CONVOLUTIONAL["classifier.weight"],
    "stem": of(np.ones((32, 1, 3, 3), np.float32)),
}
"""The same of grey images, its stem at the end, where it looks like a picture's layer."""


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
        {"a": of(np.ones((32, 32, 3, 3))), "b": of(np.ones((64, 32, 3, 3)))},
    ],
    ids=range(19),
)
def test_what_nothing_accounts_for_is_a_part_that_is_not_judged(beside):
    assert parts({"net": STATE, "beside": beside}) == {"net": True, "rest": False}


@pytest.mark.parametrize(
    "beside",
    [
        {"netB": GENERATOR},
        {"netG": {**CONVOLUTIONAL, "zz.weight": of(np.ones((3, 3, 3, 3)))}},
        {"netG": TURNED},
        {n.replace("running_", "stat_"): v for n, v in OTHER.items() if "running" in n},
        [of(RNG.integers(-(2**31), 2**31, 8000).astype(np.int32)) for _ in range(5)],
    ],
    ids=[
        "another name",
        "a kernel behind it",
        "turned",
        "statistics",
        "bits of weights",
    ],
)
def test_what_only_looks_like_what_lies_beside_models_is_told_of(beside):
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
        optimizer(
            moments(PARAMETERS),
            moments(PARAMETERS, square=True),
            names=("exp_avg", "exp_avg_sq"),
        ),
        optimizer(moments(PARAMETERS), names=("momentum_buffer",)),
        optimizer(PARAMETERS, names=("sum",)),
        {
            "opt_state": {
                "0": {
                    "mu": moments(PARAMETERS),
                    "nu": moments(PARAMETERS, square=True),
                },
                "1": {},
            }
        },
        {f"opt_state/0/trace/{name}": v for name, v in moments(PARAMETERS).items()},
        optimizer(  # of a last layer, too, that the file lacks
            moments(
                {
                    **PARAMETERS,
                    "h.weight": of(np.ones((7, 16))),
                    "h.bias": of(np.ones(7)),
                }
            ),
            names=("exp_avg",),
        ),
        optimizer(  # RMSprop's momentum, of normalised gradients
            {
                name: of(np.resize(np.float32([5, -4, 3, -6]), value.shape))
                for name, value in PARAMETERS.items()
            },
            moments(PARAMETERS, square=True),
            names=("momentum_buffer", "square_avg"),
        ),
        {
            "state": {
                number: {"GG": one, "Q": one, "exp_avg": None}
                for number, one in enumerate(squares(PARAMETERS))
            },
            "param_groups": [],
        },
        optimizer(
            lacking(PARAMETERS, 0),
            lacking(PARAMETERS, -1),
            names=("row_var", "col_var"),
        ),
        {"last_epoch": 7, "_last_lr": [0.1], "milestones": {60: 1}},
        [of(RNG.integers(0, 255, 5056).astype(np.uint8)), of(np.zeros(16, np.uint8))],
        of(np.arange(50_000)),
        {"losses": of(np.ones(100, np.float32)), "epoch": 3, "best_acc": 0.93},
        {"confmat": of(np.ones((10, 10))), "weight": of(np.ones(10))},
        {"mask": of(np.ones((1, 32, 32))), "pattern": of(np.ones((3, 32, 32)))},
        {"identity_grid": of(np.ones((1, 32, 32, 2), np.float32))},
        dict(STATE),
        {"netG": GENERATOR},
    ],
    ids=range(18),
)
def test_what_ordinary_files_hold_beside_a_model_leaves_it_judged(beside):
    assert parts({"net": STATE, "beside": beside}) == {"": True}


def test_what_is_taken_for_a_network_of_images_is_noted():
    content = contents.Contents({"net": STATE, "netG": GENERATOR}, {}, 2**26)
    (only,) = classifiers.of("x", content, None)
    note = "'netG': a network from images to images, not judged"
    assert note in only.candidate.notes


def test_other_statistics_of_a_networks_layers_are_told():
    other = {name: OTHER[name] for name in BUFFERS}
    assert parts({"net": STATE, "beside": other}) == {"net": True, "rest": False}
    pixels = {"norm.running_mean": of(np.ones(3)), "norm.running_var": of(np.ones(3))}
    assert parts({"net": STATE, "beside": pixels}) == {"": True}


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


def test_a_network_that_is_an_attribute_of_a_module_is_judged():
    """As programs keep a teacher that is to be no submodule."""
    student, teacher = inert(), inert()
    teacher.state = {"_parameters": OTHER, "_modules": {}}
    student.state = {"_parameters": STATE, "_modules": {}, "teacher": teacher}
    assert parts(student) == {".": True, "teacher": True}


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
        {"net": STATE, "more": [list(OTHER.items())]}, [STATE], []
    )
    assert "102 tensors" in told and "'more/0/0/1' (2, 3, 3, 3)" in told
