"""What lies in an optimizer's place is an optimizer's, or is told of."""

import numpy as np
import pytest

from ban_jax.checkpoints import (
    others,
    pickle_objects,
)
from tests.checkpoints.holders import (
    MOMENTS,
    OTHER,
    PARAMETERS,
    RNG,
    STATE,
    moments,
    network,
    of,
    optimizer,
    parameters,
    parts,
)

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
