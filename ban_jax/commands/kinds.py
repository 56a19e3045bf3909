"""What flags take, under names that help shows: PATH, NAME, TEXT, GLOB, N, X."""

from typing import Annotated

import tyro

Path = Annotated[str, tyro.conf.arg(metavar="PATH")]
MaybePath = Annotated[str | None, tyro.conf.arg(metavar="PATH")]
Paths = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[PATH ...]")]
Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
MaybeName = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")]
Globs = tyro.conf.UseAppendAction[
    Annotated[tuple[str, ...], tyro.conf.arg(metavar="GLOB")]
]
"""Given once for each pattern: a list would swallow the paths that follow."""
MaybeText = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]
Count = Annotated[int, tyro.conf.arg(metavar="N")]
MaybeCount = Annotated[int | None, tyro.conf.arg(metavar="N")]
MaybeNumber = Annotated[float | None, tyro.conf.arg(metavar="X")]
Output = Annotated[str, tyro.conf.arg(metavar="FILE|-", aliases=["-o"])]
Quiet = tyro.conf.FlagCreatePairsOff[Annotated[bool, tyro.conf.arg(aliases=["-q"])]]
