"""What the check of threads takes for a test's own, and the servers whose threads end with them."""

from __future__ import annotations

import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pyrun.cli.deadline import __file__ as product
from tests.support import serving
from tests.support.serving import HttpServer, Serving, end_threads, shut_down
from tests.support.threads import find_left, living_threads

PATIENCE_S = 60.0


def test_a_thread_that_is_left_is_found() -> None:
    before, goes_on = living_threads(), threading.Event()
    left = threading.Thread(target=goes_on.wait, name="left")
    left.start()
    try:
        assert find_left(before, grace=0.1) == ["left"]
    finally:
        goes_on.set()
        left.join()
    assert not find_left(before)


def test_a_librarys_that_a_test_began_is_found() -> None:
    before = living_threads()
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    left = threading.Thread(target=server.serve_forever, args=(0.05,), name="left")
    left.start()
    try:
        assert find_left(before, grace=0.1) == ["left"]
    finally:
        server.shutdown()
        left.join()
        server.server_close()


def test_a_thread_that_ends_in_time_is_waited_for() -> None:
    before, done = living_threads(), threading.Event()
    threading.Timer(0.5, done.set).start()
    assert find_left(before) == [] and done.is_set()


def test_an_executors_and_pyruns_own_are_no_tests() -> None:
    before, there, goes_on = living_threads(), threading.Event(), threading.Event()
    of_pyrun: dict[str, object] = {}
    exec(compile("def work(begin, wait): begin(), wait()", product, "exec"), of_pyrun)
    own = threading.Thread(target=of_pyrun["work"], args=(there.set, goes_on.wait))  # type: ignore[arg-type]
    own.start()
    try:
        assert there.wait(PATIENCE_S)  # till then nobody can tell whose it is
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(living_threads).result() == before
    finally:
        goes_on.set()
        own.join()


def test_a_server_ends_with_its_connections() -> None:
    """Whatever its threads wait for: a client, or one more byte of it."""
    before, server = living_threads(), Serving()
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[bytes] = []
    server.accept(listener, lambda one: ends.append(one.recv(1)))
    with socket.create_connection(listener.getsockname(), PATIENCE_S) as one:
        while len(server.open) < 2:
            pass
        assert len(living_threads() - before) == 1, "a server has one name"
        server.end()
        assert one.recv(1) == b""
    assert ends == [b""] and listener.fileno() == -1 and not server.open
    assert find_left(before, grace=0) == []


def test_a_connection_that_comes_with_the_end_ends_too() -> None:
    server, (one, other) = Serving(), socket.socketpair()
    server.end()
    server.hold(one)
    with other:
        assert other.recv(1) == b""
    server.end()
    assert one.fileno() == -1


def test_a_datagram_socket_wakes_too() -> None:
    server, one = Serving(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    server.run(server.hold(one).recvfrom, 1)
    server.end()
    shut_down(one)  # which is closed: nothing


def test_a_thread_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, server = threading.Event(), Serving()
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    server.run(goes_on.wait)
    with pytest.raises(AssertionError, match="do not end: .*server"):
        server.end()
    goes_on.set()
    monkeypatch.undo()
    server.end()
    end_threads()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_http_server_ends_with_a_connection_that_is_kept() -> None:
    before, server = living_threads(), HttpServer(("127.0.0.1", 0), Handler)
    with server.running():
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=PATIENCE_S).close()
        idle = socket.create_connection(("127.0.0.1", server.server_port), PATIENCE_S)
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(5) == b"HTTP/"
    idle.close()
    assert find_left(before, grace=0) == []
