"""`--fail-on`: the exit codes of commands that judge, for each grade there is."""

import dataclasses

import pytest

from ban_jax import cli, detectors, records
from ban_jax.commands import outcome
from tests.records import lines
from tests.scanning import files

CODES = {
    # grade -> exit codes for --fail-on backdoored, suspicious (the default) and never
    "backdoored": (1, 1, 1, 0),
    "suspicious": (0, 1, 1, 0),
    "clean": (0, 0, 0, 0),
    "inconclusive": (2, 2, 2, 0),
}
TOLD = (("backdoored",), ("suspicious",), (), ("never",))


@pytest.fixture(params=list(CODES))
def grade(request, monkeypatch):
    """All candidates of mode `weights` are judged to be of this grade."""
    limits = {"backdoored": (-2.0, -1.0), "suspicious": (-2.0, 1e9)}
    lower, upper = limits.get(request.param, (1e8, 1e9))
    weights = detectors.DETECTORS["weights"]
    rule = dataclasses.replace(
        weights.rule,
        thresholds=dict.fromkeys(weights.rule.thresholds, upper),
        suspicious=dict.fromkeys(weights.rule.thresholds, lower),
    )
    known = {**detectors.DETECTORS._things}
    known["weights"] = dataclasses.replace(weights, rule=rule)
    monkeypatch.setattr(detectors.DETECTORS, "_things", known)
    return request.param


def codes(*arguments):
    """Exit codes for each of `TOLD`."""
    return tuple(
        cli.main([*map(str, arguments), *(f"--fail-on={one}" for one in told)])
        for told in TOLD
    )


def written(path, grade):
    """A results file of one candidate, whose evidence may be of no use."""
    error = "it cannot be read" if grade == "inconclusive" else None
    path.write_bytes(records.encode(lines.evidence(error=error)))
    return path


def test_of_a_scan(grade, tmp_path):
    path = tmp_path / "model.safetensors"
    files.save(tmp_path, path.name, files.variables(0))
    if grade == "inconclusive":
        path.write_bytes(b"\x10\x00")
    told = ("scan", path, "--mode", "weights", "--out", tmp_path / "out")
    assert codes(*told) == CODES[grade]
    (line,) = records.load(tmp_path / "out" / "results.jsonl").records
    assert line["verdict"] == grade


def test_of_a_report(grade, tmp_path):
    results = written(tmp_path / "results.jsonl", grade)
    assert codes("report", results, "--out", tmp_path / "out") == CODES[grade]


def test_of_a_merge_which_is_never_clean_where_it_is_not_complete(grade, tmp_path):
    path = tmp_path / "model.safetensors"
    files.save(tmp_path, path.name, files.variables(0))
    out = tmp_path / "out"
    cli.main(
        [
            "scan", str(path), "--mode=weights", "--out", str(out), "--shard=0/1",
            "--fail-on=never",
        ]
    )  # fmt: skip
    if grade == "inconclusive":
        written(out / "results.0-of-1.jsonl", grade)
        assert codes("merge", out)[:3] == CODES[grade][:3]
        return
    assert codes("merge", out) == CODES[grade]
    (out / "plan.0-of-1.json").unlink()
    assert codes("merge", out)[:3] == (outcome.INCONCLUSIVE,) * 3
