"""`ban-jax scan` of addresses: fetched, judged, and called by their addresses."""

import base64
import hashlib
import io
import json
import logging
import sys
import types
import uuid
import zipfile

import fsspec
import pytest
from fsspec.implementations import memory

from ban_jax import cli, records
from ban_jax.commands import elsewhere, outcome
from tests.remote import servers


@pytest.fixture
def scan(tmp_path):
    """Runs the command with a cache of its own; exit code."""

    def run(*arguments):
        told = ["--mode", "weights", "--threshold", "1e9", "--out", tmp_path / "out"]
        told += ["--cache-dir", tmp_path / "cache"]
        return cli.main(["scan", *map(str, [*arguments, *told])])

    return run


def lines(tmp_path):
    return {
        line["path"]: line
        for line in records.load(tmp_path / "out" / "results.jsonl").records
    }


def test_a_file_of_a_web_server_is_judged_under_its_address(
    site, model, scan, tmp_path, capsys
):
    site.answers["/m/a.safetensors"] = model
    address = f"{site.url}/m/a.safetensors"
    document = tmp_path / "out.json"
    assert (
        scan(f"{address}?key=hunter2", "--format", "jsonl", "-o", document)
        == outcome.CLEAN
    )
    (line,) = lines(tmp_path).values()
    assert line["path"] == address
    digest = hashlib.sha256(model).hexdigest()
    assert line["notes"][-1] == f"fetched: {len(model):,} bytes, SHA-256 {digest}"
    said = capsys.readouterr()
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    everything = [said.out, said.err, document.read_text(), *written]
    assert all("hunter2" not in one for one in everything)
    assert all(str(tmp_path / "cache") not in one for one in everything)
    assert json.loads(document.read_text())["path"] == address


def test_an_entry_of_an_archive_is_called_by_the_archives_address(
    site, model, scan, tmp_path
):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("run/best.safetensors", model)
    site.answers["/m.zip"] = packed.getvalue()
    assert scan(f"{site.url}/m.zip") == outcome.CLEAN
    (line,) = lines(tmp_path).values()
    assert line["path"] == f"{site.url}/m.zip!/run/best.safetensors"
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    assert line["notes"][-1].endswith(f"SHA-256 {digest}")
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert all(str(tmp_path / "cache") not in one for one in written)


def test_what_could_not_be_fetched_is_told_of_and_forbids_a_clean_end(
    site, model, scan, tmp_path
):
    site.answers["/a.safetensors"] = model
    site.answers["/b.pt"] = lambda handler: servers.send(handler, b"abc", length=9)
    site.answers["/c.pt"] = lambda handler: servers.send(handler, b"", length=1 << 20)
    addresses = [f"{site.url}/{name}" for name in ("a.safetensors", "b.pt", "c.pt")]
    limit = ["--cache-limit", 0.0005]  # GiB
    document = tmp_path / "out.sarif"
    told = ["--format", "sarif", "-o", document]
    assert scan(*addresses, *limit, *told) == outcome.INCONCLUSIVE
    assert addresses[1] in document.read_text()
    found = lines(tmp_path)
    assert list(found) == addresses
    assert found[addresses[0]]["error"] is None
    assert "cut short: 3 of 9 bytes came" in found[addresses[1]]["error"]
    assert "--cache-limit allows" in found[addresses[2]]["error"]


def test_what_is_fetched_is_counted_over_all_addresses(site, model, scan, capsys):
    names = ("a.safetensors", "b.safetensors")
    site.answers |= {f"/{name}": model for name in names}
    addresses = [f"{site.url}/{name}" for name in names]
    scan(*addresses, addresses[0])
    said = capsys.readouterr().err
    for number, address in enumerate(addresses, 1):
        assert f"Fetching {number} of 2: {address}" in said
    assert said.count("Fetching") == 2


def test_a_cache_can_be_without_a_limit(site, model, scan):
    site.answers["/a.safetensors"] = model
    assert scan(f"{site.url}/a.safetensors", "--cache-limit", "inf") == outcome.CLEAN


