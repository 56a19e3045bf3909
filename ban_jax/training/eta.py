"""How far the training of a zoo is, in words."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from ban_jax.training.trainer import Pupil, Report


class Clock:
    """How far all populations are, and how long the rest may take."""

    def __init__(self, missing: Mapping[str, Sequence[Pupil]]) -> None:
        self._start = time.perf_counter()
        self._total = sum(len(group) for group in missing.values())
        self._finished = 0
        self._running = 0.0

    @property
    def left(self) -> int:
        """Models not finished."""
        return self._total - self._finished

    def done(self) -> None:
        """A model is finished."""
        self._finished += 1
        self._running = max(0.0, self._running - 1.0)

    def show(self, arch: str, report: Report) -> None:
        """Prints a line of progress."""
        print(self.line(arch, report), flush=True)

    def line(self, arch: str, report: Report) -> str:
        """Epochs, losses, metrics and the time left."""
        self._running = len(report.pupils) * report.epoch / report.epochs
        losses = f"loss {np.mean(report.losses):.3f}"
        if len(report.losses) > 1:
            losses += f" ({min(report.losses):.3f}-{max(report.losses):.3f})"
        parts = [
            f"  {arch}, {len(report.pupils)} models: epoch {report.epoch}/"
            f"{report.epochs}",
            losses,
        ]
        if report.metrics:
            parts.append(
                f"accuracy {np.mean([m.clean_accuracy for m in report.metrics]):.3f}"
            )
            rates = [m.asr for m in report.metrics if not math.isnan(m.asr)]
            if rates:
                parts.append(f"ASR {np.mean(rates):.3f}")
        return "  ".join([*parts, self.estimate()])

    def estimate(self) -> str:
        """Time left, if the models to come take as long as those before."""
        share = self._finished + self._running
        if not share:
            return ""
        seconds = (time.perf_counter() - self._start) / share * (self._total - share)
        return f"{seconds / 60:.1f} min left"
