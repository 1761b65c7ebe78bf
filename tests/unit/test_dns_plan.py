"""Each line of the Kubernetes DNS specification 1.1.0, and what is beside it, as replies that dnspython reads."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rrset
import pytest

from pyrun.dns import wire
from pyrun.dns.answer import answer
from pyrun.dns.encode import encode_table
from pyrun.dns.plan import Options, plan_dns
from pyrun.dns.respond import respond
from pyrun.errors import PyrunError
from tests.support.dns import CLUSTER, ask, endpoint, endpoint_slice, read, service, shown, table_of

OWN = Options(own=(bytes([10, 96, 0, 10]),), reverse=((bytes([10, 96, 0, 0]), 16),), namespaces=("empty",))
TABLE = table_of(CLUSTER, OWN)
SOA = "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"
SVC = "default.svc.cluster.local."


def reply(name: str, kind: str, tcp: bool = True) -> tuple[str, list[str], list[str], list[str]]:
    got = respond(TABLE, ask(name, kind), tcp=tcp)
    assert got, "another server would be asked"
    return shown(bytes(got))


POSITIVE = {
    "2.2 dns-version": ("dns-version.cluster.local", "TXT", ['dns-version.cluster.local. 5 TXT "1.1.0"']),
    "2.3.1 A": (f"web.{SVC}", "A", [f"web.{SVC} 5 A 10.96.0.5"]),
    "2.3.1 A of two families": (f"dual.{SVC}", "A", [f"dual.{SVC} 5 A 10.96.0.6"]),
    "2.3.1 AAAA of two families": (f"dual.{SVC}", "AAAA", [f"dual.{SVC} 5 AAAA fd00:96::6"]),
    "2.3.1 AAAA": ("six.prod.svc.cluster.local", "AAAA", ["six.prod.svc.cluster.local. 5 AAAA fd00:96::7"]),
    "2.3.2 SRV": (f"_http._tcp.web.{SVC}", "SRV", [f"_http._tcp.web.{SVC} 5 SRV 0 100 80 web.{SVC}"]),
    "2.3.2 SRV over UDP": (f"_dns._udp.web.{SVC}", "SRV", [f"_dns._udp.web.{SVC} 5 SRV 0 100 53 web.{SVC}"]),
    "2.3.3 PTR": ("5.0.96.10.in-addr.arpa", "PTR", [f"5.0.96.10.in-addr.arpa. 5 PTR web.{SVC}"]),
    "2.3.3 PTR of IPv6": (
        wire.text_of(wire.reverse_name(bytes.fromhex("fd000096000000000000000000000006"))),
        "PTR",
        [f"6.{'0.' * 23}6.9.0.0.0.0.d.f.ip6.arpa. 5 PTR dual.{SVC}"],
    ),
    "2.4.1 A of ready endpoints": (
        f"db.{SVC}",
        "A",
        [f"db.{SVC} 5 A 10.1.0.1", f"db.{SVC} 5 A 10.1.0.2", f"db.{SVC} 5 A 10.1.0.4"],
    ),
    "2.4.1 AAAA": (f"db.{SVC}", "AAAA", [f"db.{SVC} 5 AAAA fd00:1::1"]),
    "2.4.1 A of a hostname": (f"db-1.db.{SVC}", "A", [f"db-1.db.{SVC} 5 A 10.1.0.2"]),
    "2.4.1 A without a hostname": (f"10-1-0-4.db.{SVC}", "A", [f"10-1-0-4.db.{SVC} 5 A 10.1.0.4"]),
    "2.4.2 SRV": (
        f"_sql._tcp.db.{SVC}",
        "SRV",
        [f"_sql._tcp.db.{SVC} 5 SRV 0 100 5432 {host}.db.{SVC}" for host in ("10-1-0-4", "db-0", "db-1")],
    ),
    "2.4.3 PTR of a hostname": ("1.0.1.10.in-addr.arpa", "PTR", [f"1.0.1.10.in-addr.arpa. 5 PTR db-0.db.{SVC}"]),
    "2.5 CNAME": (f"ext.{SVC}", "CNAME", [f"ext.{SVC} 5 CNAME www.example.com."]),
    "2.5 its target in the same answer": (
        f"alias2.{SVC}",
        "A",
        [f"alias2.{SVC} 5 CNAME alias.{SVC}", f"alias.{SVC} 5 CNAME web.{SVC}", f"web.{SVC} 5 A 10.96.0.5"],
    ),
    "2.6 a pod": ("10-1-0-20.default.pod.cluster.local", "A", ["10-1-0-20.default.pod.cluster.local. 5 A 10.1.0.20"]),
    "2.6 a pod of IPv6": (
        "fd00-1--20.default.pod.cluster.local",
        "AAAA",
        ["fd00-1--20.default.pod.cluster.local. 5 AAAA fd00:1::20"],
    ),
    "not ready, but published": (f"early.{SVC}", "A", [f"early.{SVC} 5 A 10.1.0.10"]),
    "SRV at the service's name": (
        f"web.{SVC}",
        "SRV",
        [f"web.{SVC} 5 SRV 0 100 {port} web.{SVC}" for port in (53, 80, 9000)],
    ),
    "NS of the zone": ("cluster.local", "NS", ["cluster.local. 5 NS ns.dns.cluster.local."]),
    "SOA of the zone": ("cluster.local", "SOA", [SOA]),
    "the server's own name": ("ns.dns.cluster.local", "A", ["ns.dns.cluster.local. 5 A 10.96.0.10"]),
    "ANY": (f"web.{SVC}", "ANY", [f'web.{SVC} 5 HINFO "RFC8482" ""']),
}


@pytest.mark.parametrize("name, kind, wanted", POSITIVE.values(), ids=POSITIVE)
def test_there_is(name: str, kind: str, wanted: list[str]) -> None:
    rcode, answers, authority, _ = reply(name, kind)
    assert (rcode, answers, authority) == ("NOERROR", wanted, [])


NEGATIVE = {
    "AAAA of IPv4 only": (f"web.{SVC}", "AAAA", "NOERROR"),
    "no record of that type": (f"_http._tcp.web.{SVC}", "A", "NOERROR"),
    "no such service": (f"nope.{SVC}", "A", "NXDOMAIN"),
    "no such namespace": ("web.nowhere.svc.cluster.local", "A", "NXDOMAIN"),
    "a namespace": (SVC, "A", "NOERROR"),
    "a namespace of pods only": ("quiet.svc.cluster.local", "A", "NOERROR"),
    "a namespace without objects": ("empty.svc.cluster.local", "A", "NOERROR"),
    "svc": ("svc.cluster.local", "A", "NOERROR"),
    "pod": ("pod.cluster.local", "A", "NOERROR"),
    "below a service": (f"_tcp.web.{SVC}", "SRV", "NOERROR"),
    "SRV of a port without a name": (f"_9000._tcp.web.{SVC}", "SRV", "NXDOMAIN"),
    "SRV of another protocol": (f"_http._udp.web.{SVC}", "SRV", "NXDOMAIN"),
    "headless without a ready endpoint": (f"down.{SVC}", "A", "NXDOMAIN"),
    "an endpoint that is not ready": (f"db-2.db.{SVC}", "A", "NXDOMAIN"),
    "a pod that has ended": ("10-1-0-21.default.pod.cluster.local", "A", "NXDOMAIN"),
    "a pod that is not there": ("10-9-9-9.default.pod.cluster.local", "A", "NXDOMAIN"),
    "a pod of another namespace": ("10-1-0-22.default.pod.cluster.local", "A", "NXDOMAIN"),
}


@pytest.mark.parametrize("name, kind, wanted", NEGATIVE.values(), ids=NEGATIVE)
def test_there_is_not(name: str, kind: str, wanted: str) -> None:
    """With the zone's SOA, by which resolvers know how long to believe it."""
    assert reply(name, kind) == (wanted, [], [SOA], [])


