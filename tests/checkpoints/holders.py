"""Networks, and what lies beside them in files: states of optimizers, objects."""

from typing import Any

import numpy as np

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    classifiers,
    contents,
    pickle_objects,
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
