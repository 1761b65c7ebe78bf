"""`pyrun dns run` as a process of its own on loopback, and clients that ask it all the time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrun.dns.program import end_program
from tests.support.daemon import PATIENCE_S, Daemon, until
from tests.support.dns import ask
from tests.support.dns_program import framed, read_framed
from tests.support.dns_upstream import free_port
from tests.support.serving import end_threads


class DnsDaemon(Daemon):
    """The daemon over a directory of objects, or what else `source` says."""

    def __init__(self, directory: Path, *words: str) -> None:
        super().__init__(directory, "pyrun-dns")
        self.port = free_port()
        self.words = list(words)
        self.source = ["--objects", str(self.objects)]
        self.programs: list[int] = []  # all that there were

    def start(self) -> None:
        """Returns when it answers."""
        words = [*self.source, "--state", str(self.state), "--listen", f"127.0.0.1:{self.port}"]
        before = len(self.said())
        with open(self.log, "ab") as log:
            argv = [sys.executable, "-m", "pyrun", "dns", "run", *words, *self.words]
            env = {**os.environ, "NOTIFY_SOCKET": str(self.state.with_name("notify"))}
            with self._notified(env["NOTIFY_SOCKET"]) as ready:
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, env=env
                )
                until(lambda: self._lives() and ready(), lambda: self.said()[before:])
        self.programs += [pid for pid in self._children() if pid not in self.programs]

    def _lives(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.said()
        return True

    @contextlib.contextmanager
    def _notified(self, path: str) -> Iterator[Callable[[], bool]]:
        """What systemd would be told."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            listener.setblocking(False)

            def ready() -> bool:
                try:
                    return b"READY=1" in listener.recv(4096)
                except BlockingIOError:
                    return False

            yield ready

    def _children(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def program(self) -> int:
        """The newest pyrun-dns that was a child of one of ours, and lives."""
        if self.process is not None and self.process.poll() is None:
            self.programs += [pid for pid in self._children() if pid not in self.programs]
        return next((pid for pid in reversed(self.programs) if is_there(pid)), 0)

    def leave(self) -> None:
        """As `systemctl kill -s USR2 --kill-whom=main` does it: the program stays."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)
        assert self.process.wait(PATIENCE_S) == 0, self.said()

    def stop(self) -> None:
        """As systemd does it; what an earlier failure has left, too."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
            self.process.kill()
            self.process.wait()
        for pid in self.programs:
            if is_there(pid):
                os.kill(pid, signal.SIGKILL)
            end_program(pid)

    def ask(self, name: str, kind: str = "A", patience_s: float = PATIENCE_S) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(patience_s)
            client.connect(("127.0.0.1", self.port))
            client.send(ask(name, kind))
            return client.recv(65535)


def is_there(pid: int) -> bool:
    """Whether it runs our program, and is not merely waited for."""
    try:
        _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        return rest[1] != "Z" and Path(f"/proc/{pid}/comm").read_text().startswith("pyrun-dns")
    except OSError:
        return False


class Load:
    """Clients that ask for one name, one by UDP on a socket that stays, one by TCP with a new connection each time.
    good, bad: answers. again: questions over UDP that were asked more than once, as a resolver does after a while."""

    def __init__(self, port: int, name: str, retry_s: float = PATIENCE_S) -> None:
        self.port, self.name, self.retry_s = port, name, retry_s
        self.good = self.again = 0
        self.bad: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[one]) for one in (self._udp, self._tcp)]
        for thread in self._threads:
            thread.start()

    def _run(self, one: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                one()
            except OSError as error:
                self.bad.append(f"{one.__name__}: {error!r}")

    def _udp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(self.retry_s)
            client.connect(("127.0.0.1", self.port))
            while not self._stop.is_set():
                for turn in range(max(1, round(PATIENCE_S / self.retry_s))):
                    client.send(ask(self.name, "A"))
                    self.again += turn == 1
                    with contextlib.suppress(TimeoutError):
                        self._took(client.recv(2000))
                        break
                else:
                    raise TimeoutError

    def _tcp(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as client:
            client.sendall(framed(ask(self.name, "A")))
            self._took(read_framed(client))
        time.sleep(0.002)

    def _took(self, reply: bytes) -> None:
        if len(reply) > 12 and reply[3] & 15 == 0 and reply[7] == 1:
            self.good += 1
        else:
            self.bad.append(reply.hex() or "the connection ended")

    def more(self, number: int) -> None:
        """Waits until so many more were answered."""
        wanted = self.good + number
        until(lambda: self.good >= wanted, lambda: f"{self.good} answers, and {self.bad[-3:]}")

    def end(self) -> None:
        self._stop.set()
        end_threads(*self._threads)
