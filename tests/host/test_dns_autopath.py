"""Search paths that pyrun-dns walks: the same as Python says, other servers asked in order, and a real resolver."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dns.flags
import dns.message
import pytest

from pyrun.dns import forward, wire
from pyrun.dns.answer import answer_to
from pyrun.dns.encode import encode_table
from pyrun.dns.objects import Origin, Where
from pyrun.dns.plan import MAPPED, Options
from pyrun.dns.respond import respond
from pyrun.dns.table import Entry, Node, Table
from tests.support.daemon import REPO
from tests.support.dns import CLUSTER, ask, pod, service, shown, table_of
from tests.support.dns_program import PATIENCE_S, Running, framed, read_framed, running
from tests.support.dns_served import Served, at, serving, total, wait_until
from tests.support.dns_upstream import Strange, free_port, positive

BEGIN, PROD = "default.svc.cluster.local", "prod.svc.cluster.local"
ME, OTHER = "127.0.0.1", "127.0.0.2"
PODS = (pod("me", ME), pod("other", OTHER, namespace="prod"))
MY_KEY = MAPPED + socket.inet_aton(ME)
LONG = ".".join(["h" * 63, "s" * 63, "t" * 63, "u" * 20])  # no Service has such a name, but a table may


def with_long_name() -> Table:
    """A question and an alias of 230 and 215 bytes: with both there is no room for an address in 512."""
    made = table_of([*CLUSTER, *PODS], Options(autopath=True))
    name = wire.lower(wire.name_of(f"{LONG}.{PROD}"))
    node = Node({wire.A: (Entry(bytes([10, 1, 0, 77]), Where(Origin("test"))),)})
    return replace(made, nodes={**made.nodes, name: node})


TABLE = with_long_name()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server here is silent: on a busy machine it is not asked again after a second, as each question is counted."""
    monkeypatch.setattr(forward, "SILENT_S", 4.5)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as one:
        one.responder.put_table(encode_table(TABLE, 1))
        yield one


def test_every_answer_is_that_of_python(server: Running) -> None:
    """Each name of the table as a resolver begins with it, in several types, by TCP, where nothing is cut."""
    kinds = (wire.A, wire.AAAA, wire.SRV, 65280)
    start, svc = wire.name_of(BEGIN), wire.name_of("svc.cluster.local")
    names = [n for n in TABLE.nodes if len(n) + len(start) < 255 and not n.startswith((b"\x0810-2-0-", b"\x0910-2-0-"))]
    names = [n[:-1] + start for n in names] + [n.removesuffix(svc) + start for n in names if n.endswith(svc)]
    walked = 0
    with socket.create_connection((server.address, server.port), PATIENCE_S) as stream:
        for number, name in enumerate(names):
            for kind in kinds:
                asked = bytes([c ^ 0x20 if chr(c).isalpha() and number % 3 == 0 else c for c in name])
                query = wire.encode(wire.Message(number, 0x0110, (asked, kind, wire.IN), payload=1232))
                wanted = respond(TABLE, query, tcp=True, recursion=False, client=MY_KEY)
                if wanted == b"":  # with nobody to ask there is no such name, and an alias to it is of no use
                    wanted = respond(TABLE, query, tcp=True, recursion=False)
                    if len(answer_to(TABLE, name, kind, MY_KEY).answers) > 1:
                        continue
                stream.sendall(framed(query))
                got = read_framed(stream)
                message, theirs = dns.message.from_wire(got), dns.message.from_wire(bytes(wanted or b""))
                assert message == theirs and message.flags == theirs.flags, query
                assert got[12 : 12 + len(name)] == asked
                walked += bool(message.answer) and message.answer[0].rdtype == 5
    assert walked > 100


@pytest.mark.parametrize("payload", [None, 512, 700])
def test_what_does_not_fit_is_cut(server: Running, payload: int | None) -> None:
    """The alias and whole records; an alias that leaves no room for any is left out as well."""
    got = server.udp(ask(f"many.default.{BEGIN}", "A", payload))
    message = dns.message.from_wire(got)
    assert message.flags & dns.flags.TC and len(got) <= max(payload or 0, 512)
    assert [str(message.answer[0][0])] == [f"many.{BEGIN}."] and 20 < len(message.answer[1]) < 50
    cut = dns.message.from_wire(server.udp(ask(f"{LONG}.prod.{BEGIN}", "A", payload)))
    assert bool(cut.flags & dns.flags.TC) is (payload != 700)
    assert len(cut.answer) == (2 if payload == 700 else 0)
    assert shown(server.tcp(ask(f"{LONG}.prod.{BEGIN}", "A", payload)))[1][-1] == f"{LONG}.{PROD}. 5 A 10.1.0.77"


