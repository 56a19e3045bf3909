"""A fetched file is whole, within its bounds and in its folder, or it is not there."""

import contextlib
import hashlib
import os
import threading

import pytest

from ban_jax import remote
from ban_jax.remote import address, room, source, web
from tests.remote import servers


def fetched(cache, url):
    place = remote.listed(url)
    with cache.held(place, place.files) as folder:
        return cache.fetch(folder, place.files[0])


def everything(cache):
    return [
        os.path.join(top, name)
        for top, _, names in os.walk(cache.folder)
        for name in names
        if not name.endswith(".lock") and name != room.TOTAL
    ]


def test_a_file_is_fetched_whole_and_its_hash_is_told(site, cache):
    site.answers["/m/a.pt"] = b"weights"
    got = fetched(cache, f"{site.url}/m/a.pt?signature=secret")
    assert site.asked == ["/m/a.pt?signature=secret"]
    with open(got.path, "rb") as file:
        assert file.read() == b"weights"
    assert (got.size, got.sha256) == (7, hashlib.sha256(b"weights").hexdigest())
    assert os.path.basename(got.path) == "a.pt"


def saying(status, **headers):
    """An answer of three bytes with another status, or other headers, than it should."""

    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(status)
        for name, values in headers.items():
            for value in values:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(b"abc")
        handler.close_connection = True

    return answer


