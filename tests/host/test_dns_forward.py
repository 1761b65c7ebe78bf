"""Names that are not the cluster's: over real unbound and dnsmasq, and over servers that lie, are silent or gone."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import dns.message
import pytest

from pyrun.dns import forward, upstream, wire
from pyrun.dns.daemon import Daemon, Settings
from pyrun.dns.program import end_program
from pyrun.dns.reply import behind_alias, belongs, make_query, mixed, read_reply
from pyrun.dns.responder import Responder
from pyrun.dns.servers import Servers, read_upstreams
from pyrun.errors import PyrunError
from pyrun.kube.feed.store import Store, Told
from tests.support.dns import CLUSTER, ask, shown
from tests.support.dns_program import LOOPBACK, PATIENCE_S, framed, read_framed
from tests.support.dns_served import Served, at, serving, tell_cluster, total, wait_until
from tests.support.dns_upstream import Strange, dnsmasq, free_port, positive, unbound
from tests.support.promtool import check_metrics

SVC = "default.svc.cluster.local."


@pytest.fixture(scope="module")
def forwarding() -> Iterator[Served]:
    with unbound() as port, serving(at(port)) as served:
        yield served


def test_positive_negative_and_cut_answers(forwarding: Served) -> None:
    """A, CNAME, TXT, NODATA, NXDOMAIN with the SOA by which it is kept, and 119 records, which come over TCP."""
    for _ in range(2):  # the second time out of the cache
        assert forwarding.udp("www.example.test") == ("NOERROR", ["www.example.test. 60 A 192.0.2.1"])
        assert forwarding.udp("txt.example.test", "TXT") == ("NOERROR", ['txt.example.test. 60 TXT "hello"'])
        assert forwarding.udp("alias.example.test", "CNAME")[1] == ["alias.example.test. 60 CNAME www.example.test."]
        rcode, answers, authority, _ = shown(forwarding.raw(ask("www.example.test", "AAAA")))
        assert (rcode, answers, [line.split()[2] for line in authority]) == ("NOERROR", [], ["SOA"])
        rcode, answers, authority, _ = shown(forwarding.raw(ask("nope.example.test", "A")))
        assert (rcode, answers) == ("NXDOMAIN", []) and "SOA ns.example.test." in authority[0]
        assert dns.message.from_wire(forwarding.raw(ask("big.example.test", "A"))).flags & dns.flags.TC
    assert forwarding.daemon.responder is not None


def test_an_external_name_comes_with_its_target(forwarding: Served) -> None:
    """2.5 of the specification, with a name of another server's behind it."""
    with _external(forwarding, "www.example.test"):
        assert forwarding.udp(f"out.{SVC}") == (
            "NOERROR",
            [f"out.{SVC} 30 CNAME www.example.test.", "www.example.test. 60 A 192.0.2.1"],
        )
        assert forwarding.udp(f"out.{SVC}", "CNAME")[1] == [f"out.{SVC} 5 CNAME www.example.test."]
    with _external(forwarding, "nope.example.test"):  # nothing of the one before is kept
        assert forwarding.udp(f"out.{SVC}") == ("NXDOMAIN", [f"out.{SVC} 20 CNAME nope.example.test."])


@contextlib.contextmanager
def _external(served: Served, target: str) -> Iterator[None]:
    value = {"kind": "Service", "metadata": {"name": "out"}, "spec": {"type": "ExternalName", "externalName": target}}
    served.store.put("test", Told(value, "test"))
    wait_until("the table is new", lambda: any(f" {target}." in line for line in served.udp(f"out.{SVC}", "CNAME")[1]))
    yield


