"""Stages, their overlap, and the trace."""

import json

from ban_jax.scanning import timeline


def collected(*entries):
    clock = timeline.Timeline()
    clock._spans = [timeline.Span(*entry) for entry in entries]
    return clock


def test_seconds_beside_the_device_are_those_in_which_it_works():
    clock = collected(
        ("device", "d", 1.0, 3.0, 2),
        ("device", "d", 4.0, 5.0, 2),
        ("read", "a", 0.0, 2.0, 1),  # 1 s beside the first
        ("read", "b", 2.5, 4.5, 1),  # half a second beside each
        ("write", "m", 5.0, 6.0, 1),
    )
    summary = clock.summary()
    assert summary["wall_seconds"] == 6.0
    assert summary["stages"]["read"] == {
        "seconds": 4.0,
        "spans": 2,
        "candidates": 2,
        "beside_device_seconds": 2.0,
    }
    assert summary["stages"]["write"]["beside_device_seconds"] == 0.0


def test_the_trace_has_one_row_per_thread_and_an_event_per_span(tmp_path):
    clock = collected(("device", "d", 1.0, 3.0, 2), ("read", "a", 0.5, 2.0, 1))
    with clock("write"):
        pass
    clock.write(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["name"] for event in events} == {"device", "read", "write"}
    assert len({event["tid"] for event in events}) == 3
    (device,) = (event for event in events if event["name"] == "device")
    assert (device["ts"], device["dur"]) == (1_000_000, 2_000_000)
    assert device["args"] == {"candidates": 2}
    assert trace["otherData"]["stages"]["device"]["seconds"] == 2.0
