"""Inverted residual blocks: what MobileNetV2, MobileNetV3 and EfficientNet are made of.

A block widens by a 1x1 convolution, filters each channel by itself, weights the channels
by what their means say (squeeze and excitation, Hu et al., CVPR 2018) and narrows again,
without an activation (Sandler et al., CVPR 2018). The families are tables of `Block`s.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import jax
from flax import linen as nn
from jax import numpy as jnp

from ban_jax.models import architecture, common
from ban_jax.types import Array, NormMode


class Block(NamedTuple):
    """The sizes of one block.

    Attributes:
      kernel: side of the depthwise kernel.
      expanded: channels of the depthwise convolution.
      outputs: channels that leave the block.
      squeezed: channels of squeeze and excitation; 0 for none.
      stride: of the depthwise convolution, in programs for 224 pixels.
      expands: whether the widening 1x1 convolution is there.
      projected: whether a 1x1 convolution is in the shortcut.
      activation: one of `ACTIVATIONS`.
    """

    kernel: int
    expanded: int
    outputs: int
    squeezed: int
    stride: int
    expands: bool
    projected: bool
    activation: str


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hard_swish": jax.nn.hard_swish,
    "silu": jax.nn.silu,
}


class Stem(NamedTuple):
    """What programs do alike in shapes and differently in numbers.

    Attributes:
      stride: of the first convolution.
      unstrided: index of the block whose stride is 1 in programs for small images; or -1.
      same: whether padding is TensorFlow's: as little as keeps `ceil(size / stride)`
        pixels, the odd one behind.
      epsilon: of batch normalisation.
      momentum: of batch normalisation, PyTorch's.
      words: all this for a reader.
    """

    stride: int
    unstrided: int = -1
    same: bool = False
    epsilon: float = common.EPSILON
    momentum: float = common.MOMENTUM
    words: str = "stride 2"


def padded(x: Array, size: int, stride: int, same: bool) -> Array:
    """`x [B, H, W, C]` with the zeros around it that a kernel of side `size` meets."""
    rows, columns = (_zeros(side, size, stride, same) for side in x.shape[1:3])
    return jnp.pad(x, [(0, 0), rows, columns, (0, 0)])


def _zeros(length: int, size: int, stride: int, same: bool) -> tuple[int, int]:
    """How many stand before and behind a side of `length` pixels."""
    total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
    half = size // 2
    return (total // 2, total - total // 2) if same else (half, half)


def _taps(length: int, size: int, stride: int, same: bool) -> list[int]:
    """Places of a kernel's side that meet a pixel: of large kernels on small maps, few."""
    before, behind = _zeros(length, size, stride, same)
    outputs = (before + length + behind - size) // stride + 1
    return [
        tap
        for tap in range(size)
        if any(0 <= tap + stride * k - before < length for k in range(outputs))
    ]


class Depthwise(nn.Module):
    """Each channel convolved with a kernel of its own, `[size, size, 1, C]`.

    A sum over the kernel's places of a shifted view times one number per channel:
    stacking models by `jax.vmap` only adds an axis, where a convolution in groups would
    become one in many more groups.
    """

    size: int
    stride: int
    same: bool
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size, stride, channels = self.size, self.stride, x.shape[-1]
        shape = (size, size, 1, channels)
        kernel = self.param("kernel", common.torch_uniform, shape, size * size)
        if size > _LARGE and stride == 1 and size % 2:
            y = _filtered_alike(x, kernel)
        else:
            y = _filtered(x, kernel, stride, self.same)
        if self.use_bias:
            bias = self.param("bias", common.torch_uniform, (channels,), size * size)
            y = y + common.along_channels(bias, x)
        return y.astype(x.dtype)


_LARGE = 5
"""Larger kernels have so many places that XLA takes minutes over autodiff's gradient."""


