"""DNS messages both ways, with dnspython as the oracle, and bytes that are none."""

from __future__ import annotations

import ipaddress

import dns.message
import dns.name
import dns.reversename
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.dns import wire

LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=8)


@given(LABELS)
def test_names_are_dnspythons(labels: list[bytes]) -> None:
    theirs = dns.name.Name([*labels, b""])
    name = wire.join(labels)
    assert name == theirs.to_wire()
    assert wire.text_of(name) == theirs.to_text()
    assert wire.name_of(theirs.to_text()) == name
    assert wire.labels_of(name) == labels


@pytest.mark.parametrize("text", ["a..b", "." * 3, "a" * 64, ".".join(["a" * 60] * 5), r"\256"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(wire.WireError):
        wire.name_of(text)


@pytest.mark.parametrize("text", ["10.1.2.3", "255.0.0.1", "fd00::1", "2001:db8:1:2:3:4:5:6"])
def test_reverse_names(text: str) -> None:
    theirs = dns.reversename.from_address(text)
    address = dns.reversename.to_address(theirs)

    assert wire.text_of(wire.reverse_name(ipaddress.ip_address(address).packed)) == theirs.to_text()


def test_reverse_zones() -> None:
    ten = bytes([10, 96, 0, 0])
    assert wire.text_of(wire.reverse_zone(ten, 16)) == "96.10.in-addr.arpa."
    assert wire.text_of(wire.reverse_zone(ten, 12)) == "10.in-addr.arpa."
    assert wire.text_of(wire.reverse_zone(bytes.fromhex("fd00") + bytes(14), 112)).count(".") == 30


@pytest.mark.parametrize(
    ("prefix", "number"),
    [("10.96.0.0/12", 16), ("10.96.0.0/16", 1), ("10.0.0.0/9", 128), ("10.96.1.64/26", 64), ("10.96.1.7/32", 1)]
    + [("fd00:96::/108", 1), ("fd00:96::/110", 4), ("fd00::/9", 8), ("0.0.0.0/0", 1)],
)
def test_reverse_zones_of_a_prefix_and_nothing_beside_it(prefix: str, number: int) -> None:
    network = ipaddress.ip_network(prefix)
    zones = wire.reverse_zones(network.network_address.packed, network.prefixlen)
    assert len(set(zones)) == len(zones) == number

    def is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(wire.is_below(wire.reverse_name(address.packed), zone) for zone in zones)

    assert is_in(network[0]) and is_in(network[-1]) and is_in(network[network.num_addresses // 2])
    if network.prefixlen:
        assert not is_in(network[0] - 1) and not is_in(network[-1] + 1)


ANSWER = """id 4711
opcode QUERY
rcode NXDOMAIN
flags QR AA RD RA
;QUESTION
www.Example.com. IN A
;ANSWER
www.Example.com. 60 IN CNAME a.b.example.com.
a.b.example.com. 30 IN A 192.0.2.1
a.b.example.com. 30 IN A 192.0.2.2
;AUTHORITY
example.com. 300 IN SOA ns.example.com. me.example.com. 1 2 3 4 5
;ADDITIONAL
_x._tcp.example.com. 9 IN SRV 1 2 3 t.example.com.
example.com. 9 IN MX 10 mx.example.com.
example.com. 9 IN TXT "one" "two"
"""


def test_a_message_of_dnspython_both_ways() -> None:
    theirs = dns.message.from_text(ANSWER)
    theirs.use_edns(0, payload=1400)
    got = wire.decode(theirs.to_wire())
    assert (got.id, got.rcode, got.payload) == (4711, wire.NXDOMAIN, 1400)
    assert got.flags & 0xFFF0 == wire.QR | wire.AA | wire.RD | wire.RA
    assert got.question == (wire.name_of("www.Example.com"), wire.A, wire.IN)
    assert got.answers[0].data.lower() == wire.name_of("a.b.example.com")
    again = dns.message.from_wire(wire.encode(got))
    assert again == theirs and again.rcode() == theirs.rcode()
    assert len(wire.encode(got)) < len(ANSWER)


BROKEN = {
    "empty": b"",
    "a pointer to itself": b"\0\1\x80\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
    "a pointer forward": b"\0\1\x80\0\0\1\0\0\0\0\0\0\xc0\x10\0\1\0\1\0",
    "two pointers in a circle": b"\0\1\x80\0\0\1\0\1\0\0\0\0\1a\xc0\x0c\0\1\0\1",
    "a record that ends early": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\1\0\1\0\0\0\0\0\4\1\2",
    "more records than there are": b"\0\1\x80\0\0\0\xff\xff\0\0\0\0",
    "an address that is too short": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\1\0\1\0\0\0\0\0\3\1\2\3",
    "an address that is too long": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\x1c\0\1\0\0\0\0\0\x11" + b"\1" * 17,
    "an SOA without its numbers": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\6\0\1\0\0\0\0\0\2\0\0",
    "something behind a name": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\5\0\1\0\0\0\0\0\2\0\1",
    "a name in data that leaves it": b"\0\1\x80\0\0\0\0\1\0\0\0\0\0\0\5\0\1\0\0\0\0\0\1\1a\0",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        wire.encode(wire.decode(data))
    except wire.WireError:
        pass


def test_data_of_other_classes_are_their_own_matter() -> None:
    """An A record of Chaosnet has a name and 16 bits, which is nothing broken."""
    name = wire.name_of("ch.test")

    def record(kind: int, cls: int, data: bytes) -> bytes:
        return name + kind.to_bytes(2, "big") + cls.to_bytes(2, "big") + bytes(4) + len(data).to_bytes(2, "big") + data

    head = bytes.fromhex("0001 8180 0000 0003 0000 0000")
    body = record(wire.A, 3, name + b"\0\7") + record(wire.MX, 254, b"") + record(wire.A, wire.IN, b"\1\2\3\4")
    assert [one.data for one in wire.decode(head + body).answers] == [b"\1\2\3\4"]
    with pytest.raises(wire.WireError, match="are no data of a record of type A"):
        wire.decode(head + record(wire.A, wire.IN, b"\1\2\3") * 3)
