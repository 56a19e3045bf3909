"""The released BAN detection, step by step, in PyTorch: a twin to measure against.

One file of over 400 lines: two procedures that are read side by side.

Written from the behaviour of xiaoyunxxy/ban 8a0f918 (`ban_detection.py`, README
settings), quirks included:

* Everything before the evaluation runs in train mode, so stored statistics drift: once
  in a forward of U(0, 1) inputs that only serves to learn the features' shape, then in
  every mask step (a norm in the head moves twice, for `m` and `1 - m`) and in every
  noise step.
* `m` starts at U(0, 1). It is clamped to [0, 1] after the loss and before the backward
  pass. Cross-entropies, their gradients and the regulariser's denominator are those of
  the unclamped mask; the sign in the regulariser's gradient is that of the clamped one,
  since autograd reads the parameter again: 0, not -1, where the mask was below 0. After
  Adam's step `m` may leave [0, 1] again, and the last `m` is used as it is.
* The regulariser is `lambda |m|_1 / |m|_1` with a constant denominator.
* Noise is drawn anew for every batch and never clipped; only the last batch's counts,
  but the statistics remember the others.
* The evaluation uses the drifted statistics, noise on, on augmented images: first
  without a mask, then with `1 - m`.

Checked against the released functions themselves, run unchanged but for the number of
mask epochs (torch 2.13.0, CPU, float32, one thread; ResNet18, VGG16 and DenseNet121 at
width 64 with random weights; the same batches of 16, starting mask and noise draws; 1
mask epoch of 3 batches for DenseNet121 and 2 for the others, 3 noise batches of 4
steps, 48 evaluation images): bit-equal were the gradient of every mask step and every
noise step, the final mask and noise, all drifted statistics, both histograms and
accuracies, with and without `weight_gradients`; the reported losses to 1e-7. By the
last mask step 19 of VGG16's 512 and 198 of DenseNet121's 16,384 mask entries were
outside [0, 1], so the order of the clamp was part of it.

What differs, none of it in the numbers: augmentation is a gather on the whole batch
instead of PIL images in worker processes, and predictions are counted with `bincount`
instead of image by image. Both only make the twin faster. Draws come from an explicit
generator. `weight_gradients=True` computes, as released, the gradients of all weights,
which nobody uses; switch it off to see what they cost.

One file of more than 400 lines, since the two procedures are read side by side.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch.nn import functional

from benchmarks import torch_models


@dataclasses.dataclass(frozen=True)
class ReducedConfig:
    """The default work of `ban_jax`; names as in its `detectors.targeted.Settings`."""

    epsilon: float = 0.2
    radii: tuple[float, ...] = (0.5, 1.0)
    steps: int = 3
    restarts: int = 1


@dataclasses.dataclass(frozen=True)
class ReleasedConfig:
    """The README's command line.

    Attributes:
      mask_lambda: weight of the mask's regulariser.
      mask_learning_rate: Adam's step for the mask.
      mask_epochs: passes of `batches` mask steps.
      batches: batches per mask epoch, and noise searches (`print_every` there).
      batch_size: images per batch.
      epsilon: radius the noise is drawn from, and its total movement.
      steps: sign steps per noise search.
      weight_gradients: compute the gradients of all weights too, as released.
    """

    mask_lambda: float = 0.75
    mask_learning_rate: float = 0.01
    mask_epochs: int = 20
    batches: int = 20
    batch_size: int = 128
    epsilon: float = 0.3
    steps: int = 30
    weight_gradients: bool = True


Batch = tuple[torch.Tensor, torch.Tensor]
"""Normalised inputs `[B, C, H, W]` and labels `[B]`."""
Noise = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Normalisation layer -> `(delta [C], xi [C])`."""


class MaskStep(NamedTuple):
    """What one mask step saw; `gradient` `[c, h, w]` is what Adam was given."""

    loss: float
    positive: float
    negative: float
    norm: float
    gradient: torch.Tensor


class NoiseStep(NamedTuple):
    """Cross-entropy before the step, and its gradient for the noise."""

    loss: float
    gradients: Noise


