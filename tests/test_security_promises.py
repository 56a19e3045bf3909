"""SECURITY.md names tests and files that exist."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_promise_names_a_test_that_exists():
    rows = [line for line in TEXT.splitlines() if re.match(r"\| (?!promise)", line)]
    assert len(rows) > 10
    for row in rows:
        cell = row.rstrip("| ").rsplit("| ", 1)[1]
        named = re.findall(r"`([\w/.]*)(?:::(\w+))?`", cell)
        assert named, row
        file = ""
        for path, name in named:
            file = path or file
            source = (ROOT / file).read_text()
            assert not name or f"def {name}(" in source, f"{file}::{name}"
