"""The program itself: its list of commands, and what it loads for it."""

import subprocess
import sys

import pytest

from ban_jax import cli

LOADED = """
import sys
from ban_jax import cli
code = cli.main(sys.argv[1:])
heavy = {"jax", "jaxlib", "tyro", "flax", "numpy", "rich"} & set(sys.modules)
sys.exit(f"loaded {sorted(heavy)}" if heavy else code)
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )


def test_the_list_of_commands_loads_nothing_heavy():
    found = python(LOADED, "--help")
    assert found.returncode == 0, found.stderr
    for name, summary in cli.COMMANDS.items():
        assert name in found.stdout and summary in found.stdout
    wrong = python(LOADED, "scna")
    assert wrong.returncode == cli.USAGE, wrong.stderr
    assert "there is no command 'scna'" in wrong.stderr


def test_importing_the_package_loads_no_jax():
    found = python("import ban_jax, sys; sys.exit('jax' in sys.modules)")
    assert found.returncode == 0


@pytest.mark.parametrize("name", [*cli.COMMANDS])
def test_every_command_has_flags_and_help(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert f"ban-jax {name}" in capsys.readouterr().out


def test_no_command_is_wrong_usage_and_lists_them(capsys):
    assert cli.main([]) == cli.USAGE
    told = capsys.readouterr().err
    assert "no command given" in told and "repair" in told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("what is wrong"), cli.USAGE),
        (KeyboardInterrupt(), cli.INTERRUPTED),
        (RuntimeError("a fault of ours"), cli.INTERNAL),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(monkeypatch, capsys, error, code):
    from ban_jax.commands import report

    def failing(flags):
        raise error

    monkeypatch.setattr(report, "run", failing)
    assert cli.main(["report", "results.jsonl"]) == code
    told = capsys.readouterr().err
    assert str(error) in told
    assert ("Traceback" in told) == (code == cli.INTERNAL)


ENDING = """
import atexit, sys, types
from ban_jax import cli
for name in sys.argv[1:]:
    sys.modules[name] = types.ModuleType(name)
sys.argv = ["ban-jax", "--version"]
atexit.register(print, "took leave")
cli.entry()
"""


@pytest.mark.parametrize("loaded, told", [((), 1), (("ray",), 2)])
def test_the_program_ends_at_once_unless_workers_must_be_told(loaded, told):
    """What XLA loaded takes seconds to free; what was printed is there all the same."""
    ended = python(ENDING, *loaded)
    assert ended.returncode == 0 and not ended.stderr
    assert len(ended.stdout.splitlines()) == told


LOADING = """
import sys, time
from ban_jax import cli
from ban_jax.scanning import runner
sys.argv = ["ban-jax", "--version"]
runner._ahead.submit(lambda: (time.sleep(0.3), print("loaded", flush=True)))
cli.entry()
"""


def test_the_program_waits_for_what_it_may_be_writing_to_the_cache():
    ended = python(LOADING)
    assert ended.returncode == 0 and "loaded" in ended.stdout, ended.stderr
