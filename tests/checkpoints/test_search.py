"""Walking folders: all that is met is judged, or no model by what it holds, or told of."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import discovery, packed
from tests.checkpoints import builders


@pytest.fixture(scope="module")
def model():
    return builders.torch_file(builders.state_dict())


def judged(top):
    return [os.path.relpath(path, top) for path in discovery.search(top).paths]


def passed(top):
    found = discovery.search(top).passed
    return {os.path.relpath(one.path, top): one.reason for one in found}


def everything(top):
    found = discovery.search(top)
    return {*found.paths, *(one.path for one in found.passed), *found.opened}


@pytest.mark.parametrize(
    "name",
    ["ckpt.t7", "a.pkl", "a.mdl", "last.model", "w.pyth", "m.pt.epoch_10", "resnet18"]
    + ["fake.png", "notes.txt", ".hidden", "deep/er/x"],
)
def test_the_content_decides_where_the_name_says_nothing(tmp_path, model, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(model)
    assert judged(tmp_path) == [name]


PICKLED = pickle.dumps({"a": 1}, protocol=0)
NUMBERS, OBJECTS = io.BytesIO(), io.BytesIO()
np.save(NUMBERS, np.zeros(3))
np.save(OBJECTS, np.array([None]), allow_pickle=True)
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w") as _tar:
    _tar.addfile(tarfile.TarInfo("model.pt"), io.BytesIO())


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": 1}, protocol=2),
        PICKLED,
        b"cposix\nsystem\n(S'id'\ntR.",
        OBJECTS.getvalue(),
        TAR.getvalue(),
        gzip.compress(TAR.getvalue(), mtime=0),
        gzip.compress(PICKLED, mtime=0),
        b"7z\xbc\xaf\x27\x1c" + bytes(40),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"GGUF" + bytes(100),
        b"\x82\xa6params\x80\xabbatch_stats\x80",
        (40).to_bytes(8, "little") + b'{"a":{}}' + b" " * 32,
    ],
)
def test_what_may_be_or_hold_a_model_is_for_the_reader(tmp_path, content):
    (tmp_path / "thing").write_bytes(content)
    assert judged(tmp_path) == ["thing"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"A sentence ends with a full stop.", "text"),
        ("Gr\u00fc\u00dfe\n".encode() * 200, "text"),
        ("Viele Gr\u00fc\u00dfe aus der Ferne\n".encode("latin-1"), "text"),
        (b'{"lr": 0.1}', "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "an image"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "an image"),
        (NUMBERS.getvalue(), "a single array"),
        (b"\x7fELF" + bytes(40), "no model: a document, a medium or a program"),
        (
            gzip.compress(b"\x00\x00\x08\x03" + bytes(999), mtime=0),
            "packed: of no known format",
        ),
        (bytes(range(256)) * 8, "of no known format"),
    ],
)
def test_what_is_recognisably_no_model_is_passed_with_its_reason(
    tmp_path, content, reason
):
    (tmp_path / "thing").write_bytes(content)
    assert passed(tmp_path) == {"thing": reason}
    assert judged(tmp_path) == []


def test_a_model_in_a_zip_archive_is_read_where_it_lies(tmp_path, model):
    path = tmp_path / "attack.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("run/attack_result.pt", model)
        file.writestr("run/readme.txt", "hello")
        file.writestr("run/pictures/", "")
    found = discovery.search([tmp_path])
    inside = f"{path}!/run/attack_result.pt"
    assert found.paths == [inside] and found.opened == [str(path)]
    assert found.passed == [(f"{path}!/run/readme.txt", "text")]
    (tmp_path / "same.pt").write_bytes(model)
    read = checkpoints.read(inside)
    assert read.path == inside
    assert read.sha256 == checkpoints.read(tmp_path / "same.pt").sha256
    assert discovery.search([str(path)]).paths == [inside]
    assert discovery.search([inside]).paths == [inside]


def test_an_archive_that_inflates_beyond_its_limit_is_an_error_of_its_own(
    tmp_path, model
):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.pt", bytes(50_000_000))
        file.writestr("good.pt", model)
    found = discovery.search([tmp_path]).paths
    assert found == [f"{path}!/bomb.pt", f"{path}!/good.pt"]
    with pytest.raises(checkpoints.CheckpointError, match="would take more than"):
        checkpoints.read(found[0])
    checkpoints.read(found[1])


def test_a_damaged_archive_is_for_the_reader_to_refuse(tmp_path, model):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.pt", model)
    path.write_bytes(path.read_bytes()[:-30])
    assert judged(tmp_path) == ["a.zip"]
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        checkpoints.read(path)


def test_a_file_whose_name_looks_like_a_place_in_an_archive_is_a_file(tmp_path, model):
    (tmp_path / "a.zip!").mkdir()
    path = tmp_path / "a.zip!" / "x.pt"
    path.write_bytes(model)
    assert packed.split(str(path)) == (str(path), "")
    assert judged(tmp_path) == ["a.zip!/x.pt"]


def test_links_to_folders_are_not_followed_and_told_of(tmp_path, model):
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    (top / "own").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "model.pt").write_bytes(model)
    (top / "away").symlink_to(elsewhere)
    (top / "loop").symlink_to(top)
    (top / "gone").symlink_to("nothing")
    (top / "gone.pt").symlink_to("nothing.pt")
    assert judged(top) == ["away", "gone.pt"]
    assert passed(top)["loop"] == "a link to a folder that is searched itself"
    assert "a link to nothing" in passed(top)["gone"]
    with pytest.raises(checkpoints.CheckpointError, match="is not followed"):
        checkpoints.read(top / "away")


def test_a_link_past_the_depth_of_the_search_is_not_told_of_as_searched(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(discovery, "MAX_DEPTH", 2)
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "model.pt").write_bytes(model)
    (tmp_path / "deep").symlink_to(deep)
    (tmp_path / "shallow").symlink_to(tmp_path / "a" / "b")
    assert judged(tmp_path) == ["a/b/c", "deep"]
    assert passed(tmp_path) == {"shallow": "a link to a folder that is searched itself"}


def test_a_blob_that_a_named_link_leads_to_is_judged_once(tmp_path, model):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "5e3f").write_bytes(model)
    (tmp_path / "model.pt").symlink_to("blobs/5e3f")
    assert judged(tmp_path) == ["model.pt"]
    assert passed(tmp_path)["blobs/5e3f"].startswith("the same file as")


def test_an_unreadable_folder_does_not_stop_the_rest(tmp_path, model, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.pt").write_bytes(model)
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert judged(tmp_path) == ["a/m.pt", "b", "c/m.pt"]
    with pytest.raises(checkpoints.CheckpointError, match="cannot be listed: Permis"):
        checkpoints.read(tmp_path / "b")


def test_a_file_that_cannot_be_opened_is_for_the_reader(tmp_path, monkeypatch):
    (tmp_path / "thing").write_bytes(b"text")
    opening = os.open

    def refusing(path, *more, **named):
        if str(path).endswith("thing"):
            raise PermissionError(13, "Permission denied", path)
        return opening(path, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    assert judged(tmp_path) == ["thing"]


def test_a_folder_without_end_is_told_of_and_the_rest_is_found(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(discovery, "MAX_DEPTH", 3)
    monkeypatch.setattr(discovery, "MAX_FOLDER", 5)
    deep = tmp_path / "a" / "b" / "c" / "d" / "e"
    deep.mkdir(parents=True)
    (deep / "m.pt").write_bytes(model)
    (tmp_path / "wide").mkdir()
    for number in range(9):
        (tmp_path / "wide" / f"{number}.txt").write_text("x")
    (tmp_path / "z.pt").write_bytes(model)
    assert judged(tmp_path) == ["a/b/c/d", "wide", "z.pt"]


def test_pieces_of_a_distributed_checkpoint_are_one_thing_that_is_told_of(
    tmp_path, model
):
    folder = tmp_path / "step_10"
    folder.mkdir()
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp"):
        (folder / name).write_bytes(model)
    (folder / "beside.pt").write_bytes(model)
    (tmp_path / "x.orbax-checkpoint-tmp-3").mkdir()
    assert judged(tmp_path) == [
        "step_10",
        "step_10/beside.pt",
        "x.orbax-checkpoint-tmp-3",
    ]
    with pytest.raises(checkpoints.CheckpointError, match="dcp_to_torch_save"):
        checkpoints.read(folder)
    with pytest.raises(checkpoints.CheckpointError, match="writing did not end"):
        checkpoints.read(tmp_path / "x.orbax-checkpoint-tmp-3")


def test_a_path_too_long_to_be_opened_is_told_of(tmp_path):
    here, depth = os.getcwd(), 0
    try:
        os.chdir(tmp_path)
        while depth < 30:
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
            depth += 1
    finally:
        os.chdir(here)
    (found,) = discovery.search([tmp_path]).paths
    assert len(found) > 4000
    with pytest.raises(checkpoints.CheckpointError, match="too long"):
        checkpoints.read(found)


def test_pipes_are_told_of_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.pt")
    assert passed(tmp_path) == {"pipe": "no file: a device or a pipe"}
    assert judged(tmp_path) == ["pipe.pt"]


def test_everything_met_is_in_one_of_the_lists(tmp_path, model):
    rng = np.random.default_rng(0)
    expected = set()
    for number in range(60):
        folder = tmp_path / "/".join("ab"[b] for b in rng.integers(0, 2, number % 5))
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ["", ".pt", ".png", ".zip", ".tar.gz", ".py\n", "\x1b[31m"][number % 7]
        content = [b"", model, b"text", rng.bytes(200), b"PK\3\4junk"][number % 5]
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        expected.add(str(path))
    assert everything(tmp_path) == expected
