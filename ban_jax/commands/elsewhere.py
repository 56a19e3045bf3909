"""Paths that are addresses: fetched before a scan, and called by their addresses in it.

Files are read where they lie in the cache. All that a scan says of them, from its lines of
evidence on, calls them what the user did.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from ban_jax import checkpoints, remote
from ban_jax.records import Evidence, Job
from ban_jax.scanning import engines, scan, timeline

GIB = 2**30
_MOST = 2**62
"""Bytes of a cache without a limit."""
Chosen = Callable[[str], str]
"""Path -> why it is not judged; empty where it is."""


@dataclasses.dataclass
class Places:
    """What was fetched for a scan; empty where all its paths are this machine's.

    Attributes:
      called: path in the cache -> address, of files or of whole folders.
      tops: address as it was given -> what is searched: paths in the cache.
      notes: address of a file -> what is known of its fetching.
      failed: address of a file -> why it could not be fetched.
      passed: files that were not to be fetched.
    """

    called: dict[str, str] = dataclasses.field(default_factory=dict)
    tops: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    passed: dict[str, list[checkpoints.Passed]] = dataclasses.field(
        default_factory=dict
    )
    shown: dict[str, str] = dataclasses.field(default_factory=dict)
    """Address as it was given -> as it is recorded: with the commit, without a query."""

    def search(self, paths: Sequence[str]) -> checkpoints.Found:
        """As `checkpoints.search`, of addresses too."""
        tops = [one for path in paths for one in self.tops.get(path, [path])]
        found = checkpoints.search(tops)
        lying = [self.address(path) for path in found.paths]
        passed = [
            checkpoints.Passed(self.address(path), self.told(reason))
            for path, reason in found.passed
        ]
        for path in paths:
            passed += self.passed.get(path, [])
        failed = [one for one in self.failed if self._is_below(one, paths)]
        return checkpoints.Found(
            sorted({*lying, *failed}),
            sorted(passed),
            sorted(map(self.address, found.opened)),
        )

    def address(self, path: str) -> str:
        """What a path in the cache is called; others stay."""
        return _moved(path, self.called)

    def lying(self, address: str) -> str:
        """Where in the cache an address is; others stay."""
        return _moved(address, {shown: path for path, shown in self.called.items()})

    def told(self, text: str) -> str:
        """A message, with addresses for paths in the cache."""
        for path, shown in self.called.items():
            text = text.replace(path, shown)
        return text

    def line(self, line: Evidence) -> Evidence:
        """A line of evidence under its address; none of this is sealed."""
        path, error, of = line["path"], line["error"], line["part_of"]
        address = self.address(path)
        notes = [self.told(note) for note in line["notes"]]
        fetched = self._fetched(self.address(of) if of else address)
        return cast(
            Evidence,
            {
                **line,
                "path": address,
                "part_of": self.address(of) if of else of,
                "error": self.told(error) if error else error,
                "other": self.told(line["other"]) if line["other"] else line["other"],
                "notes": [*notes, *([fetched] if fetched else [])],
            },
        )

    def engine(self, engine: engines.Engine) -> engines.Engine:
        """An engine that is given addresses and gives them back."""
        return _Elsewhere(engine, self) if self.shown else engine

    def _fetched(self, address: str) -> str:
        """What is known of the fetching of a file, or of all below a folder."""
        for whole in (address, address.partition("!/")[0]):  # an archive's entry
            if whole in self.notes:
                return self.notes[whole]
        below = [f"{k} {v}" for k, v in self.notes.items() if _is_in(k, [address])]
        if not below:
            return ""
        sums = hashlib.sha256("\n".join(sorted(below)).encode()).hexdigest()
        return f"fetched: {len(below)} files, SHA-256 of their sums {sums}"

    def _is_below(self, address: str, paths: Sequence[str]) -> bool:
        return _is_in(
            address, [self.shown[path] for path in paths if path in self.shown]
        )


def _is_in(address: str, folders: Sequence[str]) -> bool:
    return any(address == one or address.startswith(f"{one}/") for one in folders)


def _moved(path: str, moves: dict[str, str]) -> str:
    """A path with its beginning changed, the longest that is known."""
    for old in sorted(moves, key=len, reverse=True):
        rest = path.removeprefix(old)
        if rest != path and rest[:1] in ("", "/", "#", "!"):
            return moves[old] + rest
    return path


class _Elsewhere:
    """Measures what was fetched; see `engines.Engine`."""

    def __init__(self, engine: engines.Engine, places: Places):
        self._engine, self._places = engine, places

    def adapted(self, job: Job) -> Job:
        return self._engine.adapted(job)

    def measure(
        self,
        paths: Sequence[str],
        job: Job,
        *,
        known: Iterable[Evidence] = (),
        clock: timeline.Timeline | None = None,
    ) -> Iterator[scan.Measured]:
        places = self._places
        asked = {places.lying(path): what for path, what in job.asked.items()}
        local = [
            cast(Evidence, {**line, "path": places.lying(line["path"])})
            for line in known
        ]
        for path in paths:
            if path in places.failed:
                reason = f"{path}: {places.failed[path]}"
                yield scan.Measured(job.failure(path, reason), True)
        for line, is_new in self._engine.measure(
            [places.lying(path) for path in paths if path not in places.failed],
            dataclasses.replace(job, asked=asked) if asked else job,
            known=local,
            clock=clock,
        ):
            yield scan.Measured(places.line(line), is_new)


@contextlib.contextmanager
def fetched(flags: Any, why_not: Chosen) -> Iterator[tuple[Any, Places]]:
    """The flags of a scan, with what their addresses name fetched while the body runs.

    Args:
      flags: of `scan`: `paths`, `calibrate`, `cache_dir` and `cache_limit` are read.
      why_not: of the files of `paths`, by `--include` and `--exclude`.

    Yields:
      The flags, their addresses as they are recorded, and what lies where.

    Raises:
      ValueError: for an address that cannot be listed.
    """
    places = Places()
    given = [(path, why_not) for path in flags.paths if remote.is_remote(path)]
    if flags.calibrate and remote.is_remote(flags.calibrate):
        given.append((flags.calibrate, lambda path: ""))
    if not given:
        yield flags, places
        return
    folder = flags.cache_dir or remote.default_folder(os.environ)
    cache = remote.Cache(folder, int(min(flags.cache_limit * GIB, _MOST)))
    with contextlib.ExitStack() as held:
        found: dict[str, tuple[remote.Source, list[remote.File]]] = {}
        for path, chosen in given:
            if path not in found:
                found[path] = _listed(path, chosen, places)
        count = sum(len(files) for _, files in found.values())
        numbers = itertools.count(1)

        def say(what: str) -> None:
            if not flags.quiet:
                told = f"Fetching {next(numbers)} of {count}: {what}"
                print(told, file=sys.stderr)

        for path, (place, files) in found.items():
            folder = held.enter_context(cache.held(place, files))
            _fetch(path, place, files, cache, folder, places, say)
        shown = places.shown
        places.tops = {shown[path]: tops for path, tops in places.tops.items()}
        places.passed = {shown[path]: some for path, some in places.passed.items()}
        changed = {
            "paths": tuple(shown.get(path, path) for path in flags.paths),
            "calibrate": shown.get(flags.calibrate, flags.calibrate),
        }
        places.shown = {one: one for one in shown.values()}
        broken = [
            one
            for one in places.failed
            if places._is_below(one, [changed["calibrate"]])
        ]
        if broken:
            told = f"{broken[0]}: {places.failed[broken[0]]}"
            raise ValueError(f"--calibrate: a trusted model was not fetched: {told}")
        yield dataclasses.replace(flags, **changed), places


def _listed(
    path: str, why_not: Chosen, places: Places
) -> tuple[remote.Source, list[remote.File]]:
    """Lists a place: what it is, and those of its files that are wanted."""
    place = remote.listed(path)
    if place.shown in places.shown.values():
        raise ValueError(
            f"{place.shown}: named twice, with two queries or revisions; scan them one "
            "after the other"
        )
    reasons = {
        file.name: why_not(place.called(file)) or remote.wanted(file.name)
        for file in place.files
    }
    places.shown[path] = place.shown
    places.tops[path] = []
    places.passed[path] = [
        checkpoints.Passed(place.called(file), reasons[file.name])
        for file in place.files
        if reasons[file.name]
    ]
    return place, [file for file in place.files if not reasons[file.name]]


def _fetch(
    path: str,
    place: remote.Source,
    files: Sequence[remote.File],
    cache: remote.Cache,
    folder: str,
    places: Places,
    say: Callable[[str], None],
) -> None:
    """Fetches the files that are wanted of a place into its folder of the cache."""
    if not place.single:
        places.called[folder] = place.shown
    lying: dict[tuple[int, int], str] = {}
    for file in files:
        address = place.called(file)
        # What the cache has already, too: its hash is computed again.
        say(address if file.size is None else f"{address}, {file.size:,} bytes")
        try:
            got = cache.fetch(folder, file)
        except remote.FetchError as error:
            places.failed[address] = str(error)
            continue
        # Names that are one, also for file systems that read letters of both cases alike:
        # of two files only the last would be judged.
        about = os.stat(got.path)
        other = lying.setdefault((about.st_dev, about.st_ino), address)
        if other is not address:
            places.failed[other] = places.failed[address] = (
                f"listed twice, as {other} and as {address}, which are one file here"
            )
            continue
        places.notes[address] = f"fetched: {got.size:,} bytes, SHA-256 {got.sha256}"
        if place.single:
            places.called[got.path] = address
            places.tops[path] = [got.path]
        else:
            places.tops[path] = [folder]