def test_an_unknown_address_of_our_range_does_not_exist() -> None:
    rcode, answers, authority, _ = reply("77.0.96.10.in-addr.arpa", "PTR")
    assert (rcode, answers) == ("NXDOMAIN", [])
    assert authority[0].startswith("96.10.in-addr.arpa. 5 SOA ")


@pytest.mark.parametrize("name", ["www.example.com", "1.1.1.1.in-addr.arpa", f"ext.{SVC}", "xcluster.local", "local"])
def test_others_are_asked(name: str) -> None:
    assert respond(TABLE, ask(name, "A")) == b""
    found = answer(TABLE, wire.name_of(name), wire.A)
    assert found.forward == wire.name_of("www.example.com" if name.startswith("ext") else name)


def test_an_alias_that_leads_nowhere() -> None:
    """RFC 6604: the rcode is that of the last name."""
    alias = f"dangling.{SVC} 5 CNAME nothing.{SVC}"
    assert reply(f"dangling.{SVC}", "A") == ("NXDOMAIN", [alias], [SOA], [])
    assert reply(f"alias.{SVC}", "AAAA") == ("NOERROR", [f"alias.{SVC} 5 CNAME web.{SVC}"], [SOA], [])


def test_aliases_in_a_circle() -> None:
    assert reply(f"loop.{SVC}", "A")[0] == "SERVFAIL"


def test_addresses_of_a_srv_target_come_along() -> None:
    assert sorted(reply(f"_sql._tcp.db.{SVC}", "SRV")[3]) == [
        f"10-1-0-4.db.{SVC} 5 A 10.1.0.4",
        f"db-0.db.{SVC} 5 A 10.1.0.1",
        f"db-0.db.{SVC} 5 AAAA fd00:1::1",
        f"db-1.db.{SVC} 5 A 10.1.0.2",
    ]


