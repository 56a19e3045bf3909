"""Lines of a first look and of a closer one, and what lines tell of their classes."""

import numpy as np
import pytest

from ban_jax import records
from ban_jax.data import probe as probes
from ban_jax.detectors import directed, evidence
from ban_jax.records import finite, job, record
from tests.records import lines

PROBE = probes.minibatches(np.zeros((128, 4, 4, 1), np.float32), np.zeros(128, int))
FIRST = lines.evidence(forward_equivalents=100, seconds=1.5, notes=["a note"])
MORE = lines.evidence(
    vectors={"dear": [None, 1.0, 2.0, None, 3.0]},
    errors={"dear": [None, 0.1, 0.1, None, 0.1]},
    forward_equivalents=40,
    seconds=0.25,
    clean_accuracy=None,
    mode="directed",
    config={"steps": 2},
    config_hash="1" * 16,
    key="another-key",
    info={"told": 1},
    notes=["a note"],
)


def test_a_closer_look_adds_its_vectors_work_and_seconds():
    found = records.merged(FIRST, MORE)
    assert found["vectors"] == {**FIRST["vectors"], **MORE["vectors"]}
    assert found["errors"] == {**FIRST["errors"], **MORE["errors"]}
    assert found["forward_equivalents"] == 140
    assert found["seconds"] == 1.75


def test_everything_else_stays_what_the_first_look_said():
    found = records.merged(FIRST, MORE)
    added = {"vectors", "errors", "forward_equivalents", "seconds"}
    changed = {name for name in found if found[name] != FIRST[name]}
    assert set(found) == set(FIRST) and changed == added
    assert record.parse(found) == found


def test_neither_line_is_changed():
    first, more = lines.evidence(), lines.evidence(vectors={"dear": [0.0] * 5})
    records.merged(first, more)
    assert first == lines.evidence() and set(more["vectors"]) == {"dear"}


@pytest.mark.parametrize("one, other", [(True, False), (False, True), (False, False)])
def test_what_was_not_finite_in_either_look_is_not_finite(one, other):
    found = records.merged(FIRST | {"is_finite": one}, MORE | {"is_finite": other})
    assert found["is_finite"] is False


FAILED = record.empty("a.pt", **lines.SETTINGS, error="the device failed: oh")


def test_a_closer_look_that_failed_is_noted_and_changes_nothing_else():
    found = records.merged(FIRST, FAILED)
    note = "looking closer failed: the device failed: oh"
    assert found == FIRST | {"notes": ["a note", note]}
    assert FIRST["notes"] == ["a note"] and found["error"] is None


def test_what_an_earlier_closer_look_said_of_itself_is_not_kept():
    failed = records.merged(FIRST, FAILED)
    assert records.merged(failed, FAILED) == failed
    assert records.merged(failed, MORE) == records.merged(FIRST, MORE)


def test_evidence_of_other_weights_is_not_mixed_in():
    found = records.merged(FIRST, MORE | {"sha256": "b" * 64})
    note = "looking closer failed: the file holds other weights than before"
    assert found == FIRST | {"notes": ["a note", note]}


def data(classes, name="toy"):
    told = {"name": name, "classes": classes, "image_shape": [4, 4, 1]}
    return lines.evidence(data=told)


NOTHING = lines.evidence(data=None)


@pytest.mark.parametrize(
    "found, names",
    [
        ([data(["a", "b"])], ("a", "b")),
        ([data(["a", "b"]), NOTHING, data(["a", "b"], "other")], ("a", "b")),
        ([data(["a", "b"]), data(None)], ("a", "b")),
        ([data(["a", "b"]), data(["b", "a"])], None),
        ([data(["a", "b"]), data(["a", "b", "c"])], None),
        ([data(None), NOTHING], None),
        ([data([])], None),
        ([], None),
    ],
)
def test_classes_have_names_where_the_lines_agree(found, names):
    assert records.class_names(found) == names


# --- the job of a closer look


def a_job(**settings):
    return records.Job(records.Settings(class_names=tuple("abcde"), **settings), PROBE)


def measured(of, path="x.pt"):
    vector = np.zeros(5, np.float32)
    found = evidence.Evidence({"v": vector}, {"v": vector}, np.float32(0.5), True)
    return of.line(path, found, None, 7, sha256="a" * 64, key="k", num_classes=5)


def test_a_line_tells_the_images_it_was_measured_on():
    assert measured(a_job(dataset="toy"))["data"] == {
        "name": "toy",
        "classes": list("abcde"),
        "image_shape": [4, 4, 1],
    }
    without = records.Job(records.Settings(mode="weights"), None)
    assert without.failure("a.pt", "torn")["data"] is None


def test_a_closer_look_is_asked_by_path_and_costs_by_the_class():
    first = a_job()
    constants = {"mean": [0.0], "std": [1.0], "source": "file"}
    line = measured(first) | {"normalisation": constants}
    other = lines.evidence("y.pt", sha256="b" * 64)
    closer = first.closer({"x.pt": (1, 3)}, [line, other], ("universal",))
    assert closer.settings.mode == "directed"
    assert closer.asked == {"x.pt": job.Asked((1, 3), constants)}
    work = directed.work(closer.settings.config, 2, 128, ("universal",))
    assert measured(closer)["forward_equivalents"] == work + 7
    everything = directed.work(closer.settings.config, 5, 128, ("universal",))
    assert measured(closer, "z.pt")["forward_equivalents"] == everything + 7


def test_a_detector_that_no_other_looks_closer_than_says_so():
    with pytest.raises(ValueError, match="no closer look than weights"):
        records.Job(records.Settings(mode="weights"), None).closer({}, [], ())


def test_what_could_not_be_measured_tells_what_it_is():
    known = {"sha256": "d" * 64, "architecture": "Mine", "num_classes": 7}
    line = finite(a_job().failure("<Mine>", "no reason", **known))
    assert {name: line[name] for name in known} == known
    assert line["key"] is None and line["error"] == "no reason"
    assert record.parse(line) == line
