"""The data plane's TCP: turns, retries, ends and resets, as a client and a server see them. All on 127/8."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.proxy.messages import Settings
from pyrun.proxy.rules import DROP, FORWARD, REJECT, TCP, Choice, Endpoint, EndpointSet, Frontend, Rules
from tests.support.dataplane import PATIENCE_S, Plane, packed, read_all, refusing, reset, servers


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def until(what: object, seconds: float = PATIENCE_S) -> None:
    """Waits until what() is true."""
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


# --- whose turn it is -------------------------------------------------------------------------------------------------


def test_endpoints_take_turns_strictly(plane: Plane) -> None:
    with servers(1, 2, 3, 4) as all:
        plane.serve(*all[:3])
        names = [s.name for s in all]
        assert [plane.ask() for _ in range(300)] == names[:3] * 100
        plane.serve(*all)
        got = [plane.ask() for _ in range(400)]
        assert [got.count(name) for name in names] == [100] * 4


def test_turns_go_on_over_a_change_of_another_service(plane: Plane) -> None:
    with servers(1, 2) as both:
        plane.serve(*both)
        assert plane.ask() == both[0].name
        plane.serve(both[0], address="127.9.0.2")
        assert plane.ask() == both[1].name


def test_a_client_is_chosen_for_by_its_address(plane: Plane) -> None:
    with servers(1, 2) as (near, far):
        near_only = Choice(((packed("127.0.1.0"), 24),), FORWARD, "near")
        rejected = Choice(((packed("127.0.2.4"), 32),), REJECT)
        dropped = Choice(((packed("127.0.3.0"), 25),), DROP)
        choices = (near_only, rejected, dropped, Choice((), FORWARD, "far"))
        sets = (EndpointSet("near", (near.endpoint,)), EndpointSet("far", (far.endpoint,)))
        plane.it.apply(Rules((Frontend("x", TCP, packed("127.9.0.1"), plane.port, choices),), sets))
        assert plane.ask(source="127.0.1.9") == near.name
        assert plane.ask(source="127.0.2.5") == far.name
        assert plane.ask(source="127.0.3.200") == far.name
        for source in ("127.0.2.4", "127.0.3.7"):
            with pytest.raises(ConnectionError):
                plane.ask(source=source)


def test_an_address_that_is_no_frontend_is_reset(plane: Plane) -> None:
    with servers(1) as one:
        plane.serve(*one)
        with pytest.raises(ConnectionError):
            plane.ask("127.9.0.77")


def test_a_client_keeps_its_endpoint_until_its_time_is_over(plane: Plane) -> None:
    with servers(1, 2, 3) as all:
        plane.serve(*all, affinity=600)
        mine = plane.ask(source="127.0.0.5")
        assert {plane.ask(source="127.0.0.5") for _ in range(6)} == {mine}
        assert len({plane.ask(source=f"127.0.0.{n}") for n in range(20, 26)}) == 3
        rest = [s for s in all if s.name != mine]
        plane.serve(*rest, affinity=600)
        assert plane.ask(source="127.0.0.5") in {s.name for s in rest}


def kept_by_asking(plane: Plane) -> str:
    """Who was asked for 2.5 s, each time within the second after the one before; "" where this machine was too busy
    for that."""
    began = before = time.monotonic()
    first = plane.ask()
    while time.monotonic() < began + 2.5:
        time.sleep(0.2)
        now = time.monotonic()
        again = plane.ask()
        if time.monotonic() - before > 0.9:
            return ""
        assert again == first
        before = now
    return first


def test_a_pin_runs_out_and_slides(plane: Plane) -> None:
    """For a second after the last connection: some within it come to the same one, one after it to whose turn it is."""
    with servers(1, 2, 3) as all:
        plane.serve(*all, affinity=1)
        last = time.monotonic() + PATIENCE_S
        while not (first := kept_by_asking(plane)):
            assert time.monotonic() < last, "this machine never asks twice within a second"
        time.sleep(1.5)
        assert plane.ask() != first


# --- endpoints that do not take it ------------------------------------------------------------------------------------


def test_one_that_refuses_is_passed_over_and_counted(plane: Plane) -> None:
    with servers(1) as (server,):
        dead = refusing("127.8.0.9")
        plane.serve(dead, server)
        assert [plane.ask() for _ in range(10)] == [server.name] * 10
        counters = plane.it.counters()
        failed = {e.port: e.failed for e in counters.endpoints}
        assert failed[dead.port] >= 5 and failed[server.port] == 0
        assert counters.frontends[0].retried >= 5 and counters.frontends[0].failed == 0


def test_a_pin_moves_away_from_one_that_refuses(plane: Plane) -> None:
    with servers(1, 2) as (one, two):
        plane.serve(one, two, affinity=600)
        assert plane.ask() == one.name
        one.close()
        assert {plane.ask() for _ in range(5)} == {two.name}


def silent(address: str) -> tuple[socket.socket, list[socket.socket], Endpoint]:
    """A server whose queue is full, so that no SYN is answered."""
    s = socket.socket()
    s.bind((address, 0))
    s.listen(0)
    fill = []
    for _ in range(4):
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(s.getsockname())
        fill.append(c)
    time.sleep(0.2)
    return s, fill, Endpoint(packed(address), s.getsockname()[1])


def test_one_that_is_silent_is_given_up_after_a_second(plane: Plane) -> None:
    s, fill, endpoint = silent("127.8.0.9")
    with servers(1) as (server,):
        plane.serve(endpoint, server)
        began = time.monotonic()
        assert plane.ask() == server.name
        assert time.monotonic() - began > 0.9
        assert [plane.ask() for _ in range(3)] == [server.name] * 3  # and is not asked again at once
        assert {e.port: e.failed for e in plane.it.counters().endpoints}[endpoint.port] == 1
    for c in [s, *fill]:
        c.close()


def test_when_all_refuse_the_client_is_reset(plane: Plane) -> None:
    plane.serve(*(refusing(f"127.8.0.{n}") for n in range(1, 6)))
    with pytest.raises(ConnectionResetError):
        plane.ask()
    assert plane.it.counters().frontends[0].failed == 1


# --- ends and resets --------------------------------------------------------------------------------------------------


def digest(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode()


def read_then_answer(s: socket.socket) -> None:
    s.sendall(digest(read_all(s)))


def test_half_closed_transfers_lose_nothing(plane: Plane) -> None:
    """The client ends its half first, then reads; sizes on both sides of every buffer."""
    with servers(1, 2, handler=read_then_answer) as both:
        plane.serve(*both)
        sizes = [0, 1, 32767, 32768, 32769, 65536, 5_000_000, *(random.randrange(300_000) for _ in range(20))]
        for size in sizes:
            data = os.urandom(size)
            with plane.connect() as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                assert read_all(s) == digest(data), size


def test_the_server_may_end_first(plane: Plane) -> None:
    """It sends 5 MB and ends its half; the client then sends as much, and gets no answer any more."""
    blob, got = os.urandom(5_000_000), []

    def answer_then_read(s: socket.socket) -> None:
        s.sendall(blob)
        s.shutdown(socket.SHUT_WR)
        got.append(digest(read_all(s)))

    with servers(1, handler=answer_then_read) as one:
        plane.serve(*one)
        with plane.connect() as s:
            assert digest(read_all(s)) == digest(blob)
            data = os.urandom(5_000_000)
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            until(lambda: got)
            assert got == [digest(data)]


def test_a_server_that_speaks_first_and_much(plane: Plane) -> None:
    """More than fits anywhere is there when the connection to it is seen to stand, and the client does not read yet."""
    blob = os.urandom(6_000_000)
    with servers(1, 2, handler=lambda s: s.sendall(blob)) as both:
        plane.serve(*both)
        for _ in range(15):
            os.kill(plane.it.pid, signal.SIGSTOP)
            s = plane.connect()  # by the kernel, into the listener's queue
            os.kill(plane.it.pid, signal.SIGCONT)
            with s:
                time.sleep(0.02)
                assert digest(read_all(s)) == digest(blob)


def test_both_ways_at_once(plane: Plane) -> None:
    def echo(s: socket.socket) -> None:
        while part := s.recv(70_000):
            s.sendall(part)

    with servers(1, handler=echo) as one:
        plane.serve(*one)
        data = os.urandom(8_000_000)
        with plane.connect() as s:

            def send() -> None:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            assert digest(read_all(s)) == digest(data)
            sender.join()


def test_a_clients_reset_reaches_the_server(plane: Plane) -> None:
    seen: list[str] = []

    def wait(s: socket.socket) -> None:
        try:
            s.sendall(b"x")
            s.recv(1)
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    with servers(1, handler=wait) as one:
        plane.serve(*one)
        s = plane.connect()
        assert s.recv(1) == b"x"
        reset(s)
        until(lambda: seen)
        assert seen == ["reset"]


def test_a_servers_reset_reaches_the_client(plane: Plane) -> None:
    def send_and_reset(s: socket.socket) -> None:
        s.recv(1)
        reset(s)

    with servers(1, handler=send_and_reset) as one:
        plane.serve(*one)
        with plane.connect() as s:
            s.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                s.recv(1)


def flood(s: socket.socket, sent: list[int], stuck: threading.Event) -> None:
    """Sends until nothing has gone for two seconds."""
    s.settimeout(2)
    with contextlib.suppress(TimeoutError):
        while sent[0] < 256 << 20:
            sent[0] += s.send(bytes(1 << 16))
    stuck.set()


def read_fast_then_stop(s: socket.socket, sent: list[int], stuck: threading.Event, go: threading.Event) -> int:
    """How many bytes were under way when the writer got stuck; none of them may be lost."""
    got = 0
    while got < 20 << 20:
        got += len(s.recv(1 << 20))
    assert stuck.wait(PATIENCE_S)
    go.set()
    rest = len(read_all(s))
    assert got + rest == sent[0]
    return rest


SMALL = 1 << 17  # the buffers of the two themselves, which the kernel doubles
UNDER_WAY_MOST = (4 << 20) + 4 * SMALL


def test_a_slow_client_stops_the_server(plane: Plane) -> None:
    """What lies between them is bounded by 4 MB, though they were fast for a while."""
    go, stuck, sent = threading.Event(), threading.Event(), [0]

    def serve(s: socket.socket) -> None:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        flood(s, sent, stuck)
        go.wait(PATIENCE_S)

    with servers(1, handler=serve) as one, socket.socket() as s:
        plane.serve(*one)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        s.settimeout(PATIENCE_S)
        s.connect(("127.9.0.1", plane.port))
        assert read_fast_then_stop(s, sent, stuck, go) <= UNDER_WAY_MOST


def test_a_slow_server_stops_the_client(plane: Plane) -> None:
    go, stuck, sent, rest = threading.Event(), threading.Event(), [0], []
    with servers(1, handler=lambda s: rest.append(read_fast_then_stop(s, sent, stuck, go))) as (one,):
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        plane.serve(one)
        with plane.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            flood(s, sent, stuck)
            assert go.wait(PATIENCE_S)
            s.shutdown(socket.SHUT_WR)
            until(lambda: rest)
        assert rest[0] <= UNDER_WAY_MOST


def test_connections_live_on_when_their_endpoint_is_gone(plane: Plane) -> None:
    def echo(s: socket.socket) -> None:
        while part := s.recv(100):
            s.sendall(part)

    with servers(1, 2, handler=echo) as (one, two):
        plane.serve(one)
        with plane.connect() as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
            plane.serve(two)
            s.sendall(b"b")
            assert s.recv(1) == b"b"
            gone = [e for e in plane.it.counters().endpoints if e.gone]
            assert [(e.port, e.active) for e in gone] == [(one.port, 1)]
        until(lambda: not [e for e in plane.it.counters().endpoints if e.gone])


def test_or_are_reset_after_the_drain_time(plane: Plane) -> None:
    def hold(s: socket.socket) -> None:
        s.sendall(b"x")
        s.recv(1)

    plane.it.set(Settings(drain_s=1))
    with servers(1, 2, handler=hold) as (one, two):
        plane.serve(one)
        with plane.connect() as s, plane.connect() as other:
            assert s.recv(1) == other.recv(1) == b"x"
            plane.serve(two)
            for c in (s, other):
                with pytest.raises(ConnectionResetError):
                    c.recv(1)


def test_half_closed_connections_do_not_stay_for_ever(plane: Plane) -> None:
    """kubernetes#18354: thousands of sockets in CLOSE_WAIT and FIN_WAIT2."""
    plane.it.set(Settings(half_closed_s=1))

    def hang(s: socket.socket) -> None:
        read_all(s)
        time.sleep(5)

    with servers(1, handler=hang) as one:
        plane.serve(*one)
        with plane.connect() as s:
            s.sendall(b"x")
            s.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                s.recv(1)
        until(lambda: plane.it.hello().connections == 0)


