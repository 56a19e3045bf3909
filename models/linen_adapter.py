"""Any Linen classifier whose last layer is an `nn.Dense`, cut there."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from ban_jax.models import cut
from ban_jax.types import Array, NormMode, Variables

TAPS = "ban_jax_taps"
"""Collection that inputs of linear layers are noted in while a module runs."""
NOTE = "ban_jax_input"


def cut_module(
    module: nn.Module, variables: Variables, images: jax.ShapeDtypeStruct
) -> cut.Cut:
    """Cuts at the `nn.Dense` that is called last.

    Args:
      module: unbound.
      variables: its collections.
      images: shape `[B, H, W, C]` and dtype.

    Raises:
      ValueError: where there is none, or the output is not `[B, K]`.
    """
    kind = type(module).__name__
    arguments = cut.arguments(type(module).__call__, kind)
    calls: list[nn.Dense] = []

    def whole(variables: Variables, images: Array) -> Any:
        with nn.intercept_methods(functools.partial(_intercept, True, calls)):
            return module.apply(_own(variables), images, **dict(arguments))

    output = jax.eval_shape(whole, variables, images)
    classes = cut.num_classes(output, images.shape[0], kind)
    if not calls:
        raise cut.no_linear(kind, "nn.Dense")
    last = calls[-1]
    if last.features != classes:
        raise cut.CutError(
            f"{kind} returns {classes} logits, but its last nn.Dense, "
            f"{'/'.join(last.path)}, makes {last.features}"
        )
    found = (module, arguments, last.path, last.clone(parent=None, name=None), classes)
    try:
        hash(found)
    except TypeError:  # a field of the module is a list, say
        return _cut.__wrapped__(*found)
    return _cut(*found)


@functools.lru_cache(maxsize=64)
def _cut(
    module: nn.Module,
    arguments: tuple[tuple[str, Any], ...],
    path: tuple[str, ...],
    dense: nn.Dense,
    classes: int,
) -> cut.Cut:
    def run(variables: Variables, images: Array, mode: NormMode):
        mutable = [TAPS] if mode == "stored" else [TAPS, "batch_stats"]
        with nn.intercept_methods(
            functools.partial(_intercept, mode == "stored", None)
        ):
            output, changed = module.apply(
                _own(variables), images, mutable=mutable, **dict(arguments)
            )
        inputs = _at(changed[TAPS], path)[NOTE][-1]
        if mode == "update" and "batch_stats" in changed:
            variables = {**variables, "batch_stats": changed["batch_stats"]}
        return output, inputs, variables

    def last(variables: Variables, features: Array) -> Array:
        params = {"params": _at(variables["params"], path)}
        logits: Any = dense.apply(params, features)
        return logits

    def kernel(variables: Variables) -> Array:
        return _at(variables["params"], path)["kernel"]

    return cut.Cut(run, last, kernel, "/".join(path) or type(module).__name__, classes)


def _intercept(
    stored: bool,
    calls: list[nn.Dense] | None,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Decides over statistics and dropout, and notes what linear layers are given.

    Args:
      stored: whether batch normalisation uses its stored statistics.
      calls: takes the linear layers in the order of their calls.
      call, args, kwargs, context: see `nn.intercept_methods`.
    """
    layer = context.module
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    if isinstance(layer, nn.Dropout):
        return args[0] if args else kwargs["inputs"]
    if isinstance(layer, nn.BatchNorm):
        if len(args) > 1:
            args = args[:1]
        kwargs = {**kwargs, "use_running_average": stored}
        if layer.use_running_average is None and layer.axis_name is None:
            return call(*args, **kwargs)
        # A flag given to the constructor cannot be given to the call as well; and there
        # are no other devices whose statistics could be averaged in.
        free = layer.clone(
            parent=layer.scope, name=None, use_running_average=None, axis_name=None
        )
        return free(*args, **kwargs)
    if isinstance(layer, nn.Dense):
        if calls is not None:
            calls.append(layer)
        layer.sow(TAPS, NOTE, args[0] if args else kwargs["inputs"])
    return call(*args, **kwargs)


def _own(variables: Variables) -> dict[str, Any]:
    return {name: tree for name, tree in variables.items() if name != cut.NORMALISATION}


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(lambda node, name: node[name], path, tree)
