"""What strangers wrote never steers a terminal and never stops a command."""

import json
import random
import re

import pytest

from ban_jax import cli, visible
from tests.records import lines
from tests.scanning import files

STEERING = "\x1b[2J\x07\r\x9b31m\u202e\u3164\u2800\ufe0f" + "\u0301" * 9


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def write(path, *found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return path


def is_plain(told):
    return all(visible.printable(line) == line for line in re.split("[\n\t]", told))


def printed(capsys):
    found = capsys.readouterr()
    return found.out + found.err


def test_names_of_files_do_not_reach_the_terminal_raw(tmp_path, capsys):
    folder = tmp_path / f"mo{STEERING}dels"
    folder.mkdir()
    files.save(folder, f"good{STEERING}.safetensors", files.variables(0))
    (folder / f"bad{STEERING}.pt").write_bytes(b"\x80\2")
    (folder / f"text{STEERING}").write_text("hello")
    (folder / f"link{STEERING}").symlink_to(tmp_path)
    out = tmp_path / f"out{STEERING}"
    for flags in ([], ["--show-skipped"], ["--trace", f"{out}/trace{STEERING}"]):
        run("scan", folder, "--mode", "weights", "--out", out, *flags)
        told = printed(capsys)
        assert "good\\x1b[2J" in told.replace("\n", "") and is_plain(told)
    assert run("scan", f"{tmp_path}/no{STEERING}", "--mode", "weights") == 4
    assert is_plain(printed(capsys))
    assert run("report", f"{tmp_path}/no{STEERING}") == 4
    assert is_plain(printed(capsys))


@pytest.mark.parametrize(
    "field",
    "path reason error architecture mode baseline compared_with notes calls other".split(),
)
def test_no_field_of_a_record_reaches_the_terminal_raw(tmp_path, capsys, field):
    for verdict in ("backdoored", "suspicious", "inconclusive", "clean"):
        told = [STEERING] if field in ("notes", "calls") else f"x{STEERING}"
        line = {**lines.judged("a.pt", verdict=verdict), field: told}
        source = write(tmp_path / "r.jsonl", line, lines.judged("b.pt"))
        out = tmp_path / "out"
        run("report", source, "--out", out, "--class-names", *(["c" + STEERING] * 5))
        assert is_plain(printed(capsys))
        part = write(tmp_path / "s" / "results.0-of-1.jsonl", line)
        run("merge", part, "--out", out)
        assert is_plain(printed(capsys))


def test_spaces_at_the_ends_of_names_are_seen_wherever_names_are_told(tmp_path, capsys):
    folder = tmp_path / "models"
    folder.mkdir()
    files.save(folder, " good.safetensors", files.variables(0))
    files.save(folder, "good.safetensors", files.variables(0))
    (folder / "text.txt ").write_text("hello")
    run("scan", folder, "--mode", "weights", "--out", tmp_path / "o", "--show-skipped")
    told = printed(capsys)
    assert " \\x20good.safetensors" in told and "text.txt\\x20: " in told
    line = {**lines.judged("a.pt", verdict="backdoored"), "calls": ["os.system  "]}
    source = write(tmp_path / "r.jsonl", line, lines.judged("b.pt"))
    names = [" c "] * 5
    run("report", source, "--out", tmp_path / "out", "--class-names", *names)
    told = printed(capsys)
    assert "os.system\\x20\\x20" in told and "(\\x20c\\x20)" in told


WRONG = [
    None,
    True,
    -1,
    1e999,
    10**400,
    0.5,
    "",
    "x" * 5000,
    "\0",
    [],
    [[]],
    {},
    {"": {}},
]


@pytest.mark.parametrize("seed", range(8))
def test_records_of_wrong_types_are_refused_in_one_sentence_or_reported(
    tmp_path, capsys, seed
):
    choice = random.Random(seed)
    good = lines.judged("a.pt")
    for _ in range(40):
        line = json.loads(json.dumps(good))
        for _ in range(choice.randint(1, 3)):
            holder, name = line, choice.choice(sorted(good))
            inner = line.get(name)
            if isinstance(inner, dict) and inner and choice.random() < 0.7:
                holder, name = inner, choice.choice(sorted(inner))
            holder[name] = choice.choice(WRONG)
        source = write(tmp_path / "r.jsonl", line, lines.judged("b.pt"))
        code = run("report", source, "--out", tmp_path / "out")
        told = printed(capsys)
        assert code in (0, 1, 2, 4), (line, told)
        assert "Traceback" not in told
        if code == 4:
            assert told.startswith("ban-jax: ") and told.count("\n") == 1