def test_the_question_comes_back_byte_for_byte() -> None:
    asked = wire.name_of("WeB.dEfAuLt.SVC.cluster.LOCAL")
    query = wire.encode(wire.Message(7, wire.RD, (asked, wire.A, wire.IN), payload=1232))
    got = bytes(respond(TABLE, query) or b"")
    assert got[12 : 12 + len(asked) + 4] == query[12 : 12 + len(asked) + 4]
    assert dns.message.from_wire(got).answer[0][0].to_text() == "10.96.0.5"
    assert dns.message.from_wire(got).flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA


def test_fifty_addresses_do_not_fit() -> None:
    for payload, most in ((None, 512), (600, 600), (512, 512), (65535, 1232)):
        got = bytes(respond(TABLE, ask(f"many.{SVC}", "A", payload)) or b"")
        message = dns.message.from_wire(got)
        fits = payload == 65535
        assert bool(message.flags & dns.flags.TC) is not fits and len(got) <= most
        assert len(message.answer[0]) == 50 if fits else 20 < len(message.answer[0]) < 50
    assert len(reply(f"many.{SVC}", "A")[1]) == 50


IXFR = dns.message.make_query("cluster.local", "IXFR", use_edns=False)
IXFR.authority.append(dns.rrset.from_text("cluster.local.", 5, "IN", "SOA", "ns. me. 1 2 3 4 5"))
REFUSED = {
    "UPDATE (CVE-2026-86003)": (b"\0\7\x28\0\0\1\0\0\0\0\0\0\0\0\6\0\1", 5),
    "NOTIFY": (b"\0\7\x20\0\0\1\0\0\0\0\0\0\0\0\6\0\1", 4),
    "CHAOS": (ask("version.bind", "TXT", rdclass="CH"), 5),
    "AXFR": (ask("cluster.local", "AXFR"), 5),
    "IXFR, with the SOA of who has an old zone": (IXFR.to_wire(), 5),
    "records in authority": (ask("cluster.local", "A", None)[:8] + b"\0\1" + ask("cluster.local", "A", None)[10:], 1),
    "two questions": (b"\0\7\0\0\0\2\0\0\0\0\0\0\0\0\1\0\1\0\0\1\0\1", 1),
    "a compressed question": (b"\0\7\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", 1),
    "a question cut short": (b"\0\7\0\0\0\1\0\0\0\0\0\0\3ww", 1),
    "a label of kind 1": (b"\0\7\0\0\0\1\0\0\0\0\0\0\x41a\0\0\1\0\1", 1),
    "type 0": (b"\0\7\0\0\0\1\0\0\0\0\0\0\0\0\0\0\1", 1),
}


@pytest.mark.parametrize("query, rcode", REFUSED.values(), ids=REFUSED)
def test_refused(query: bytes, rcode: int) -> None:
    got = bytes(respond(TABLE, query) or b"")
    assert got[:2] == query[:2] and got[2] & 0x80 and got[3] & 15 == rcode
    assert dns.message.from_wire(got, ignore_trailing=False).answer == []


@pytest.mark.parametrize("query", [b"", b"\0\7\0\0\0\1\0\0\0\0\0", b"\0\7\x80\0\0\1\0\0\0\0\0\0\0\0\1\0\1"])
def test_no_reply_at_all(query: bytes) -> None:
    """Replies to replies would go on for ever."""
    assert respond(TABLE, query) is None


def test_a_later_edns_version() -> None:
    query = dns.message.make_query("web", "A", use_edns=1).to_wire()
    assert dns.message.from_wire(bytes(respond(TABLE, query) or b"")).rcode() == 16  # BADVERS


def test_what_is_beside_a_range_that_ends_within_a_byte_is_asked_of_others() -> None:
    """10.96.0.0/12, as kubeadm has it, is sixteen reverse zones, and not all of 10.in-addr.arpa."""
    values = [service("web", clusterIP="10.100.0.5")]
    table = table_of(values, Options(reverse=((bytes([10, 96, 0, 0]), 12),)))
    for address, rcode in (("10.100.0.5", wire.NOERROR), ("10.111.9.9", wire.NXDOMAIN), ("10.100.0.6", wire.NXDOMAIN)):
        name = wire.reverse_name(bytes(map(int, address.split("."))))
        found = answer(table, name, wire.PTR)
        assert (found.rcode, found.forward, bool(found.answers)) == (rcode, None, rcode == wire.NOERROR)
    for beside in (bytes([10, 95, 0, 1]), bytes([10, 112, 0, 1])):
        assert answer(table, wire.reverse_name(beside), wire.PTR).forward == wire.reverse_name(beside)
    assert answer(table, wire.name_of("10.in-addr.arpa"), wire.SOA).forward


