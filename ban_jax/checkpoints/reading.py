"""One file or folder -> one candidate, or one error that says why not."""

import os

from ban_jax import models
from ban_jax.checkpoints import (
    candidate,
    classifiers,
    contents,
    discovery,
    errors,
    file_bytes,
    opening,
    orbax_reader,
    others,
    packed,
    part_paths,
    recognise,
    sharded,
)


def read(
    path: str | os.PathLike[str], *, architecture: str | None = None
) -> candidate.Candidate:
    """Reads a checkpoint of any known format, recognised by its content.

    Nothing in the file is executed, and memory and work are bounded by `limits`.
    Weights that are not finite are read like others: judging them is the verdict's
    task.

    Args:
      path: a file, or the folder of an Orbax checkpoint; followed by `#` and the name of a
        part where the file holds several classifiers, such as `file.pt#state_dict_ema`.
        Without a part the likeliest is read, and its notes name the others.
      architecture: a name known to `models.create`, instead of the recognised one.

    Returns:
      The candidate; its float32 arrays are copies, the file may change afterwards.

    Raises:
      CheckpointError: whatever is wrong with the file; the message starts with its
        path.
    """
    return classifiers.first(read_all(path, architecture=architecture))


def read_all(
    path: str | os.PathLike[str], *, architecture: str | None = None
) -> list[classifiers.Part]:
    """Every classifier in a file, or the one that is asked for; see `read`.

    Returns:
      The likeliest first. A single one has the path that was given; of several each has a
      path of its own, and one that does not fit has its error.

    Raises:
      CheckpointError: when there is none; the message starts with the file's path.
    """
    path = os.fspath(path)
    check_architecture(architecture)
    file, name = part_paths.split(path)
    label = _label(path)
    try:
        parts = packed.within(file, lambda: _parts(file, architecture))
        if name:
            parts = [classifiers.named(parts, name, path)]
    except errors.CheckpointError as error:
        raise _told(label, error) from error
    except OSError as error:
        raise errors.CheckpointError(
            f"{label}: cannot be read: {error.strerror or error}"
        ) from error
    except opening.DAMAGE as error:
        raise errors.CheckpointError(
            f"{label}: damaged: {type(error).__name__}: {errors.show(str(error), 300)}"
        ) from error
    return [
        part._replace(error=_told(_label(part.path), part.error))
        if part.error is not None
        else part
        for part in parts
    ]


def _label(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def _told(label: str, error: errors.CheckpointError) -> errors.CheckpointError:
    """An error that names the file."""
    return errors.CheckpointError(
        f"{label}: {error}", calls=error.calls, other=error.other
    )


def _parts(path: str, architecture: str | None) -> list[classifiers.Part]:
    """The classifiers in a file; where there is none, the error says what it holds."""
    content = _contents(path)
    try:
        return classifiers.of(path, content, architecture)
    except errors.CheckpointError as error:
        other = others.what(content.root, content.size, path) or _in_set(path, error)
        unopened = "" if other else others.unopened(content.root)
        told = "; ".join(
            [
                f"no classifier: {other}" if other else str(error),
                *([unopened] if unopened else []),
                *content.notes,
            ]
        )
        raise errors.CheckpointError(told, calls=content.calls, other=other) from error


def _in_set(path: str, error: errors.CheckpointError) -> str | None:
    """What a file without a classifier is by an index, unless it asks for calls."""
    return None if error.calls else sharded.is_in_set(path) or None


def check_architecture(name: str | None) -> None:
    """Raises a CheckpointError for a name that no architecture has."""
    if name is not None and name not in models.ARCHITECTURES:
        raise errors.CheckpointError(
            f"unknown architecture {name!r}; known: {recognise.architectures()}"
        )


def _contents(path: str) -> contents.Contents:
    """What a file holds, or the set of files that it is a part of."""
    place = sharded.place(path)
    if place is None or os.path.isdir(path):
        return _of_one(path)
    return sharded.read(path, place, _of_one)


def _of_one(path: str) -> contents.Contents:
    if os.path.isdir(path):
        if not orbax_reader.is_checkpoint(path):
            raise errors.CheckpointError(discovery.why_not_searched(path))
        return orbax_reader.read(path)
    archive_path, entry = packed.split(path)
    data: file_bytes.Data
    if entry:
        data = packed.read(archive_path, entry)
    else:
        data = file_bytes.read(path)
    return opening.of_bytes(data)
