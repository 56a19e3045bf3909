"""Image folders as their authors publish them: GTSRB, Tiny-ImageNet, ImageNet-200.

Labels come from tables that lie among the images. Tables are untrusted: a name that is
absolute or leaves its folder is refused, and so is one that is missing.
"""

import collections
import csv
import os
from collections.abc import Iterator, Sequence

from ban_jax.data import preparation, sources
from ban_jax.data.sources import DataError, Source

LABELS = {str(number): number for number in range(43)}
"""GTSRB's classes have numbers and no names."""
TRAINING = ("Final_Training/Images", "Training")
"""GTSRB's folders of training images; the second is that of its corrected archive."""
TABLES = {"train": "Train.csv", "test": "Test.csv"}
ANNOTATIONS = "val_annotations.txt"
VALIDATION = ("val", "validation")
PLACES = (
    "images/{file}",
    "{file}",
    "{wnid}/{file}",
    "{wnid}/images/{file}",
    "images/{wnid}/{file}",
)
"""Where an annotated image may lie: as published, flat, or sorted into class folders."""


def find(path: str, split: str, image_size: preparation.Size | None) -> Source | None:
    """Reads a folder in a published layout, recognised by its files.

    - GTSRB: `Final_Training` or `Final_Test`, there or in a subfolder `GTSRB`; or
      repackaged, `Train.csv` or `Test.csv` with `Train` or `Test`.
    - Tiny-ImageNet, ImageNet-200: `wnids.txt` or `words.txt` with `train` or `val`; or
      `val/val_annotations.txt`. Split `test` means `val`: the published `test` has no
      labels.

    Returns:
      The images of that split; None for a folder of neither layout.

    Raises:
      DataError: for a known layout that is incomplete or contradicts itself.
    """
    for base in (path, os.path.join(path, "GTSRB")):
        names = set(os.listdir(base)) if os.path.isdir(base) else set()
        corrected = os.path.join(base, TRAINING[1], "00000", "GT-00000.csv")
        official = names & {"Final_Training", "Final_Test"} or os.path.isfile(corrected)
        repackaged = names & set(TABLES.values()) and names & {"Train", "Test"}
        if (official or repackaged) and split not in TABLES:
            raise DataError(
                f"{base}: GTSRB has the splits train and test, not {split!r}"
            )
        if official:
            return _gtsrb(base, path, split, image_size)
        if repackaged:
            return _gtsrb_tables(base, split, image_size)
    lists = {"wnids.txt", "words.txt"} & set(os.listdir(path))
    val = _validation(path)
    annotated = val and os.path.isfile(os.path.join(val, ANNOTATIONS))
    if annotated or lists and (val or os.path.isdir(os.path.join(path, "train"))):
        return _wordnet(path, split, image_size)
    return None


# GTSRB


def _gtsrb(
    base: str, path: str, split: str, image_size: preparation.Size | None
) -> Source:
    """The German traffic signs, 43 classes; Stallkamp et al., Neural Networks 32, 2012.

    Images are whole: like BAN and BackdoorBench, the columns `Roi` are not cut out. They
    differ in size. The labels of the test images are an archive of their own, looked for
    in `Final_Test/Images`, `Final_Test`, `base` and `path`.
    """
    if split == "train":
        return _gtsrb_train(base, image_size)
    folder = os.path.join(base, "Final_Test", "Images")
    places = (folder, os.path.dirname(folder), base, path)
    tables = [os.path.join(place, "GT-final_test.csv") for place in places]
    table = next((table for table in tables if os.path.isfile(table)), None)
    if table is None:
        wanted = (
            "GT-final_test.csv, the labels of the test images (published as "
            "GTSRB_Final_Test_GT.zip; GT-final_test.test.csv has no column ClassId)"
        )
        raise _lacks(folder if os.path.isdir(folder) else base, wanted)
    rows = _gtsrb_rows(table, ";", "Filename", folder)
    return _gtsrb_images(table, rows, split, image_size)


