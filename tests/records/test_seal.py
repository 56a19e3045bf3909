"""Evidence is used again only where a scan of this user measured it."""

import os
import stat

import pytest

from ban_jax import cli, records
from ban_jax.records import record, seal
from ban_jax.storage import state
from tests.records import lines
from tests.scanning import files


@pytest.fixture(autouse=True)
def small_network():
    with files.known():
        yield


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Gives this process the secret of some user."""

    def become(name):
        monkeypatch.setenv(state.VARIABLE, str(tmp_path / name))

    become("me")
    return become


def test_a_sealed_line_is_ones_own_and_anybody_elses_is_not(home):
    line = seal.sealed(lines.evidence())
    assert seal.is_own(line)
    home("you")
    assert not seal.is_own(line)
    assert seal.strangers([line]) == ["a.pt"]
    home("me")
    assert seal.is_own(line) and seal.strangers([line]) == []


@pytest.mark.parametrize("field", seal.SEALED)
def test_no_number_of_a_sealed_line_may_be_changed(home, field):
    line = seal.sealed(lines.evidence())
    assert not seal.is_own({**line, field: "changed"})


@pytest.mark.parametrize("found", [None, "", "\u00e9", 5, [], "0" * 64])
def test_what_is_no_seal_seals_nothing(home, found):
    assert not seal.is_own({**lines.evidence(), "seal": found})


def test_what_is_read_from_the_file_each_time_needs_no_seal(home):
    line = seal.sealed(lines.evidence())
    assert set(seal.UNSEALED) < set(record.Evidence.__annotations__)
    assert seal.is_own({**line, "notes": ["x"], "path": "b.pt", "calls": ["os.system"]})


def test_the_secret_is_made_once_and_for_its_user_alone(home, tmp_path):
    first = state.secret()
    assert len(first.key) == 32 and first.note == ""
    assert stat.S_IMODE(os.stat(first.path).st_mode) == 0o600
    state._of.cache_clear()
    assert state.secret() == first


@pytest.mark.parametrize("fault", ["readable", "cut", "link", "folder"])
def test_a_secret_that_others_may_know_is_not_used(home, tmp_path, fault):
    first = state.secret()
    if fault == "readable":
        os.chmod(first.path, 0o644)
    elif fault == "cut":
        open(first.path, "wb").close()
    elif fault == "link":
        os.rename(first.path, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", first.path)
    else:
        os.chmod(tmp_path / "me", 0o777)
    state._of.cache_clear()
    found = state.secret()
    assert found.key != first.key and len(found.key) == 32
    assert state.VARIABLE in found.note and found.path == ""
    state._of.cache_clear()


def scan(folder, out):
    arguments = ["scan", str(folder), "--mode", "weights", "--out", str(out)]
    return cli.main(arguments)


def test_results_that_lie_among_the_models_never_become_evidence(
    home, tmp_path, capsys
):
    folder = tmp_path / "models"
    folder.mkdir()
    files.save(folder, "a.safetensors", files.variables(0))
    out = folder / "ban-results"
    home("stranger")
    scan(folder, out)
    (honest,) = records.load(out / "results.jsonl").records
    forged = {**honest, "vectors": {**honest["vectors"], "last_layer": [0.0] * 5}}
    for shipped in (forged, seal.sealed(forged), {**forged, "seal": None}):
        home("stranger")
        records.rewrite(out / "results.jsonl", [shipped])
        home("me")
        capsys.readouterr()
        scan(folder, out)
        told = capsys.readouterr().err
        assert "1 of the results were not measured by a scan of yours" in told
        (line,) = records.load(out / "results.jsonl").records
        assert line["vectors"] == honest["vectors"]
        assert seal.is_own(line)
    scan(folder, out)
    assert "not measured by a scan of yours" not in capsys.readouterr().err


def test_report_and_merge_read_results_of_others_and_say_so(home, tmp_path, capsys):
    part = tmp_path / "part"
    part.mkdir()
    records.rewrite(part / "results.0-of-1.jsonl", [seal.sealed(lines.judged())])
    records.rewrite(part / "results.jsonl", [seal.sealed(lines.judged())])
    commands = (
        ["merge", str(part), "--out", str(tmp_path / "m")],
        ["report", str(part / "results.jsonl"), "--out", str(tmp_path / "r")],
    )
    for command in commands:
        cli.main(command)
        assert "not measured by a scan of yours" not in capsys.readouterr().err
    home("you")
    for command in commands:
        cli.main(command)
        told = capsys.readouterr().err
        assert "1 of the results were not measured by a scan of yours" in told
        assert "their numbers are taken as they stand" in told
    # What was not one's own is not made one's own by joining it.
    (line,) = records.load(tmp_path / "m" / "results.jsonl").records
    assert not seal.is_own(line)
    home("me")
    assert seal.is_own(line)