# --- bounds -----------------------------------------------------------------------------------------------------------


def hold_until_end(s: socket.socket) -> None:
    s.sendall(b"x")
    read_all(s)


def test_a_flood_from_one_client_leaves_room_for_others(plane: Plane) -> None:
    plane.it.set(Settings(max_connections=100))
    with servers(1, handler=hold_until_end) as one:
        plane.serve(*one)
        held, refused = [], 0
        for _ in range(120):
            try:
                s = plane.connect(source="127.0.6.6")
                assert s.recv(1) == b"x"
                held.append(s)
            except ConnectionResetError:
                refused += 1
        assert len(held) == 90 and refused == 30
        for n in range(1, 6):
            with plane.connect(source=f"127.0.7.{n}") as s:
                assert s.recv(1) == b"x"
        state = plane.it.hello()
        assert state.refused_by_limit == 30 and state.limit == 100
        for s in held:
            s.close()
        until(lambda: plane.it.hello().connections == 0)
        with plane.connect(source="127.0.6.6") as s:
            assert s.recv(1) == b"x"


# --- what it is told --------------------------------------------------------------------------------------------------


def test_rules_that_are_wrong_change_nothing(plane: Plane) -> None:
    with servers(1) as (server,):
        plane.serve(server)
        before = plane.it.hello()
        missing = Frontend("x", TCP, packed("127.9.0.2"), 80, (Choice((), FORWARD, "nowhere"),))
        with pytest.raises(PyrunError, match="a choice's set, which there is not"):
            plane.it.apply(Rules((missing,)))
        twice = plane.rules.frontends * 2
        with pytest.raises(PyrunError, match="a frontend twice"):
            plane.it.apply(Rules(twice, plane.rules.sets))
        after = plane.it.hello()
        assert (after.frontends, after.sets, after.generation) == (before.frontends, before.sets, before.generation)
        assert plane.ask() == server.name


def test_it_has_no_more_rights_than_it_needs(plane: Plane) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{plane.it.pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65530"} and status["Groups"].split() == []
    assert int(status["CapEff"], 16) == 1 << 10 | 1 << 13  # NET_BIND_SERVICE, NET_RAW
    assert int(status["CapBnd"], 16) == int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
