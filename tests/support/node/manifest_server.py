"""A server of manifests, of the test's own: says what it is told to say, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

from tests.support.serving import HttpServer


class ManifestServer(HttpServer):
    """status, data, tag: the answer, with as many bytes as `length` says in place of its own. asked: the headers of
    each request."""

    def __init__(self, certificate: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.data, self.tag, self.place = 200, b"", "", ""
        self.length: int | None = None
        self.asked: list[dict[str, str]] = []
        self.lock = threading.Lock()  # so that no answer is half of one thing and half of the next
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_address[1]}/pods.yaml?of=n1"

    def say(self, data: bytes | str, tag: str = "", status: int = 200, length: int | None = None) -> None:
        with self.lock:
            self.data = data.encode() if isinstance(data, str) else data
            self.tag, self.length, self.status = tag, length, status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ManifestServer

    def do_GET(self) -> None:
        server = self.server
        server.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        with server.lock:
            data, tag, length, status = server.data, server.tag, server.length, server.status
        known = bool(tag) and self.headers.get("If-None-Match") == tag and status == 200
        data = b"" if known else data
        self.send_response(304 if known else status)
        if not known:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in (("ETag", tag), ("Location", server.place)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def a_manifest_server(certificate: str = "") -> Iterator[ManifestServer]:
    """While it is entered; certificate: a file with its key."""
    server = ManifestServer(certificate)
    with server.running():
        yield server
