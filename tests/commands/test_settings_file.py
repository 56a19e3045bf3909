"""`ban-jax.toml`: flags that need no typing, and nothing in it that is passed over."""

import dataclasses
import importlib
import json
import os
import zipfile

import pytest

from ban_jax import cli
from ban_jax.commands import bench, given, report, scan, settings_file, train


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the file into the folder that commands start in."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / settings_file.NAME).write_text


def added(*arguments, command="scan", flags=scan.Flags):
    given = settings_file.section(command, cli.COMMANDS)
    return settings_file.more_arguments(command, flags, given, arguments)


def test_without_a_file_nothing_is_added(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert added() == []


def test_flags_of_the_file_are_added_in_every_form(written):
    written(
        '[scan]\nfail_on = "never"\nthreshold = -1.5\nexhaustive = true\n'
        'resume = false\nquiet = false\nexclude = ["a", "b"]\n'
        "[scan.ban]\nsteps = 8\nradii = [0.5, 1]\n[report]\npictures = 0\n"
    )
    assert added() == [
        "--fail-on=never", "--threshold=-1.5", "--exhaustive", "--no-resume",
        "--exclude=a", "--exclude=b", "--ban.steps=8", "--ban.radii", "0.5", "1",
    ]  # fmt: skip
    os.mkdir("models")
    flags = cli._parse(scan.Flags, "scan", ["models", "--resume", "--ban.steps", "3"])
    assert flags.paths == ("models",) and flags.exclude == ("a", "b")
    assert (flags.threshold, flags.exhaustive, flags.resume) == (-1.5, True, True)
    assert (flags.ban.steps, flags.ban.radii) == (3, (0.5, 1.0))


def test_the_command_line_wins_whatever_name_of_a_flag_it_uses(written):
    written('[scan]\noutput = "x"\nresume = true\nfail-on = "never"\n')
    assert added("-oy", "--no-resume", "--fail_on=backdoored") == []


def test_every_command_has_its_own_section(written):
    written("[bench]\nrepeats = 2\n[train]\nepochs = 1\n")
    assert added(command="report", flags=report.Flags) == []
    assert added(command="bench", flags=bench.Flags) == ["--repeats=2"]
    assert added(command="train", flags=train.Flags) == ["--epochs=1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[scan]\nfail-no = "never"\n', "'fail-no' in [scan] is no flag of `ban-jax"),
        ('[scan]\npaths = ["models"]\n', "'paths' in [scan] is no flag"),
        ("[scan.ban]\nstep = 1\n", "'ban.step' in [scan] is no flag"),
        ("[scna]\n", "'scna' is not a section; expected one of [scan], "),
        ("quiet = true\n", "'quiet' is not a section"),
        (
            '[scan]\nquiet = "yes"\n',
            "'quiet' in [scan] must be true or false, got 'yes'",
        ),
        ("[scan]\ndata = true\n", "'data' in [scan] must be a value, got True"),
        ("[scan\n", "ban-jax.toml cannot be read: "),
        ("[scan]\nmode = 3\n", "'mode' in [scan] must be a valid string, got 3"),
        ('[scan]\nseed = "3"\n', "'seed' in [scan] must be a valid integer, got '3'"),
        ("[scan]\nseed = 0.5\n", "'seed' in [scan] must be a valid integer"),
        ('[scan]\nthreshold = "9"\n', "'threshold' in [scan] must be a valid number"),
        ("[scan]\nexclude = [3]\n", "'exclude' in [scan] must be a valid string each"),
        ("[scan]\nformat = 3\n", "'format' in [scan] must be 'table', 'json'"),
        ("[scan]\nout = 1979-05-27\n", "'out' in [scan] must be a valid string"),
        ("[scan.ban]\nradii = [[1]]\n", "'ban.radii' in [scan] must be a valid number"),
        (
            '[scan]\nmode = "magic"\n',
            "unknown detector 'magic'; known: ban, ",
        ),
        ('[scan]\nmode = "magic"\n', "(ban-jax.toml adds what stands in its section ["),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    written, tmp_path, capsys, content, message
):
    written(content)
    assert cli.main(["scan", str(tmp_path)]) == cli.USAGE
    told = capsys.readouterr().err
    assert settings_file.NAME in told and message in told


def test_what_the_file_adds_is_told_of(written, tmp_path, capsys):
    written('[scan]\nmode = "weights"\nformat = "json"\n')
    (tmp_path / "models").mkdir()
    cli.main(["scan", "models"])
    told = capsys.readouterr()
    assert "ban-jax.toml adds: --mode=weights --format=json" in told.err
    assert json.loads(told.out)["results"] == []


@pytest.mark.parametrize("judged", [".", "..", "model.pt", "{here}"])
def test_a_file_that_may_have_come_with_the_models_is_refused(written, judged, capsys):
    written('[scan]\nexclude = ["*"]\n')
    path = judged.format(here=os.getcwd())
    assert cli.main(["scan", path, "--mode", "weights"]) == cli.USAGE
    told = capsys.readouterr().err
    assert settings_file.NAME in told and f"lies with {path}" in told


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of a stranger: models, results, and a settings file for every command."""
    monkeypatch.chdir(tmp_path)
    for name in ("bad.pt", "x.pt#real", "results.jsonl", "results.0-of-1.jsonl"):
        (tmp_path / name).write_bytes(b"")
    for name in ("m.zip", "m.zip!"):
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("d/bad.pt", b"")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "link.pt").symlink_to(tmp_path / "bad.pt")
    (tmp_path / "here.pt").symlink_to(tmp_path / "away" / "other.pt")
    (tmp_path / "away" / "other.pt").write_bytes(b"")
    (tmp_path / "away" / "results.jsonl").write_bytes(b"")
    sections = {"scan", "report", "merge", "profile", "repair", "compare"}
    told = {name: "seed = 1" for name in sections} | dict.fromkeys(
        ("report", "merge"), "threshold = 1000.0"
    )
    written = "".join(f"[{name}]\n{line}\n" for name, line in told.items())
    (tmp_path / settings_file.NAME).write_text(written)


def started(command, *arguments):
    """The flags of a command, or a `ValueError` that refuses the settings file."""
    flags = importlib.import_module(f"ban_jax.commands.{command}").Flags
    return cli._parse(flags, command, list(arguments))


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "m.zip"),
        ("scan", "m.zip!/d/bad.pt"),
        ("scan", "m.zip!!/d/bad.pt"),
        ("scan", "m.zip!/d/bad.pt#net"),
        ("scan", "bad.pt#net/model"),
        ("scan", "bad.pt##net/model"),
        ("scan", "x.pt#real"),
        ("scan", "away/../bad.pt#net/model"),
        ("scan", "away/link.pt"),
        ("scan", "here.pt"),
        ("scan", "away", "--calibrate", "."),
        ("report", "results.jsonl"),
        ("report", "./results.jsonl"),
        ("report", "away/results.jsonl", "--trusted", "results.jsonl"),
        ("merge", "."),
        ("merge", "results.0-of-1.jsonl"),
        ("merge", "away", "."),
        ("profile", "results.jsonl", "-o", "p.json"),
        ("profile", "away", "-o", "p.json", "--null", "results.jsonl"),
        ("repair", "--from-scan", "results.jsonl"),
        ("compare", "."),
    ],
)
def test_what_came_with_models_or_results_is_refused_however_they_are_named(
    shipped, words
):
    with pytest.raises(
        ValueError, match="and may have come with it: start the command"
    ):
        started(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "away"),
        ("scan", "away/other.pt", "--data", "clean.npz", "--profile", "profile.json"),
        ("scan", "hf://owner/name"),
        ("scan", "https://models.example/a.pt"),
        ("scan", "gs://bucket"),
        ("report", "away/results.jsonl", "--profile", "profile.json"),
        ("merge", "away"),
        ("repair", "--from-scan", "away/results.jsonl"),
        ("compare", "away"),
    ],
)
def test_a_file_above_models_and_results_is_the_users_own(shipped, words):
    flags = started(*words)
    assert getattr(flags, "seed", None) == 1 or flags.threshold == 1000.0


def test_the_flags_that_count_as_inputs_are_there():
    known = set()
    for command in cli.COMMANDS:
        flags = importlib.import_module(f"ban_jax.commands.{command}").Flags
        known |= {field.name for field in dataclasses.fields(flags)}
    assert known >= {*given.STRANGERS, *given.OWN}


def test_the_default_of_every_flag_may_stand_in_the_file():
    for command in cli.COMMANDS:
        flags = importlib.import_module(f"ban_jax.commands.{command}").Flags
        kinds = {names[0]: kind for _, names, kind in settings_file._names(flags)}
        for field in dataclasses.fields(flags):
            flag = f"--{field.name.replace('_', '-')}"
            if flag in kinds and isinstance(field.default, str | int | float | tuple):
                value = field.default
                value = list(value) if isinstance(value, tuple) else value
                if kinds[flag] == str | int and isinstance(value, list):
                    value = ",".join(map(str, value))  # as on the command line
                assert not settings_file._why_not(value, kinds[flag]), flag