def test_whose_address_is_no_pods_is_answered_as_ever(server: Running) -> None:
    query = ask(f"six.prod.{BEGIN}", "AAAA")
    assert shown(server.udp(query))[:2] == (
        "NOERROR",
        [f"six.prod.{BEGIN}. 5 CNAME six.{PROD}.", f"six.{PROD}. 5 AAAA fd00:96::7"],
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.bind(("127.0.0.3", 0))
        client.sendto(query, (server.address, server.port))
        assert shown(client.recv(2000))[0] == "NXDOMAIN"


def aged(answers: list[str]) -> list[str]:
    """What is kept is given with what is left of its minute; here as it was at first, for ten seconds."""
    return [re.sub(r" 5\d A ", " 60 A ", one) for one in answers]


def got(served: Served, name: str, source: str = ME) -> tuple[str, list[str]]:
    rcode, answers = served.udp(name, source=source)
    return rcode, aged(answers)


class World:
    """What the other servers have: a name, or none. asked: for what, in order."""

    def __init__(self, names: dict[str, str], ttl: int = 60) -> None:
        self.names, self.asked, self.ttl = names, list[str](), ttl

    def __call__(self, query: bytes, source: tuple[str, int], server: socket.socket) -> None:
        name = wire.text_of(wire.lower(wire.read_name(query, 12)[0])).removesuffix(".")
        self.asked.append(name)
        if name in self.names:
            server.sendto(positive(query, self.names[name]), source)
            return
        soa = wire.Record(wire.ROOT, wire.SOA, self.ttl, wire.soa_data(b"\1a\0", b"\1b\0", 1, self.ttl))
        asked, at = wire.read_name(query, 12)
        question = (asked, int.from_bytes(query[at : at + 2], "big"), wire.IN)
        rcode = wire.SERVFAIL if name.startswith("fails") else wire.NXDOMAIN
        id = int.from_bytes(query[:2], "big")
        server.sendto(wire.encode(wire.Message(id, 0x8180 | rcode, question, authority=(soa,))), source)


ON = Options(autopath=True, searches=("corp.example",))


@pytest.mark.parametrize("ttl", [60, 0], ids=["kept", "not kept"])
def test_other_servers_are_asked_in_the_paths_order(ttl: int) -> None:
    """The node's domain before the name itself; what each says is kept under its own name, whoever's path it was."""
    world = World({"www.example.org": "192.0.2.1", "intern.corp.example": "192.0.2.2"}, ttl)
    where = f"127.0.0.1:{free_port()}"
    with Strange(world) as server, serving(at(server.port), metrics=where, options=ON, objects=PODS) as served:
        for begin, source in ((BEGIN, ME), (PROD, OTHER), (BEGIN, ME)):
            name = f"www.Example.org.{begin}"
            alias = f"{name}. 5 CNAME www.example.org."
            assert got(served, name, source) == ("NOERROR", [alias, "www.example.org. 60 A 192.0.2.1"])
            name = f"intern.{begin}"
            alias = f"{name}. 5 CNAME intern.corp.example."
            assert got(served, name, source) == ("NOERROR", [alias, "intern.corp.example. 60 A 192.0.2.2"])
        once = ["www.example.org.corp.example", "www.example.org", "intern.corp.example"]
        again = [once[0]] * 2
        assert world.asked == (once if ttl else [*once, *again]), "what was said is kept by its own name"
        assert served.udp(f"www.example.org.{BEGIN}", source=OTHER) == ("NXDOMAIN", []), "another's path"
        assert counted(served) == 6


def counted(served: Served) -> float:
    """Of the metrics, in the daemon's thread."""
    with urllib.request.urlopen(f"http://{served.daemon.settings.metrics}/metrics", timeout=PATIENCE_S) as answer:
        return total(answer.read().decode(), "coredns_autopath_success_total")


def test_a_name_that_nobody_has_and_a_server_that_fails() -> None:
    """NXDOMAIN with our SOA, as without autopath; SERVFAIL where nobody knows, and never an alias to nowhere."""
    world = World({})
    with Strange(world) as server, serving(at(server.port), options=ON, objects=PODS) as served:
        for _ in range(2):
            rcode, answers, authority, _ = shown(served.raw(ask(f"nope.{BEGIN}", "A")))
            assert (rcode, answers) == ("NXDOMAIN", []) and authority[0].startswith("cluster.local. 5 SOA ")
        assert world.asked == ["nope.corp.example", "nope"]
        assert served.udp(f"fails.{BEGIN}") == ("SERVFAIL", [])


def test_many_that_wait_at_once_by_udp_and_tcp() -> None:
    """Forty questions on one connection, half of them equal, each with two steps that have to be asked."""
    world = World({f"n{number}.example.org": f"192.0.2.{number}" for number in range(20)})
    with Strange(world) as server, serving(at(server.port), options=ON, objects=PODS) as served:
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as client:
            names = [f"n{number % 20}.example.org.{BEGIN}" for number in range(40)]
            client.sendall(b"".join(framed(ask(name, "A", id=number)) for number, name in enumerate(names)))
            with client.makefile("rb") as stream:
                found = {}
                for _ in names:
                    reply = stream.read(int.from_bytes(stream.read(2), "big"))
                    found[int.from_bytes(reply[:2], "big")] = aged(shown(reply)[1])[-1]
        assert found == {number: f"n{number % 20}.example.org. 60 A 192.0.2.{number % 20}" for number in range(40)}
        assert len(world.asked) == 40, "each of the two steps once"


def test_an_alias_of_the_cluster_to_another_servers_name() -> None:
    world = World({"www.example.org": "192.0.2.1"})
    out = service("out", "prod", type="ExternalName", externalName="www.example.org")
    with Strange(world) as server, serving(at(server.port), options=ON, objects=(*PODS, out)) as served:
        for _ in range(2):
            assert got(served, f"out.prod.{BEGIN}") == (
                "NOERROR",
                [
                    f"out.prod.{BEGIN}. 5 CNAME out.{PROD}.",
                    f"out.{PROD}. 30 CNAME www.example.org.",
                    "www.example.org. 60 A 192.0.2.1",
                ],
            )


def test_a_resolv_confs_domains_are_followed(tmp_path: Path) -> None:
    """They are asked for by nobody here: no server is named there. What is looked at is the table."""
    path = tmp_path / "resolv.conf"
    path.write_text("search one.example\n")

    def tried(served: Served) -> list[str]:
        clients = served.daemon.forwarder.table.clients
        return [wire.text_of(name) for name in clients[MY_KEY].then[2:]]

    with serving(None, str(path), options=Options(autopath=True), objects=PODS) as served:
        wait_until("the first", lambda: tried(served) == ["one.example.", "."])
        (tmp_path / "new").write_text("search two.example one.example\n")
        (tmp_path / "new").rename(path)
        wait_until("it is followed", lambda: tried(served) == ["two.example.", "one.example.", "."])


# As a pod has it: glibc's resolver, a resolv.conf with a search path and ndots, and 127.0.0.1 as the pod's address.
POD = """
import json, os, re, socket, subprocess, sys, time, urllib.request
directory, port, *words = sys.argv[1:]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with open(f"{directory}/resolv.conf", "w") as file:
    file.write("nameserver 127.0.0.1\\noptions ndots:5 timeout:30\\n")
    file.write("search default.svc.cluster.local svc.cluster.local cluster.local\\n")
subprocess.run(["mount", "--bind", f"{directory}/resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
words = ["--metrics-bind-address", f"127.0.0.1:{port}", "--resolv-conf", "/dev/null", *words]
words = ["--objects", f"{directory}/objects", "--state", f"{directory}/state", *words]
daemon = subprocess.Popen([sys.executable, "-m", "pyrun", "dns", "run", *words])
def count():
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    return sum(map(float, re.findall(r"^coredns_dns_requests_total{.*} (.*)$", text, re.M)))
def resolve(name):
    return [found[4][0] for found in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)]
try:
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline and daemon.poll() is None
        try:
            if resolve("web.default.svc.cluster.local."):
                break
        except OSError:
            time.sleep(0.05)
    before = count()
    print(json.dumps({"got": resolve("web.default.svc.cluster.local"), "questions": count() - before}))
finally:
    daemon.terminate()
    try:
        daemon.wait(60)
    finally:
        daemon.kill()
"""


@pytest.mark.skipif(not shutil.which("ip"), reason="ip is not installed: apt-get install iproute2")
def test_glibc_asks_once(tmp_path: Path) -> None:
    """A service's whole name has four dots, so that a pod's resolver tries all its domains first: four questions,
    and one with autopath."""
    (tmp_path / "objects").mkdir()
    items = [{"apiVersion": "v1", **value} for value in (CLUSTER[0], PODS[0])]
    (tmp_path / "objects" / "all.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
    asked = {}
    for words in ((), ("--autopath",)):
        command = ["unshare", "-nm", "--propagation", "private", sys.executable, "-c", POD, str(tmp_path)]
        done = subprocess.run(
            [*command, str(free_port()), *words], cwd=REPO, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["got"] == ["10.96.0.5"], done.stderr
        asked[words] = said["questions"]
    assert asked == {(): 4.0, ("--autopath",): 1.0}
