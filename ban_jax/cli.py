"""`ban-jax`: flags in, exit code out. No numerics; the only home of global JAX settings.

Exit codes: 0 every candidate judged clean; 1 something flagged and everything judged;
2 something inconclusive or unreadable; 3 nothing to scan; 4 wrong usage or input;
5 internal error; 130 interrupted.
"""

import dataclasses
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import jax
import tyro

from ban_jax import config, data
from ban_jax.commands import bench
from ban_jax.commands import repair as repair_command
from ban_jax.commands import scan as scan_command
from ban_jax.commands import train as train_command
from ban_jax.repairs import inputs
from ban_jax.storage import compile_cache

USAGE, INTERNAL, INTERRUPTED = 4, 5, 130

Command = (
    Annotated[config.ScanFlags, tyro.conf.subcommand("scan")]
    | Annotated[config.ReportFlags, tyro.conf.subcommand("report")]
    | Annotated[config.MergeFlags, tyro.conf.subcommand("merge")]
    | Annotated[train_command.Flags, tyro.conf.subcommand("train")]
    | Annotated[inputs.RepairFlags, tyro.conf.subcommand("repair")]
    | Annotated[config.PrepareFlags, tyro.conf.subcommand("prepare")]
    | Annotated[config.BenchFlags, tyro.conf.subcommand("bench")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `argv` without the program's name."""
    try:
        flags = tyro.cli(
            Command,
            prog="ban-jax",
            description="Finds backdoors in neural network checkpoints.",
            args=argv,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    except SystemExit as stop:
        return USAGE if stop.code else 0
    except ValueError as error:
        return _refuse(error)
    try:
        return _run(flags)
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what is done is kept; the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except ValueError as error:
        return _refuse(error)
    except Exception:
        traceback.print_exc()
        return INTERNAL


def _run(flags: Command) -> int:
    _configure_jax()
    match flags:
        case config.ScanFlags():
            if flags.shard == "auto":
                flags = dataclasses.replace(flags, shard=_shard_of_cluster())
            return scan_command.run_scan(flags)
        case config.ReportFlags():
            return scan_command.run_report(flags)
        case config.MergeFlags():
            return scan_command.run_merge(flags)
        case config.PrepareFlags():
            print(data.prepare(flags.name, flags.data_dir))
        case config.BenchFlags():
            bench.run(flags)
        case inputs.RepairFlags():
            return repair_command.run_repair(flags)
        case train_command.TrainFlags():
            return train_command.run(flags)
    return 0


def _refuse(error: ValueError) -> int:
    print(f"ban-jax: {error}", file=sys.stderr)
    return USAGE


def _configure_jax() -> None:
    """Keeps compiled programs between runs, unless JAX was already told where."""
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder, note = compile_cache.folder(os.environ)
    if note:
        print(f"note: {note}", file=sys.stderr)
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _shard_of_cluster() -> str:
    """`i/n` of this process, from whatever started it together with others.

    The processes meet once and part: from then on nobody waits for anybody, and one that
    dies takes no other with it.
    """
    try:
        jax.distributed.initialize()
        index, count = jax.process_index(), jax.process_count()
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"--shard auto: jax.distributed found no cluster ({error}). On a single "
            "machine or in a job array give the numbers: --shard i/n"
        ) from error
    return f"{index}/{count}"


if __name__ == "__main__":
    sys.exit(main())