class Evaluation(NamedTuple):
    """Predictions under noise: `histogram` `[K]` counts, `logits` `[N, K]`."""

    histogram: torch.Tensor
    accuracy: float
    logits: torch.Tensor


class Detection(NamedTuple):
    """Outcome of the whole procedure; its share rule reads `negative.histogram`."""

    mask: torch.Tensor
    unmasked: Evaluation
    negative: Evaluation
    mask_steps: list[MaskStep]
    noise_steps: list[NoiseStep]


def sample(
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    batches: int,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Batches drawn with replacement, augmented and normalised.

    Args:
      images: `[N, H, W, C]` pixels in [0, 1].
      labels: `[N]`.
    """
    for _ in range(batches):
        index = torch.randint(len(images), (batch_size,), generator=generator)
        yield augment(images[index], generator), labels[index]


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crop with 4 black pixels of padding, flip, normalise: `[B, C, H, W]`."""
    count = len(images)
    offsets = torch.randint(9, (count, 2), generator=generator)
    flips = torch.randint(2, (count,), generator=generator).bool()
    return torch_models.normalise(crop_and_flip(images, offsets, flips))


def crop_and_flip(
    images: torch.Tensor, offsets: torch.Tensor, flips: torch.Tensor
) -> torch.Tensor:
    """`[B, H, W, C]` padded by 4, cut at `offsets` `[B, 2]`, mirrored where `flips`."""
    count, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, 4, 4, 4, 4))
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    return padded[
        torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]
    ]


def draw_noise(
    model: torch_models.Classifier, epsilon: float, generator: torch.Generator
) -> Noise:
    """U(-epsilon, epsilon) for every channel of every normalisation layer."""

    def uniform(like: torch.Tensor) -> torch.Tensor:
        draws = torch.rand(like.shape, generator=generator, dtype=like.dtype)
        return epsilon * (2 * draws - 1)

    return {
        n: (uniform(m.weight), uniform(m.bias)) for n, m in torch_models.norms(model)
    }


def set_noise(model: torch_models.Classifier, noise: Noise) -> None:
    """Puts noise on the layers, as fresh leaves that gradients can be taken for."""
    for name, norm in torch_models.norms(model):
        delta, xi = noise[name]
        norm.delta = delta.detach().clone().requires_grad_(True)
        norm.xi = xi.detach().clone().requires_grad_(True)


def get_noise(model: torch_models.Classifier) -> Noise:
    return {
        name: (norm.delta.detach().clone(), norm.xi.detach().clone())
        for name, norm in torch_models.norms(model)
    }


def feature_shape(model: torch_models.Classifier, inputs: torch.Tensor) -> torch.Size:
    """Shape `[c, h, w]` of the features; the forward moves the stored statistics."""
    return model.to_features(inputs)[0].shape


def mask_step(
    model: torch_models.Classifier,
    mask: torch.nn.Parameter,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    mask_lambda: float,
) -> MaskStep:
    """One step on the mask `[c, h, w]`, in place; train mode is the caller's."""
    images, labels = batch
    optimiser.zero_grad()
    features = model.to_features(images)
    positive = functional.cross_entropy(model.to_logits(mask * features), labels)
    negative = functional.cross_entropy(model.to_logits((1 - mask) * features), labels)
    norm = torch.norm(mask, 1)
    loss = positive - negative + mask_lambda * norm / norm.item()
    # Before the backward pass: see the module's second quirk.
    mask.data = mask.data.clamp(0, 1)
    loss.backward()
    assert mask.grad is not None
    gradient = mask.grad.clone()
    optimiser.step()
    return MaskStep(
        loss.item(), positive.item(), negative.item(), norm.item(), gradient
    )


