"""Servers of this machine that speak as web servers and the model hub do, also badly."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Site:
    """Path -> what is sent for it; whatever was asked is kept.

    Attributes:
      answers: path without query -> bytes, or a function of the handler.
      asked: paths in order, with their queries.
      headers: of the requests, by path without query.
    """

    def __init__(self):
        self.answers, self.asked, self.headers, self.url = {}, [], {}, ""


@contextlib.contextmanager
def running():
    """A site while the body runs."""
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            site.asked.append(self.path)
            site.headers[path] = dict(self.headers)
            answer = site.answers.get(path)
            if answer is None:
                self.send_error(404)
            elif callable(answer):
                answer(self)
            else:
                send(self, answer)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def send(handler, content, length=None, **headers):
    """An answer; `length` is what is announced, None the truth, empty nothing."""
    handler.send_response(200)
    length = len(content) if length is None else length
    if length != "":
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(content)


def redirect(place):
    """An answer that leads elsewhere."""

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def hub(site, name, files, told=None):
    """Lets a site answer for a repository of the hub as huggingface.co does.

    Args:
      site: a `Site`.
      name: `owner/name`.
      files: name -> content.
      told: name -> fields of the listing that are told otherwise.
    """
    siblings = []
    for file, content in files.items():
        about = {"rfilename": file, "size": len(content), "blobId": "0" * 40}
        siblings.append(about | (told or {}).get(file, {}))
        site.answers[f"/{name}/resolve/{COMMIT}/{file}"] = content
    listing = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
    body = json.dumps(listing | {"tags": [], "private": False}).encode()

    def answer(handler):
        send(handler, body, Content_Type="application/json")

    for path in ("", "/revision/main", "/revision/v1"):
        site.answers[f"/api/models/{name}{path}"] = answer


def google(site, bucket, objects, told=None):
    """Lets a site answer for a bucket as the JSON API of Google Cloud Storage does.

    https://cloud.google.com/storage/docs/json_api/v1: objects are listed in pages of at
    most two, and a range of an object is sent as such.

    Args:
      site: a `Site`.
      bucket: its name.
      objects: name -> content.
      told: name -> fields of the resource that are told otherwise; None leaves one out.
    """
    listing = f"/storage/v1/b/{bucket}/o"
    resources = {}
    for number, name in enumerate(sorted(objects)):
        content = objects[name]
        about = {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "size": str(len(content)),
            "generation": str(1_700_000_000_000_000 + number),
            "metageneration": "1",
            "etag": "CAE=",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "updated": "2026-01-02T03:04:05.678Z",
        } | (told or {}).get(name, {})
        resources[name] = {key: one for key, one in about.items() if one is not None}
        key = urllib.parse.quote(name, safe="")
        site.answers[f"{listing}/{key}"] = _as_json(resources[name])
        site.answers[f"/download{listing}/{key}"] = _ranges(content)

    def listed(handler):
        query = dict(urllib.parse.parse_qsl(handler.path.partition("?")[2]))
        prefix, first = query.get("prefix", ""), int(query.get("pageToken", 0))
        found = [one for name, one in resources.items() if name.startswith(prefix)]
        page = {"kind": "storage#objects", "items": found[first : first + 2]}
        if found[first + 2 :]:
            page["nextPageToken"] = str(first + 2)
        _as_json(page)(handler)

    site.answers[listing] = listed


def denied(handler):
    """What the JSON API says to who may not read."""
    told = {"error": {"code": 403, "message": "Anonymous caller does not have access"}}
    body = json.dumps(told).encode()
    handler.send_response(403)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _as_json(what):
    body = json.dumps(what).encode()
    return lambda handler: send(handler, body, Content_Type="application/json")


def _ranges(content):
    """An answer that sends the bytes that were asked for."""

    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        part = content[int(asked[1]) : int(asked[2]) + 1] if asked else content
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        handler.wfile.write(part)

    return answer
