"""What the daemon of the cluster's DNS goes on with where a table is no good, or another daemon
wants its directory."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pyrun.dns.daemon
from pyrun.dns import responder, wire
from pyrun.dns.daemon import Daemon, Settings
from pyrun.dns.encode import encode_table
from pyrun.dns.look import SOCKET
from pyrun.dns.program import end_program
from pyrun.dns.reply import NOTHING
from pyrun.dns.responder import Ended, Refused, Responder
from pyrun.dns.servers import Servers
from pyrun.errors import PyrunError
from pyrun.http.unix import request
from pyrun.kube.feed.store import Store
from tests.support.dns import ask, service
from tests.support.dns_program import LOOPBACK, PATIENCE_S, running
from tests.support.dns_served import Served, serving, tell_cluster, wait_until
from tests.support.dns_upstream import free_port

SVC = "default.svc.cluster.local."


def test_a_table_that_the_program_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good one goes on, that is told, and the next change is served."""
    with serving(Servers({})) as served:
        monkeypatch.setattr(pyrun.dns.daemon, "encode_table", lambda *of: encode_table(*of)[:-1])
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it is told", lambda: any("the table of these objects is not used" in line for line in served.said))
        assert served.udp(f"web.{SVC}")[1] and served.udp(f"new.{SVC}")[0] == "NXDOMAIN"
        monkeypatch.setattr(pyrun.dns.daemon, "encode_table", encode_table)
        tell_cluster(served.store, service("newer", clusterIP="10.96.9.8"))
        wait_until("a good one is taken", lambda: bool(served.udp(f"newer.{SVC}")[1]))


def test_a_program_that_every_new_table_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started anew with the last good table as often as it takes to be sure, and goes on with that."""
    put = Responder.put_table
    with serving(Servers({})) as served:
        good = served.daemon.table_bytes

        def kills(self: Responder, data: bytes) -> int:
            if data != good:
                raise Ended("as if it had ended")
            return put(self, data)

        monkeypatch.setattr(pyrun.dns.daemon, "RESTART_S", 0.01)
        monkeypatch.setattr(Responder, "put_table", kills)
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it is told", lambda: any("the table of these objects is not used" in line for line in served.said))
        assert served.udp(f"web.{SVC}")[1]


def test_a_program_that_is_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another one's turn, that is told, and the daemon goes on; by a change of the objects, or by whoever asks
    how it does."""
    with serving(Servers({})) as served:
        monkeypatch.setattr(responder, "PATIENCE_S", 3.0)
        for turn, name in enumerate(("new", "newer"), 1):
            silent = served.daemon.responder.pid
            os.kill(silent, signal.SIGSTOP)
            tell_cluster(served.store, service(name, clusterIP=f"10.96.9.{turn}"))
            wait_until("another one goes on", lambda one=silent: served.daemon.responder.pid != one)  # type: ignore[misc]
            wait_until("it has the new table", lambda one=name: bool(served.udp(f"{one}.{SVC}")[1]))  # type: ignore[misc]
            with pytest.raises(ProcessLookupError):
                os.kill(silent, 0)
        silent = served.daemon.responder.pid
        os.kill(silent, signal.SIGSTOP)
        where = f"/query?name={wire.name_of(f'web.{SVC}').hex()}&type=1&client={bytes(16).hex()}"
        status, text = request(f"{served.daemon.settings.state}/{SOCKET}", where, hint="")
        assert status == 503 and b"has said nothing" in text
        wait_until("another one goes on", lambda: served.daemon.responder.pid != silent)
        assert served.udp(f"web.{SVC}")[1]


def test_a_table_of_which_the_program_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon goes on meanwhile: pages say so, and it ends when it is told to, with the program."""
    put = Responder.put_table

    def hangs(self: Responder, data: bytes) -> int:
        if data != good:
            os.kill(self.pid, signal.SIGSTOP)
        return put(self, data)

    with serving(Servers({})) as served:
        good, hung = served.daemon.table_bytes, served.daemon.responder.pid
        monkeypatch.setattr(responder, "PATIENCE_S", 3600.0)
        monkeypatch.setattr(Responder, "put_table", hangs)
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it hangs", lambda: Path(f"/proc/{hung}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        where = f"/query?name={wire.name_of(f'web.{SVC}').hex()}&type=1&client={bytes(16).hex()}"
        status, text = request(f"{served.daemon.settings.state}/{SOCKET}", where, hint="")
        assert status == 503 and b"has been given a table" in text
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


def test_an_answer_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's loop gives answers to a program that hangs at a table, until there is no room for more."""
    monkeypatch.setattr(responder, "PATIENCE_S", 3600.0)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        its.send(struct.pack("<IIQII", responder.HELLO, responder.PROTOCOL, 1, 1, 0))
        hung = Responder(ours)

        def put() -> None:
            with contextlib.suppress(Ended):
                hung.put_table(b"")

        asked = threading.Thread(target=put, daemon=True)
        asked.start()
        wait_until("it is asked", lambda: bool(select.select([its], [], [], 0)[0]))
        question = responder.Question(b"\0", 1, False, False, bytes(16))

        def give() -> None:
            with contextlib.suppress(OSError):
                for _ in range(5000):
                    hung.answer(question, 2, NOTHING, 0, 0, generation=1, failed=True)

        giving = threading.Thread(target=give, daemon=True)
        giving.start()
        giving.join(PATIENCE_S)
        waits = giving.is_alive()
        hung.give_up()
        asked.join(PATIENCE_S)
        assert not waits and not asked.is_alive()


