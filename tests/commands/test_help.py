"""What `ban-jax COMMAND --help` shows."""

import dataclasses
import importlib
import re

import pytest

from ban_jax import cli
from ban_jax.commands import grouping, repair, scan, train

TYPED = r"STR\b|\bINT\b|FLOAT|\{None|None\b"
"""Types of Python, which say nothing to whoever types a flag."""


def helped(name, capsys):
    assert cli.main([name, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_says_in_words_what_a_flag_takes(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = helped(name, capsys)
    assert not re.findall(TYPED, told)
    boxes = told[told.index(" options ") :]  # what stands before is the terminal's
    assert max(map(len, boxes.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_of_a_command_stands_in_a_group_and_is_explained(name):
    flags = importlib.import_module(f"ban_jax.commands.{name}").Flags
    inside = {
        group: set(names.split()) for group, (_, names) in grouping.GROUPS.items()
    }
    known = set.union(*inside.values())
    assert sum(map(len, inside.values())) == len(known)  # none stands in two
    told = grouping.explained(flags)
    found = grouping.grouped(flags)
    for field in dataclasses.fields(flags):
        if field.name in ("paths", "sources", "results", "zoos", "recipe"):
            continue
        if dataclasses.is_dataclass(field.default) or (name, field.name) == (
            "prepare",
            "name",
        ):
            continue
        assert field.name in known, field.name
        assert told.get(field.name) or field.name in ("mode", "method"), field.name
    groups = [one.name for one in dataclasses.fields(found) if one.name in inside]
    assert groups == [group for group in inside if group in groups]


def test_help_of_a_scan_has_its_groups_in_order(capsys):
    told = helped("scan", capsys)
    titles = re.findall(r"^\W+(\S+) options\b", told, re.M)
    assert titles[:5] == ["input", "measurement", "verdict", "output", "machine"]
    assert "ban" in titles and "neural-cleanse" in titles
    images = told[told.index(" input options") : told.index(" measurement options")]
    assert "--data NAME" in images and "--include GLOB" in images
    assert "--threshold X" not in images


@pytest.mark.parametrize(
    ("flags", "arguments", "expected"),
    [
        (scan, ["models", "--num-clean", "256", "--ban.steps", "3", "-q"], {}),
        (repair, ["a.pt", "--method", "finetune", "--finetune.epochs", "2"], {}),
        (train, ["--out", "zoo", "--epochs", "3", "--targets", "0,3"], {"out": "zoo"}),
    ],
)
def test_flags_that_were_read_are_flat_again(flags, arguments, expected):
    found = grouping.read(flags.Flags, "ban-jax", arguments)
    assert isinstance(found, flags.Flags)
    for name, value in expected.items():
        assert getattr(found, name) == value
    if flags is scan:
        assert (found.paths, found.num_clean, found.quiet) == (("models",), 256, True)
        assert (found.ban.steps, found.include, found.data) == (3, (), None)
    elif flags is repair:
        assert (found.method, found.finetune.epochs) == ("finetune", 2)
    else:
        assert (found.recipe.epochs, found.targets) == (3, (0, 3))


def test_what_is_as_for_scan_is_told_where_it_is_asked(capsys):
    scans = grouping.explained(scan.Flags)
    for name in ("merge", "report", "compare", "profile"):
        told = grouping.explained(
            importlib.import_module(f"ban_jax.commands.{name}").Flags
        )
        same = [key for key in told if told[key] == scans.get(key)]
        assert "fail_on" in same or "data" in same