def test_a_scan_of_addresses_goes_on_from_its_results(site, model, scan, tmp_path):
    site.answers["/a.safetensors"] = model
    assert scan(f"{site.url}/a.safetensors") == outcome.CLEAN
    first = lines(tmp_path)
    assert scan(f"{site.url}/a.safetensors") == outcome.CLEAN
    assert lines(tmp_path) == first  # seconds of the measurement too


def test_trusted_models_may_be_addresses_and_must_all_be_there(
    site, model, scan, tmp_path, capsys
):
    site.answers["/a.safetensors"] = site.answers["/t.safetensors"] = model
    address, trusted = f"{site.url}/a.safetensors", f"{site.url}/t.safetensors"
    scan(address, "--calibrate", trusted)
    kept = records.load(tmp_path / "out" / "trusted.jsonl").records
    assert [line["path"] for line in kept] == [trusted]
    assert list(lines(tmp_path)) == [address]
    del site.answers["/t.safetensors"]
    assert scan(address, "--calibrate", trusted) == cli.USAGE
    assert f"not fetched: {trusted}: the server says 404" in capsys.readouterr().err


@pytest.fixture
def bucket(monkeypatch):
    """A bucket that lies in memory; `s3://` leads there."""

    class Bucket(memory.MemoryFileSystem):
        protocol = ("s3",)
        store, pseudo_dirs, cachable = {}, [""], False

    plain = fsspec.filesystem
    monkeypatch.setattr(
        fsspec, "filesystem", lambda name: Bucket() if name == "s3" else plain(name)
    )
    return Bucket()


def test_a_folder_of_a_bucket_is_searched_and_programs_are_not_fetched(
    bucket, model, scan, tmp_path, capsys
):
    bucket.pipe("/models/run/a.safetensors", model)
    bucket.pipe("/models/run/deep/b.safetensors", model)
    bucket.pipe("/models/run/load.py", b"print()")
    bucket.pipe("/models/run/old/c.pt", b"x")
    bucket.pipe("/models/other/d.pt", b"x")
    told = ["--exclude", "old", "--show-skipped"]
    assert scan("s3://models/run", *told) == outcome.CLEAN
    names = ["s3://models/run/a.safetensors", "s3://models/run/deep/b.safetensors"]
    assert list(lines(tmp_path)) == names
    assert names[0] in (tmp_path / "out" / "report.html").read_text().replace(
        "<wbr>", ""
    )
    said = capsys.readouterr().out
    assert "s3://models/run/load.py" in said and "by its name a program" in said
    assert "left out by --exclude old" in said
    fetched = [
        path.name for path in (tmp_path / "cache").rglob("*.*") if path.is_file()
    ]
    assert not {"load.py", "c.pt", "d.pt"} & set(fetched)