def _gtsrb_train(base: str, image_size: preparation.Size | None) -> Source:
    """Sorted by class and file."""
    folders = [os.path.join(base, name) for name in TRAINING]
    folder = next((folder for folder in folders if os.path.isdir(folder)), None)
    if folder is None:
        raise _lacks(base, f"the folder {TRAINING[0]}")
    rows = []
    for name in filter(str.isdecimal, sources.subfolders(folder)):
        inside = os.path.join(folder, name)
        table = os.path.join(inside, f"GT-{name}.csv")
        if not os.path.isfile(table):
            raise _lacks(inside, f"GT-{name}.csv")
        found = sorted(_gtsrb_rows(table, ";", "Filename", inside))
        others = {label for _, label in found if f"{label:05}" != name}
        if others:
            raise DataError(
                f"{table}: expected ClassId {name} as the folder says, found "
                f"{', '.join(map(str, sorted(others)))}"
            )
        rows += found
    return _gtsrb_images(f"{folder}/*/GT-*.csv", rows, "train", image_size)


def _gtsrb_tables(base: str, split: str, image_size: preparation.Size | None) -> Source:
    """Repackaged in two tables whose column `Path` starts at `base`; no Roi is cut out.

    Training images are sorted by class and file, as in the published layout.
    """
    table = os.path.join(base, TABLES[split])
    if not os.path.isfile(table):
        raise _lacks(base, TABLES[split])
    rows = _gtsrb_rows(table, ",", "Path", base)
    if split == "train":
        rows.sort(key=lambda row: (row[1], row[0]))
    return _gtsrb_images(table, rows, split, image_size)


def _gtsrb_rows(
    table: str, delimiter: str, column: str, folder: str
) -> list[tuple[str, int]]:
    """(file in `folder`, label) of each line."""
    reader = csv.DictReader(_lines(table), delimiter=delimiter)
    rows = []
    try:
        found = reader.fieldnames or []
        if not {column, "ClassId"} <= set(found):
            raise DataError(
                f"{table}: expected the columns {column} and ClassId, separated by "
                f"{delimiter!r}; found {', '.join(map(repr, found)) or 'nothing'}"
            )
        for row in reader:
            where = f"{table}, line {reader.line_num}"
            text = (row["ClassId"] or "").strip()
            if text not in LABELS:
                raise DataError(
                    f"{where}: expected a ClassId in 0..{len(LABELS) - 1}, found {text!r}"
                )
            file = os.path.join(folder, _safe(row[column] or "", where))
            rows.append((file, LABELS[text]))
    except csv.Error as error:
        raise DataError(f"{table}: not a readable table: {error}") from error
    return rows


def _gtsrb_images(
    table: str,
    rows: list[tuple[str, int]],
    split: str,
    image_size: preparation.Size | None,
) -> Source:
    files, labels = [file for file, _ in rows], [label for _, label in rows]
    _check_files(table, files)
    return sources.image_files(files, labels, tuple(LABELS), split, image_size)


# Tiny-ImageNet and ImageNet-200


def _wordnet(path: str, split: str, image_size: preparation.Size | None) -> Source:
    """Folders `train` and `val`, classes in the sorted order of their WordNet ids.

    The images of a class lie in a folder of its id; those of `val` may instead be listed
    in `val/val_annotations.txt`. As Tiny-ImageNet's `test` has no labels, split `test`
    means `val`, unless `test` has class folders. Class names come from `words.txt`.
    """
    classes = _wordnet_ids(path)
    root = _split_root(path, split, classes)
    table = os.path.join(root, ANNOTATIONS)
    if os.path.isfile(table):
        files, labels = _annotated(root, table, classes)
    else:
        _check_folders(root, classes, complete=split == "train")
        files, labels = sources.class_files(root, classes)
    names = _words(os.path.join(path, "words.txt"), classes)
    return sources.image_files(files, labels, names, split, image_size)


def _validation(path: str) -> str | None:
    folders = (os.path.join(path, name) for name in VALIDATION)
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def _split_root(path: str, split: str, classes: Sequence[str]) -> str:
    named = os.path.join(path, split)
    if split == "test":
        labelled = os.path.isdir(named) and set(classes) & set(
            sources.subfolders(named)
        )
        root = named if labelled else _validation(path)
    elif split in VALIDATION:
        root = _validation(path)
    else:
        root = named if split == "train" and os.path.isdir(named) else None
    if root is None:
        raise DataError(
            f"{path}: no split {split!r}, found "
            f"{sources.summary(sources.subfolders(path))}; expected train and "
            "val (which is also split 'test')"
        )
    return root


