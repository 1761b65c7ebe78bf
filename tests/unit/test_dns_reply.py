"""What is taken of another server's reply: aliases, times, types and rcodes that few servers send."""

from __future__ import annotations

import random
import struct
from collections import Counter

import dns.message
import dns.rcode
import dns.rrset
import pytest

from pyrun.dns import reply, wire
from pyrun.dns.reply import belongs, make_query, read_reply

NAME = wire.name_of("www.example.test")


def test_a_long_chain_of_aliases_is_followed_by_one_look_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they come; a circle at its end is no end of ours."""
    names = [wire.name_of(f"n{number}") for number in range(3000)]
    chain = [wire.Record(a, wire.CNAME, 60, b) for a, b in zip(names, [*names[1:], names[-2]], strict=True)]
    end = wire.Record(names[-1], wire.A, 60, b"\xc0\0\2\1")
    shuffled = random.Random(1).sample([*chain, end], 3001)
    looks = Counter[bytes]()
    plain = reply._plain

    def looked(record: wire.Record) -> wire.Record:
        looks[record.name] += 1
        return plain(record)

    monkeypatch.setattr(reply, "_plain", looked)
    got = reply._chain(names[0], tuple(shuffled))
    assert set(got) == {*chain, end} and list(got[:2999]) == chain[:2999]
    assert looks.total() == 3001


@pytest.mark.parametrize(("ttl", "minimum"), [(300, 20), (20, 300)])
def test_a_denial_has_the_time_for_which_it_may_be_kept(ttl: int, minimum: int) -> None:
    """RFC 2308 §3: whoever asks us takes the SOA's TTL as it is, though its minimum may be longer."""
    soa = wire.soa_data(NAME, NAME, 1, minimum)
    data = wire.encode(wire.Message(1, 0x8183, (NAME, wire.A, 1), (), (wire.Record(NAME, wire.SOA, ttl, soa),)))
    said = read_reply(data, NAME)
    found = wire.decode(
        data[:2] + struct.pack("!5H", 0x8183, 1, *said.body.counts) + data[12 : 16 + len(NAME)] + said.body.data
    )
    assert (said.ttl, found.authority[0].ttl, found.authority[0].data) == (20, 20, soa)


def test_an_rcode_beyond_15_is_no_answer() -> None:
    """The header's half of BADVERS and BADCOOKIE is that of another rcode."""
    for rcode in (16, 23):
        theirs = dns.message.make_response(dns.message.make_query("www.example.test", "A", use_edns=0))
        theirs.set_rcode(dns.rcode.Rcode(rcode))
        assert read_reply(theirs.to_wire(), NAME).rcode == rcode


def test_records_of_other_classes_are_none() -> None:
    data = bytearray(wire.encode(wire.Message(1, 0x8180, (NAME, wire.A, 1), (wire.Record(NAME, wire.A, 9, b"1234"),))))
    assert read_reply(bytes(data), NAME).body.counts == (1, 0, 0)
    data[-11] = 3  # CH
    assert read_reply(bytes(data), NAME).body.counts == (0, 0, 0)


TYPES = [
    *("RP me.example.test. www.example.test.", "AFSDB 1 www.example.test.", "PX 5 a.example.test. b.example.test.")
]
TYPES += ("RT 2 www.example.test.", "DNAME other.example.test.", "NS WWW.example.test.", "SRV 1 2 3 www.example.test.")


@pytest.mark.parametrize("text", TYPES)
def test_names_in_data_come_whole_out_of_another_message(text: str) -> None:
    """A pointer would lead somewhere else in ours (RFC 3597 §4)."""
    kind, _, data = text.partition(" ")
    rrset = dns.rrset.from_text("www.example.test.", 9, "IN", kind, data)
    whole = rrset[0].to_wire()
    labels = wire.name_of("example.test")
    pointer = b"\xc0" + bytes((12 + 4,))  # to the question's example.test
    short = whole.replace(labels, pointer).replace(b"\3www" + pointer, b"\xc0\x0c")
    assert len(short) < len(whole)
    head = struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0) + NAME + struct.pack("!HH", rrset.rdtype, 1)
    theirs = head + b"\xc0\x0c" + struct.pack("!HHIH", rrset.rdtype, 1, 9, len(short)) + short
    said = read_reply(theirs, NAME)
    assert said.body.data.endswith(struct.pack("!H", len(whole)) + whole.lower()) and said.ttl == 9


def test_a_server_without_edns_is_known() -> None:
    """By the rcode and by there being no OPT record, be the question in its reply or not."""
    query = make_query(7, NAME, wire.A)
    question = query[12:-11]
    for rcode in (wire.FORMERR, wire.NOTIMP):
        head = query[:2] + struct.pack("!5H", 0x8180 | rcode, 1, 0, 0, 0)
        bare = query[:2] + struct.pack("!5H", 0x8180 | rcode, 0, 0, 0, 0)
        assert belongs(head + question, query) == belongs(bare, query) == "plain"
        assert belongs(head[:11] + b"\1" + question + query[-11:], query) == "match", "it knows EDNS"
        assert belongs(head + question, make_query(7, NAME, wire.A, edns=False)) == "match", "it was asked without"
        assert belongs(b"\0\x08" + bare[2:], query) == "other"
    assert belongs(query[:2] + struct.pack("!5H", 0x8185, 0, 0, 0, 0), query) == "other"
