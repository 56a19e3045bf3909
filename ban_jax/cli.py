"""`ban-jax`: flags in, exit code out. No numerics; the only home of global JAX settings.

Exit codes: 0 every candidate judged clean; 1 something flagged and everything judged;
2 something inconclusive or unreadable; 3 nothing to scan; 4 wrong usage or input;
5 internal error; 130 interrupted; 141 nobody reads the output any more.

Each command is a module of `ban_jax.commands` with `Flags` and `run(flags)`; it is imported
only when it is asked for, so that the list of commands appears at once.
"""

import contextlib
import errno
import gc
import importlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

USAGE, INTERNAL, INTERRUPTED, UNREAD = 4, 5, 130, 141
SELDOM = (50_000, 20, 100)
"""Objects between two collections of garbage (`gc.set_threshold`): imports and tracing make
millions that live on, and looking through them again and again takes time."""

COMMANDS = {
    "scan": "judges checkpoints: backdoored, clean or inconclusive",
    "profile": "describes clean models, for scans to compare with",
    "report": "draws verdicts again from stored evidence",
    "merge": "joins the results of `scan --shard`",
    "repair": "removes backdoors: repairs checkpoints, scans them again, compares",
    "compare": "sets detectors side by side on models whose truth is known",
    "train": "trains clean and backdoored models with known ground truth",
    "prepare": "downloads a TFDS data set",
    "bench": "measures this package on the device at hand",
}


UNTRUSTED = ("scan", "profile", "report", "merge", "repair", "compare")
"""Commands that read what strangers wrote: file names, results, data sets."""


KEEPING = ("scan", "profile", "repair", "compare", "train")
"""Commands that keep what is done when they are interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `argv` without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    return _caught(name, lambda: _main(name, arguments))


def _main(name: str, arguments: Sequence[str]) -> int:
    """Answers what no command is needed for, or starts one."""
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        import ban_jax  # of no weight: nothing in it is imported before it is used

        print(f"ban-jax {ban_jax.__version__}")
        return 0
    if arguments == ["--print-completion", "bash"]:
        from ban_jax.commands import completion

        print(completion.script(COMMANDS), end="")
        return 0
    if name not in COMMANDS:
        found = f"there is no command {name!r}" if name else "no command given"
        print(f"ban-jax: {found}\n\n{_help()}", file=sys.stderr)
        return USAGE
    return _start(name, arguments[1:])


def _start(name: str, arguments: Sequence[str]) -> int:
    """Parses the flags of a command and runs it."""
    command = importlib.import_module(f"ban_jax.commands.{name}")
    flags = _parse(command.Flags, name, arguments)
    if isinstance(flags, int):
        return flags
    _configure_jax()
    if name not in UNTRUSTED:
        return command.run(flags)
    from ban_jax.report import terminal  # loaded by now, with the command

    with terminal.guarded():
        return _caught(name, lambda: command.run(flags))


def _caught(name: str, call: Callable[[], int]) -> int:
    """The exit code of a call on behalf of a command, whatever ends it."""
    try:
        return call()
    except BrokenPipeError:
        return UNREAD  # as of a program that the signal ended: `ban-jax ... | head`
    except KeyboardInterrupt:
        kept = ": what is done is kept; the same command goes on from there"
        print(f"\ninterrupted{kept if name in KEEPING else ''}", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        print(f"ban-jax: {error}", file=sys.stderr)
        return USAGE
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            where = getattr(error, "filename", None) or "standard output"
            print(f"ban-jax: {where}: no space left to write to", file=sys.stderr)
        else:
            traceback.print_exc()
        return INTERNAL


def entry() -> NoReturn:
    """The program: `main`, and an end that waits for nothing when it is interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, _interrupt)
    gc.set_threshold(*SELDOM)
    code = main()
    if flushed := _caught("", lambda: sys.stdout.flush() or 0):
        # Who read the output has gone, which is no failure, or its disk is full.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code if flushed == UNREAD else flushed
    if code != INTERRUPTED and (runner := sys.modules.get("ban_jax.scanning.runner")):
        runner.finish()
    if code == INTERRUPTED or "ray" not in sys.modules:  # whose workers must be told
        # A chunk that the device is busy with cannot be stopped, and would be waited for;
        # and to free what XLA has loaded, piece by piece, takes seconds.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> NoReturn:
    """The first Ctrl-C ends the command in order, a second one the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _parse(flags: Any, name: str, arguments: Sequence[str]) -> Any:
    """The flags, or an exit code where help was asked for or the usage is wrong."""
    from ban_jax import visible
    from ban_jax.commands import given, grouping, settings_file  # a tenth of a second

    told = settings_file.section(name, COMMANDS)
    added = settings_file.more_arguments(name, flags, told, arguments)
    if added:
        note = f"{settings_file.NAME} adds: {shlex.join(added)}"
        print(f"note: {visible.printable(note)}", file=sys.stderr)
    try:
        parsed = grouping.read(flags, f"ban-jax {name}", [*arguments, *added])
    except SystemExit as stop:
        return USAGE if stop.code else 0
    except ValueError as error:
        if not added:
            raise
        where = f"{settings_file.NAME} adds what stands in its section [{name}]"
        raise ValueError(f"{error} ({where})") from None
    if added:
        settings_file.refuse_among(given.paths(parsed))
    return parsed


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ban-jax COMMAND [FLAGS]",
            "       ban-jax --version",
            "       ban-jax --print-completion bash",
            "",
            "Finds backdoors in neural network checkpoints.",
            "",
            *lines,
            "",
            "`ban-jax COMMAND --help` lists the flags of a command.",
        ]
    )


def _configure_jax() -> None:
    """Keeps compiled programs between runs, unless JAX was already told where."""
    from ban_jax.storage import compile_cache

    if note := compile_cache.use(os.environ):
        print(f"note: {note}", file=sys.stderr)


if __name__ == "__main__":
    entry()
