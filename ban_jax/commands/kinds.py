"""What flags take, under names that help shows: PATH, NAME, GLOB, SECONDS.

Other words are TEXT there, whole numbers N and others X (`grouping`).
"""

from typing import Annotated

import tyro

Path = Annotated[str, tyro.conf.arg(metavar="PATH")]
MaybePath = Annotated[str | None, tyro.conf.arg(metavar="PATH")]
Paths = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[PATH ...]")]
SomePaths = Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH [PATH ...]")]
"""At least one, as the command itself makes sure."""
Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
MaybeName = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")]
Globs = tyro.conf.UseAppendAction[
    Annotated[tuple[str, ...], tyro.conf.arg(metavar="GLOB")]
]
"""Given once for each pattern: a list would swallow the paths that follow."""
Seconds = Annotated[float | None, tyro.conf.arg(metavar="SECONDS")]
Output = Annotated[str, tyro.conf.arg(metavar="FILE|-", aliases=["-o"])]
Quiet = tyro.conf.FlagCreatePairsOff[Annotated[bool, tyro.conf.arg(aliases=["-q"])]]
