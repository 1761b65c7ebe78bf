"""A registry of ours over real HTTP, with faults on demand. It serves what tests give it.

Every request is noted in `log`. A fault is added with what paths it concerns and how often; it changes one answer. Who
may come is set by `basic` or `token`; the token server is the stub itself or another one.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.registry.made import Made
from tests.support.serving import HttpServer

PATH = re.compile(r"/v2/(?P<repo>.+)/(?P<kind>manifests|blobs)/(?P<name>[^/]+)")
PIECE = 1 << 16


@dataclass
class Answer:
    """What the stub is about to send. drip: seconds before each byte. stop: bytes of the body after which the
    connection is cut. pause: (bytes, seconds) to be silent there. length: the Content-Length that is said, or None for
    that of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    stop: int | None = None
    pause: tuple[int, float] | None = None
    drip: float = 0
    endless: bool = False


@dataclass
class Fault:
    match: str
    change: Callable[[Answer], None]
    times: int


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Stub:
    """A registry at `host` (127.0.0.1:PORT). tls: (certificate, key) files, for https."""

    def __init__(self, tls: tuple[Path, Path] | None = None, port: int = 0) -> None:
        self.repos: dict[str, Made] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.basic: tuple[str, str] | None = None
        self.token: tuple[str, str] | None = None
        self.realm = ""
        self.tokens: set[str] = set()
        self.ranges = True
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self.server = HttpServer(("127.0.0.1", port), self._handler())
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"{self.scheme}://{self.host}"
        self.server.start()

    def close(self) -> None:
        self.server.close()

    def add(self, repo: str, tag: str, made: Made) -> str:
        """Serves the image; returns its reference."""
        there = self.repos.setdefault(repo, Made("", "", ""))
        there.blobs |= made.blobs
        there.types |= made.types
        self.tags[repo, tag] = made.top
        return f"{self.host}/{repo}:{tag}"

    def fault(self, match: str, change: Callable[[Answer], None], times: int = 1) -> None:
        """Changes the next `times` answers to paths that contain `match`."""
        self.faults.append(Fault(match, change, times))

    def asked(self, match: str) -> list[Request]:
        with self.lock:
            return [request for request in self.log if match in request.path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers.items()), body)
                with stub.lock:
                    stub.log.append(request)
                answer = stub.answer(request)
                try:
                    stub.send(self, answer)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        answer = self._answer(request)
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.match in request.path:
                    fault.times -= 1
                    fault.change(answer)
                    break
        return answer

    def _answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if parts.path == "/token":
            return self._token_answer(request, parse_qs(parts.query))
        if (refusal := self._refusal(request)) is not None:
            return refusal
        if parts.path == "/v2/":
            return Answer(body=b"{}")
        found = PATH.fullmatch(parts.path)
        repo = self.repos.get(found["repo"]) if found else None
        if found is None or repo is None:
            return Answer(404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
        digest = self.tags.get((found["repo"], found["name"]), found["name"])
        data = repo.blobs.get(digest)
        if data is None:
            return Answer(404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        if found["kind"] == "manifests":
            return Answer(headers={"Content-Type": repo.types[digest], "Docker-Content-Digest": digest}, body=data)
        return self._blob(request, data)

    def _blob(self, request: Request, data: bytes) -> Answer:
        wanted = request.headers.get("Range", "")
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            where = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return Answer(206, where, data[start:])
        return Answer(body=data)

    def _refusal(self, request: Request) -> Answer | None:
        sent = request.headers.get("Authorization", "")
        if self.basic and sent != "Basic " + base64.b64encode(":".join(self.basic).encode()).decode():
            return Answer(401, {"WWW-Authenticate": 'Basic realm="stub"'})
        if self.token and sent.removeprefix("Bearer ") not in self.tokens:
            realm = self.realm or f"{self.url}/token"
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="stub",scope="s:x:pull"'})
        return None

    def _token_answer(self, request: Request, query: dict[str, list[str]]) -> Answer:
        sent = request.headers.get("Authorization", "")
        form = parse_qs(request.body.decode())
        if self.token and self.token != ("", ""):
            known = "Basic " + base64.b64encode(":".join(self.token).encode()).decode()
            if sent != known and form.get("refresh_token") != [self.token[1]]:
                return Answer(401)
        token = f"t{len(self.tokens)}-{time.monotonic_ns()}"
        self.tokens.add(token)
        return Answer(headers={"Content-Type": "application/json"}, body=json.dumps({"token": token}).encode())

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        with self.lock:
            self.active += 1
            self.most_active = max(self.active, self.most_active)
        try:
            self._send(handler, answer)
        finally:
            with self.lock:
                self.active -= 1

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        length = len(answer.body) if answer.length is None else answer.length
        if answer.endless:
            handler.close_connection = True
            handler.send_header("Connection", "close")
        else:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        body = answer.body if answer.stop is None else answer.body[: answer.stop]
        at = 0
        while at < len(body):
            if answer.pause and at >= answer.pause[0]:
                handler.wfile.flush()
                time.sleep(answer.pause[1])
                answer.pause = None
            end = min(len(body), at + PIECE, answer.pause[0] if answer.pause and answer.pause[0] > at else len(body))
            if answer.drip:
                end = at + 1
                time.sleep(answer.drip)
            handler.wfile.write(body[at:end])
            at = end
        while answer.endless:
            handler.wfile.write(b"\0" * PIECE)
        if answer.stop is not None or answer.length is not None:
            handler.close_connection = True


# --- faults ----------------------------------------------------------------------------------------------------------


def busy(status: int = 429, retry_after: str | None = "0") -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer.status, answer.body, answer.headers = status, b"", {}
        if retry_after is not None:
            answer.headers["Retry-After"] = retry_after

    return change


def cut(after: int) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "stop", after)


def silent(after: int, seconds: float) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "pause", (after, seconds))


def dripping(seconds: float) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "drip", seconds)


def length(said: int) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "length", said)


def endless(answer: Answer) -> None:
    answer.endless = True


def replaced(body: bytes) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "body", body)


def flipped(answer: Answer) -> None:
    """One bit in the middle."""
    middle = len(answer.body) // 2
    answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]


def redirect(url: str, status: int = 307) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer.status, answer.headers, answer.body = status, {"Location": url}, b""

    return change


@contextmanager
def running(tls: tuple[Path, Path] | None = None) -> Iterator[Stub]:
    stub = Stub(tls)
    try:
        yield stub
    finally:
        stub.close()
