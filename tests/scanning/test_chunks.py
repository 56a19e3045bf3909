"""A scan's chunks: what becomes of candidates of one kind, on a stand-in device."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import checkpoints, models
from ban_jax.data import normalisation
from ban_jax.data import probe as probes
from ban_jax.detectors import evidence
from ban_jax.records import Job, Settings, record
from ban_jax.scanning import chunks, examination, timeline
from tests import tiny
from tests.scanning.device import Device

SPEC = checkpoints.ModelSpec("resnet18", num_classes=5, width=2, in_channels=1)
PROBE = probes.minibatches(np.zeros((128, 8, 8, 1), np.float32), np.zeros(128, int))
ABSTRACT = models.abstract_variables(SPEC.create())


def candidate(number, **changes):
    """Weights that are all `number`: a stand-in device can tell which one it is given.

    Only the last layer differs from class to class, as it must.
    """
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, number, np.float32), dict(ABSTRACT)
    )
    del variables["normalisation"]
    variables["params"]["linear"]["kernel"] += np.arange(5, dtype=np.float32)
    known = {
        "path": f"{number}.pt",
        "sha256": f"{number:064x}",
        "spec": SPEC,
        "variables": variables,
        "normalisation": ((0.0,), (1.0,)),
        "normalisation_source": "file",
        "recorded_accuracy": None,
        "names": checkpoints.Names("", ()),
    }
    return checkpoints.Candidate(**{**known, **changes})


def found(member):
    """Evidence whose accuracy tells which candidate it is of."""
    number = int(member.variables["params"]["linear"]["bias"][0])
    vector = np.full(5, number, np.float32)
    measured = evidence.Evidence({"v": vector}, {"v": 0 * vector}, number, True)
    return examination.Found(measured, np.int32(len(member.means) - 1))


def a_scan(chunk=4, **settings):
    job = Job(Settings(chunk=chunk, **settings), PROBE)
    return chunks.Scan(job, timeline.Timeline(), tiny.ONE_STACKED)


def run(task, candidates):
    chunk = task.prepare(task.kind_of(candidates[0]), candidates)
    return task.measure(chunk)


def test_every_candidate_gets_its_own_line_in_order_when_memory_runs_out(monkeypatch):
    Device(monkeypatch, found, room=1)
    lines = run(a_scan(), [candidate(number) for number in (3, 1, 4, 2)])
    told = [
        (line["path"], line["clean_accuracy"], line["sha256"][-1]) for line in lines
    ]
    assert told == [(f"{n}.pt", n, str(n)) for n in (3, 1, 4, 2)]


def test_a_line_is_evidence_that_can_be_read_again_and_has_no_verdict(monkeypatch):
    Device(monkeypatch, found)
    (line,) = run(a_scan(), [candidate(1)])
    assert record.parse(line) == line
    assert set(line) == set(record.Evidence.__annotations__)
    assert not set(line) & set(record.Verdict.__annotations__)


def test_one_that_the_device_fails_on_becomes_a_line_that_says_so(monkeypatch):
    Device(monkeypatch, found, room=0)
    task = a_scan(chunk=2)
    lines = run(task, [candidate(1), candidate(2)])
    assert [line["path"] for line in lines] == ["1.pt", "2.pt"]
    for line in lines:
        assert line["error"] == "the device failed: RESOURCE_EXHAUSTED: oh"
        assert line["key"] is None and not task.is_lasting(line)
        assert record.parse(line) == line


def test_candidates_whose_pixel_constants_are_known_are_a_kind_of_their_own():
    known, unknown = candidate(1), candidate(1, normalisation=None)
    assert a_scan().kind_of(known) == chunks.Kind(SPEC, given=True)
    assert a_scan().kind_of(unknown) == chunks.Kind(SPEC, given=False)
    flag = a_scan(normalisation=((0.5,), (0.5,)))
    assert flag.kind_of(known) == flag.kind_of(unknown) == chunks.Kind(SPEC, given=True)


@pytest.mark.parametrize(
    ("flag", "own", "mean", "source"),
    [
        (((0.5,), (0.25,)), ((0.0,), (1.0,)), [0.5], "flag"),
        (None, ((0.125,), (1.0,)), [0.125], "file"),
        (None, None, None, "tried: "),
    ],
)
def test_the_flags_pixel_constants_go_before_the_files_and_those_before_tried_ones(
    monkeypatch, flag, own, mean, source
):
    Device(monkeypatch, found)
    (line,) = run(a_scan(normalisation=flag), [candidate(1, normalisation=own)])
    told = line["normalisation"]
    assert told["source"].startswith(source)
    assert mean is None or told["mean"] == mean


def test_trying_pixel_constants_is_counted_as_work(monkeypatch):
    Device(monkeypatch, found)
    (given,) = run(a_scan(), [candidate(1)])
    (tried,) = run(a_scan(), [candidate(1, normalisation=None)])
    each = 128 * len(normalisation.options("", 1))
    assert tried["forward_equivalents"] - given["forward_equivalents"] == each


def test_weights_that_are_not_finite_are_named():
    broken = candidate(1)
    broken.variables["params"]["linear"]["kernel"][0, 0] = np.inf
    reason = a_scan().refuse(broken)
    assert reason == "1.pt: weights are not finite in params/linear/kernel"
    assert a_scan().refuse(candidate(1)) == ""


def test_a_loss_that_is_no_number_is_never_the_smallest(monkeypatch):
    found = jnp.array([jnp.nan, 2.0, 1.0, jnp.inf])
    monkeypatch.setattr(examination, "losses", lambda *_, **__: found)
    assert examination.choose(None, None, network=None) == 2
