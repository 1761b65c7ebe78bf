"""Floods: what one asker, or many who are none, can make pyrun-dns keep, ask and send; the others are served on."""

from __future__ import annotations

import random
import re
import select
import socket
import struct
import time
from pathlib import Path

from pyrun.dns import wire
from pyrun.dns.answer import Answer
from pyrun.dns.encode import encode_table
from pyrun.dns.respond import sections
from pyrun.dns.responder import Question
from tests.support.dns import CLUSTER, ask, shown, table_of
from tests.support.dns_program import PATIENCE_S, Running, running

TABLE = encode_table(table_of(CLUSTER), 1)
NAME = "web.default.svc.cluster.local"
MIB = 1 << 20


def resident(server: Running) -> int:
    """Bytes of memory that the program has."""
    return int(Path(f"/proc/{server.responder.pid}/statm").read_text().split()[1]) * 4096


def catch_up(server: Running) -> None:
    """Waits until it has read what came: on a busy machine its queue would lose most of a flood."""
    row = re.compile(rf"^ *\d+: 0100007F:{server.port:04X} 00000000:0000 \w+ \w+:0{{8}} ", re.MULTILINE)
    deadline = time.monotonic() + PATIENCE_S
    while not row.search(Path("/proc/thread-self/net/udp").read_text()):
        assert time.monotonic() < deadline, "it reads nothing"
        time.sleep(0.0005)


def answered(server: Running, source: str = "127.0.0.9") -> bool:
    """Whether somebody else is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.connect((server.address, server.port))
        for _ in range(20):  # a full queue loses datagrams, and who asks asks again
            client.send(ask(NAME, "A"))
            if select.select([client], [], [], 1)[0]:
                return shown(client.recv(2000))[1] == [f"{NAME}. 5 A 10.96.0.5"]
    return False


def test_a_cache_has_its_bound() -> None:
    """CoreDNS runs out of memory (#3388, #2095): 5,000 answers of 700 bytes are 3.5 MB, and a mebibyte is kept."""
    with running(forwards=True) as server:
        server.responder.put_table(TABLE)
        before = resident(server)
        for number in range(5_000):
            name = wire.name_of(f"n{number}.example.test")
            body = sections(name, Answer(0, (wire.Record(name, wire.TXT, 3600, wire.txt_data(b"x" * 650)),)))
            server.responder.connection.setblocking(True)
            question = Question(name, wire.TXT, False, False, bytes(16))
            head = (0, body, 3600, 86400)
            server.responder.answer(question, *head, generation=1, failed=False)
            if number % 50 == 49:
                status = server.responder.status()  # it has read all that came before
                assert status["cache_bytes"] <= MIB
        assert 1000 < status["cache_entries"] < 1600
        assert resident(server) - before < 2 * MIB
        kept = shown(server.udp(ask("n4999.example.test", "TXT")))
        assert kept[0] == "NOERROR" and len(kept[1]) == 1, "the newest are"


def test_one_who_asks_for_what_nobody_answers() -> None:
    """20,000 names of other servers, which are silent: 512 of them are asked, and others have their own."""
    with running(forwards=True) as server:
        server.responder.put_table(TABLE)
        before = resident(server)
        query = ask("n00000.example.test", "A")
        with server.client() as client:
            for number in range(20_000):
                client.send(query[:14] + b"%05d" % number + query[19:])
                if number % 100 == 99:
                    catch_up(server)
                    assert len(server.responder.ask()) <= 512
                    while select.select([client], [], [], 0)[0]:
                        client.recv(2000)
        status = server.responder.status()
        assert status["waiting"] <= 512 and status["queries"] > 10_000, status
        assert resident(server) - before < 8 * MIB
        assert answered(server)
        server.responder.ask()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.8", 0))
            other.sendto(ask("other.example.test", "A"), (server.address, server.port))
            asked: list[Question] = []
            while not asked and select.select([server.responder], [], [], PATIENCE_S)[0]:
                asked = [one for one in server.responder.ask() if one.source.endswith(bytes([127, 0, 0, 8]))]
            assert [one.name for one in asked] == [wire.name_of("other.example.test")]


def test_sources_that_are_forged() -> None:
    """15,000 of them, each its own: what is known of sources has a fixed size, and an honest one is answered."""
    chance = random.Random(7)
    with running(rate=1000, forwards=True) as server:
        server.responder.put_table(TABLE)
        assert answered(server)
        before = resident(server)
        query = ask(NAME, "A")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("0.0.0.0", 0))
            for number in range(15_000):
                source = struct.pack(
                    "=I4s4s", 0, (0x7F000000 | chance.randrange(1 << 16, 1 << 24)).to_bytes(4, "big"), b""
                )
                level = (socket.IPPROTO_IP, 8, source)  # IP_PKTINFO
                client.sendmsg([query], [level], 0, (server.address, server.port))
                if number % 100 == 99:
                    catch_up(server)
                if number % 5_000 == 4_999:
                    assert answered(server), number
        assert server.responder.status()["queries"] > 7_000
        assert resident(server) - before < MIB
        assert answered(server)


def test_a_question_is_not_made_larger_without_end() -> None:
    """Amplification: fifty addresses for a question of 57 bytes. Beyond the rate what is sent is no more than came."""
    rate = 50
    with running(rate=rate) as server:
        server.responder.put_table(TABLE)
        query = ask("many.default.svc.cluster.local", "A")
        received = whole = count = 0
        with server.client() as client:
            for number in range(4_000):
                client.send(query)
                if number % 100 < 99:
                    continue
                catch_up(server)
                while select.select([client], [], [], 0.01)[0]:
                    reply = client.recv(2000)
                    count += 1
                    received += len(reply)
                    whole += not reply[2] & 2
                    assert len(reply) <= (len(query) if reply[2] & 2 else 1232)
        status = server.responder.status()
        assert status["dropped_rate"] > 500, status
        assert count > 500 and (count - whole) <= status["queries"] / 2 + 1
        assert received <= whole * 1232 + status["queries"] / 2 * len(query) + len(query)
        assert len(server.tcp(query)) > 800, "who is there gets all of it by TCP"