def test_without_its_packages_an_address_names_the_extra(monkeypatch, scan, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert scan("hf://owner/name") == cli.USAGE
    assert "its extra `hub`" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert scan("gs://bucket/models") == cli.USAGE
    assert "its extra `remote`" in capsys.readouterr().err


class TestHub:
    """With huggingface_hub, which asks a server of this machine."""

    @pytest.fixture(autouse=True)
    def here(self, site, monkeypatch):
        pytest.importorskip("huggingface_hub")
        monkeypatch.setenv("HF_ENDPOINT", site.url)

    def test_weights_of_a_repository_are_judged_at_a_commit(
        self, site, model, scan, tmp_path
    ):
        name = f"owner/model-{uuid.uuid4().hex}"
        files = {
            "model.safetensors": model,
            "config.json": b"{}",
            "modeling.py": b"raise SystemExit",
            "README.md": b"hello",
        }
        servers.hub(site, name, files)
        assert scan(f"hf://{name}@v1") == outcome.CLEAN
        address = f"hf://{name}@{servers.COMMIT}/model.safetensors"
        assert list(lines(tmp_path)) == [address]
        asked = [path.rpartition("/")[2] for path in site.asked if "resolve" in path]
        assert asked == ["model.safetensors", "config.json"]
        page = (tmp_path / "out" / "report.html").read_text()
        assert address in page.replace("<wbr>", "")
        assert scan(f"hf://{name}") == outcome.CLEAN
        assert site.asked.count(f"/{name}/resolve/{servers.COMMIT}/config.json") == 1

    def test_a_file_that_is_not_the_one_the_hub_lists_is_not_judged(
        self, site, model, scan, tmp_path
    ):
        name = f"owner/model-{uuid.uuid4().hex}"
        lfs = {"sha256": "0" * 64, "size": len(model), "pointerSize": 130}
        servers.hub(
            site, name, {"a.safetensors": model}, {"a.safetensors": {"lfs": lfs}}
        )
        assert scan(f"hf://{name}") == outcome.INCONCLUSIVE
        (line,) = lines(tmp_path).values()
        assert "SHA-256 is not the one" in line["error"]

    def test_half_a_character_in_a_name_keeps_that_file_alone_from_being_judged(
        self, site, model, scan, tmp_path
    ):
        name = f"owner/model-{uuid.uuid4().hex}"
        servers.hub(site, name, {"a.safetensors": model, "a\ud800.pt": model})
        assert scan(f"hf://{name}") == outcome.INCONCLUSIVE
        good, other = lines(tmp_path).values()
        assert good["error"] is None
        assert "out of its folder" in other["error"]

    def test_of_two_files_under_one_name_none_is_judged(
        self, site, model, scan, tmp_path, monkeypatch
    ):
        name = f"owner/model-{uuid.uuid4().hex}"
        servers.hub(site, name, {"a.safetensors": model, "b.safetensors": model})
        listed = elsewhere.remote.listed

        def twice(path):
            place = listed(path)
            return place._replace(files=[*place.files, place.files[0]])

        monkeypatch.setattr(elsewhere.remote, "listed", twice)
        assert scan(f"hf://{name}") == outcome.INCONCLUSIVE
        twin, other = lines(tmp_path).values()
        assert "listed twice" in twin["error"] and other["error"] is None

    def test_a_repository_that_is_not_there_is_a_sentence(self, scan, capsys):
        assert scan("hf://owner/none") == cli.USAGE
        said = capsys.readouterr().err
        assert "hf://owner/none: the hub does not list it" in said
        assert "Traceback" not in said


class TestGoogle:
    """With gcsfs, which asks a server of this machine."""

    OBJECTS = "/download/storage/v1/b/models/o/run%2F"

    @pytest.fixture(autouse=True)
    def here(self, site, monkeypatch):
        gcsfs = pytest.importorskip("gcsfs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.url)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        monkeypatch.delenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", raising=False)
        monkeypatch.setattr(gcsfs.core.GCSFileSystem, "cachable", False)
        if gcsfs.GCSFileSystem is not gcsfs.core.GCSFileSystem:  # it asks over gRPC
            monkeypatch.setattr(gcsfs.GCSFileSystem, "__init__", pytest.fail)

        async def sleep(seconds):
            pass

        monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=sleep))

    def test_a_folder_is_listed_page_by_page_and_its_files_are_judged(
        self, site, model, scan, tmp_path, capsys
    ):
        objects = {
            "run/": b"",
            "run/a.safetensors": model,
            "run/deep/": b"",
            "run/deep/b #1.safetensors": model,
            "run/load.py": b"raise SystemExit",
            "run/old.txt": b"",
            "run2/c.safetensors": model,
        }
        servers.google(site, "models", objects)
        assert scan("gs://models/run/") == outcome.CLEAN
        names = [
            "gs://models/run/a.safetensors",
            "gs://models/run/deep/b #1.safetensors",
        ]
        found = lines(tmp_path)
        assert list(found) == names
        digest = hashlib.sha256(model).hexdigest()
        told = f"fetched: {len(model):,} bytes, SHA-256 {digest}"
        assert all(line["notes"][-1] == told for line in found.values())
        assert "Traceback" not in capsys.readouterr().err
        fetched = [path for path in site.asked if path.startswith("/download")]
        assert len(fetched) == 2
        assert scan("gs://models/run") == outcome.CLEAN
        assert [path for path in site.asked if path.startswith("/download")] == fetched

    def test_an_object_that_was_replaced_is_fetched_anew(
        self, site, model, scan, tmp_path
    ):
        for generation in "12":
            told = {"run/a.safetensors": {"generation": generation}}
            servers.google(site, "models", {"run/a.safetensors": model}, told)
            assert scan("gs://models/run/a.safetensors") == outcome.CLEAN
        assert len([one for one in site.asked if one.startswith("/download")]) == 2
        assert list(lines(tmp_path)) == ["gs://models/run/a.safetensors"]

    def test_what_does_not_come_as_it_is_listed_is_not_judged(
        self, site, model, scan, tmp_path, capsys, monkeypatch
    ):
        # Without handlers Python prints what is logged, as it does outside of pytest.
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        changed = model[:-1] + bytes([model[-1] ^ 1])
        crc32c = {"md5Hash": None, "crc32c": "AAAAAA=="}
        pytest.importorskip("google_crc32c")
        expected = {
            "changed": "MD5 is not the one",
            "composed": "CRC32C is not the one",
            "cut": "does not give it: ClientPayloadError",
            "denied": "Forbidden",
            "gone": "does not give it: FileNotFoundError",
            "packed": "keeps it packed ('gzip')",
            "short": "MD5 is not the one",
        }
        servers.google(
            site,
            "models",
            {f"run/{name}.safetensors": model for name in ["a", *expected]},
            {
                "run/composed.safetensors": crc32c,
                "run/packed.safetensors": {"contentEncoding": "gzip"},
            },
        )
        answers = {
            "changed": changed,
            "cut": lambda handler: servers.send(handler, b"abc", length=len(model)),
            "denied": servers.denied,
            "gone": None,
            "short": model[:-1],
        }
        for name, answer in answers.items():
            site.answers[f"{self.OBJECTS}{name}.safetensors"] = answer
        assert scan("gs://models/run") == outcome.INCONCLUSIVE
        found = lines(tmp_path)
        assert found.pop("gs://models/run/a.safetensors")["error"] is None
        assert len(found) == len(expected)
        for name, said in expected.items():
            assert said in found[f"gs://models/run/{name}.safetensors"]["error"]
        assert "Traceback" not in capsys.readouterr().err
        lying = [one.name for one in (tmp_path / "cache").rglob("*.safetensors")]
        assert lying == ["a.safetensors"]

    def test_the_sum_of_a_composed_object_is_computed(self, site, model, scan):
        crc32c = pytest.importorskip("google_crc32c").Checksum(model).digest()
        told = {"md5Hash": None, "crc32c": base64.b64encode(crc32c).decode()}
        name = "run/a.safetensors"
        servers.google(site, "models", {name: model}, {name: told})
        assert scan(f"gs://models/{name}") == outcome.CLEAN

    def test_who_may_not_list_a_bucket_may_name_an_object(
        self, site, model, scan, tmp_path, capsys
    ):
        servers.google(site, "models", {"run/a.safetensors": model})
        site.answers["/storage/v1/b/models/o"] = servers.denied
        assert scan("gs://models/run/a.safetensors") == outcome.CLEAN
        assert list(lines(tmp_path)) == ["gs://models/run/a.safetensors"]
        assert scan("gs://models/run") == cli.USAGE
        said = capsys.readouterr().err
        assert "gs://models/run: it cannot be listed: OSError: Forbidden" in said

    def test_a_bucket_or_folder_that_is_not_there_is_a_sentence(
        self, site, model, scan, capsys
    ):
        servers.google(site, "models", {"run/a.safetensors": model, "empty/": b""})
        for address in ("gs://none/run", "gs://models/none", "gs://models/empty"):
            assert scan(address) == cli.USAGE
            said = capsys.readouterr().err
            assert f"{address}: " in said and "Traceback" not in said
