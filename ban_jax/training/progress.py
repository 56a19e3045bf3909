"""How far the training of a zoo is, on the screen."""

import math
import sys

import numpy as np
import rich.console
import rich.progress

from ban_jax.training.trainer import Report


class Progress:
    """A bar of the models trained, on stderr; results keep stdout to themselves.

    Where stderr is no terminal, a line for each report takes the bar's place. Used as a
    context manager.
    """

    def __init__(self, total: int) -> None:
        """`total` models are to be trained."""
        self._console = rich.console.Console(stderr=True)
        self._finished = 0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("Training"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[finished]}/{task.total:.0f}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[told]}"),
            # The models to come take as long as all before, not as the last ones.
            speed_estimate_period=math.inf,
            console=self._console,
            disable=not self._console.is_terminal,
            # A terminal shows both, and the bar must make way; a file gets them whole.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total, finished=0, told="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def report(self, arch: str, report: Report) -> None:
        """Shows how far the models in training are; unfinished ones count in part."""
        part = len(report.plans) * report.epoch / report.epochs
        line = told(arch, report)
        self._bar.update(self._task, completed=self._finished + part, told=line)
        if not self._console.is_terminal:
            print(f"  {line}", file=sys.stderr, flush=True)

    def finish(self, line: str) -> None:
        """A model is finished: prints a line about it on stdout."""
        self._finished += 1
        self._bar.update(self._task, finished=self._finished)
        print(line, flush=True)


def told(arch: str, report: Report) -> str:
    """Epochs, losses and metrics in words."""
    losses = f"loss {np.mean(report.losses):.3f}"
    if len(report.losses) > 1:
        losses += f" ({min(report.losses):.3f}-{max(report.losses):.3f})"
    parts = [
        f"{arch}, {len(report.plans)} models: epoch {report.epoch}/{report.epochs}",
        losses,
    ]
    if report.metrics:
        accuracy = np.mean([found.clean_accuracy for found in report.metrics])
        parts.append(f"accuracy {accuracy:.3f}")
        attacked = [found for found in report.metrics if not math.isnan(found.asr)]
        if attacked:
            parts.append(
                f"ASR {np.mean([found.asr for found in attacked]):.3f}, "
                f"excess {np.mean([found.excess for found in attacked]):.3f}"
            )
    return "  ".join(parts)
