"""Servers of this machine that speak as web servers and the model hub do, also badly."""

import contextlib
import http.server
import json
import threading

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
