"""`ban-jax`: flags in, exit code out. No numerics; the only home of global JAX settings.

Exit codes: 0 every candidate judged clean; 1 something flagged and everything judged;
2 something inconclusive or unreadable; 3 nothing to scan; 4 wrong usage or input;
5 internal error; 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import tyro

from ban_jax import config

USAGE, INTERNAL, INTERRUPTED = 4, 5, 130

Command = (
    Annotated[config.ScanFlags, tyro.conf.subcommand("scan", prefix_name=False)]
    | Annotated[config.ReportFlags, tyro.conf.subcommand("report", prefix_name=False)]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `argv` without the program's name."""
    try:
        flags = tyro.cli(Command, prog="ban-jax", args=argv)  # type: ignore[call-overload]
    except SystemExit as stop:
        return USAGE if stop.code else 0
    except ValueError as error:
        print(f"ban-jax: {error}", file=sys.stderr)
        return USAGE
    try:
        return _run(flags)
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what was judged is kept; the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except ValueError as error:
        print(f"ban-jax: {error}", file=sys.stderr)
        return USAGE
    except Exception:
        traceback.print_exc()
        return INTERNAL


def _run(flags: config.ScanFlags | config.ReportFlags) -> int:
    _configure_jax()
    from ban_jax import commands  # imports JAX, which --help does not need

    if isinstance(flags, config.ScanFlags):
        return commands.run_scan(flags)
    return commands.run_report(flags)


def _configure_jax() -> None:
    """Persistent compilation cache, where the user names a folder for it.

    The cache can run code for whoever can write to it: it has no default place.
    """
    import jax

    folder = os.environ.get("BAN_JAX_CACHE")
    if folder:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


if __name__ == "__main__":
    sys.exit(main())
