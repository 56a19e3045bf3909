"""`ban-jax --print-completion bash`: a script that completes commands, flags and paths.

zsh reads it, too, after `autoload -U +X bashcompinit && bashcompinit`.
"""

import importlib
from collections.abc import Iterable

from ban_jax.commands import settings_file

_SCRIPT = """\
_ban_jax() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    elif [ "${{word#-}}" != "$word" ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _ban_jax ban-jax
"""
"""Where nothing else is known, `-o default` completes paths."""


def script(commands: Iterable[str]) -> str:
    """The script, for bash.

    Args:
      commands: their names; a command's flags are read from its module.
    """
    names = list(commands)
    cases = []
    for name in names:
        flags = importlib.import_module(f"ban_jax.commands.{name}").Flags
        told = " ".join(settings_file.names_of(flags))
        cases.append(f'        {name}) words="{told} --help" ;;')
    return _SCRIPT.format(commands=" ".join(names), cases="\n".join(cases))