def test_a_program_that_can_not_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while another one is installed. What was asked meanwhile is answered then, also by what has changed."""
    begin: Callable[[str], int] = getattr(pyrun.dns.daemon, "start")  # noqa: B009
    missing = True

    def start(control: str) -> int:
        if missing:
            raise PyrunError("pyrun-dns is missing")
        return begin(control)

    with serving(Servers({})) as served:
        monkeypatch.setattr(pyrun.dns.daemon, "start", start)
        monkeypatch.setattr(pyrun.dns.daemon, "LATER_S", (0.1, 0.2))
        served.daemon.delay = 0.1
        os.kill(served.daemon.responder.pid, signal.SIGKILL)
        wait_until("it is told", lambda: sum("pyrun-dns is missing; again in" in line for line in served.said) >= 2)
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect(("127.0.0.1", served.port))
            query = ask(f"web.{SVC}", "A")
            client.send(query)
            missing = False
            assert client.recv(4096)[:2] == query[:2]
        wait_until("the new table is there", lambda: bool(served.udp(f"new.{SVC}")[1]))


def test_a_saved_table_that_kills_every_program_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The daemon starts without it, says so, and answers by the objects; no program is started after that."""
    (tmp_path / "table").write_bytes(b"which kills")
    put, said, started = Responder.put_table, list[str](), list[bytes]()

    def kills(self: Responder, data: bytes) -> int:
        started.append(data)
        if data == b"which kills":
            os.kill(self.pid, signal.SIGKILL)
            raise Ended("it has ended")
        return put(self, data)

    monkeypatch.setattr(Responder, "put_table", kills)
    monkeypatch.setattr(pyrun.dns.daemon, "RESTART_S", 0.01)
    store = Store()
    tell_cluster(store)
    port = free_port()
    daemon = Daemon(Settings(str(tmp_path), (("127.0.0.1", port),), LOOPBACK, upstreams=Servers()), store, said.append)
    ready, stop = threading.Event(), os.eventfd(0)
    daemon.loop.read(stop, daemon.stop)
    thread = threading.Thread(target=daemon.run, args=[lambda text: ready.set()])
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        assert started[:3] == [b"which kills"] * 3 and started[3:] and b"which kills" not in started[3:]
        assert sum("the next begins without it" in line for line in said) == 1
        assert Served(daemon, port, store, said).udp(f"web.{SVC}")[1]
    finally:
        os.eventfd_write(stop, 1)
        thread.join(2 * PATIENCE_S)
        os.close(stop)
        end_program(daemon.responder.pid)
        store.close()


def leave_a_program(tmp_path: Path, store: Store, port: int) -> tuple[Settings, int]:
    """The settings of a daemon that has ended, and the pid of its program, which goes on."""
    tell_cluster(store)
    settings = Settings(str(tmp_path), (("127.0.0.1", port),), LOOPBACK, upstreams=Servers())
    first = Daemon(settings, store, print)
    first._plan()
    assert first.aside.finish(PATIENCE_S)
    first.stop(leave=True)
    first.run()
    return settings, first.responder.pid


def test_a_program_of_another_version_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its sockets are taken, and another one goes on; the daemon can't speak with it of anything else."""
    store, port, said = Store(), free_port(), list[str]()
    settings, left = leave_a_program(tmp_path, store, port)
    connect = Responder.connect

    def older(path: str) -> Responder:
        with monkeypatch.context() as patch:
            patch.setattr(responder, "PROTOCOL", 1)
            found = connect(path)
        monkeypatch.setattr(Responder, "connect", connect)
        assert not found.is_known
        return found

    monkeypatch.setattr(Responder, "connect", older)
    second = Daemon(settings, store, said.append)
    try:
        assert said == [f"process {second.responder.pid} has taken over from {left}"]
        assert Served(second, port, store, said).udp(f"web.{SVC}")[1]
    finally:
        second.stop()
        second.run()
        end_program(left)
        end_program(second.responder.pid)
        store.close()


def test_a_silent_program_that_was_left_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says nothing of itself, and has the sockets that the next one needs."""
    store, port, said = Store(), free_port(), list[str]()
    settings, left = leave_a_program(tmp_path, store, port)
    os.kill(left, signal.SIGSTOP)
    monkeypatch.setattr(responder, "PATIENCE_S", 3.0)
    try:
        second = Daemon(settings, store, said.append)
        try:
            assert f"pyrun-dns has said nothing for 3 seconds; process {left} is ended" in said
            assert Served(second, port, store, said).udp(f"web.{SVC}")[1]
        finally:
            second.stop()
            second.run()
            end_program(second.responder.pid)
    finally:
        end_program(left)
        store.close()


def test_a_program_of_another_version_that_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(responder, "PROTOCOL", 1)
    with pytest.raises(PyrunError, match="pyrun-dns is of another version than this daemon"):
        Daemon(Settings(str(tmp_path), (), LOOPBACK), Store(), print)


def test_a_refusal_says_of_what() -> None:
    with running() as program, pytest.raises(Refused, match="refused the table at byte"):
        program.responder.put_table(b"none")


def test_a_second_daemon_of_the_same_directory_is_refused() -> None:
    """They would take the program from each other; the first one goes on."""
    with serving(Servers({})) as served:
        state = served.daemon.settings.state
        for _ in range(2):
            with pytest.raises(PyrunError, match=f"another pyrun dns, process {os.getpid()}, uses {state}") as raised:
                Daemon(Settings(state, (("127.0.0.1", served.port),), LOOPBACK), Store(), print)
            assert raised.value.hint == "stop that one, or give this one a --state of its own"
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it follows objects", lambda: bool(served.udp(f"new.{SVC}")[1]))
        assert not any("has ended" in line for line in served.said)
