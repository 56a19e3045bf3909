"""The tests run by themselves as the README says, on the Pythons that are promised."""

import configparser
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).parents[1]
WORKFLOW = yaml.safe_load(
    (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
)
JOB = WORKFLOW["jobs"]["tests"]


def test_the_oldest_and_the_newest_python_that_is_promised_are_tested():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    found = re.findall(r"Python :: (3\.\d+)", settings["metadata"]["classifiers"])
    promised = sorted(found, key=lambda one: int(one.removeprefix("3.")))
    assert JOB["strategy"]["matrix"]["python-version"] == [promised[0], promised[-1]]
    assert settings["options"]["python_requires"] == f">={promised[0]}"
    setup = next(one for one in JOB["steps"] if "setup-python" in one.get("uses", ""))
    assert setup["with"]["python-version"] == "${{ matrix.python-version }}"


def test_one_python_that_fails_does_not_hide_the_other():
    assert JOB["strategy"]["fail-fast"] is False


def test_they_are_run_with_the_readmes_command_by_the_python_that_was_set_up():
    (command,) = (one["run"] for one in JOB["steps"] if "run" in one)
    (told,) = re.findall(
        r"^    (make test)\b", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert command == f"{told} PYTHON=python"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(PYTHON) -m venv .venv" in makefile


def test_every_run_installs_versions_that_are_kept_in_the_repository():
    versions = JOB["strategy"]["matrix"]["python-version"]
    for job in WORKFLOW["jobs"].values():
        told = job["env"]["PIP_CONSTRAINT"].replace(
            "${{ github.workspace }}", str(ROOT)
        )
        for version in versions:
            path = told.replace("${{ matrix.python-version }}", version)
            assert pathlib.Path(path).is_file()


def test_format_lint_and_types_are_checked():
    (command,) = (
        one["run"] for one in WORKFLOW["jobs"]["check"]["steps"] if "run" in one
    )
    assert command == "make check PYTHON=python"


def test_a_run_may_read_the_repository_and_no_more():
    assert WORKFLOW["permissions"] == {"contents": "read"}