def noise_step(
    model: torch_models.Classifier, batch: Batch, step_size: float
) -> NoiseStep:
    """One sign step up the cross-entropy, in place; noise must be set and enabled."""
    images, labels = batch
    layers = list(torch_models.norms(model))
    for _, norm in layers:
        norm.delta.grad = norm.xi.grad = None
    loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    gradients: Noise = {}
    with torch.no_grad():
        for name, norm in layers:
            assert norm.delta.grad is not None and norm.xi.grad is not None
            gradients[name] = norm.delta.grad, norm.xi.grad
            norm.delta += step_size * torch.sign(norm.delta.grad)
            norm.xi += step_size * torch.sign(norm.xi.grad)
    return NoiseStep(loss.item(), gradients)


@torch.no_grad()
def evaluate(
    model: torch_models.Classifier,
    batches: Iterable[Batch],
    mask: torch.Tensor | None = None,
) -> Evaluation:
    """Counts predictions; the caller sets eval mode and the noise.

    Args:
      mask: `[c, h, w]` what features are multiplied with, nothing when None.
    """
    logits, labels = [], []
    for images, truth in batches:
        features = model.to_features(images)
        logits.append(model.to_logits(features if mask is None else mask * features))
        labels.append(truth)
    scores, truth = torch.cat(logits), torch.cat(labels)
    predictions = scores.argmax(1)
    return Evaluation(
        torch.bincount(predictions, minlength=scores.shape[1]),
        (predictions == truth).double().mean().item(),
        scores,
    )


