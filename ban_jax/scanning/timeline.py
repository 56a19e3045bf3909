"""Where a scan's time goes: seconds per stage, and a trace that shows what overlaps."""

import collections
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ban_jax.storage import atomic

DEVICE = "device"
"""The stage that all others should hide behind."""


class Span(NamedTuple):
    """One piece of work.

    Attributes:
      stage: what is done.
      thread: name of the host thread.
      start: seconds since the scan began.
      stop: seconds since the scan began.
      candidates: how many it is about.
    """

    stage: str
    thread: str
    start: float
    stop: float
    candidates: int


class Timeline:
    """Collects spans from all threads.

    Usage:
      with timeline("read"):
          ...

    Attributes:
      say: gets a line for a person when something begins that takes long.
      most_bytes: of a device's memory that a program took, the largest of those that ran;
        0 where none is known.
    """

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._spans: list[Span] = []
        self.say: Callable[[str], None] = lambda line: None
        self.most_bytes = 0

    @contextlib.contextmanager
    def __call__(self, stage: str, candidates: int = 1) -> Iterator[None]:
        """Times the body as one span of a stage."""
        start = time.perf_counter() - self._origin
        try:
            yield
        finally:
            stop = time.perf_counter() - self._origin
            name = threading.current_thread().name
            self._spans.append(Span(stage, name, start, stop, candidates))

    def summary(self) -> dict[str, Any]:
        """Seconds of the whole, and per stage: seconds, spans, the candidates that these
        are about, seconds beside the device.

        Several threads may be in one stage at once: its seconds are those of all.
        """
        spans = list(self._spans)
        device = [span for span in spans if span.stage == DEVICE]
        starts = np.array([span.start for span in device])
        stops = np.array([span.stop for span in device])
        stages: dict[str, dict[str, Any]] = collections.defaultdict(
            lambda: {
                "seconds": 0.0,
                "spans": 0,
                "candidates": 0,
                "beside_device_seconds": 0.0,
            }
        )
        for span in spans:
            entry = stages[span.stage]
            entry["seconds"] += span.stop - span.start
            entry["spans"] += 1
            entry["candidates"] += span.candidates
            shared = np.minimum(span.stop, stops) - np.maximum(span.start, starts)
            entry["beside_device_seconds"] += float(shared[shared > 0].sum())
        wall = max((span.stop for span in spans), default=0.0)
        return {"wall_seconds": wall, "stages": dict(stages)}

    def took(self) -> str:
        """How long it all took, and how long without compiling; empty without spans."""
        summary = self.summary()
        compiling = summary["stages"].get("compile", {}).get("seconds", 0.0)
        whole = summary["wall_seconds"]
        if not summary["stages"].get(DEVICE):
            return ""
        return f"{whole:.1f} seconds, {max(whole - compiling, 0):.1f} without compiling"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a Chrome trace (chrome://tracing, ui.perfetto.dev) with the summary."""
        spans = sorted(self._spans, key=lambda span: span.start)
        threads = {
            name: i for i, name in enumerate(dict.fromkeys(s.thread for s in spans))
        }
        events: list[dict[str, Any]] = [
            {
                "ph": "M",
                "name": "thread_name",
                "pid": 0,
                "tid": tid,
                "args": {"name": name},
            }
            for name, tid in threads.items()
        ]
        events += [
            {
                "ph": "X",
                "name": span.stage,
                "pid": 0,
                "tid": threads[span.thread],
                "ts": round(span.start * 1e6),
                "dur": round((span.stop - span.start) * 1e6),
                "args": {"candidates": span.candidates},
            }
            for span in spans
        ]
        trace = {"traceEvents": events, "otherData": self.summary()}
        atomic.write(path, json.dumps(trace).encode())
