"""The line of a results file: what it must hold, its schema, and lines of old versions."""

import json
import pathlib

import pydantic
import pytest

from ban_jax import records, verdict
from ban_jax.records import record
from tests.records import lines

PACKAGE = pathlib.Path(record.__file__).parent
OLD = PACKAGE.parents[1] / "benchmarks" / "results" / "cifar10_scan.jsonl"


def without(line, name):
    return {field: value for field, value in line.items() if field != name}


def refusal(path, *found):
    """The sentence about a file that holds these lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    with pytest.raises(records.ResultsError) as error:
        records.load(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "zero"),
        ("seed", "7"),
        ("seed", 0.5),
        ("vectors", {"t": ["0.5"]}),
        ("vectors", [1.0]),
        ("info", None),
        ("images", {"trigger": "png"}),
        ("clean_accuracy", True),
        ("notes", "one"),
        ("normalisation", {"mean": [0.0], "std": [1.0]}),
        ("score", "3.5"),
        ("verdict", "harmless"),
        ("target", 1.5),
        ("threshold", None),
        ("interval", "wide"),
        ("p_value", "small"),
        ("p_models", 1.5),
        ("witnesses", {"a": 1.0}),
        ("witnesses", {"a": ["1"]}),
        ("void", ["a"]),
        ("data", "cifar10"),
        ("compared_with", None),
        ("config", {"a": json.loads("[" * 500 + "]" * 500)}),
    ],
)
def test_a_field_of_another_type_is_refused_with_file_line_and_name(
    tmp_path, field, value
):
    path = tmp_path / "results.jsonl"
    message = refusal(
        path, lines.judged("a.pt"), lines.judged("b.pt", **{field: value})
    )
    assert message.startswith(f"{path}: line 2: the field {field}")
    assert "\n" not in message


@pytest.mark.parametrize(
    "field", sorted({*record.Evidence.__annotations__} - {"schema_version"})
)
def test_a_line_without_a_field_of_the_evidence_is_refused(tmp_path, field):
    message = refusal(tmp_path / "r.jsonl", without(lines.judged(), field))
    if field == "path":
        assert 'expected a JSON object with a "path"' in message
    else:
        assert f"line 1: the field {field} " in message


@pytest.mark.parametrize("field", [*record.Verdict.__annotations__])
def test_a_verdict_is_whole_or_not_there(tmp_path, field):
    path = tmp_path / "r.jsonl"
    if field == "verdict":
        path.write_text(json.dumps(lines.evidence()) + "\n")
        assert records.load(path).records == [lines.evidence()]
    else:
        message = refusal(path, without(lines.judged(), field))
        assert f"line 1: the field {field} " in message


@pytest.mark.parametrize(
    "version", [record.SCHEMA_VERSION + 1, "2", 2.5, 0, True, None]
)
def test_a_line_of_another_version_is_refused(tmp_path, version):
    message = refusal(tmp_path / "r.jsonl", lines.judged(schema_version=version))
    assert f"line 1: schema_version {version!r} is not known" in message
    assert f"reads up to {record.SCHEMA_VERSION}" in message


def test_fields_of_other_programs_are_let_through(tmp_path):
    line = lines.judged(reviewed_by="me")
    records.rewrite(tmp_path / "r.jsonl", [line])
    assert records.load(tmp_path / "r.jsonl").records == [line]


def test_a_line_of_which_only_the_path_is_known_can_be_read():
    line = record.empty("a.pt", **lines.SETTINGS)
    assert record.parse(line) == line
    assert set(line) == set(record.Evidence.__annotations__)


@pytest.fixture(scope="module")
def old():
    return {
        line["path"]: line for line in map(json.loads, OLD.read_text().splitlines())
    }


def test_lines_of_version_1_are_judged_as_they_say(old):
    judged = verdict.judge_all(records.load(OLD).records)
    assert len(judged) == len(old) == 6
    for line in judged:
        told = old[line["path"]]
        for field in ("verdict", "target", "reason", "baseline", "threshold_source"):
            assert line[field] == told[field]
        for field in ("score", "threshold", "standard_error", "z"):
            assert line[field] == pytest.approx(told[field], abs=1e-12)


def test_lines_of_version_1_are_brought_to_todays_form(old):
    moved = ("curves", "histogram", "histogram_without_noise")
    for line in records.load(OLD).records:
        told = old[line["path"]]
        assert line["schema_version"] == record.SCHEMA_VERSION
        assert line["info"] == {name: told[name] for name in moved}
        assert line["images"] == line["witnesses"] == line["void"] == {}
        assert line["data"] is None and line["p_models"] == 0
        assert not {*moved, "epsilon"} & set(line)
        kept = set(told) - {*moved, "epsilon"}
        assert {name: line[name] for name in kept} == {
            name: told[name] for name in kept
        }


SINCE_3 = (
    "interval suspicious_above compared_with p_value p_models q_value witnesses void"
).split()
"""Fields of verdicts that earlier ones did not have."""


def of_version_2(line):
    """A line as version 2 wrote it."""
    dropped = {"data", *SINCE_3}
    kept = {name: value for name, value in line.items() if name not in dropped}
    return {**kept, "schema_version": 2}


def test_lines_of_version_2_are_brought_to_todays_form(tmp_path):
    measured, drawn = lines.evidence("a.pt"), lines.judged("b.pt")
    path = tmp_path / "r.jsonl"
    told = [of_version_2(line) for line in (measured, drawn)]
    path.write_text("".join(json.dumps(line) + "\n" for line in told))
    found = records.load(path).records
    assert found[0] == measured | {"data": None}
    for name in ("verdict", "score", "target", "threshold", "reason", "baseline"):
        assert found[1][name] == drawn[name]
    unknown = {
        "interval": None,
        "suspicious_above": None,
        "compared_with": "",
        "p_value": None,
        "p_models": 0,
        "q_value": None,
        "witnesses": {},
        "void": {},
    }
    assert set(unknown) == set(SINCE_3)
    assert {name: found[1][name] for name in SINCE_3} == unknown
    assert set(found[1]) == {
        *record.Evidence.__annotations__,
        *record.Verdict.__annotations__,
    }


@pytest.mark.parametrize("version", [1, 2])
def test_old_lines_share_nothing_that_one_may_change(version):
    told = of_version_2(lines.judged()) | {"schema_version": version}
    one, other = record.parse(told), record.parse(told)
    one["witnesses"]["a"] = [1.0]
    one["void"]["b"] = "why"
    assert other["witnesses"] == other["void"] == {}
    assert record.parse(told)["void"] == {}


def test_verdicts_of_old_lines_can_be_drawn_again():
    line = lines.judged()
    (again,) = verdict.judge_all([record.parse(of_version_2(line))], profiles=None)
    changed = {name for name in line if again[name] != line[name]}
    assert changed <= {"data"}


def test_the_grade_suspicious_can_be_read_and_others_not(tmp_path):
    line = lines.judged(verdict="suspicious")
    records.rewrite(tmp_path / "r.jsonl", [line])
    assert records.load(tmp_path / "r.jsonl").records == [line]
    line = lines.judged(verdict="Suspicious")
    assert "the field verdict " in refusal(tmp_path / "r.jsonl", line)


def test_an_upgraded_file_is_read_as_it_was_written(tmp_path):
    upgraded = records.load(OLD).records
    records.rewrite(tmp_path / "new.jsonl", upgraded)
    assert records.load(tmp_path / "new.jsonl").records == sorted(
        upgraded, key=lambda line: line["path"]
    )


def test_a_line_of_version_1_is_checked_too(tmp_path, old):
    line = {**next(iter(old.values())), "seed": "zero"}
    assert "line 1: the field seed " in refusal(tmp_path / "r.jsonl", line)


def test_the_published_schema_is_the_one_of_the_types():
    assert (PACKAGE / "schema.json").read_text() == record.schema_text()
    schema = record.json_schema()
    parts = (record.Evidence, record.Verdict)
    fields = {name for part in parts for name in part.__annotations__}
    assert set(schema["required"]) == set(schema["properties"]) == fields


def test_a_judged_line_is_what_the_schema_describes():
    line = json.loads(records.encode(lines.judged()))
    strict = pydantic.ConfigDict(extra="forbid", strict=True)
    pydantic.TypeAdapter(pydantic.with_config(strict)(record.Record)).validate_python(
        line
    )


def test_a_judged_line_is_valid_by_the_published_schema():
    jsonschema = pytest.importorskip("jsonschema")
    line = json.loads(records.encode(lines.judged()))
    jsonschema.validate(line, json.loads((PACKAGE / "schema.json").read_text()))
