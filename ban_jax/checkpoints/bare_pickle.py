"""Pickles without PyTorch's header, as Python's `pickle.dump` writes them: data, never run.

`pickle.load` reads the first of a file and runs what it asks for before it sees any damage
behind that; so a broken one, too, is read as far as it goes.
"""

from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    errors,
    file_bytes,
    limits,
    pickle_reader,
    pickle_walk,
    unknown,
)

MAX_PICKLES = 1000
"""Pickles one behind the other in a file."""
MOST = 2**20
"""Bytes of an archive's entry that are looked at to tell what it is."""


class Read(NamedTuple):
    """What the pickles of a file say; see `torch_reader.Pickled`."""

    root: Any
    calls: tuple[str, ...]
    unread: tuple[str, ...]


def is_pickle(start: file_bytes.Data | bytes) -> bool:
    """Whether bytes begin as protocol 2 and later do, or are an older pickle.

    Older ones have no header: operations are taken apart, none is run. English ends with
    a full stop, too, but no sentence is made of operations.
    """
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    if not pickle_walk.may_begin(bytes(start[:1])):
        return False
    return pickle_walk.walk(pickle_walk.reading(start), until_call=True).is_pickle()


def read(data: file_bytes.Data) -> Read:
    """The objects in a file of pickles; a single one as it is, several as a list.

    Raises:
      CheckpointError: for a first pickle that is damaged or costs too much; it tells
        what is asked for before that.
    """
    head = data[: limits.MAX_PICKLE]
    budget = limits.objects(len(data))
    roots: list[Any] = []
    asked: dict[str, None] = {}
    unread: dict[str, None] = {}
    position = 0
    while position < len(head):
        if len(roots) == MAX_PICKLES:
            raise errors.CheckpointError(
                f"more than {MAX_PICKLES:,} pickles one behind the other; the "
                f"{len(data) - position:,} bytes after these are not judged",
                calls=tuple(asked),
            )
        machine = pickle_reader.PickleMachine(head, budget, None, position)
        try:
            roots.append(machine.load())
        except errors.CheckpointError as error:
            asked.update(dict.fromkeys(error.calls))
            if not roots:
                raise
            if len(data) - position >= unknown.SMALL:
                raise errors.CheckpointError(
                    f"{len(data) - position:,} bytes follow its pickles and are not "
                    f"judged: {error}",
                    calls=tuple(asked),
                ) from error
            break  # what follows the first is not read by `pickle.load` either
        asked.update(dict.fromkeys(machine.calls.told))
        unread.update(machine.calls.unread)
        position = machine.position
    if len(head) < len(data):
        raise errors.CheckpointError(
            f"a pickle of {len(data):,} bytes; at most {limits.MAX_PICKLE:,} are read",
            calls=tuple(asked),
        )
    root = roots[0] if len(roots) == 1 else roots
    return Read(root, tuple(asked), tuple(unread))


def calls(data: file_bytes.Data) -> tuple[str, ...]:
    """What pickles ask to have called, however damaged they are."""
    try:
        return read(data).calls
    except errors.CheckpointError as error:
        walked = pickle_walk.calls(pickle_walk.reading(data))
        return tuple(dict.fromkeys((*error.calls, *walked)))
