"""SARIF: valid, one result per finding, and none missing for what was not judged.

`tests/testdata/sarif-schema-2.1.0.json.gz` is the schema that OASIS published for SARIF
2.1.0 (revision rtm.5), byte for byte as the package @microsoft/jest-sarif 1.0.0-beta.0
ships it under the MIT license, compressed.
"""

import gzip
import json
import pathlib

import jsonschema
import pytest

from ban_jax.checkpoints import Passed
from ban_jax.report import sarif
from tests.report import report_sample

SCHEMA = pathlib.Path(__file__).parents[1] / "testdata" / "sarif-schema-2.1.0.json.gz"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    return jsonschema.Draft4Validator(
        schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
    )


def results(*records, passed=()):
    (run,) = sarif.document(records, passed)["runs"]
    return run["results"]


SUSPICIOUS = report_sample.judged("s.pt", verdict="suspicious", score=3.0)
NOT_JUDGED = {
    **report_sample.judged("n.pt", score=0.0),
    "verdict": "inconclusive",
    "score": None,
}
UNREADABLE = {
    **NOT_JUDGED,
    "path": "u.pt",
    "sha256": None,
    "target": None,
    "error": "u.pt: not a zip archive",
}
CALLING = report_sample.judged(
    "c.pt", verdict="suspicious", score=0.1, calls=["posix.system"]
)
ALL = [
    report_sample.judged("b.pt"),
    SUSPICIOUS,
    report_sample.judged("good.pt", score=0.3),
    UNREADABLE,
    NOT_JUDGED,
    CALLING,
    report_sample.judged("/top/a b#c%\udcff.pt"),
    {"path": "unfinished.pt"},
]


def test_a_document_of_every_kind_of_result_is_valid(validator):
    told = sarif.document(ALL, [Passed("notes.txt", "text")])
    validator.validate(json.loads(json.dumps(told)))
    validator.validate(sarif.document([]))


def test_the_schema_refuses_what_is_not_valid(validator):
    told = sarif.document(ALL)
    told["runs"][0]["results"][0]["level"] = "grave"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(told)


@pytest.mark.parametrize(
    ("record", "rules", "levels"),
    [
        (ALL[0], ["backdoored"], ["error"]),
        (SUSPICIOUS, ["suspicious"], ["warning"]),
        (ALL[2], [], []),
        (UNREADABLE, ["unreadable"], ["warning"]),
        (NOT_JUDGED, ["not-judged"], ["warning"]),
        (CALLING, ["code-in-file"], ["error"]),
        (ALL[7], ["unreadable"], ["warning"]),
    ],
)
def test_each_grade_has_its_rule_and_level(record, rules, levels):
    found = results(record)
    assert [one["ruleId"] for one in found] == [f"ban-jax/{name}" for name in rules]
    assert [one["level"] for one in found] == levels
    names = list(sarif.RULES)
    assert all(names[one["ruleIndex"]] == one["ruleId"] for one in found)


def test_the_fingerprint_is_of_the_weights_and_not_of_the_path():
    one = report_sample.judged("a.pt", sha256="0f" * 32)
    (first,), (other,) = results(one), results({**one, "path": "b.safetensors"})
    assert first["partialFingerprints"] == other["partialFingerprints"]
    assert first["partialFingerprints"] == {sarif.FINGERPRINT: "0f" * 32}
    assert "partialFingerprints" not in results(UNREADABLE)[0]


def test_each_classifier_of_a_file_is_told_of_once_with_its_name():
    part = report_sample.judged("two.pt#teacher", part_of="two.pt")
    whole = {**part, "path": "two.pt", "part_of": None, "parts": ["two.pt#teacher"]}
    (found,) = results(whole, part)
    (place,) = found["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "two.pt"
    assert place["logicalLocations"] == [{"fullyQualifiedName": "two.pt#teacher"}]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("zoo/a b.pt", "zoo/a%20b.pt"),
        ("/top/a#b.pt", "file:///top/a%23b.pt"),
        ("./a\udcff.pt", "a%FF.pt"),
    ],
)
def test_a_path_becomes_a_uri(path, uri):
    assert sarif.uri(path) == uri


def test_what_is_suspicious_for_its_calls_alone_is_told_of_once():
    """The rule of suspicious models says that a class is odd."""
    odd = {**CALLING, "score": 2.6, "suspicious_above": 2.4, "threshold": 2.7}
    calm = {**odd, "score": 2.3}
    for record, expected in (
        (CALLING, ["ban-jax/code-in-file"]),
        (calm, ["ban-jax/code-in-file"]),
        ({**calm, "score": None}, ["ban-jax/code-in-file"]),
        (odd, ["ban-jax/code-in-file", "ban-jax/suspicious"]),
    ):
        (run,) = sarif.document([record])["runs"]
        assert [one["ruleId"] for one in run["results"]] == expected


def test_what_is_no_classifier_is_a_note_of_the_run_and_no_result():
    (run,) = sarif.document([], [Passed("notes.txt", "text")])["runs"]
    assert run["results"] == []
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "note" and note["message"]["text"] == "not judged: text"


@pytest.mark.parametrize("value", [None, 3, [], {}, "x", ["x"], {"x": 1}, True])
def test_a_field_of_an_unexpected_kind_leaves_the_document_valid(validator, value):
    record = {**report_sample.judged("b.pt"), "calls": ["posix.system"]}
    for name in record:
        validator.validate(sarif.document([{**record, name: value}]))
