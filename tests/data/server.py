"""A web server in a thread, with the faults that downloads meet."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What a server has, does wrong, and was asked.

    Attributes:
        files: path -> content.
        moved: path -> where it redirects to.
        answers: status codes of the next answers, before it serves files again.
        cuts: after so many bytes of its body each of the next answers breaks off.
        stalls: whether such an answer stays open in silence instead.
        headers: of each answer, in place of its own of the same name.
        ranges: whether it knows Range.
        versions: whether it sends ETag.
        asked: (path, headers) of each request.
        sent: body bytes of each answer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    answers: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    stalls: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    versions: bool = True
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    url: str = ""

    def tag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:8]}"'


@contextmanager
def served(**files: bytes) -> Iterator[Site]:
    """A site on loopback with these files at its top."""
    site = Site({f"/{name}": content for name, content in files.items()})
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers.items())))
            if site.answers:
                self.send_error(site.answers.pop(0))
            elif self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path in site.files:
                self.serve(site.files[self.path])
            else:
                self.send_error(404)

        def serve(self, content: bytes) -> None:
            start = 0
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, site.tag(self.path))
            if found and same and site.ranges:
                start = int(found[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            else:
                self.send_response(200)
            if site.versions:
                self.send_header("ETag", site.tag(self.path))
            body = content[start:]
            for name, value in ({"Content-Length": str(len(body))} | site.headers).items():
                self.send_header(name, value)
            self.end_headers()
            cut = site.cuts.pop(0) if site.cuts else len(body)
            site.sent.append(len(body[:cut]))  # before the reader can know that it is over
            self.wfile.write(body[:cut])
            if cut < len(body) and site.stalls:
                over.wait()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