def run(
    model: torch_models.Classifier,
    shape_inputs: torch.Tensor,
    mask: torch.Tensor | None,
    mask_batches: Iterable[Iterable[Batch]],
    noise_batches: Iterable[Batch],
    noises: Iterable[Noise],
    unmasked_batches: Iterable[Batch],
    negative_batches: Iterable[Batch],
    config: ReleasedConfig,
    generator: torch.Generator | None = None,
) -> Detection:
    """The procedure with every draw given; `model` is changed.

    Args:
      shape_inputs: `[B, C, H, W]` the inputs of the forward that yields a shape.
      mask: `[c, h, w]` start of the mask, drawn from `generator` when None.
      mask_batches: one iterable of batches per mask epoch.
      noise_batches: one batch per noise search.
      noises: where each noise search starts.
      unmasked_batches: evaluation images for the first reading.
      negative_batches: and for the second: augmentation is drawn again in between.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(config.weight_gradients)
    torch_models.set_noise_enabled(model, False)
    model.train()
    with torch.set_grad_enabled(config.weight_gradients):
        shape = feature_shape(model, shape_inputs)
    if mask is None:
        mask = torch.rand(shape, generator=generator)
    mask = torch.nn.Parameter(mask.clone())
    optimiser = torch.optim.Adam([mask], lr=config.mask_learning_rate)
    mask_steps = [
        mask_step(model, mask, optimiser, batch, config.mask_lambda)
        for epoch in mask_batches
        for batch in epoch
    ]
    torch_models.set_noise_enabled(model, True)
    noise_steps = []
    for batch, start in zip(noise_batches, noises, strict=True):
        set_noise(model, start)
        for _ in range(config.steps):
            step = noise_step(model, batch, config.epsilon / config.steps)
            noise_steps.append(step)
    model.eval()
    unmasked = evaluate(model, unmasked_batches)
    negative = evaluate(model, negative_batches, 1 - mask.detach())
    return Detection(mask.detach().clone(), unmasked, negative, mask_steps, noise_steps)


def released(
    model: torch_models.Classifier,
    small: Batch,
    large: Batch,
    config: ReleasedConfig,
    seed: int = 0,
) -> Detection:
    """The procedure from raw images, as its command line runs it.

    Args:
      small: pixels `[N, H, W, C]` in [0, 1] and labels of the set noise and mask are
        found on (there 1 % of the training images).
      large: the same of the evaluation set (there 10 %, the small set included).
    """
    generator = torch.Generator().manual_seed(seed)

    def draws() -> Iterator[Batch]:
        return sample(*small, config.batch_size, config.batches, generator)

    def evaluation() -> Iterator[Batch]:
        pixels, labels = large
        for first in range(0, len(pixels), config.batch_size):
            rows = slice(first, first + config.batch_size)
            yield augment(pixels[rows], generator), labels[rows]

    height, width, channels = small[0].shape[1:]
    inputs = torch.rand(config.batch_size, channels, height, width, generator=generator)
    return run(
        model,
        inputs,
        None,
        (draws() for _ in range(config.mask_epochs)),
        draws(),
        (draw_noise(model, config.epsilon, generator) for _ in range(config.batches)),
        evaluation(),
        evaluation(),
        config,
        generator,
    )


def reduced(
    model: torch_models.Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    config: ReducedConfig,
) -> torch.Tensor:
    """The same work as `ban_jax`'s targeted mode, the way PyTorch does it fastest.

    Batch statistics that leave no trace, gradients for the noise alone, no gradient
    graph in the evaluation. For every class: sign steps towards it from zero noise,
    clipped to the ball, on one minibatch; then the mean probability of the class on images
    of other classes in the other minibatches; at weaker radii in one of them.

    Args:
      images: `[T, B, C, H, W]` normalised inputs, in the memory format to use.
      labels: `[T, B]`.

    Returns:
      `[R, K]` mean probability each class gains by noise towards it.
    """
    model.requires_grad_(False)
    model.train()
    torch_models.set_update_statistics(model, False)
    torch_models.set_noise_enabled(model, False)
    minibatches = len(images)
    with torch.inference_mode():  # the vectors without noise: stored, then of the batch
        model.eval()
        for t in range(minibatches):
            model(images[t])
        model.train()
        plain = [model(images[t]) for t in range(minibatches)]
    torch_models.set_noise_enabled(model, True)
    num_classes = plain[0].shape[1]
    found = torch.zeros(len(config.radii), num_classes)
    for restart in range(config.restarts):
        search = restart % minibatches
        others = [(search + 1 + t) % minibatches for t in range(minibatches - 1)]
        fresh = others or [search]
        for target in range(num_classes):
            noise = targeted_noise(
                model, (images[search], labels[search]), target, config
            )
            for index, share in enumerate(config.radii):
                set_scaled(model, noise, share)
                counted = fresh if share == config.radii[-1] else fresh[:1]
                found[index, target] += _share_of_others(
                    model, [(images[t], labels[t]) for t in counted], target
                )
    torch_models.set_noise_enabled(model, False)
    torch_models.set_update_statistics(model, True)
    return found / config.restarts


def targeted_noise(
    model: torch_models.Classifier, batch: Batch, target: int, config: ReducedConfig
) -> Noise:
    """Sign steps down the loss towards `target` on images of other classes."""
    images, labels = batch
    layers = list(torch_models.norms(model))
    others = labels != target
    wanted = torch.full((int(others.sum()),), target)
    step_size = 2 * config.epsilon / config.steps
    zeros = {
        n: (torch.zeros_like(m.weight), torch.zeros_like(m.bias)) for n, m in layers
    }
    set_noise(model, zeros)
    factors = [factor for _, norm in layers for factor in (norm.delta, norm.xi)]
    for _ in range(config.steps):
        loss = functional.cross_entropy(model(images)[others], wanted)
        gradients = torch.autograd.grad(loss, factors)
        with torch.no_grad():
            for factor, gradient in zip(factors, gradients, strict=True):
                factor -= step_size * torch.sign(gradient)
                factor.clamp_(-config.epsilon, config.epsilon)
    return get_noise(model)


def set_scaled(model: torch_models.Classifier, noise: Noise, share: float) -> None:
    """Puts `share` times the noise on the layers, without gradients."""
    for name, norm in torch_models.norms(model):
        delta, xi = noise[name]
        norm.delta, norm.xi = share * delta, share * xi


@torch.inference_mode()
def _share_of_others(
    model: torch_models.Classifier, batches: Iterable[Batch], target: int
) -> float:
    """Mean probability of `target` over the images of other classes."""
    chances = [
        functional.softmax(model(images), dim=1)[labels != target, target]
        for images, labels in batches
    ]
    return torch.cat(chances).mean().item()
