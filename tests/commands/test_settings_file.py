"""`ban-jax.toml`: flags that need no typing, and nothing in it that is passed over."""

import json
import os

import pytest

from ban_jax import cli
from ban_jax.commands import bench, report, scan, settings_file, train


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


def test_a_file_above_the_models_is_the_users_own(written):
    written('[scan]\nfail-on = "never"\n')
    os.mkdir("models")
    assert cli._parse(scan.Flags, "scan", ["models"]).fail_on == "never"
