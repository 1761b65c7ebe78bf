"""pyrun-dns over real sockets: the same bytes as respond.py, limits, generations, and what it goes on with alone."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from pyrun.dns import wire
from pyrun.dns.encode import encode_table
from pyrun.dns.plan import Options
from pyrun.dns.program import start
from pyrun.dns.respond import respond
from pyrun.dns.responder import KINDS, QUERIES, TIMES, Responder
from pyrun.errors import PyrunError
from tests.support.dns import CLUSTER, ask, service, shown, table_of
from tests.support.dns_program import PATIENCE_S, PROGRAM_TESTED, Running, end, framed, read_framed, running

OWN = Options(own=(bytes([10, 96, 0, 10]),), reverse=((bytes([10, 96, 0, 0]), 16),))
TABLE = table_of(CLUSTER, OWN)
SVC = "default.svc.cluster.local."


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as one:
        one.responder.put_table(encode_table(TABLE, 1))
        yield one


def test_every_answer_is_that_of_python(server: Running) -> None:
    """Each name, and names beside it, in every type, by UDP of several sizes and by TCP. Turns are left out of it by
    comparing sets of records."""
    kinds = [*wire.TYPES.values(), 64, 250, 257, 65280, 0, 41]
    names = [*TABLE.nodes, *(b"\1x" + name for name in TABLE.nodes if len(name) < 250)]
    with server.client() as client, socket.create_connection((server.address, server.port), PATIENCE_S) as stream:
        client.settimeout(PATIENCE_S)
        for number, name in enumerate(names):
            for kind in kinds:
                payload = (None, 512, 1232, 4096)[number % 4]
                asked = bytes([c ^ 0x20 if chr(c).isalpha() and number % 3 == 0 else c for c in name])
                query = wire.encode(wire.Message(number, 0x0110, (asked, kind, wire.IN), payload=payload))
                wanted = respond(TABLE, query, recursion=False)
                if wanted == b"":
                    continue
                client.send(query)
                same(client.recv(65535), bytes(wanted or b""), query)
                stream.sendall(framed(query))
                same(read_framed(stream), bytes(respond(TABLE, query, tcp=True, recursion=False) or b""), query)


def same(got: bytes, wanted: bytes, query: bytes) -> None:
    assert got[:12] == wanted[:12] and len(got) == len(wanted), query
    if got == wanted:
        return
    if got[2] & 2:  # of what was cut, other records are there each time
        whole = shown(bytes(respond(TABLE, query, tcp=True) or b""))[1]
        assert set(shown(got)[1]) < set(whole), query
    else:
        assert shown(got) == shown(wanted), query


def test_broken_queries_get_what_python_says(server: Running) -> None:
    """Bytes of queries changed at random: the same reply, or the same silence."""
    chance = random.Random(4711)
    seeds = [ask(f"db.{SVC}", "A"), ask(f"_http._tcp.web.{SVC}", "SRV", None), ask(f"dual.{SVC}", "AAAA", 4096)]
    for _ in range(3000):
        query = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            query[chance.randrange(len(query))] = chance.choice((0, 1, 0xC0, 0x3F, 0xFF, chance.randrange(256)))
        query = query[: chance.choice((len(query), len(query), chance.randrange(len(query) + 1)))]
        wanted = respond(TABLE, bytes(query), recursion=False)
        if not wanted:
            continue
        got = server.udp(bytes(query))
        assert got[:12] == bytes(wanted[:12]) and len(got) == len(wanted), query.hex()
    silent = wire.encode(wire.Message(1, wire.QR, (b"\0", 1, 1)))
    assert server.udp(silent, 0.2) == b"" and server.udp(b"short", 0.2) == b""


def test_addresses_take_turns(server: Running) -> None:
    first = Counter(str(dns.message.from_wire(server.udp(ask(f"db.{SVC}", "A"))).answer[0][0]) for _ in range(30))
    assert len(first) == 3 and min(first.values()) >= 9


def test_what_does_not_fit_is_cut_and_comes_whole_over_tcp(server: Running) -> None:
    cut = dns.message.from_wire(server.udp(ask(f"many.{SVC}", "A", None)))
    assert cut.flags & dns.flags.TC and 20 < len(cut.answer[0]) < 50
    assert len(dns.message.from_wire(server.tcp(ask(f"many.{SVC}", "A", None))).answer[0]) == 50


def test_many_queries_on_one_connection(server: Running) -> None:
    names = [f"web.{SVC}", f"db.{SVC}", f"nope.{SVC}"] * 40
    with socket.create_connection((server.address, server.port), PATIENCE_S) as client:
        client.sendall(b"".join(framed(ask(name, "A", id=i)) for i, name in enumerate(names)))
        client.shutdown(socket.SHUT_WR)
        for i in range(len(names)):
            assert int.from_bytes(read_framed_exactly(client)[:2], "big") == i
        assert client.recv(1) == b""


def read_framed_exactly(client: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += client.recv(size - len(data)) or pytest.fail("the connection ended")
        return data

    return exactly(int.from_bytes(exactly(2), "big"))


def test_a_connection_that_sends_no_dns_is_closed(server: Running) -> None:
    with socket.create_connection((server.address, server.port), PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b""


def test_a_hundred_connections_a_source(server: Running) -> None:
    """One that holds them all keeps nobody else out: another source still gets its answer."""
    held = []
    try:
        for _ in range(110):
            held.append(socket.create_connection((server.address, server.port), PATIENCE_S))
        answered = 0
        for one in held:
            one.settimeout(PATIENCE_S)
            try:
                one.sendall(framed(ask(f"web.{SVC}", "A")))
                answered += bool(one.recv(2))
            except ConnectionError:
                pass
        assert answered == 100
        with socket.socket() as other:
            other.bind(("127.0.0.77", 0))
            other.settimeout(PATIENCE_S)
            other.connect((server.address, server.port))
            other.sendall(framed(ask(f"web.{SVC}", "A")))
            assert other.recv(2)
    finally:
        for one in held:
            one.close()


def test_an_idle_connection_is_closed(server: Running) -> None:
    """10 s after the last whole query, however slowly bytes come (slow-loris)."""
    with socket.create_connection((server.address, server.port), 60) as client:
        for byte in framed(ask(f"web.{SVC}", "A")):
            try:
                client.sendall(bytes([byte]))
            except ConnectionError:
                return
            client.settimeout(1)
            try:
                assert client.recv(1) == b""
                return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("it was kept")


def test_only_allowed_sources_are_answered() -> None:
    with running(prefixes=((bytes([127, 0, 0, 2]), 32),)) as server:
        server.responder.put_table(encode_table(TABLE, 1))
        assert server.udp(ask(f"web.{SVC}", "A"), 0.3) == b""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.bind(("127.0.0.2", 0))
            client.sendto(ask(f"web.{SVC}", "A"), (server.address, server.port))
            assert client.recv(2000)
        assert server.responder.status()["dropped_source"] == 1


def test_a_source_has_a_rate_and_tcp_behind_it() -> None:
    """Over the rate every other reply is cut to nothing: an address that is not forged comes again over TCP."""
    with running(rate=5) as server:
        server.responder.put_table(encode_table(TABLE, 1))
        with server.client() as client:
            client.settimeout(0.5)
            for _ in range(100):
                client.send(ask(f"many.{SVC}", "A"))
            replies = []
            try:
                while True:
                    replies.append(client.recv(2000))
            except TimeoutError:
                pass
        whole = [reply for reply in replies if not reply[2] & 2]
        assert 5 <= len(whole) < 60 and len(replies) < 90
        assert all(len(reply) < 100 for reply in replies if reply[2] & 2)
        assert server.responder.status()["dropped_rate"] > 10
        assert len(server.tcp(ask(f"many.{SVC}", "A"))) > 800


@pytest.mark.parametrize("address, other", [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
def test_the_address_that_was_asked_answers(address: str, other: str) -> None:
    """CoreDNS behind a wildcard would answer from another one, which resolvers ignore."""
    with running(address=address) as server:
        server.responder.put_table(encode_table(TABLE, 1))
        server.address = other
        assert server.udp(ask(f"web.{SVC}", "A"))
        assert server.tcp(ask(f"web.{SVC}", "A"))


@pytest.mark.parametrize("address, family", [("127.0.0.1", "1"), ("::1", "2")])
def test_what_is_counted_by_transport_family_and_type(address: str, family: str) -> None:
    with running(address=address) as server:
        server.responder.put_table(encode_table(TABLE, 1))
        for _ in range(2):
            assert server.tcp(ask(f"web.{SVC}", "AAAA"))
        assert server.udp(ask(f"web.{SVC}", "A")) and server.udp(ask(f"web.{SVC}", "TYPE321"))
        status = server.responder.status()
        found = {key: status[key] for key in QUERIES if status[key]}
        counts = {f"udp_{family}_A": 1, f"udp_{family}_other": 1, f"tcp_{family}_AAAA": 2}
        assert found == {f"queries_{key}": count for key, count in counts.items()} and status["queries"] == 4
        for kind in KINDS:
            replies = sum(status[f"time_{kind}_{place}"] for place in range(TIMES))
            assert replies == {"AAAA": 2, "A": 1, "other": 1}.get(kind, 0), kind


def test_every_type_of_coredns_is_told_apart(server: Running) -> None:
    for kind in KINDS[2:]:
        before = server.responder.status()
        assert server.udp(ask(f"web.{SVC}", kind))
        after = server.responder.status()
        assert [one for one in QUERIES if after[one] != before[one]] == [f"queries_udp_1_{kind}"]


def test_generations_change_without_a_wrong_answer(server: Running) -> None:
    """Two tables in turn under load: each reply is that of one of them."""
    tables = [table_of([service("flip", clusterIP=address)]) for address in ("10.0.0.1", "10.0.0.2")]
    encoded = [encode_table(table, 10 + i) for i, table in enumerate(tables)]
    wanted = [bytes(respond(table, ask("flip." + SVC, "A", id=5), recursion=False) or b"") for table in tables]
    stop = threading.Event()
    seen: Counter[bytes] = Counter()

    def load() -> None:
        query = ask("flip." + SVC, "A", id=5)
        with server.client() as client:
            client.settimeout(PATIENCE_S)
            while not stop.is_set():
                client.send(query)
                seen[client.recv(2000)] += 1

    server.responder.put_table(encoded[0])
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for i in range(100):
            server.responder.put_table(encoded[i % 2])
            time.sleep(0.002)
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    server.responder.put_table(encode_table(TABLE, 1))
    assert set(seen) == set(wanted)


def test_as_many_zones_as_there_may_be() -> None:
    """Of ranges that end within a byte, the last zone as good as the first."""
    with running() as other:
        reverse = ((bytes([10, 0, 0, 0]), 9), (bytes([192, 0, 2, 0]), 26), (bytes([198, 51, 100, 0]), 27))
        table = table_of(
            CLUSTER, Options(reverse=(*reverse, *((bytes([203, 0, 113, last]), 32) for last in range(30))))
        )
        assert len(table.zones) == 255
        other.responder.put_table(encode_table(table, 1))
        with other.client() as client:
            client.settimeout(PATIENCE_S)
            for name in ("9.9.127.10", "9.9.128.10", "63.2.0.192", "64.2.0.192", "29.113.0.203", "5.0.96.10"):
                query = ask(f"{name}.in-addr.arpa", "PTR")
                client.send(query)
                wanted = (
                    shown(bytes(respond(table, query) or b"")) if respond(table, query) else ("REFUSED", [], [], [])
                )
                assert shown(client.recv(65535)) == wanted, name


def test_a_table_that_is_none_is_refused_and_the_last_one_served(server: Running) -> None:
    good = encode_table(TABLE, 2)
    for bad in (b"x", good[:-4], good + bytes(4), b"\0" + good[1:], good[:32] + b"\xff" * 4 + good[36:]):
        with pytest.raises(PyrunError, match="pyrun-dns refused the table at byte"):
            server.responder.put_table(bad)
    assert server.udp(ask(f"web.{SVC}", "A"))
    assert server.responder.status()["generation"] == 1


def test_it_serves_on_when_python_has_gone() -> None:
    with running() as server:
        server.responder.put_table(encode_table(TABLE, 3))
        server.responder.close()
        assert shown(server.udp(ask(f"web.{SVC}", "A")))[1]
        again = Responder.connect(server.control)
        assert again.generation == 3 and again.sockets == 2
        server.responder = again


def test_handover_without_a_lost_query() -> None:
    """Another process takes the sockets over, three times under load."""
    with running() as server:
        server.responder.put_table(encode_table(TABLE, 1))
        stop = threading.Event()
        counts = [0, 0]

        def load() -> None:
            with server.client() as client:
                client.settimeout(PATIENCE_S)
                while not stop.is_set():
                    client.send(ask(f"web.{SVC}", "A"))
                    counts[0] += 1
                    counts[1] += bool(client.recv(2000))

        thread = threading.Thread(target=load)
        thread.start()
        pids = []
        try:
            old = server.responder
            for turn in range(3):
                pids.append(start(f"{server.control}.{turn}", PROGRAM_TESTED))
                new = Responder.connect(f"{server.control}.{turn}")
                new.configure(((bytes([127, 0, 0, 0]), 8),), rate=0, forwards=False, cache_bytes=1 << 20)
                new.put_table(encode_table(TABLE, turn + 2))
                sockets = old.take_sockets()
                assert new.add_sockets(sockets) == 2
                for one in sockets:
                    one.close()
                before = counts[1]
                old.stop()
                old.close()
                deadline = time.monotonic() + PATIENCE_S
                while counts[1] < before + 50 and time.monotonic() < deadline:
                    time.sleep(0.01)
                old = new
        finally:
            stop.set()
            thread.join(2 * PATIENCE_S)
            for pid in pids:
                end(pid)
        assert counts[0] == counts[1] > 150


def test_what_the_process_may(server: Running) -> None:
    """Its own user, no capability, no new privileges, a filter, nobody who traces it, and only sockets open."""
    pid = server.responder.pid
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file.read().splitlines())
    assert status["Uid"].split() != ["0"] * 4 and "0" not in status["Uid"].split()
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["Groups"].strip() == ""
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    opened = [os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
    assert set(opened) <= {"socket", "anon_inode"}


def test_a_message_that_is_none_of_the_protocol_ends_only_its_sender(server: Running) -> None:
    for message in (b"x", struct.pack("<II", 99, 0), struct.pack("<II", 3, 0) + b"\xff" * 40):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bad:
            bad.settimeout(PATIENCE_S)
            bad.connect(server.control)
            bad.recv(100)
            bad.send(message)
            assert bad.recv(100) == b""
    server.responder.close()
    server.responder = Responder.connect(server.control)
    assert server.udp(ask(f"web.{SVC}", "A"))


def test_killed_it_is_told(server: Running) -> None:
    with running() as other:
        os.kill(other.responder.pid, signal.SIGKILL)
        with pytest.raises((EOFError, PyrunError)):
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                other.responder.ask()
                time.sleep(0.01)


def test_types_have_dnspythons_numbers() -> None:
    for name, number in wire.TYPES.items():
        assert dns.rdatatype.from_text(name) == number