def test_a_question_that_comes_while_the_table_changes(forwarding: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read together with the program's word that it has the table, and is asked all the same."""
    responder, ready = forwarding.daemon.responder, threading.Event()
    real = responder.put_table

    def put_table(data: bytes) -> int:
        client.send(ask("www.example.test", "MX"))
        ready.set()
        assert select.select([responder], [], [], PATIENCE_S)[0]
        return real(data)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", forwarding.port))
        monkeypatch.setattr(responder, "put_table", put_table)
        value = {"kind": "Service", "metadata": {"name": "late"}, "spec": {"clusterIP": "10.96.0.77"}}
        forwarding.store.put("test", Told(value, "test"))
        assert ready.wait(PATIENCE_S)
        assert shown(client.recv(65535))[0] == "NOERROR"


@pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed: apt-get install bind9-dnsutils")
def test_dig_is_content(forwarding: Served) -> None:
    """Cookies, EDNS and all else that dig sends; over TCP all of the 119 records."""
    words = ["dig", "@127.0.0.1", "-p", str(forwarding.port), "+short", "+tries=3"]

    def dig(*more: str) -> list[str]:
        return subprocess.run([*words, *more], capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert dig(f"web.{SVC}") == ["10.96.0.5"]
    assert dig("-x", "10.96.0.5") == [f"web.{SVC}"]
    assert len(dig("big.example.test")) == 119
    assert dig("+noedns", f"_http._tcp.web.{SVC}", "SRV") == ["0", "100", "80", f"web.{SVC}"]


def test_stub_domains_have_servers_of_their_own() -> None:
    with unbound() as one, dnsmasq() as other:
        words = [f"127.0.0.1:{one}", f"corp.test=127.0.0.1:{other}"]
        with serving(read_upstreams(words)) as served:
            assert served.udp("any.corp.test")[1] == ["any.corp.test. 60 A 192.0.2.77"]
            assert served.udp("www.example.test")[1] == ["www.example.test. 60 A 192.0.2.1"]


def test_cve_2023_28452_forged_answers_do_not_shut_out_the_right_one() -> None:
    """Another id, another question, a query in place of a reply, and noise, from the right address: all are ignored."""

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        right = positive(query, "192.0.2.10")
        wrong_id = bytes([query[0] ^ 1]) + right[1:]
        wrong_name = right[:13] + bytes([right[13] ^ 1]) + right[14:]
        for message in (wrong_id, wrong_name, query, right[:11], b"", right[:2] + b"\x81" + bytes(9)):
            server.sendto(message, source)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.sendto(positive(query, "203.0.113.66"), source)
        time.sleep(0.05)
        server.sendto(right, source)

    with Strange(act) as server, serving(at(server.port)) as served:
        assert served.udp("forged.test") == ("NOERROR", ["forged.test. 60 A 192.0.2.10"])
        assert len({bytes(query[12:-11]).lower() for query in server.queries if b"forged" in query.lower()}) == 1
        assert served.daemon.forwarder.upstreams[0].ignored >= 5


def test_cve_2019_19794_ids_and_ports_are_not_to_be_guessed() -> None:
    """CoreDNS drew ids from a generator that could be foretold."""
    with Strange(lambda q, source, server: send(server, positive(q, ttl=0), source)) as server:
        with serving(at(server.port)) as served:
            for number in range(300):
                served.udp(f"n{number}.test")
        mine = [(q, s) for q, s in zip(server.queries, server.sources, strict=False) if q[13:14].lower() == b"n"]
        ids = [int.from_bytes(query[:2], "big") for query, _ in mine]
        steps = {(b - a) & 0xFFFF for a, b in zip(ids, ids[1:], strict=False)}
        assert len(set(ids)) > 280 and len(steps) > 280
        assert len({source[1] for _, source in mine}) >= 16
        letters = b"".join(query[12:-11] for query, _ in mine)
        assert sum(65 <= c <= 90 for c in letters) > 100 and sum(97 <= c <= 122 for c in letters) > 100


def test_cve_2023_30464_equal_questions_are_one_query() -> None:
    """10,000 that wait for the same name: a birthday attack has one query to hit, and all get the answer."""
    release = threading.Event()

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        release.wait(PATIENCE_S)
        server.sendto(positive(query), source)

    deadline = time.monotonic() + 3 * PATIENCE_S
    with Strange(act) as server, serving(at(server.port)) as served:
        for number in range(100):  # again where this machine took so long that the first are not answered any more
            name = f"birthday{number}.test"
            got, failed = _wait_together(served, name, release)
            if (got > 9_000 and not failed) or time.monotonic() > deadline:
                break
        assert got > 9_000 and not failed
        for again in range(number + 1):  # one each silent second
            assert 1 <= len([q for q in server.queries if b"birthday%d\4test" % again in q.lower()]) <= 6


def _wait_together(served: Served, name: str, release: threading.Event) -> tuple[int, int]:
    """Sends 10,000 equal queries, then lets the server answer: how many answers have come, and how many of SERVFAIL."""
    got = failed = 0
    release.clear()
    query = ask(name, "A")[2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
        client.settimeout(PATIENCE_S / 2)
        client.connect(("127.0.0.1", served.port))
        for number in range(10_000):
            client.send(number.to_bytes(2, "big") + query)
            if number % 500 == 499:
                time.sleep(0.01)
        release.set()
        with contextlib.suppress(TimeoutError):
            while got < 10_000:
                if got > 9_000:
                    client.settimeout(1)  # a few may be lost, as datagrams are
                failed += client.recv(2000)[3] & 15 != 0
                got += 1
    return got, failed


def test_an_old_answer_is_better_than_none() -> None:
    """RFC 8767: the server is silent, and what it said last is said on, with a TTL of 30. What nobody has ever said is
    SERVFAIL after less than five seconds."""
    with Strange(_first_only()) as server, serving(at(server.port)) as served:
        assert served.udp("once.test") == ("NOERROR", ["once.test. 1 A 192.0.2.9"])
        time.sleep(1.5)
        began = time.monotonic()
        assert served.udp("once.test") == ("NOERROR", ["once.test. 30 A 192.0.2.9"])
        waited = time.monotonic() - began
        assert waited > 1.0, "the server has a while to answer first"
        assert served.udp("never.test")[0] == "SERVFAIL"


def send(server: socket.socket, data: bytes, source: tuple[str, int]) -> None:
    server.sendto(data, source)


def _first_only() -> Callable[[bytes, tuple[str, int], socket.socket], None]:
    seen: set[bytes] = set()

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        name = query[12:-11].lower()
        if name not in seen and b"once" in name:
            seen.add(name)
            server.sendto(positive(query, ttl=1), source)

    return act


def test_nobody_listens_at_the_servers_port() -> None:
    with serving(at(free_port())) as served:
        assert served.udp("www.example.test")[0] == "SERVFAIL"
        assert served.udp(f"web.{SVC}")[1], "the cluster's own names are not touched by it"


def test_a_silent_server_costs_a_second_and_another_one_answers() -> None:
    with Strange(lambda *_: None) as silent, unbound() as port, serving(at(silent.port, port)) as served:
        assert served.udp("www.example.test")[1] == ["www.example.test. 60 A 192.0.2.1"]
        assert silent.queries


def test_a_server_that_fails_is_passed_over() -> None:
    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        server.sendto(query[:2] + b"\x81\x82" + query[4:], source)

    with Strange(act) as failing, unbound() as port, serving(at(failing.port, port)) as served:
        assert served.udp("www.example.test")[1] == ["www.example.test. 60 A 192.0.2.1"]


@pytest.mark.parametrize("bare", [False, True], ids=["with the question", "a bare head"])
def test_a_server_that_knows_no_edns_is_asked_without(bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "SILENT_S", PATIENCE_S)  # it is not asked twice where we are slow

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        if query[11]:
            end = 12 if bare else len(query) - 11
            reply = query[:2] + struct.pack("!5H", 0x8180 | wire.FORMERR, not bare, 0, 0, 0) + query[12:end]
        else:
            reply = positive(query + bytes(11))
        server.sendto(reply, source)

    with Strange(act) as old, serving(at(old.port)) as served:
        for name in ("one.test", "two.test"):
            assert served.udp(name) == ("NOERROR", [f"{name}. 60 A 192.0.2.9"])
        assert [query[11] for query in old.queries] == [1, 0, 0]
        assert old.queries[0][:2] == old.queries[1][:2], "the wait for it is the same one"


def test_what_a_server_can_not_do_is_asked_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6891 §7: another program may be at its address by then. So with EDNS, and with the letters' case."""
    monkeypatch.setattr(upstream, "LEARN_AGAIN_S", 1.0)

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        if query[11]:
            server.sendto(query[:2] + struct.pack("!5H", 0x8181, 0, 0, 0, 0), source)
        else:
            server.sendto(positive(query + bytes(11)), source)

    def edns() -> list[int]:
        """Of each query; where a second has gone before the first answer, that was asked twice with EDNS."""
        return [query[11] for query in list(old.queries)]

    with Strange(act) as old, serving(at(old.port)) as served:
        assert served.udp("first.test")[1]
        numbers = iter(range(1 << 20))
        wait_until(
            "it is asked with EDNS again",
            lambda: bool(served.udp(f"n{next(numbers)}.test")[1]) and re.match(b"\1+\0+\1", bytes(edns())) is not None,
        )
        one = served.daemon.forwarder.upstreams[0]
        one.changes_case()
        wait_until("its case is looked at again", lambda: one.keeps_case)


def test_no_reply_of_another_server_ends_the_daemon() -> None:
    """Data that is too short for its type, and names whose 14 bytes are 267 without compression: more than a message
    may have."""
    long = b"".join(bytes((63,)) + bytes((97 + n,)) * 63 for n in range(3)) + bytes((61,)) + b"d" * 61 + b"\0"

    def record(kind: int, data: bytes) -> bytes:
        return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        question = query[12:-11]
        at = 12 + len(question) + 12
        same = record(wire.PTR, struct.pack("!H", 0xC000 | at))
        made = {
            b"a": (1, 0, record(wire.A, b"\1\2\3")),
            b"s": (0, 1, record(wire.SOA, b"\0\0")),
            b"p": (251, 0, record(wire.PTR, long) + same * 250),
        }
        answers, authority, body = made[query[13:14].lower()]
        server.sendto(query[:2] + struct.pack("!5H", 0x8180, 1, answers, authority, 0) + question + body, source)

    with Strange(act) as hostile, serving(at(hostile.port)) as served:
        for name, kind in (("a.test", "A"), ("s.test", "A"), ("p.test", "PTR")):
            assert served.udp(name, kind)[0] == "SERVFAIL"
        assert {query[13:14].lower() for query in hostile.queries} == {b"a", b"s", b"p"}
        assert served.daemon.loop.running and served.udp(f"web.{SVC}")[1]


def test_a_server_that_leads_back_to_us_is_found_out() -> None:
    """CoreDNS' loop plugin ends the process; here that server is not asked, and the cluster's names are served."""
    ours = free_port()
    with dnsmasq(asks=ours) as port, serving(at(port), port=ours) as served:
        wait_until("the loop is told", lambda: any("leads back to this server" in line for line in served.said))
        assert served.udp("www.example.test")[0] in ("SERVFAIL", "REFUSED")
        assert served.udp(f"web.{SVC}")[1]


def test_without_servers_other_names_are_refused() -> None:
    with serving(Servers({})) as served:
        assert served.udp("www.example.test")[0] == "REFUSED"
        assert served.udp(f"ext.{SVC}")[0] == "SERVFAIL"


def test_what_belongs_to_a_query() -> None:
    query = make_query(7, mixed(wire.name_of("www.example.test"), 0b1010101), wire.A)
    right = positive(query)
    assert belongs(right, query) == "match"
    assert belongs(right[:12] + right[12:].swapcase(), query) == "case"
    for wrong in (query, right[:20], b"\0\x08" + right[2:], right[:4] + b"\0\2" + right[6:], b""):
        assert belongs(wrong, query) == "other"


def test_only_what_was_asked_for_goes_on() -> None:
    """Records of other names, in whatever section, are of no use but to a liar."""
    name = wire.name_of("www.example.test")
    evil = wire.Record(wire.name_of("bank.test"), wire.A, 86400, b"\xcb\0\x71\x01")
    mine = wire.Record(name, wire.A, 86400, b"\xc0\0\2\1")
    data = wire.encode(wire.Message(1, 0x8180, (name, wire.A, 1), (evil, mine, evil), (evil,), (evil,)))
    said = read_reply(data, name)
    assert said.body.counts == (1, 0, 0) and b"\xcb\0\x71\x01" not in said.body.data
    assert said.ttl == 3600
    behind = behind_alias(wire.name_of("a.cluster"), (), name, data)
    assert behind.body.counts == (1, 0, 0) and behind.ttl == 30


def test_metrics() -> None:
    """In the form that Prometheus takes, by CoreDNS' names where it has one; a port that is taken is told."""
    where = f"127.0.0.1:{free_port()}"
    with serving(Servers({}), metrics=where) as served:
        for _ in range(3):
            assert served.udp(f"web.{SVC}")[0] == "NOERROR"
        assert served.udp(f"none.{SVC}")[0] == "NXDOMAIN"
        assert shown(served.raw(dns.message.make_query("web", "A", use_edns=1).to_wire()))[0] == "BADVERS"
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        samples = [line.split(" ") for line in text.splitlines() if not line.startswith("#")]
        found = {name: float(value) for name, value in samples}
        assert total(text, "coredns_dns_requests_total") == 5 and found["pyrun_dns_nxdomain_total"] == 1
        assert total(text, "coredns_dns_responses_total", rcode="NOERROR") == 3
        assert total(text, "coredns_dns_responses_total", rcode="NXDOMAIN") == 1
        assert total(text, "coredns_dns_responses_total", rcode="BADVERS") == 1
        assert total(text, "coredns_dns_responses_total", rcode="FORMERR") == 0
        assert total(text, "coredns_cache_entries") == 0 and found["pyrun_dns_names"] > 0
        took = "coredns_dns_request_duration_seconds"
        names = {took if name.startswith(took) else name.partition("{")[0] for name in found}
        assert all(f"# TYPE {name} " in text and f"# HELP {name} " in text for name in names)
        check_metrics("DNS", text)
        with pytest.raises(PyrunError, match="another program has this port|metrics: "):
            Daemon(Settings(served.daemon.settings.state, (), LOOPBACK, metrics=where), Store(), print)


def test_metrics_have_the_labels_of_coredns() -> None:
    """By transport, family and type as far as CoreDNS tells types apart; what was not read is of the zone dropped."""
    where, late_s = f"127.0.0.1:{free_port()}", 0.3

    def late(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        time.sleep(late_s)
        send(server, positive(query), source)

    with Strange(late) as server, serving(at(server.port), metrics=where) as served:
        for kind in ("A", "A", "CAA", "HTTPS"):
            assert served.udp(f"web.{SVC}", kind)[0] == "NOERROR"
        assert shown(served.raw(b"\0\1\1\0\0\2" + bytes(6)))[0] == "FORMERR"
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as client:
            client.sendall(framed(ask(f"none.{SVC}", "SRV")))
            assert shown(read_framed(client))[0] == "NXDOMAIN"
        for _ in range(2):
            assert served.udp("www.example.test", "A")[1]
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        own = f'server="dns://127.0.0.1:{served.port}"'
        kinds = {"A": 4, "other": 1, "HTTPS": 1}
        begin = f'coredns_dns_requests_total{{{own},proto="udp",family="1",zone="."'
        lines = {f'{begin},view="",type="{kind}"}} {count}' for kind, count in kinds.items()}
        lines.add(begin.replace('"."', '"dropped"') + ',view="",type="other"} 1')
        lines.add(begin.replace("udp", "tcp") + ',view="",type="SRV"} 1')
        assert {line for line in text.splitlines() if line.startswith("coredns_dns_requests_total{")} == lines
        rcodes = [("NOERROR", ".", 6), ("NXDOMAIN", ".", 1), ("FORMERR", "dropped", 1), ("FORMERR", ".", 0)]
        for rcode, zone, count in rcodes:
            assert f'coredns_dns_responses_total{{{own},zone="{zone}",view="",rcode="{rcode}"}} {count}\n' in text
        cache = f'{{{own},zones=".",view=""'
        assert f'coredns_cache_hits_total{cache},type="success"}} 1\n' in text
        assert f'coredns_cache_entries{cache},type="success"}} 1\n' in text
        assert f"coredns_cache_misses_total{cache}}} 1\n" in text
        assert f"coredns_cache_requests_total{cache}}} 2\n" in text
        took = "coredns_dns_request_duration_seconds"
        assert f"# TYPE {took} histogram\n" in text
        series = f'{{{own},zone=".",view="",type="A"'
        within = re.search(rf'^{took}_bucket{re.escape(series)},le="0.256"}} (.*)$', text, re.M)
        assert within and int(within[1]) <= 3, "one took longer"
        assert f"{took}_count{series}}} 4\n" in text and f'{took}_bucket{series},le="+Inf"}} 4\n' in text
        seconds = re.search(rf"^{took}_sum{re.escape(series)}}} (.*)$", text, re.M)
        assert seconds and late_s <= float(seconds[1]) < PATIENCE_S, "the wait for another server is in it"
        assert f'{took}_count{{{own},zone=".",view="",type="SRV"}} 1\n' in text and 'type="MX"' not in text


def test_health_and_what_other_servers_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """/ready is 503 until there is a table, and /health until the program answers; each other server has its counts."""
    monkeypatch.setattr(forward, "SILENT_S", 4.5)  # it is counted how often the server is asked: no second time here
    where = f"127.0.0.1:{free_port()}"

    def get(path: str) -> tuple[int, str]:
        host, _, port = where.partition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as client:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    with Strange(lambda query, source, server: send(server, positive(query), source)) as server:
        with serving(at(server.port), metrics=where) as served:
            assert get("/health") == get("/ready") == (200, "OK\n") and get("/other")[0] == 404
            for _ in range(2):
                assert served.udp("www.example.test")[1]
            text = get("/metrics")[1]
            assert f'pyrun_dns_upstream_failed_total{{to="127.0.0.1:{server.port}"}} 0' in text
            assert f'pyrun_dns_upstream_asked_total{{to="127.0.0.1:{server.port}"}} 2' in text, "one looked for a loop"
            assert total(text, "coredns_cache_misses_total") == 1 and total(text, "coredns_cache_hits_total") == 1
            served.store.expect("an API server that has gone")
            assert get("/ready") == (200, "OK, by the table of last time: not all objects have been read\n")
    with tempfile.TemporaryDirectory(prefix="pyrun-dns-") as directory:
        unsynced = Store()
        unsynced.expect("an API server that does not answer")
        daemon = Daemon(Settings(directory, (), LOOPBACK, upstreams=Servers(), metrics=where), unsynced, print)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            assert get("/health")[0] == 200
            assert get("/ready") == (503, "there is no table yet: not all objects have been read\n")
        finally:
            stop = os.eventfd(1)
            daemon.loop.read(stop, daemon.stop)
            unsynced.replace("an API server that does not answer", {})
            thread.join(2 * PATIENCE_S)
            os.close(stop)
            end_program(daemon.responder.pid)


def test_the_daemon_is_killed_and_another_one_takes_up() -> None:
    """The program serves on; the next daemon finds it by its socket, and stays with it."""
    store = Store()
    store.replace("test", {("Service", "default", "web"): Told(CLUSTER[0], "test")})
    with tempfile.TemporaryDirectory(prefix="pyrun-dns-") as directory:
        port, said = free_port(), list[str]()
        settings = Settings(directory, (("127.0.0.1", port),), LOOPBACK, upstreams=Servers({}), rate=0)
        first = Daemon(settings, store, said.append)
        first._plan()
        assert first.aside.finish(PATIENCE_S)
        pid = first.responder.pid
        try:
            first.responder.close()
            first.held.close()
            for one in first.sockets:
                one.close()
            served = Served(first, port, store, said)
            assert served.udp(f"web.{SVC}")[1]
            second = Daemon(settings, Store(), said.append)
            assert second.responder.pid == pid and second.responder.generation == 1
            assert any(f"process {pid}, and is kept" in line for line in said)
            assert served.udp(f"web.{SVC}")[1]
            second.responder.stop()
            second.responder.close()
            second.held.close()
            for one in second.sockets:
                one.close()
        finally:
            end_program(pid)
        # Nothing runs now; the objects have not told of themselves: the table of last time answers.
        unsynced = Store()
        unsynced.expect("an API server that does not answer")
        third = Daemon(settings, unsynced, said.append)
        try:
            assert served.udp(f"web.{SVC}")[1]
            assert Responder.connect(f"{directory}/control.sock").generation == 1
        finally:
            end_program(third.responder.pid)
            third.responder.close()
            for one in third.sockets:
                one.close()


def kill(pid: int) -> None:
    """Once this returns it takes no query any more."""
    os.kill(pid, signal.SIGKILL)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    wait_until("it is dead", gone)


@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "while objects change"])
def test_the_program_is_killed_and_another_one_goes_on(busy: bool) -> None:
    """Queries wait in the sockets meanwhile, whether a new table or the loop finds the program dead first."""
    with serving(Servers({})) as served:
        for turn in range(1, 4):
            pid = served.daemon.responder.pid
            if busy:
                tell_cluster(served.store)
            kill(pid)
            if busy:
                tell_cluster(served.store)
            assert served.udp(f"web.{SVC}")[1]
            wait_until("it is told", lambda n=turn: sum("goes on" in line for line in served.said) >= n)  # type: ignore[misc]
            assert served.daemon.responder.pid != pid


@pytest.fixture(scope="module", autouse=True)
def asked_often() -> Iterator[Future[tuple[str, float, dict[bytes, int]]]]:
    """Begins with this file's first test, as it takes nine seconds: see the test of prefetching below. Its program is
    there before that test begins, which would have to answer for it else."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(_ask_often, begun)
        assert begun.wait(PATIENCE_S)
        yield found


def _ask_often(begun: threading.Event) -> tuple[str, float, dict[bytes, int]]:
    """As _often(); again where this machine took so long that the server was asked a second time for its silence."""
    deadline = time.monotonic() + 6 * PATIENCE_S
    while True:
        found, silences = _often(begun, deadline)
        if not silences or time.monotonic() > deadline:
            return found


def _often(begun: threading.Event, deadline: float) -> tuple[tuple[str, float, dict[bytes, int]], int]:
    """Asks for one name until its answer changes, and for another one once. The new answer, its age in seconds, and how
    often the server was asked for each, and once more; and how many of its answers were waited for in vain."""
    addresses, said_at = {b"often": 1, b"seldom": 1}, dict[bytes, float]()

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        key = next(key for key in addresses if key in query.lower())
        said_at[key] = time.monotonic()
        server.sendto(positive(query, f"192.0.2.{addresses[key]}", 10), source)
        addresses[key] += 1

    with Strange(act) as server, serving(at(server.port)) as served:
        served.udp("seldom.test")
        begun.set()
        found, asks = [""], served.daemon.forwarder.upstreams[0]
        while not found[0].endswith(".2") and not asks.failed and time.monotonic() < deadline:
            found = served.udp("often.test")[1] or [""]
            time.sleep(0.05)
        age = time.monotonic() - said_at.get(b"often", 0.0)
        return (found[0], age, addresses), asks.failed


def test_what_is_asked_often_is_asked_anew_in_time(asked_often: Future[tuple[str, float, dict[bytes, int]]]) -> None:
    """Prefetch: in the last tenth of a TTL of 10 s the server is asked again while the old answer is given, so that
    nobody waits when it is over; what was asked for once is not. The last answer of old had still some of its time."""
    answer, age, addresses = asked_often.result(10 * PATIENCE_S)
    assert answer.endswith(" A 192.0.2.2") and int(answer.split()[1]) >= 9 - age, (answer, age)
    assert addresses == {b"often": 3, b"seldom": 2}