def test_more_reverse_zones_than_are_served() -> None:
    reverse = tuple((bytes([first, 0, 0, 0]), 9) for first in (10, 11))
    with pytest.raises(PyrunError, match="have 256 reverse zones, and 254 are served"):
        encode_table(table_of(CLUSTER, Options(reverse=reverse)), 1)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_do_bit_comes_back_and_nothing_else(wanted: bool) -> None:
    """RFC 3225 §3; of other bits and of options nothing is said (RFC 6891 §6.1.2, §6.1.4)."""
    options: list[dns.edns.Option] = [dns.edns.GenericOption(kind, bytes(8)) for kind in ("65001", "10")]
    query = dns.message.make_query(f"web.{SVC}", "A", use_edns=0, options=options, ednsflags=0x4001)
    query.want_dnssec(wanted)
    got = dns.message.from_wire(bytes(respond(TABLE, query.to_wire()) or b""))
    assert got.answer and (got.ednsflags, got.options) == (0x8000 if wanted else 0, ())


def test_an_endpoint_has_all_its_addresses() -> None:
    value = endpoint_slice("two", endpoint("10.3.0.1", "a"), endpoint("10.3.0.3"))
    value["endpoints"][0]["addresses"] += ["10.3.0.2", "nonsense", "fd00::1"]
    services, slices, _, faults = read([service("two", clusterIP="None"), value])
    table = plan_dns(services, slices)
    for name, wanted in (("a.two", ["10.3.0.1", "10.3.0.2"]), ("two", ["10.3.0.1", "10.3.0.2", "10.3.0.3"])):
        data = bytes(respond(table, ask(f"{name}.{SVC}", "A")) or b"")
        assert [line.split()[3] for line in shown(data)[1]] == wanted
    assert [str(fault.origin).split()[-1] for fault in faults] == [
        "/endpoints/0/addresses/2",
        "/endpoints/0/addresses/3",
    ]


def test_an_address_with_a_zone_is_none() -> None:
    six = endpoint_slice("six", endpoint("fd00::1"), endpoint("fd00::2%eth0"), kind="IPv6")
    services, slices, _, faults = read([service("six", clusterIP="None"), six])
    data = bytes(respond(plan_dns(services, slices), ask(f"six.{SVC}", "AAAA")) or b"")
    assert [line.split()[3] for line in shown(data)[1]] == ["fd00::1"]
    assert [fault.why for fault in faults] == ["'fd00::2%eth0' is no IP address"]


def test_order_of_objects_changes_nothing() -> None:
    services, slices, pods, _ = read(CLUSTER)
    assert plan_dns(reversed(services), reversed(slices), reversed(pods), OWN) == TABLE


def test_what_is_no_name_is_told_and_the_rest_served() -> None:
    values = [
        service("x" * 64, clusterIP="10.96.0.9"),
        service("ports", clusterIP="10.96.0.8", ports=[{"name": "n" * 63, "port": 1}]),
        service("hosts", clusterIP="None"),
        endpoint_slice("hosts", endpoint("10.1.1.1", "h" * 64), endpoint("10.1.1.2", "fine"), endpoint("10.01.1.3")),
        service("nowhere", type="ExternalName", externalName="a..b"),
        service("bad", clusterIP="10.96.0"),
    ]
    services, slices, pods, faults = read(values)
    table = plan_dns(services, slices, pods)
    told = " ".join(f"{fault.origin}: {fault.why}" for fault in (*faults, *table.refused))
    for origin in (
        f"{'x' * 64} /metadata/name",
        "ports /spec/ports/0",
        "hosts-ipv4 /endpoints/0",
        "hosts-ipv4 /endpoints/2/addresses/0",
        "nowhere /spec/externalName",
        "bad /spec/clusterIP",
    ):
        assert origin in told
    assert answer(table, wire.name_of(f"fine.hosts.{SVC}"), wire.A).answers
    assert answer(table, wire.name_of(f"ports.{SVC}"), wire.A).answers


def test_origins_name_object_and_pointer() -> None:
    found = answer(TABLE, wire.name_of(f"db.{SVC}"), wire.A)
    assert str(found.origins[0]) == "EndpointSlice default/db-ipv4 /endpoints/0"


def test_ttl_and_zone_are_options() -> None:
    table = table_of(CLUSTER, Options(zone="k8s.Example.ORG.", ttl=30))
    rcode, answers, _, _ = shown(bytes(respond(table, ask("web.default.svc.k8s.example.org", "A")) or b""))
    assert (rcode, answers) == ("NOERROR", ["web.default.svc.k8s.example.org. 30 A 10.96.0.5"])
