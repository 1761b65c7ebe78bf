"""A pod's search path, walked by the server: who has which, and what becomes of each question."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pyrun.dns import wire
from pyrun.dns.answer import answer_to
from pyrun.dns.encode import encode_table
from pyrun.dns.plan import MAPPED, Options
from pyrun.dns.respond import respond
from pyrun.dns.servers import read_searches
from pyrun.dns.table import Table
from tests.support.dns import CLUSTER, ask, pod, service, shown, table_of

ON = Options(autopath=True, searches=("corp.example", "Cluster.Local"))
PODS = [
    pod("client", "10.1.0.30", "fd00:1::30"),
    pod("other", "10.1.0.31", namespace="prod"),
    pod("host", "10.77.0.1", hostNetwork=True),
    pod("own", "10.1.0.32", dnsPolicy="None"),
    pod("node", "10.1.0.33", dnsPolicy="Default"),
    pod("more", "10.1.0.34", dnsConfig={"searches": ["lab.example", "corp.example"]}),
    pod("gone", "10.1.0.35", phase="Failed"),
    pod("twice", "10.1.0.36"),
    pod("twice", "10.1.0.36", namespace="prod"),
    pod("again", "10.1.0.30"),
]
TABLE = table_of([*CLUSTER, *PODS], ON)
BEGIN = "default.svc.cluster.local"


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address) if ":" in address else MAPPED + socket.inet_aton(address)


def told(name: str, client: str = "10.1.0.30", kind: str = "A", table: Table = TABLE) -> Any:
    """What is answered: its rcode, answers and authority, or whom other servers are asked for."""
    found = answer_to(table, wire.name_of(name), wire.TYPES[kind], packed(client))
    if found.forward is not None:
        return "ask", wire.text_of(found.forward), [wire.text_of(r.data) for r in found.answers]
    reply = respond(table, ask(name, kind), tcp=True, client=packed(client))
    return shown(bytes(reply or b""))[:2]


@pytest.mark.parametrize("client", ["10.1.0.30", "fd00:1::30"])
def test_a_name_of_the_cluster_in_one_answer(client: str) -> None:
    """web.prod… of another namespace, and a service's whole name, which has fewer dots than five."""
    name = f"six.prod.{BEGIN}"
    alias = f"{name}. 5 CNAME six.prod.svc.cluster.local."
    assert told(name, client, "AAAA") == ("NOERROR", [alias, "six.prod.svc.cluster.local. 5 AAAA fd00:96::7"])
    assert told(name, client, "A") == ("NOERROR", [alias])
    name = f"web.default.svc.cluster.local.{BEGIN}"
    assert told(name, client)[:2] == ("ask", "web.default.svc.cluster.local.corp.example."), "the node's come before"
    table = table_of([*CLUSTER, *PODS], Options(autopath=True))
    wanted = [f"{name}. 5 CNAME web.{BEGIN}.", f"web.{BEGIN}. 5 A 10.96.0.5"]
    assert told(name, client, table=table) == ("NOERROR", wanted)


def test_another_name_is_asked_of_others_in_the_paths_order() -> None:
    """The domains of the cluster that have no such name first, then those of the nodes, each once, then the name."""
    first = "www.example.org.corp.example."
    assert told(f"www.example.org.{BEGIN}") == ("ask", first, [first])
    path = TABLE.clients[packed("10.1.0.30")]
    assert [wire.text_of(name) for name in path.names(wire.name_of(f"a.b.{BEGIN}"))] == [
        "a.b.svc.cluster.local.",
        "a.b.cluster.local.",
        "a.b.corp.example.",
        "a.b.",
    ]


def test_what_is_there_or_begins_no_path_is_as_ever() -> None:
    """Also what a client of another namespace asks for: nothing of it depends on who asked before (CoreDNS #3765)."""
    for name in (f"web.{BEGIN}", f"web.x{BEGIN}", BEGIN, f"x.prod.svc.{BEGIN}", "six.prod.svc.cluster.local"):
        if name != f"x.prod.svc.{BEGIN}":
            assert told(name) == told(name, "10.9.9.9")
    assert told(f"six.prod.{BEGIN}", "10.1.0.31") == ("NXDOMAIN", [])
    assert told("six.prod.prod.svc.cluster.local", "10.1.0.31", "AAAA")[0] == "NOERROR"
    assert told(f"six.prod.{BEGIN}", kind="ANY")[1] == [f'six.prod.{BEGIN}. 5 HINFO "RFC8482" ""']


@pytest.mark.parametrize("client", ["10.77.0.1", "10.1.0.32", "10.1.0.33", "10.1.0.35", "10.1.0.36", "10.9.9.9"])
def test_who_has_no_path(client: str) -> None:
    """On the node's network, with a resolv.conf of its own, ended, with an address that is another's too, unknown."""
    assert packed(client) not in TABLE.clients
    assert told(f"six.prod.{BEGIN}", client, "AAAA") == ("NXDOMAIN", [])


def test_domains_of_the_pod_itself() -> None:
    path = TABLE.clients[packed("10.1.0.34")]
    assert [wire.text_of(name) for name in path.then][2:] == ["corp.example.", "lab.example.", "."]


def test_an_alias_on_the_way() -> None:
    """ExternalName: one that leads to another server's name, one that leads to nothing, one in a circle."""
    values = [
        service("out", "prod", type="ExternalName", externalName="www.example.com"),
        service("nothing", "prod", type="ExternalName", externalName="no.default.svc.cluster.local"),
        service("circle", "prod", type="ExternalName", externalName="circle.prod.svc.cluster.local"),
        pod("client", "10.1.0.30"),
    ]
    table = table_of(values, Options(autopath=True))
    assert told(f"out.prod.{BEGIN}", table=table)[:2] == ("ask", "www.example.com.")
    assert told(f"nothing.prod.{BEGIN}", table=table)[:2] == ("ask", "nothing.prod.")
    assert told(f"circle.prod.{BEGIN}", table=table) == ("SERVFAIL", [])


def test_a_name_that_gets_too_long_is_passed_over() -> None:
    table = table_of([pod("client", "10.1.0.30")], Options(autopath=True, searches=(".".join(["x" * 60] * 4),)))
    assert told(f"{'a' * 60}.{BEGIN}", table=table)[1] == f"{'a' * 60}."


def test_what_is_no_domain_is_told() -> None:
    table = table_of([pod("client", "10.1.0.30", dnsConfig={"searches": ["a..b", 7]})], Options(autopath=True))
    assert [str(fault.origin) for fault in table.refused] == ["Pod default/client /spec/dnsConfig/searches"]
    assert packed("10.1.0.30") in table.clients


def test_off_it_is_no_part_of_the_table() -> None:
    off = table_of([*CLUSTER, *PODS])
    assert not off.clients and encode_table(off, 1)[4] == 1 and encode_table(TABLE, 1)[4] == 2


def test_domains_of_a_resolv_conf() -> None:
    assert read_searches("search a b\nnameserver 1.1.1.1\ndomain c.d\n# search e\n") == ("c.d",)
    assert read_searches("nameserver ::1\n") == ()
