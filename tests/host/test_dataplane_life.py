"""The data plane and Python: each of the two dies, comes back and is upgraded, and connections go on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.proxy.client import CALL_S, GLANCE_S, DataPlane, Gone
from pyrun.proxy.rules import FORWARD, TCP, UDP, Choice, EndpointSet, Frontend, Rules, difference
from tests.host.test_dataplane_udp import VIP, Echo, ask, client, echoes, free_port
from tests.support.container.runner import REPO, wait_for
from tests.support.dataplane import PATIENCE_S, Plane, Server, packed, servers
from tests.support.executor.faults import children


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def echo(s: socket.socket) -> None:
    while part := s.recv(100):
        s.sendall(part)


class Load:
    """Clients that connect, ask and read the end, one after the other, until it is stopped."""

    def __init__(self, plane: Plane, clients: int = 4) -> None:
        self.plane, self.answers, self.faults = plane, [0] * clients, []  # type: ignore[var-annotated]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(clients)]

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                assert self.plane.ask()
                self.answers[number] += 1
            except Exception as e:
                self.faults.append(e)

    def wait_for(self, more: int) -> None:
        """Until so many more have been answered, to each client its share of them: nobody waits for what he has asked
        before any more."""
        share = -(-more // len(self.answers))
        goals, deadline = [count + max(share, 2) for count in self.answers], time.monotonic() + PATIENCE_S
        while any(count < goal for count, goal in zip(self.answers, goals, strict=True)):
            assert time.monotonic() < deadline and not self.faults, self.faults
            time.sleep(0.01)

    def __enter__(self) -> Load:
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for t in self._threads:
            t.join()


def ended(pid: int) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], PATIENCE_S)[0])
    finally:
        os.close(fd)


def test_ten_upgrades_under_load_lose_nothing(plane: Plane) -> None:
    """Nor a connection that was there before, which ends with the process that has it."""
    with servers(1, 2) as both, servers(3, handler=echo) as (other,):
        plane.serve(*both)
        plane.serve(other, address="127.9.0.2")
        with Load(plane) as load, plane.connect("127.9.0.2") as idle:
            idle.sendall(b"a")
            assert idle.recv(1) == b"a"
            pids = [plane.it.pid]
            for _ in range(10):
                load.wait_for(20)
                plane.it = plane.it.upgrade(plane.rules)
                pids.append(plane.it.pid)
            load.wait_for(20)
            idle.sendall(b"b")
            assert idle.recv(1) == b"b"
            assert pids[0] in children()  # it lives for the idle one
        assert not load.faults
        assert len(set(pids)) == 11
        for pid in pids[:-1]:
            assert ended(pid)
        wait_for(lambda: children() == [plane.it.pid], PATIENCE_S, "no zombie")


def test_flows_and_pins_move_with_an_upgrade(plane: Plane) -> None:
    """kubernetes#122740: a restart of kube-proxy moves all UDP flows. Here the endpoint sees the same source port."""
    port = free_port()
    seen: list[tuple[str, int]] = []

    class Peers(Echo):
        def _serve(self) -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, peer = self.socket.recvfrom(65536)
                    if peer is None:
                        return
                    seen.append(peer)
                    self.socket.sendto(self.name.encode() + b":", peer)

    with servers(1, 2) as both, contextlib.ExitStack() as stack:
        peers = [Peers(f"127.8.0.{n}") for n in (5, 6, 7)]
        choice = (Choice((), FORWARD, "u"),)
        tcp = Frontend("t", TCP, packed(VIP), plane.port, (Choice((), FORWARD, "t"),), 600)
        sets = EndpointSet("u", tuple(p.endpoint for p in peers)), EndpointSet("t", tuple(s.endpoint for s in both))
        rules = Rules((Frontend("u", UDP, packed(VIP), port, choice), tcp), sets)
        plane.it.apply(rules)
        plane.rules = rules
        pinned = plane.ask(source="127.0.0.77")
        clients = [stack.enter_context(client(port)) for _ in range(100)]
        names = [ask(c) for c in clients]
        before = set(seen)
        generation = plane.it.generation
        plane.it = plane.it.upgrade(rules)
        assert plane.it.generation > generation
        assert plane.it.hello().flows == 100
        assert [ask(c) for c in clients] == names
        assert set(seen) == before
        assert {plane.ask(source="127.0.0.77") for _ in range(3)} == {pinned}
        wait_for(lambda: children() == [plane.it.pid], PATIENCE_S, "the end of the first, and no zombie")
        for p in peers:
            p.close()


