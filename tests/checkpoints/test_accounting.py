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
    others,
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
RNG = np.random.default_rng(0)


def moments(named: dict[str, Any], square: bool = False) -> dict[str, Any]:
    """As optimizers keep them for tensors: averages of gradients, or of their squares."""
    made = {}
    for name, value in named.items():
        numbers = RNG.normal(0, 0.05, value.shape).astype(np.float32)
        made[name] = of(numbers**2 if square else numbers)
    return made


def network(scale: float = 1.0) -> dict[str, Any]:
    """Weights as training leaves them: kernels of both signs, scales of one size."""
    made = {}
    for name, value in OTHER.items():
        numbers = RNG.normal(0, 0.2, value.shape).astype(np.float32)
        is_scale = name.endswith(("weight", "var")) and len(value.shape) == 1
        made[name] = of(scale * (1 + numbers) if is_scale else numbers)
    return made


def optimizer(*slots: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """As PyTorch saves one that keeps these for each parameter."""
    state = {
        number: {"step": of(np.float32([9])), **dict(zip(names, values, strict=True))}
        for number, values in enumerate(zip(*(s.values() for s in slots), strict=True))
    }
    return {"state": state, "param_groups": [{"lr": 0.1, "params": list(state)}]}


MOMENTS = moments(PARAMETERS, square=True)


def parameters(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in BUFFERS}


def squares(named: dict[str, Any]) -> list[dict[str, Any]]:
    """As SOAP keeps them: for each axis a matrix, for vectors none."""
    return [
        [of(np.eye(size, dtype=np.float32)) for size in value.shape]
        if len(value.shape) > 1
        else []
        for value in named.values()
    ]


def lacking(named: dict[str, Any], axis: int) -> dict[str, Any]:
    """As Adafactor keeps them: squares along all axes but one, and whole vectors."""
    return {
        name: of(np.ones((*v.shape[:axis], 1, *v.shape[axis:][1:]), np.float32))
        if len(v.shape) > 1
        else of(np.full(v.shape, 0.01, np.float32))
        for name, v in named.items()
    }


UNKNOWN = {f"kern{i}": value for i, value in enumerate(OTHER.values())}


def parts(root: Any) -> dict[str, bool]:
    """Name of each part -> whether it is a candidate."""
    found = classifiers.of("x", contents.Contents(root, {}, 2**26), None)
    return {one.path.partition("#")[2]: one.candidate is not None for one in found}


def inert(items: Any = None, state: Any = None) -> pickle_objects.Placeholder:
    made = pickle_objects.Placeholder("collections.deque")
    made.items = {pickle_objects.OddKey(None): items} if items is not None else None
    made.state = state
    return made


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


HIDDEN = {
    "of low rank": {"A": of(np.ones((3, 16))), "B": of(np.ones((10, 3)))},
    "averages": optimizer(parameters(network()), names=("exp_avg",)),
    "momentum": optimizer(parameters(network()), names=("momentum_buffer",)),
    "of mixed signs": optimizer(
        {  # a network computes the same where a scale and what it scales change signs
            name: of(np.resize(np.float32([1, -1]), value.shape))
            for name, value in PARAMETERS.items()
        },
        names=("momentum_buffer",),
    ),
    "small scales": optimizer(parameters(network(0.1)), names=("momentum_buffer",)),
    "statistics too": optimizer(moments(OTHER), names=("exp_avg",)),
    "squares": optimizer(parameters(network()), names=("exp_avg_sq",)),
    "sums": optimizer(parameters(network()), names=("sum",)),
    "by name": {
        "state": {name: {"exp_avg": value} for name, value in network().items()},
        "param_groups": [],
    },
    "of other shapes": optimizer(
        {str(i): of(RNG.normal(0, 0.1, (5, 5, 7, 3))) for i in range(9)},
        names=("exp_avg",),
    ),
    "in a row": optimizer(
        {"all": of(RNG.normal(0, 1e-3, 12_000).astype(np.float32))}, names=("exp_avg",)
    ),
    "in a factor": optimizer(
        {"all": of(RNG.uniform(0, 1e-3, 12_000).astype(np.float32))}, names=("row",)
    ),
    "in two large kernels": optimizer(
        {n: of(RNG.normal(0, 1e-3, (32, 32, 3, 3)).astype(np.float32)) for n in "ab"},
        names=("exp_avg",),
    ),
    "in lists": {
        "state": {0: {"GG": list(parameters(network()).values())}},
        "param_groups": [],
    },
    "not finite": optimizer(
        {name: of(np.full(v.shape, np.nan, np.float32)) for name, v in STATE.items()},
        names=("exp_avg",),
    ),
    "copies of another": optimizer(parameters(network()), names=("z",)),
    "in a key": {
        "state": {pickle_objects.OddKey((tuple(network().values()),)): {}},
        "param_groups": [],
    },
    "flat in optax": {f"opt_state/0/mu/{name}": v for name, v in network().items()},
    "parameters in optax": {
        f"opt_state/0/trace/{name}": v for name, v in parameters(network()).items()
    },
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_network_in_the_place_of_an_optimizers_state_is_told(name):
    small = {n: of(np.full(v.shape, 0.1, np.float32)) for n, v in STATE.items()}
    net = small if name == "small scales" else STATE
    assert parts({"net": net, "optimizer": HIDDEN[name]}) == {
        "net": True,
        "rest": False,
    }


@pytest.mark.parametrize(
    "name", ["averages", "momentum", "squares", "sums", "in a key"]
)
def test_a_file_of_a_network_that_is_laid_out_as_an_optimizer_is_none(name):
    root = {"optimizer": HIDDEN[name]}
    assert others.what(root, 2**12) is None


@pytest.mark.parametrize("slots", [("exp_avg", "exp_avg_sq"), ("old_p", "exp_avg_sq")])
def test_what_an_optimizer_keeps_by_names_of_parameters_is_known_by_its_own(slots):
    state = {name: dict.fromkeys(slots, value) for name, value in MOMENTS.items()}
    told = others.what({"state": state, "param_groups": []}, 2**12)
    assert told == ("the state of an optimizer" if slots[0] == "exp_avg" else None)


@pytest.mark.parametrize("name", ["old_p", "slow_buffer", "ax", "z"])
def test_weights_that_an_optimizer_keeps_are_judged(name):
    """Copies of the parameters by their numbers, a step or an average away from them."""
    near = {n: of(STATE[n].view() * np.float32(0.999)) for n in PARAMETERS}
    content = {
        "net": STATE,
        "optimizer": optimizer(near, MOMENTS, names=(name, "exp_avg")),
    }
    assert parts(content) == {"net": True, f"optimizer/state/{name}": True}
    turned = dict(zip(near, reversed(near.values()), strict=True))
    content["optimizer"] = optimizer(turned, names=(name,))
    assert parts(content) == {"net": True, "rest": False}


def test_of_an_optimizer_alone_it_is_said_what_in_it_may_be_weights():
    root = optimizer(network(), names=("old_p",))
    assert others.unopened(root) == (
        "what may be weights was not judged: 'old_p' of an optimizer"
    )
    assert not others.unopened(optimizer(MOMENTS, names=("exp_avg_sq",)))


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "sum"])
def test_a_file_of_an_optimizer_alone_is_one(name):
    slots = moments(PARAMETERS, square=name != "exp_avg")
    assert others.what(optimizer(slots, names=(name,)), 2**12) == (
        "the state of an optimizer"
    )


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
