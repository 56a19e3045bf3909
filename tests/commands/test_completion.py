"""Completion of commands and flags in a shell, asked of a real one."""

import shutil
import subprocess

import pytest

from ban_jax import cli

ASKED = """
COMP_WORDS=({words}); COMP_CWORD={at}
_ban_jax
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ban-jax", "re"], ["report", "repair"]),
        (["ban-jax", "--v"], ["--version"]),
        (["ban-jax", "scan", "--fo"], ["--format"]),
        (["ban-jax", "scan", "--no-r"], ["--no-resume"]),
        (["ban-jax", "scan", "--ban.st"], ["--ban.start", "--ban.steps"]),
        (["ban-jax", "report", "--pic"], ["--pictures"]),
        (["ban-jax", "scan", "models"], []),
    ],
)  # fmt: skip
def test_a_shell_completes_commands_and_their_flags(capsys, words, found):
    assert cli.main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    asked = ASKED.format(words=" ".join(words), at=len(words) - 1)
    told = subprocess.run(
        ["bash", "-c", script + asked], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == found