def test_datagrams_wait_for_the_next_data_plane(plane: Plane) -> None:
    """What comes between the two is read by the second."""
    port = free_port()
    with echoes(1) as (one,), client(port) as s:
        rules = Rules(
            (Frontend("u", UDP, packed(VIP), port, (Choice((), FORWARD, "u"),)),), (EndpointSet("u", (one.endpoint,)),)
        )
        plane.it.apply(rules)
        assert ask(s) == one.name
        os.kill(plane.it.pid, signal.SIGSTOP)
        for n in range(50):
            s.send(b"%d" % n)
        os.kill(plane.it.pid, signal.SIGCONT)
        plane.it = plane.it.upgrade(rules)
        deadline = time.monotonic() + PATIENCE_S
        while len(one.got) < 51:
            assert time.monotonic() < deadline, len(one.got)
            time.sleep(0.01)


def test_a_glance_does_not_wait_for_long(plane: Plane) -> None:
    """A data plane that is stopped holds up nobody who only wants to tell of it; what comes after has all its time."""
    os.kill(plane.it.pid, signal.SIGSTOP)
    with pytest.raises(PyrunError, match=f"did not answer within {GLANCE_S:g} s"):
        plane.it.glance()
    os.kill(plane.it.pid, signal.SIGCONT)
    assert plane.it.hello().pid == plane.it.pid
    assert plane.it._control._patience == CALL_S > GLANCE_S
    assert plane.it.glance().pid == plane.it.pid


def test_replies_that_come_late_are_no_other_requests(plane: Plane) -> None:
    """It was stopped for longer than we wait. Each reply is its own request's afterwards, and no descriptor stays."""
    before = descriptors()
    os.kill(plane.it.pid, signal.SIGSTOP)
    wait_at_most(plane, 1)
    with pytest.raises(PyrunError, match="did not answer"):
        plane.it.counters()
    with pytest.raises(PyrunError, match="did not answer"):
        plane.it.hello()
    wait_at_most(plane, PATIENCE_S)
    os.kill(plane.it.pid, signal.SIGCONT)
    assert plane.it.hello().pid == plane.it.pid and plane.it.counters().endpoints == ()
    with pytest.raises(PyrunError, match="no TCP socket that listens"), socket.socket(type=socket.SOCK_DGRAM) as s:
        plane.it.listen([s])
    assert plane.it.hello().pid == plane.it.pid and descriptors() <= before


def descriptors() -> set[tuple[str, str]]:
    """What this process has open. Threads of earlier tests may close some of theirs at any time."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return found


def wait_at_most(plane: Plane, seconds: float) -> None:
    plane.it._control._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


def test_an_upgrade_that_fails_leaves_all_as_it_was(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with echoes(1) as (one,), client(port) as s:
        udp = Frontend("u", UDP, packed(VIP), port, (Choice((), FORWARD, "u"),))
        rules = Rules((udp,), (EndpointSet("u", (one.endpoint,)),))
        plane.it.apply(rules)
        assert ask(s) == one.name
        pid = plane.it.pid
        real = DataPlane.listen
        monkeypatch.setattr(DataPlane, "listen", lambda self, listeners: real(self, [s]))  # not one that listens
        with pytest.raises(PyrunError, match="no TCP socket that listens"):
            plane.it.upgrade(rules)
        monkeypatch.undo()
        assert ask(s) == one.name and plane.it.hello().pid == pid


def test_a_killed_data_plane_is_replaced_and_new_connections_wait_for_it(plane: Plane) -> None:
    """Its connections end with it, by RST; those that come meanwhile are in the listener's queue."""
    with servers(1, handler=echo) as one:
        plane.serve(*one)
        with plane.connect() as old:
            old.sendall(b"a")
            assert old.recv(1) == b"a"
            os.kill(plane.it.pid, signal.SIGKILL)
            assert select.select([plane.it], [], [], PATIENCE_S)[0]
            plane.it.reap()
            plane.it.close()
            with plane.connect() as waiting:
                waiting.sendall(b"b")
                plane.it = DataPlane.start(plane.directory, [plane.listener], rules=plane.rules)
                assert waiting.recv(1) == b"b"
            with contextlib.suppress(ConnectionResetError):
                assert old.recv(1) == b""


