"""The action, the hook and the image call the command as it is."""

import importlib
import itertools
import os
import pathlib
import re
import shlex
import subprocess

import pytest
import yaml

from ban_jax import cli
from ban_jax.checkpoints import sniffing
from ban_jax.commands import documents, outcome, scan

ROOT = pathlib.Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/scan/action.yml").read_text("utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
DOCKER = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
for last; do :; done
if [ "$WRITES" ]; then touch "$RUNNER_TEMP/ban-jax.sarif"; fi
exit "$CODE"
"""


def step(name):
    (found,) = (one for one in ACTION["runs"]["steps"] if one.get("name") == name)
    return found


def parsed(arguments):
    """The flags of a command line, which must be understood."""
    name, *rest = arguments
    flags = cli._parse(
        importlib.import_module(f"ban_jax.commands.{name}").Flags, name, rest
    )
    assert not isinstance(flags, int), arguments
    return flags


def scanned(folder, code=0, writes="yes", **inputs):
    """What the action asks of `ban-jax`, and the outputs of its step.

    Args:
      folder: an empty one.
      code: that the scan ends with.
      writes: whether it writes its document.
      inputs: of the action, the others have their defaults.
    """
    program = folder / "ban-jax"
    program.write_text(STUB, encoding="utf-8")
    program.chmod(0o755)
    outputs = folder / "outputs"
    outputs.touch()
    given = {
        key: inputs.get(key.lower(), ACTION["inputs"][key.lower()].get("default", ""))
        for key in ("PATHS", "DATA", "FLAGS", "OUT")
    }
    given["FAIL_ON"] = inputs.get("fail_on", ACTION["inputs"]["fail-on"]["default"])
    environment = {
        **given,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder),
        "GITHUB_OUTPUT": str(outputs),
        "CODE": str(code),
        "WRITES": writes,
    }
    script = [
        "bash",
        "--noprofile",
        "--norc",
        "-eo",
        "pipefail",
        "-c",
        step("Scan")["run"],
    ]
    subprocess.run(script, env=environment, check=True)
    arguments = (folder / "arguments").read_text(encoding="utf-8").splitlines()
    told = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    return arguments, told


def test_the_action_asks_for_a_scan_that_is_understood(tmp_path):
    arguments, told = scanned(
        tmp_path,
        paths="models\nmore models\n",
        data="clean.npz",
        flags="--num-clean 256",
    )
    flags = parsed(arguments)
    assert flags.paths == ("models", "more models")
    assert (flags.data, flags.num_clean) == ("clean.npz", 256)
    assert (flags.format, flags.fail_on) == ("sarif", "suspicious")
    assert flags.output == told["sarif"] == str(tmp_path / "ban-jax.sarif")
    assert told["exit-code"] == "0"


def test_the_action_judges_weights_alone_where_there_are_no_images(tmp_path):
    arguments, _ = scanned(tmp_path, paths="models", fail_on="never", out="here")
    flags = parsed(arguments)
    assert (flags.mode, flags.data, flags.out) == ("weights", None, "here")
    assert flags.fail_on == "never"


def test_an_input_of_the_action_is_never_run(tmp_path):
    hostile = '$(touch owned); `touch owned`"; touch owned #'
    arguments, _ = scanned(tmp_path, paths=hostile, data=hostile, out=hostile)
    assert arguments.count(hostile) == 3
    assert not list(tmp_path.glob("**/owned"))
    for one in ACTION["runs"]["steps"]:
        assert "inputs." not in one.get("run", "")


def test_the_action_ends_as_the_scan_did_after_the_upload(tmp_path):
    _, told = scanned(tmp_path, code=1, paths="models")
    assert told["exit-code"] == "1" and told["sarif"]
    names = [one.get("name") for one in ACTION["runs"]["steps"]]
    assert names[-3:] == ["Scan", "Upload", "Verdict"]
    assert step("Verdict")["env"]["CODE"] == "${{ steps.scan.outputs.exit-code }}"
    assert subprocess.run(
        ["bash", "-c", step("Verdict")["run"]], env={"CODE": "1"}
    ).returncode


def test_the_action_uploads_nothing_where_nothing_was_written(tmp_path):
    _, told = scanned(tmp_path, code=4, writes="", paths="models")
    assert told == {"exit-code": "4"}
    assert "steps.scan.outputs.sarif != ''" in step("Upload")["if"]


def test_the_action_installs_what_lies_beside_it():
    install = step("Install")["run"]
    path = install.replace("$GITHUB_ACTION_PATH", str(ROOT / ".github/actions/scan"))
    assert pathlib.Path(shlex.split(path)[-1]).resolve() == ROOT.resolve()


def test_what_the_action_says_of_its_inputs_is_so():
    told = ACTION["inputs"]["fail-on"]["description"]
    assert all(grade in told for grade in outcome.FAIL_ON)
    assert "sarif" in documents.Format.__args__


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_asks_for_a_scan_that_is_understood(hook):
    program, *arguments = shlex.split(hook["entry"])
    flags = parsed([*arguments, "model.pt", "--fail-on", "backdoored"])
    assert program == "ban-jax"
    assert (flags.paths, flags.mode) == (("model.pt",), "weights")
    assert hook["require_serial"]  # all of them write to one folder


def test_the_image_runs_the_command_as_a_user_without_rights():
    lines = [line.split(maxsplit=1) for line in DOCKER.splitlines() if line.strip()]
    last = {word: rest for word, rest in lines}
    assert last["USER"].isdigit() and int(last["USER"]) >= 1000
    assert last["ENTRYPOINT"] == '["ban-jax"]'
    words = [word for word, _ in lines]
    assert "RUN" not in words[words.index("USER") :]
    assert parsed(["scan", "/models"]).out == scan.Flags().out


def test_the_image_is_given_all_that_the_package_is_built_from():
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    given = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert given == {
        "ban_jax",
        "models",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "setup.cfg",
    }
    assert all((ROOT / name).exists() for name in given)


CI_PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")


def settings_of_the_page():
    """The YAML blocks of the page."""
    return [
        yaml.safe_load(one)
        for one in re.findall(r"^```yaml\n(.*?)^```", CI_PAGE, re.M | re.S)
    ]


def test_the_page_calls_the_action_by_its_place_and_its_inputs():
    (workflow,) = (one for one in settings_of_the_page() if "jobs" in one)
    (call,) = (one for one in workflow["jobs"]["backdoors"]["steps"] if "with" in one)
    place = call["uses"].split("/", 2)[2].partition("@")[0]
    assert (ROOT / place / "action.yml").exists()
    assert set(call["with"]) <= set(ACTION["inputs"])
    required = {key for key, one in ACTION["inputs"].items() if one.get("required")}
    assert required <= set(call["with"])
    told = re.search(r"other inputs are (.*?);", CI_PAGE, re.S)[1]
    others = set(re.findall(r"`([\w-]+)`", told))
    assert others | set(call["with"]) == set(ACTION["inputs"])


def test_hooks_are_given_every_file_that_the_reader_takes_by_its_name():
    for hook, suffix in itertools.product(HOOKS, sniffing.MODEL_SUFFIXES):
        assert re.search(hook["files"], f"models/one{suffix}"), suffix


def test_the_page_calls_a_hook_that_is_there():
    (settings,) = (one for one in settings_of_the_page() if "repos" in one)
    (hook,) = settings["repos"][0]["hooks"]
    (known,) = (one for one in HOOKS if one["id"] == hook["id"])
    parsed(shlex.split(known["entry"])[1:] + hook.get("args", []) + ["model.pt"])


def test_the_pages_command_for_the_image_has_no_network_and_one_folder_to_write_to():
    run = re.search(r"docker run (?:.*\\\n)+.*", CI_PAGE)[0]
    words = shlex.split(run.replace("\\\n", " "))
    options, arguments = (
        words[: words.index("ban-jax")],
        words[words.index("ban-jax") + 1 :],
    )
    assert options[options.index("--network") + 1] == "none"
    assert {"--read-only", "--user"} <= set(options)
    assert (
        options[options.index("--tmpfs") + 1] == "/tmp"
    )  # nothing is imported without
    volumes = [options[at + 1] for at, word in enumerate(options) if word == "--volume"]
    writable = [one.rpartition(":")[2] for one in volumes if not one.endswith(":ro")]
    assert writable == ["/work"]
    assert "WORKDIR /work" in DOCKER and "HOME=/work" in DOCKER
    flags = parsed(arguments)
    assert flags.paths == ("/models",) and not os.path.isabs(flags.out)
