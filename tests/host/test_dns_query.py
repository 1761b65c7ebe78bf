"""`pyrun dns query` of a server that runs: what it would answer, from where, and that asking changes nothing."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pyrun.dns.daemon
from pyrun.cli.main import main
from pyrun.dns import wire
from pyrun.dns.daemon import Daemon, Settings
from pyrun.dns.look import target_of
from pyrun.dns.plan import Options
from pyrun.dns.program import end_program
from pyrun.dns.servers import Servers
from pyrun.http.unix import request
from pyrun.kube.feed.store import Store, Told
from tests.support.dns import CLUSTER, ask, pod, shown
from tests.support.dns_program import LOOPBACK, PATIENCE_S
from tests.support.dns_served import Served, at, serving, total, wait_until
from tests.support.dns_upstream import Strange, free_port, positive

POD, OTHER = "127.0.0.1", "127.0.0.9"
NOT_COUNTED = ("pyrun_dns_upstream", "pyrun_dns_generation")
SVC = "default.svc.cluster.local"


def answers() -> Callable[[bytes, tuple[str, int], socket.socket], None]:
    """Has an answer to everything, but to `once` only the first time."""
    seen: set[bool] = set()

    def act(query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        is_once = b"once" in query.lower()
        failed = query[:2] + b"\x81\x82" + query[4:]
        server.sendto(failed if is_once and is_once in seen else positive(query, ttl=1 if is_once else 600), source)
        seen.add(is_once)

    return act


@pytest.fixture(scope="module")
def upstream() -> Iterator[Strange]:
    with Strange(answers()) as server:
        yield server


@pytest.fixture(scope="module")
def served(upstream: Strange) -> Iterator[Served]:
    pods = (pod("me", POD), pod("other", OTHER, namespace="prod"))
    options, where = Options(autopath=True, searches=("corp.test",)), f"127.0.0.1:{free_port()}"
    with serving(at(upstream.port), options=options, objects=pods, metrics=where) as made:
        yield made


def counted(served: Served) -> str:
    """All that it has counted so far."""
    with urllib.request.urlopen(f"http://{served.daemon.settings.metrics}/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith(NOT_COUNTED))


def query(served: Served, capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """As JSON; its text is asked for too."""
    capfd.readouterr()
    state = served.daemon.settings.state
    assert main(["dns", "query", "--state", state, "--format", "json", *words]) == code
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert main(["dns", "query", "--state", state, *words]) == code
    return {**found, "text": capfd.readouterr().out}


def test_from_the_table_with_its_objects(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    before = counted(served)
    found = query(served, capfd, f"_http._tcp.web.{SVC}", "srv")
    assert (found["from"], found["rcode"], found["servers"]) == ("table", "NOERROR", [])
    assert [one["from"] for one in found["answers"]] == ["Service default/web /spec/ports/0"]
    assert [one["data"] for one in found["additional"]] == ["10.96.0.5"]
    assert re.match(rf"; NOERROR: table \d+\n_http._tcp.web.{SVC}. 5 IN SRV 0 100 80 web.{SVC}.  ; Ser", found["text"])
    assert query(served, capfd, "none.cluster.local")["text"].startswith("; NXDOMAIN: table ")
    assert query(served, capfd, f"web.{SVC}", "AAAA")["text"].startswith("; NODATA: table ")
    assert query(served, capfd, f"alias.{SVC}", "CNAME")["text"].startswith("; NOERROR: table ")
    assert query(served, capfd, f"dangling.{SVC}", "A")["text"].startswith("; NXDOMAIN: table ")
    assert query(served, capfd, f"web.{SVC}", "ANY")["answers"][0]["from"] == "RFC 8482"
    assert counted(served) == before and total(before, "coredns_dns_requests_total") == 0


def test_from_other_servers_and_then_the_cache(
    served: Served, upstream: Strange, capfd: pytest.CaptureFixture[str]
) -> None:
    found = query(served, capfd, "www.example.org")
    assert (found["from"], found["asked_for"], found["rcode"]) == ("others", "www.example.org.", None)
    assert [one["address"] for one in found["servers"]] == [f"127.0.0.1:{upstream.port}"]
    assert f"not ours: www.example.org. is asked of 127.0.0.1:{upstream.port}" in found["text"]
    assert not [one for one in upstream.queries if b"example" in one.lower()]
    assert len(served.udp("www.example.org")[1]) == 1
    before = counted(served)
    assert total(before, "coredns_cache_misses_total") == 1
    found = query(served, capfd, "WWW.example.org")
    assert (found["from"], found["rcode"]) == ("cache", "NOERROR") and 0 < found["left_s"] <= 600
    assert [one["data"] for one in found["answers"]] == ["192.0.2.9"]
    assert found["answers"][0]["from"] == "another server" and "another server's answer, kept for" in found["text"]
    assert counted(served) == before


def test_by_who_asks(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """Two pods of different paths, and one who is not answered at all."""
    begin = f"dual.default.{SVC}"
    found = query(served, capfd, "--client", POD, begin)
    assert [(one["type"], one["from"]) for one in found["answers"]] == [
        ("CNAME", "autopath"),
        ("A", "Service default/dual /spec/clusterIP"),
    ]
    assert query(served, capfd, "--client", OTHER, begin)["rcode"] == "NXDOMAIN"
    walked = query(served, capfd, "--client", POD, f"www.example.org.{SVC}")
    assert (walked["from"], walked["asked_for"]) == ("others", "www.example.org.corp.test.")
    found = query(served, capfd, "--client", "8.8.8.8", f"web.{SVC}", code=1)
    assert (found["from"], found["client"], found["rcode"]) == ("nobody", "8.8.8.8", None)
    assert "no reply: 8.8.8.8 is none of those who are answered" in found["text"]


def test_an_old_answer(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """Of use once nobody has a new one, and then given at once for a while."""
    assert served.udp("once.test")[1][0].endswith(" 1 A 192.0.2.9")

    def asked() -> dict[str, Any]:
        return query(served, capfd, "once.test")

    wait_until("it is old", lambda: asked()["from"] == "others")
    assert 0 < asked()["left_s"] <= 86400 and "an answer of old is good for" in asked()["text"]
    found: dict[str, Any] = {}

    def is_given() -> bool:
        assert served.udp("once.test")[1][0].endswith(" 30 A 192.0.2.9")
        found.update(asked())
        return bool(found["from"] == "old")

    wait_until("it is given", is_given)
    assert found["answers"][0]["ttl"] == 30 and "an answer of old, as no other server has a new one" in found["text"]


def test_an_alias_to_another_servers_name(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    found = query(served, capfd, f"ext.{SVC}")
    assert (found["from"], found["asked_for"]) == ("others", f"ext.{SVC}.")
    assert served.udp(f"ext.{SVC}")[1]
    found = query(served, capfd, f"ext.{SVC}")
    assert [one["from"] for one in found["answers"]] == ["Service default/ext /spec/externalName", "another server"]


def test_nobody_to_ask(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(Servers({})) as alone:
        found = query(alone, capfd, "www.example.org", code=1)
        assert found["rcode"] == "REFUSED" and found["text"].startswith("; REFUSED: ")


def test_the_table_of_last_time(capfd: pytest.CaptureFixture[str]) -> None:
    """Objects are not known yet: the answer is told without them."""
    with tempfile.TemporaryDirectory(prefix="pyrun-dns-") as directory:
        port, store = free_port(), Store()
        settings = Settings(directory, (("127.0.0.1", port),), LOOPBACK, upstreams=Servers({}))
        store.replace("test", {("Service", "default", "web"): Told(CLUSTER[0], "test")})
        first = Daemon(settings, store, print)
        first._plan()
        assert first.aside.finish(PATIENCE_S)
        first.stop()
        first.run()
        unsynced = Store()
        unsynced.expect("an API server that does not answer")
        second = Daemon(settings, unsynced, print)
        thread = threading.Thread(target=second.run)
        thread.start()
        try:
            served = Served(second, port, unsynced, [])
            assert shown(served.raw(ask(f"web.{SVC}", "A")))[1]
            wait_until("its socket is there", lambda: _listens(directory))
            found = query(served, capfd, f"web.{SVC}")
            assert [one["from"] for one in found["answers"]] == ["the table of last time"]
        finally:
            second.loop.after(0, second.stop)
            unsynced.replace("an API server that does not answer", {})
            thread.join(2 * PATIENCE_S)
            end_program(first.responder.pid)
            end_program(second.responder.pid)


def _listens(state: str) -> bool:
    try:
        return request(f"{state}/query.sock", "/other", hint="")[0] == 404
    except Exception:
        return False


@pytest.mark.parametrize(
    "target", ["/query", "/query?name=zz&type=1&client=00", "/query?name=0377&type=1&client=" + 32 * "0"]
)
def test_what_is_no_question(served: Served, target: str) -> None:
    status, body = request(f"{served.daemon.settings.state}/query.sock", target, hint="")
    assert (status, b"no question" in body) == (503, True)


def test_a_bug_of_a_page_ends_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    where, target = f"{served.daemon.settings.state}/query.sock", target_of(wire.name_of(f"web.{SVC}"), wire.A, None)
    with monkeypatch.context() as patched:
        patched.setattr(pyrun.dns.daemon, "look_json", lambda *_: dict[str, int]()["no such key"])
        assert request(where, target, hint="") == (503, b"internal error: KeyError: 'no such key'\n")
    assert request(where, target, hint="")[0] == 200 and served.udp(f"web.{SVC}")[1]


def test_no_server_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "query", "--state", "/nowhere", "web"]) == 1
    assert "no server answers: /nowhere/query.sock: " in capfd.readouterr().err
    assert main(["dns", "query", "--state", "/nowhere", "--objects", "/", "web"]) != 0
    assert "--objects and --state" in capfd.readouterr().err