def _filtered(x: Array, kernel: Array, stride: int, same: bool) -> Array:
    """`x [B, H, W, C]` and `kernel [size, size, 1, C]` -> at least float32."""
    size = len(kernel)
    wide = padded(x, size, stride, same)
    h, w = ((side - size) // stride + 1 for side in wide.shape[1:3])
    rows, columns = (_taps(side, size, stride, same) for side in x.shape[1:3])
    products = []
    for i in rows:
        for j in columns:
            view = wide[
                :,
                i : i + stride * (h - 1) + 1 : stride,
                j : j + stride * (w - 1) + 1 : stride,
            ]
            tap = common.along_channels(kernel[i, j, 0].astype(x.dtype), view)
            products.append(common.widened(view * tap))
    return functools.reduce(jnp.add, products)


@jax.custom_vjp
def _filtered_alike(x: Array, kernel: Array) -> Array:
    """`_filtered` with stride 1, whose gradient is a filter again."""
    return _filtered(x, kernel, 1, False)


def _alike_forward(x, kernel):
    return _filtered_alike(x, kernel), (x, kernel)


def _alike_backward(residuals, cotangent):
    """A row of the kernel at a time: all at once would be slow to compile."""
    x, kernel = residuals
    size, (height, width) = len(kernel), x.shape[1:3]
    narrow = cotangent.astype(x.dtype)
    wide = padded(x, size, 1, False)

    def row(_, i):
        views = jax.lax.dynamic_slice_in_dim(wide, i, height, axis=1)
        moments = [
            jnp.sum(common.widened(views[:, :, j : j + width]) * cotangent, (0, 1, 2))
            for j in range(size)
        ]
        return None, jnp.stack(moments)

    _, moments = jax.lax.scan(row, None, jnp.arange(size))
    back = _filtered_alike(narrow, kernel[::-1, ::-1])
    return back.astype(x.dtype), moments[:, :, None].astype(kernel.dtype)


_filtered_alike.defvjp(_alike_forward, _alike_backward)


class InvertedResidual(nn.Module):
    """One block; see the head of this file.

    Attributes:
      block: its sizes, the stride as it is taken.
      stem: the numbers programs differ in.
      skips: whether its input is added to its output.
      gate: activations inside and behind the squeezed layer.
      make_conv: makes the 1x1 convolutions.
    """

    block: Block
    stem: Stem
    skips: bool
    gate: tuple[Callable[[Array], Array], Callable[[Array], Array]]
    make_conv: common.MakeConv

    def setup(self) -> None:
        block, stem = Block(*self.block), Stem(*self.stem)
        norm = functools.partial(common.Norm, stem.momentum, stem.epsilon)
        if block.expands:
            self.expand = self.make_conv(block.expanded, 1, 1, 0)
            self.expand_bn = norm()
        self.depthwise = Depthwise(block.kernel, block.stride, stem.same)
        self.depthwise_bn = norm()
        if block.squeezed:
            self.squeeze = self.make_conv(block.squeezed, 1, 1, 0, use_bias=True)
            self.excite = self.make_conv(block.expanded, 1, 1, 0, use_bias=True)
        self.project = self.make_conv(block.outputs, 1, 1, 0)
        self.project_bn = norm()
        if block.projected:
            self.shortcut = [self.make_conv(block.outputs, 1, 1, 0), norm()]

    def __call__(self, x: Array, mode: NormMode) -> Array:
        block = Block(*self.block)
        activation = ACTIVATIONS[block.activation]
        y = x
        if block.expands:
            y = activation(self.expand_bn(self.expand(y), mode))
        y = activation(self.depthwise_bn(self.depthwise(y), mode))
        if block.squeezed:
            inner, outer = self.gate
            means = jnp.mean(common.widened(y), axis=(1, 2), keepdims=True)
            weights = outer(self.excite(inner(self.squeeze(means.astype(y.dtype)))))
            y = y * weights
        y = self.project_bn(self.project(y), mode)
        if block.projected:
            conv, norm = self.shortcut
            return norm(conv(x), mode) + y
        return x + y if self.skips else y


def divisible(channels: float) -> int:
    """The multiple of 8 that the families round channels to: no tenth is lost."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidualNet(common.Classifier):
    """A stem, inverted residual blocks, a last 1x1 convolution, and linear layers.

    Features are the last convolution's activations, `[B, h, w, last]`.

    Attributes:
      blocks: the blocks' sizes where they are not those of the family's table at this
        width.
      last: channels of the last convolution; 0 for those of the table.
      hidden: outputs of the linear layer before the last; 0 for those of the table.
      hidden_conv: whether that layer is kept as a 1x1 convolution, as timm does.
    """

    stem: str = "cifar"
    blocks: tuple[Block, ...] | None = None
    last: int = 0
    hidden: int = 0
    hidden_conv: bool = False

    classifier_name: ClassVar[str] = "classifier"
    stem_noun: ClassVar[str] = "3x3 stem"
    table: ClassVar[Mapping[str, Stem]] = {}
    outer: ClassVar[str] = "relu6"
    """Activation of the first and the last convolution."""
    gate: ClassVar[tuple[Callable[[Array], Array], Callable[[Array], Array]]] = (
        jax.nn.relu,
        jax.nn.sigmoid,
    )

    def sizes(self) -> tuple[tuple[Block, ...], int, int]:
        """Blocks, `last` and `hidden` of the table at this width."""
        raise NotImplementedError

    def stem_layers(self, stem: str) -> str:
        return self.table[stem].words

    def setup(self) -> None:
        super().setup()
        stem = self.table[self.stem]
        blocks, last, hidden = self.sizes()
        # From a record they come back as plain tuples.
        blocks = tuple(Block(*block) for block in self.blocks or blocks)
        norm = functools.partial(common.Norm, stem.momentum, stem.epsilon)
        # The zeros around the image are put there by `padded`.
        self.stem_conv = self.make_conv(self.width, 3, stem.stride, 0)
        self.stem_bn = norm()
        made, inputs = [], self.width
        for index, block in enumerate(blocks):
            stride = 1 if index == stem.unstrided else block.stride
            skips = stride == 1 and block.outputs == inputs
            block = self._activated(block)._replace(stride=stride)
            made.append(InvertedResidual(block, stem, skips, self.gate, self.make_conv))
            inputs = block.outputs
        self.layers_list = made
        self.last_conv = self.make_conv(self.last or last, 1, 1, 0)
        self.last_bn = norm()
        if hidden:
            units = self.hidden or hidden
            self.penultimate = (
                self.make_conv(units, 1, 1, 0, use_bias=True)
                if self.hidden_conv
                else common.Linear(units)
            )
        self.classifier = common.Linear(self.num_classes)

    def _activated(self, block: Block) -> Block:
        return block

    def _outer(self) -> Callable[[Array], Array]:
        return ACTIVATIONS[self.outer]

    def features(self, images: Array, mode: NormMode) -> Array:
        stem = self.table[self.stem]
        x = padded(self.normalise(images), 3, stem.stride, stem.same)
        x = self._outer()(self.stem_bn(self.stem_conv(x), mode))
        for block in self.layers_list:
            x = block(x, mode)
        return common.widened(self._outer()(self.last_bn(self.last_conv(x), mode)))

    def head(self, features: Array, mode: NormMode) -> Array:
        x = common.global_average(features)
        if self.sizes()[2]:
            if self.hidden_conv:
                x = self.penultimate(x[:, None, None])[:, 0, 0]
            else:
                x = self.penultimate(x)
            x = jax.nn.hard_swish(x)
        return self.classifier(x)


def count(shapes: architecture.Shapes) -> int:
    """Number of blocks, from the common names; 0 where there is none."""
    names = {
        name.split(".")[1]
        for name in shapes
        if name.startswith("layers_list.") and name.endswith(".depthwise.weight")
    }
    return len(names)


def read_blocks(
    shapes: architecture.Shapes, table: tuple[Block, ...]
) -> tuple[Block, ...]:
    """The table's blocks with the sizes that the tensors have.

    Raises:
      ValueError: naming the tensor that is missing.
    """
    found = []
    for index, block in enumerate(table):
        prefix = f"layers_list.{index}."
        depthwise = shapes.get(f"{prefix}depthwise.weight", ())
        project = shapes.get(f"{prefix}project.weight", ())
        squeeze = shapes.get(f"{prefix}squeeze.weight", (0,))
        if len(depthwise) != 4 or len(project) != 4 or 0 in (*depthwise, *project):
            raise ValueError(
                f"block {index} lacks its depthwise or its last convolution, found "
                f"shapes {depthwise} and {project}"
            )
        found.append(
            block._replace(
                kernel=depthwise[2],
                expanded=depthwise[0],
                outputs=project[0],
                squeezed=squeeze[0],
                expands=f"{prefix}expand.weight" in shapes,
                projected=f"{prefix}shortcut.0.weight" in shapes,
            )
        )
    return tuple(found)


def read(
    network: Callable[..., InvertedResidualNet], shapes: architecture.Shapes
) -> architecture.Fields:
    """The constructor's fields; those of the table are left out.

    Args:
      network: the constructor.
      shapes: by common name.

    Raises:
      ValueError: where a layer is missing.
    """
    fields = dict(architecture.sizes(shapes, stem="stem_conv", head="classifier"))
    blocks, last, hidden = network(**fields).sizes()
    found = read_blocks(shapes, blocks)
    if found != blocks:
        fields["blocks"] = found
    for field, layer, usual in (
        ("last", "last_conv", last),
        ("hidden", "penultimate", hidden),
    ):
        shape = shapes.get(f"{layer}.weight", (0,))
        if shape[0] and shape[0] != usual:
            fields[field] = shape[0]
    if len(shapes.get("penultimate.weight", ())) == 4:
        fields["hidden_conv"] = True
    return fields