def test_it_outlives_who_started_it(tmp_path: Path) -> None:
    """kill -9 of Python under load: no error. The next one finds it, takes listeners and kept descriptors over, and
    gives it rules anew without touching a connection."""
    os.chmod(tmp_path, 0o700)
    starter = (
        "import os, signal, socket, sys\n"
        "from pyrun.proxy.client import DataPlane\n"
        "listener = socket.socket(fileno=int(sys.argv[2]))\n"
        "plane = DataPlane.start(sys.argv[1], [listener])\n"
        "r, w = os.pipe()\n"
        "os.write(w, b'kept')\n"
        "plane.keep({'a pipe': r, 'its other end': w})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with socket.create_server(("0.0.0.0", 0), backlog=1024) as listener, servers(1, 2, handler=echo) as (one, two):
        fd = listener.fileno()
        done = subprocess.run(
            [sys.executable, "-c", starter, str(tmp_path), str(fd)], cwd=REPO, pass_fds=[fd], timeout=60, check=False
        )
        assert done.returncode == -signal.SIGKILL
        plane = Plane.__new__(Plane)
        plane.port, plane.rules, plane.directory = listener.getsockname()[1], Rules(), str(tmp_path)
        plane.it = DataPlane.connect(str(tmp_path))
        plane.listener = plane.it.listeners()[0]
        assert plane.listener.getsockname() == listener.getsockname()
        listener.close()
        kept = plane.it.kept()
        assert os.read(kept["a pipe"], 10) == b"kept"
        for n in kept.values():
            os.close(n)
        plane.serve(one)
        with plane.connect() as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
            generation = plane.it.generation
            plane.it.close()
            plane.it = DataPlane.connect(str(tmp_path))
            assert plane.it.generation == generation
            plane.serve(two)
            assert plane.it.generation == generation + 1
            s.sendall(b"b")
            assert s.recv(1) == b"b"
        pid = plane.it.pid
        plane.close()
        assert ended(pid)


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(Gone, match="no data plane in"):
        DataPlane.connect(str(tmp_path))
    with pytest.raises(Gone, match="no data plane in"):
        DataPlane.connect(str(tmp_path / "nowhere"))


def test_one_that_retires_ends_at_its_limit(plane: Plane) -> None:
    with servers(1, handler=echo) as one:
        plane.serve(*one)
        with plane.connect() as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
            old = plane.it
            pid = old.pid
            plane.it = old.upgrade(plane.rules, limit=1)
            assert ended(pid)
            with contextlib.suppress(ConnectionResetError):
                assert s.recv(1) == b""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_change_is_of_the_generation_that_it_says(plane: Plane) -> None:
    with servers(1, 2) as (one, two):
        plane.serve(one)
        old = plane.rules
        new = Rules(old.frontends, (EndpointSet(old.sets[0].key, (two.endpoint,)),))
        plane.it.change(difference(old, new))
        assert plane.ask() == two.name
        plane.it.generation -= 1
        with pytest.raises(PyrunError, match="a change of another generation"):
            plane.it.change(difference(new, old))
        assert plane.ask() == two.name


def test_a_rolling_update_fails_nobody(plane: Plane) -> None:
    """Three endpoints are replaced one by one under load; each goes only after it has left the rules."""
    with servers(1, 2, 3) as old, servers(11, 12, 13) as new:
        live: list[Server] = list(old)
        plane.serve(*live)
        with Load(plane) as load:
            for n in range(3):
                load.wait_for(30)
                live[n] = new[n]
                plane.serve(*live)
                load.wait_for(30)
                old[n].close()
            load.wait_for(60)
        assert not load.faults


def test_ten_thousand_services_are_one_descriptor(plane: Plane) -> None:
    """A big image goes as a sealed memfd; one change of it is small."""
    with servers(1) as (server,):
        sets = tuple(EndpointSet(f"s{n}", (server.endpoint,)) for n in range(10_000))
        frontends = tuple(
            Frontend(str(n), TCP, bytes([127, 9, n >> 8, n & 255]), plane.port, (Choice((), FORWARD, f"s{n}"),))
            for n in range(1, 10_000)
        )
        plane.it.apply(Rules(frontends, (*sets, EndpointSet("none", ()))))
        state = plane.it.hello()
        assert (state.frontends, state.sets, state.listeners) == (9_999, 10_001, 1)
        assert plane.ask("127.9.39.15") == server.name
        plane.it.apply(Rules(frontends[:5], sets[:6]))
        assert plane.it.hello().frontends == 5
