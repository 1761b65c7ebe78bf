"""Seeds for fuzz-dns: a table, queries, and messages of the control socket. Run as `dns_seeds.py DIRECTORY`, which gets
`table` beside it for PYRUN_FUZZ_TABLE."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pyrun.dns import wire  # noqa: E402
from pyrun.dns.answer import Answer  # noqa: E402
from pyrun.dns.encode import encode_table  # noqa: E402
from pyrun.dns.objects import Endpoint, Pod, Port, Service, Slice  # noqa: E402
from pyrun.dns.plan import Options, plan_dns  # noqa: E402
from pyrun.dns.respond import sections  # noqa: E402
from pyrun.dns.responder import ANSWER, ANSWER_HEAD, CONFIG, LOOK  # noqa: E402

QUERY, TABLE, CONTROL = 0, 1, 2


def table() -> bytes:
    http = (Port("http", "tcp", 80),)
    services = [
        Service("default", "web", (bytes([10, 96, 0, 5]), bytes(15) + b"\5"), ports=http),
        Service("default", "db", headless=True, ports=http),
        Service("default", "ext", external="www.example.test"),
        Service("default", "alias", external="web.default.svc.cluster.local"),
    ]
    endpoints = tuple(Endpoint(bytes([10, 1, 0, number]), f"db-{number}", True) for number in range(1, 60))
    client = Pod("default", "client", (bytes(16),), ())  # the fuzzer's own address
    options = Options(autopath=True, searches=("corp.test",))
    return encode_table(plan_dns(services, [Slice("default", "db", endpoints, http)], [client], options), 1)


def queries() -> list[bytes]:
    names: tuple[str, ...] = (
        "web.default.svc.cluster.local",
        "db.default.svc.cluster.local",
        "alias.default.svc.cluster.local",
    )
    names += tuple(f"{name}.default.svc.cluster.local" for name in ("web.default", "www.example.test", "db", *names))
    more = ("ext.default.svc.cluster.local", "nope.cluster.local", "www.example.test", "5.0.96.10.in-addr.arpa")
    return [
        wire.encode(wire.Message(7, 0x0110, (wire.name_of(name), kind, wire.IN), payload=payload))
        for name in (*names, *more)
        for kind in (wire.A, wire.SRV, wire.PTR, wire.ANY)
        for payload in (None, 1232)
    ]


def control() -> list[bytes]:
    name = wire.name_of("www.example.test")
    body = sections(name, Answer(0, (wire.Record(name, wire.A, 60, b"\xc0\0\2\1"),)))
    head = ANSWER_HEAD.pack(ANSWER, 0, 1, 60, 60, wire.A, 0, *body.counts, body.ends[0], 0, 0, 0, len(name))
    config = struct.pack("<6I", CONFIG, 0, 5, 1, 1 << 20, 0) + bytes(10) + b"\xff\xff\x0a\0\0\0" + b"\x68\0"
    look = struct.pack("<II", LOOK, 0) + bytes(16) + queries()[0]
    return [head + name + body.data, config, look, *(struct.pack("<II", operation, 0) for operation in (5, 6, 7, 8))]


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory.parent / "dns-table").write_bytes(table())
    seeds = [bytes([QUERY, 0, 0, 0]) + query for query in queries()]
    seeds.append(bytes([TABLE, 0, 0, 0]) + table())
    seeds += [bytes([CONTROL, 1]) + len(message).to_bytes(2, "big") + message + queries()[-4] for message in control()]
    for number, seed in enumerate(seeds):
        (directory / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
