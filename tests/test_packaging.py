"""What is handed on is whole, and no message sends anybody for a stranger's package."""

import configparser
import fnmatch
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
EXTRAS = set(SETUP["options.extras_require"])
LOCKS = sorted((ROOT / ".ci").glob("constraints-*.txt"))


def test_the_source_distribution_names_every_file_of_the_repository():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no checkout: this may be the source distribution itself")
    rules = [
        line.split()
        for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    ]
    grafted = tuple(f"{rule[1]}/" for rule in rules if rule[0] == "graft")
    included = [one for rule in rules if rule[0] == "include" for one in rule[1:]]
    own = {"MANIFEST.in", "setup.cfg", "pyproject.toml"}  # setuptools takes them itself
    missing = [
        name
        for name in listed.stdout.splitlines()
        if not name.startswith(grafted)
        and name not in own
        and not any("/" not in name and fnmatch.fnmatch(name, one) for one in included)
    ]
    assert missing == [".gitignore"]


def test_messages_advise_this_package_and_its_extras_alone():
    advised = set()
    for top in ("ban_jax", "models"):
        for path in sorted((ROOT / top).rglob("*.py")):
            text = re.sub(r'"\s+f?"', "", path.read_text(encoding="utf-8"))
            assert "pip install" not in text, path
            advised |= set(re.findall(r"its extra `(\w+)`", text))
    assert {"hub", "remote"} <= advised <= EXTRAS


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_pins_all_that_is_installed_and_names_no_place(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", line) for line in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins}
    wanted = "\n".join(
        [SETUP["options"]["install_requires"], SETUP["options.extras_require"]["test"]]
    )
    for line in filter(None, wanted.splitlines()):
        name = re.match(r"[\w.-]+", line)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, name


def test_every_python_that_is_named_has_a_lock_file():
    named = re.findall(r"Python :: (\d\.\d+)", SETUP["metadata"]["classifiers"])
    locked = {path.stem.removeprefix("constraints-") for path in LOCKS}
    assert locked <= set(named) and named[0] in locked and named[-1] in locked