def _wordnet_ids(path: str) -> list[str]:
    """From `wnids.txt`; without it the folders of `train`, or what `val` has."""
    listed, train = os.path.join(path, "wnids.txt"), os.path.join(path, "train")
    if os.path.isfile(listed):
        lines = enumerate(_lines(listed), 1)
        found = {_safe(x.strip(), f"{listed}, line {n}") for n, x in lines if x.strip()}
        return sorted(found)
    if os.path.isdir(train):
        return sources.subfolders(train)
    val = _validation(path) or path
    table = os.path.join(val, ANNOTATIONS)
    if os.path.isfile(table):
        return sorted({wnid for _, wnid in _annotations(table)})
    return sources.subfolders(val)


def _check_folders(root: str, classes: Sequence[str], complete: bool) -> None:
    found = set(sources.subfolders(root))
    absent = sorted(set(classes) - found) if complete else []
    unknown = sorted(found - set(classes))
    if absent or unknown:
        raise DataError(
            f"{root}: expected the folders of {len(classes)} classes; missing: "
            f"{sources.summary(absent)}; of no class: "
            f"{sources.summary(unknown)}"
        )


def _annotated(
    root: str, table: str, classes: Sequence[str]
) -> tuple[list[str], list[int]]:
    numbers = {wnid: number for number, wnid in enumerate(classes)}
    rows = list(_annotations(table))
    unknown = sorted({wnid for _, wnid in rows} - set(numbers))
    if unknown:
        raise DataError(
            f"{table}: expected the {len(classes)} classes of the training images, "
            f"found also {sources.summary(unknown)}"
        )

    def files(place: str) -> list[str]:
        names = (place.format(file=file, wnid=wnid) for file, wnid in rows)
        return [os.path.join(root, name) for name in names]

    # A hundred lines tell the places apart, even where some images are missing.
    best = max(PLACES, key=lambda place: sum(map(os.path.isfile, files(place)[:100])))
    _check_files(table, files(best))
    return files(best), [numbers[wnid] for _, wnid in rows]


def _annotations(table: str) -> Iterator[tuple[str, str]]:
    """(file, WordNet id) of each line; the box that follows them is not used."""
    for number, line in enumerate(_lines(table), 1):
        where, cells = f"{table}, line {number}", line.rstrip("\n").split("\t")
        if len(cells) >= 2:
            yield _safe(cells[0], where), _safe(cells[1], where)
        elif line.strip():
            raise DataError(
                f"{where}: expected a file and a class, separated by a tab; found "
                f"{line.strip()!r}"
            )


def _words(file: str, classes: Sequence[str]) -> list[str]:
    """Up to the first comma; the id where there are none, or another class has the same."""
    words = {}
    if os.path.isfile(file):
        for line in _lines(file):
            wnid, _, text = line.partition("\t")
            words[wnid.strip()] = text.split(",")[0].strip()
    names = [words.get(wnid) or wnid for wnid in classes]
    uses = collections.Counter(names)
    return [
        name if uses[name] == 1 else wnid
        for name, wnid in zip(names, classes, strict=True)
    ]


# Tables


def _lacks(folder: str, wanted: str) -> DataError:
    found = sources.summary(os.listdir(folder))
    return DataError(f"{folder}: expected {wanted}; found {found}")


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            return opened.readlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text file: {error}") from error


def _safe(name: str, where: str) -> str:
    steps = name.replace("\\", "/").split("/")
    if not steps[0] or ".." in steps or ":" in steps[0] or "\0" in name:
        raise DataError(f"{where}: expected a name inside the folder, found {name!r}")
    return name


def _check_files(table: str, files: Sequence[str]) -> None:
    """One error for all files that are missing, or are named more than once."""
    missing = [repr(file) for file in files if not os.path.isfile(file)]
    if missing:
        raise DataError(
            f"{table}: {len(missing)} of the {len(files)} images named are missing: "
            f"{sources.summary(missing)}"
        )
    twice = [repr(file) for file, n in collections.Counter(files).items() if n > 1]
    if twice:
        raise DataError(
            f"{table}: {len(twice)} images are named more than once: "
            f"{sources.summary(twice)}"
        )