BAD = {
    "a part that nobody asked for": (
        saying(206, Content_Length="3", Content_Range=["bytes 0-2/999"]),
        "says 206 Partial Content; expected 200 OK and the whole file",
    ),
    "no content": (saying(204), "says 204 No Content; expected 200"),
    "content that somebody changed": (saying(203, Content_Length="3"), "says 203"),
    "a status of no name": (saying(299, Content_Length="3"), "says 299; expected 200"),
    "a redirect to a part": (servers.redirect("/part.pt"), "says 206"),
    "two lengths": (saying(200, Content_Length=["3", "9"]), "several lengths"),
    "two lengths in one line": (
        saying(200, Content_Length=["3, 2"]),
        "several lengths .'2 and 3'.; expected one",
    ),
    "a length beside the lengths of pieces": (
        saying(200, Content_Length="3", Transfer_Encoding=["chunked"]),
        "sends the file as 'chunked'; expected it with its length, or chunked and",
    ),
    "a packed body in pieces": (
        saying(200, Content_Length="3", Transfer_Encoding=["gzip", "chunked"]),
        "sends the file as 'gzip, chunked'",
    ),
    "a body that is cut": (
        lambda handler: servers.send(handler, b"abc", length=9),
        "cut short: 3 of 9 bytes",
    ),
    "a body without a length": (
        lambda handler: servers.send(handler, b"abc", length=""),
        "does not say how long",
    ),
    "more bytes than the limit": (
        lambda handler: servers.send(handler, b"abc", length=10_001),
        "--cache-limit allows 10,000",
    ),
    "a packed body": (
        lambda handler: servers.send(handler, b"abc", Content_Encoding="gzip"),
        "packs its answer",
    ),
    "a redirect without encryption": (
        servers.redirect("http://models.example/a.pt"),
        "redirects to http://models.example; expected https://",
    ),
    "a redirect to a file": (servers.redirect("file:///etc/passwd"), "redirects to"),
    "no file": (lambda handler: handler.send_error(403), "says 403"),
    "a redirect to no address": (servers.redirect("https://[bad/"), "none that can be"),
    "a redirect to no host": (servers.redirect("https://a..b/"), "none that can be"),
    "a length of thousands of digits": (
        lambda handler: servers.send(handler, b"abc", length="9" * 5000),
        "does not say how long",
    ),
    "no HTTP": (lambda handler: handler.wfile.write(b"hello\r\n\r\n"), "no HTTP"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_whole_or_not_allowed_is_an_error_and_leaves_nothing(
    site, cache, kind
):
    site.answers["/a.pt"], told = BAD[kind]
    site.answers["/part.pt"] = BAD["a part that nobody asked for"][0]
    with pytest.raises(remote.FetchError, match=told) as found:
        fetched(cache, f"{site.url}/a.pt?token=secret")
    assert "secret" not in str(found.value)
    assert not everything(cache)


def test_one_length_said_twice_is_one_length(site, cache):
    site.answers["/a.pt"] = saying(200, Content_Length=["3", "3"])
    assert fetched(cache, f"{site.url}/a.pt").size == 3


def test_a_body_of_unknown_length_is_counted_while_it_comes(site, cache):
    def endless(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"3e8\r\n" + bytes(1000) + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    site.answers["/a.pt"] = endless
    with pytest.raises(remote.FetchError, match="--cache-limit allows 10,000"):
        fetched(cache, f"{site.url}/a.pt")
    assert not everything(cache)


def test_credentials_stay_with_the_host_they_were_meant_for(site):
    with servers.running() as other:
        other.answers["/a.pt"] = b"weights"
        site.answers["/a.pt"] = servers.redirect(f"{other.url}/a.pt")
        with web.opened(f"{site.url}/a.pt", {"Authorization": "Bearer x"}) as body:
            assert b"".join(body) == b"weights"
    assert site.headers["/a.pt"]["Authorization"] == "Bearer x"
    assert "Authorization" not in other.headers["/a.pt"]


@pytest.mark.parametrize(
    "name", ["../a.pt", "a/../../b.pt", "/etc/a.pt", "a//b.pt", "a\\b.pt", "a\n.pt", ""]
)
def test_no_name_of_a_server_leads_out_of_the_cache(cache, name):
    file = source.File(name, 1, "", None, lambda: pytest.fail("was opened"))
    place = source.Source("s3://bucket", "s3://bucket", [file])
    with cache.held(place, [file]) as folder, pytest.raises(remote.FetchError):
        cache.fetch(folder, file)
    assert not everything(cache)


def test_a_file_that_is_not_what_its_place_promised_is_refused(site, cache):
    site.answers["/a.pt"] = b"weights"
    place = remote.listed(f"{site.url}/a.pt")
    file = place.files[0]._replace(sha256="0" * 64)
    with cache.held(place, [file]) as folder:
        with pytest.raises(remote.FetchError, match="SHA-256"):
            cache.fetch(folder, file)
    assert not everything(cache)


def test_room_is_made_by_what_no_scan_holds_and_by_nothing_else(site, cache):
    for name in "abc":
        site.answers[f"/{name}.pt"] = bytes(4000)
    places = {name: remote.listed(f"{site.url}/{name}.pt") for name in "abc"}
    paths = {}
    for name in "ab":
        with cache.held(places[name], places[name].files) as folder:
            paths[name] = cache.fetch(folder, places[name].files[0]).path
    with (
        cache.held(places["a"], places["a"].files),
        cache.held(places["c"], places["c"].files) as folder,
    ):
        cache.fetch(folder, places["c"].files[0])
        assert os.path.exists(paths["a"]) and not os.path.exists(paths["b"])
        with cache.held(places["b"], places["b"].files) as more:
            with pytest.raises(remote.FetchError, match="full with files of this scan"):
                cache.fetch(more, places["b"].files[0])


def test_a_version_that_is_known_is_fetched_once_and_again_when_it_was_changed(
    site, cache
):
    site.answers["/a.pt"] = b"weights"
    place = remote.listed(f"{site.url}/a.pt")
    file = place.files[0]._replace(version="1")
    with cache.held(place, [file]) as folder:
        path = cache.fetch(folder, file).path
        cache.fetch(folder, file)
        assert len(site.asked) == 1
        with open(path, "wb") as lying:
            lying.write(b"changed")
        cache.fetch(folder, file)
        assert len(site.asked) == 2


def test_a_cache_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(remote.FetchError, match="--cache-dir"):
        remote.Cache(str(folder), 1)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/a.pt",
        "http://models.example/a.pt",
        "https://",
        "hf://name",
        "hf://a/b/c.pt",
        "hf://a/b@../x",
        "s3://",
        "https://host/a b.pt",
        "https://host/",
    ],
)
def test_an_address_that_is_not_understood_is_refused(text):
    with pytest.raises(remote.FetchError, match="expected"):
        remote.listed(text)


def test_passwords_in_addresses_are_refused_and_not_repeated():
    with pytest.raises(remote.FetchError) as found:
        address.parse("https://me:secret@host/a.pt")
    assert "secret" not in str(found.value)
    assert "secret" not in address.parse("https://host/a.pt?token=secret").shown


def test_letters_that_no_request_can_hold_are_a_sentence(site, cache):
    with pytest.raises(remote.FetchError, match="%C3%A9"):
        fetched(cache, f"{site.url}/\u00e9.pt")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n"


def test_chunks_are_read_whatever_the_case_of_their_header(site, cache):
    site.answers["/a.pt"] = lambda handler: handler.wfile.write(CHUNKED + b"\r\n")
    assert fetched(cache, f"{site.url}/a.pt").size == 3


@pytest.mark.parametrize(
    ("start", "again"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (CHUNKED, b"X: y\r\n")],
    ids=["interim answers", "trailers"],
)
def test_a_server_that_sends_no_content_without_end_is_given_up(
    site, cache, monkeypatch, start, again
):
    monkeypatch.setattr(web, "SECONDS", 0.3)
    ended = threading.Event()

    def endless(handler):
        handler.wfile.write(start)
        with contextlib.suppress(OSError):
            while not ended.wait(0.01):
                handler.wfile.write(again)

    site.answers["/a.pt"] = endless
    late = threading.Timer(20, ended.set)
    late.start()
    try:
        with pytest.raises(remote.FetchError, match="sent no content"):
            fetched(cache, f"{site.url}/a.pt")
        assert not ended.is_set()
    finally:
        late.cancel()
        ended.set()
    assert not everything(cache)


def test_what_has_no_version_is_no_other_scans_to_replace(site, cache):
    site.answers["/a.pt"] = b"first"
    place = remote.listed(f"{site.url}/a.pt")
    with cache.held(place, place.files) as one, cache.held(place, place.files) as two:
        first = cache.fetch(one, place.files[0]).path
        site.answers["/a.pt"] = b"second"
        cache.fetch(two, place.files[0])
        with open(first, "rb") as file:
            assert file.read() == b"first"
    with cache.held(place, place.files) as again:
        assert again == one


def test_nothing_of_an_earlier_scan_lies_where_a_file_did_not_come(site, cache):
    site.answers["/a.pt"] = b"first"
    fetched(cache, f"{site.url}/a.pt")
    del site.answers["/a.pt"]
    with pytest.raises(remote.FetchError):
        fetched(cache, f"{site.url}/a.pt")
    assert not [one for one in everything(cache) if one.endswith(".pt")]


def test_what_is_still_coming_does_not_lie_where_scans_search(cache):
    @contextlib.contextmanager
    def opened():
        assert not os.listdir(folder)
        stream = Coming([b"x"])
        yield stream
        assert not os.listdir(folder)

    class Coming(list):
        expected = 1

    file = source.File("a.pt", 1, "1", None, opened)
    place = source.Source("s3://bucket", "s3://bucket", [file])
    with cache.held(place, [file]) as folder:
        cache.fetch(folder, file)
        assert os.listdir(folder) == ["a.pt"]


def test_a_cache_whose_locks_cannot_be_made_is_a_sentence(site, cache):
    place = remote.listed(f"{site.url}/a.pt")
    with cache.held(place, place.files) as folder:
        pass
    os.unlink(f"{folder}.lock")
    os.mkdir(f"{folder}.lock")
    with pytest.raises(remote.FetchError, match="cache cannot take it"):
        with cache.held(place, place.files):
            pass


def test_room_can_be_made_while_another_scan_makes_some(cache, monkeypatch):
    gone = os.path.join(cache.folder, "gone")
    monkeypatch.setattr(cache._room, "_folders", lambda: [gone])
    cache._room.take(cache.limit)


def test_the_index_of_a_set_is_fetched_also_of_a_variant():
    for name in ("model.safetensors.index.json", "a/model.bin.index.fp16.json"):
        assert not source.wanted(name)
    assert source.wanted("vocabulary.json")
