"""The threads of a test's server, and the sockets at which they wait.

close() does not wake a thread that is blocked at a socket: it keeps the NUMBER of the descriptor, and when the kernel
begins its call anew, that is the socket of whoever got the number next. So all sockets are shut down first, the threads
are waited for, and only then is anything closed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

PATIENCE_S = 120.0


def end_threads(*threads: threading.Thread) -> None:
    """Waits for them; AssertionError where one stays."""
    for thread in threads:
        thread.join(PATIENCE_S)
    left = [thread.name for thread in threads if thread.is_alive()]
    assert not left, f"threads that do not end: {left}"


def shut_down(one: socket.socket) -> None:
    """Wakes who is blocked there, with the end. Nothing where it is so already; what it was connected to or listened
    for is past."""
    with contextlib.suppress(OSError):  # ENOTCONN is said to a datagram socket, but does it
        socket.socket.shutdown(one, socket.SHUT_RDWR)  # TLS would say it in words, while another thread speaks


_numbers = itertools.count(1)


class Serving:
    """What one server has of threads and sockets. An OSError ends a thread. All its threads have one name."""

    def __init__(self) -> None:
        self._name = f"server {next(_numbers)}"
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()
        self._ends = False

    @property
    def open(self) -> list[socket.socket]:
        with self._lock:
            return list(self._sockets)

    def hold(self, one: socket.socket) -> socket.socket:
        """To be closed in the end, at the latest."""
        with self._lock:
            self._sockets.add(one)
            if self._ends:
                shut_down(one)
        return one

    def close(self, one: socket.socket) -> None:
        """By the thread that has it, before the end."""
        with self._lock:
            self._sockets.discard(one)
        one.close()

    def run(self, work: Callable[..., object], *args: Any) -> threading.Thread:
        """In a thread."""
        thread = threading.Thread(target=self._work, args=(work, args), name=self._name, daemon=True)
        with self._lock:
            thread.start()
            self._threads.add(thread)
        return thread

    def accept(self, listener: socket.socket, handle: Callable[[socket.socket], object]) -> None:
        """Each connection in a thread of its own, which closes it."""
        self.hold(listener)
        self.run(self._accept, listener, handle)

    def end(self) -> None:
        """AssertionError where a thread stays."""
        with self._lock:
            self._ends = True
            for one in self._sockets:
                shut_down(one)
        while threads := self._running():
            end_threads(*threads)
        for one in self.open:
            self.close(one)

    def _running(self) -> list[threading.Thread]:
        """One that has begun another meanwhile comes back with it."""
        with self._lock:
            self._threads = {thread for thread in self._threads if thread.is_alive()}
            return list(self._threads)

    def _work(self, work: Callable[..., object], args: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):
            work(*args)

    def _accept(self, listener: socket.socket, handle: Callable[[socket.socket], object]) -> None:
        while True:
            connection = self.hold(listener.accept()[0])
            self.run(self._handle, connection, handle)

    def _handle(self, connection: socket.socket, handle: Callable[[socket.socket], object]) -> None:
        try:
            handle(connection)
        finally:
            self.close(connection)


class HttpServer(ThreadingHTTPServer):
    """One whose connections end with it, also those that a client keeps."""

    def __init__(self, *args: Any) -> None:
        self._serving = Serving()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._serving.hold(request)
        self._serving.run(self.process_request_thread, request, client_address)

    def shutdown_request(self, request: Any) -> None:
        shut_down(request)
        self._serving.close(request)

    def handle_error(self, *_: object) -> None:
        """Of a client that has hung up."""

    def start(self) -> None:
        self._serving.run(self.serve_forever, 0.05)

    def close(self) -> None:
        """Nothing of it is left."""
        self.shutdown()
        self._serving.end()
        self.server_close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While it is entered."""
        self.start()
        try:
            yield
        finally:
            self.close()
