"""pyrun-dns against unbound, dnsmasq and, where it has been built, CoreDNS: 10,000 names each, in shuffled rounds.

Run as root: `python -m tests.bench.dns [--rounds N] [--seconds S]`. dnsperf asks: 70 % A, 15 % AAAA of names that have
none, 15 % names that are not there. What counts is CPU time of the server (schedstat of all its threads) for a query,
and p50 and p99 of answers at 4,000 questions a second, alone and beside a TCP stream over loopback. These are asked at
times that are set beforehand, and what counts is from then to when the kernel had the answer, however late it was sent:
how late is told too, as so much of a figure is the asker's and not the server's. Servers take turns in short slices,
and what is compared are slices of the same round. CoreDNS is taken at .cache/coredns, made once by `go build` of its
module with the plugins bind, file, cache and forward.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrun.dns.encode import encode_table
from pyrun.dns.objects import Service
from pyrun.dns.plan import plan_dns
from tests.support.dns import ask
from tests.support.dns_program import running
from tests.support.dns_upstream import free_port

NAMES = 10_000
ZONE = "svc.cluster.local"
COREDNS = Path(__file__).resolve().parents[2] / ".cache" / "coredns"
OPEN_LOOP = 4000
TIMESTAMPS = 35  # SO_TIMESTAMPNS
Server = Callable[[Path], contextlib.AbstractContextManager[tuple[int, int]]]


def address(number: int) -> str:
    return f"10.96.{number >> 8}.{number & 255}"


def questions(path: Path) -> None:
    chance = random.Random(1)
    lines = []
    for _ in range(100_000):
        number, kind = chance.randrange(NAMES), chance.random()
        name = f"n{number}.default.{ZONE}" if kind < 0.85 else f"no{number}.default.{ZONE}"
        lines.append(f"{name} {'A' if kind < 0.7 or kind >= 0.85 else 'AAAA'}\n")
    path.write_text("".join(lines))


@contextlib.contextmanager
def pyrun_dns(directory: Path) -> Iterator[tuple[int, int]]:
    services = [Service("default", f"n{i}", (socket.inet_aton(address(i)),)) for i in range(NAMES)]
    with running() as server:
        server.responder.put_table(encode_table(plan_dns(services, []), 1))
        yield server.responder.pid, server.port


@contextlib.contextmanager
def program(words: list[str], port: int) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", port))
            while True:
                assert process.poll() is None and time.monotonic() < deadline, f"{words[0]} does not answer"
                with contextlib.suppress(OSError):
                    client.send(ask(f"n1.default.{ZONE}", "A"))
                    if client.recv(2000)[7] == 1:
                        break
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def unbound(directory: Path) -> Iterator[tuple[int, int]]:
    port, path = free_port(), directory / "unbound.conf"
    text = f'server:\n username: ""\n chroot: ""\n directory: "{directory}"\n pidfile: ""\n do-daemonize: no\n'
    text += f' interface: 127.0.0.1\n port: {port}\n use-syslog: no\n num-threads: 1\n module-config: "iterator"\n'
    text += f' local-zone: "{ZONE}." static\n'
    text += "".join(f' local-data: "n{i}.default.{ZONE}. 5 A {address(i)}"\n' for i in range(NAMES))
    path.write_text(text)
    with program(["unbound", "-c", str(path)], port) as made:
        yield made


@contextlib.contextmanager
def dnsmasq(directory: Path) -> Iterator[tuple[int, int]]:
    port, path = free_port(), directory / "hosts"
    path.write_text("".join(f"{address(i)} n{i}.default.{ZONE}\n" for i in range(NAMES)))
    words = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", f"--addn-hosts={path}", "--user=root"]
    words += ["--bind-interfaces", "--listen-address=127.0.0.1", f"--port={port}", f"--local=/{ZONE}/", "--pid-file="]
    with program([*words, "--conf-file=/dev/null", "--cache-size=20000"], port) as made:
        yield made


@contextlib.contextmanager
def coredns(directory: Path) -> Iterator[tuple[int, int]]:
    port = free_port()
    zone = f"$ORIGIN {ZONE}.\n@ 5 IN SOA ns.{ZONE}. me.{ZONE}. 1 7200 1800 86400 5\n@ 5 IN NS ns.{ZONE}.\n"
    zone += "".join(f"n{i}.default 5 IN A {address(i)}\n" for i in range(NAMES))
    (directory / "zone").write_text(zone)
    path = directory / "Corefile"
    path.write_text(f"{ZONE}:{port} {{\n bind 127.0.0.1\n file {directory}/zone\n cache 30\n}}\n")
    with program([str(COREDNS), "-conf", str(path)], port) as made:
        yield made


def cpu_s(pid: int) -> float:
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def pss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def dnsperf(port: int, queries: Path, seconds: float, *more: str) -> str:
    words = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-l", str(seconds), *more]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def figure(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def latency_us(port: int, queries: list[bytes], seconds: float) -> tuple[float, float, float]:
    """p50 and p99 of answers to OPEN_LOOP questions a second, each from when it was due; what is lost counts as a
    second. And the p99 of how late a question was sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        client.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: all of them wait here until they are read
        client.connect(("127.0.0.1", port))
        count = min(int(OPEN_LOOP * seconds), len(queries))
        began = time.time_ns() + 1_000_000
        due = [began + number * 10**9 // OPEN_LOOP for number in range(count)]
        late = list[float]()
        for at, query in zip(due, queries, strict=False):
            while (early := at - time.time_ns()) > 0:
                time.sleep(early / 1e9)
            client.send(query)
            late.append((time.time_ns() - at) / 1000)
        got = list[float]()
        client.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while len(got) < count:
                data, [(_, _, stamp)], _, _ = client.recvmsg(2000, 64)
                second, ns = struct.unpack("=qq", stamp)
                got.append((second * 10**9 + ns - due[int.from_bytes(data[:2], "big")]) / 1000)
    got += [1e6] * (count - len(got))
    cuts = statistics.quantiles(got, n=100, method="inclusive")
    return cuts[49], cuts[98], statistics.quantiles(late, n=100, method="inclusive")[98]


STREAM = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
if os.fork():
    sender = socket.create_connection(listener.getsockname())
    while True:
        sender.sendall(bytes(1 << 20))
receiver = listener.accept()[0]
while receiver.recv(1 << 20):
    pass
"""


@contextlib.contextmanager
def bulk() -> Iterator[None]:
    """A TCP stream over loopback meanwhile, as fast as two processes carry it."""
    with subprocess.Popen([sys.executable, "-c", STREAM], start_new_session=True) as stream:
        time.sleep(0.5)
        try:
            yield
        finally:
            os.killpg(stream.pid, signal.SIGKILL)


Row = dict[str, float]
TITLES = ("queries/CPU s", "queries/s", "p50 µs", "p99 µs", "late p99", "p50 bulk", "p99 bulk", "late bulk", "PSS MB")


def a_round(up: dict[str, tuple[int, int]], queries: Path, asked: list[bytes], seconds: float) -> dict[str, Row]:
    """What each server did, by its name. Each takes its turn at one thing before any does the next."""
    rows: dict[str, Row] = {name: {} for name in up}

    def turns() -> Iterator[tuple[Row, int, int]]:
        for name in random.sample(list(up), len(up)):
            yield rows[name], *up[name]

    for row, pid, port in turns():
        before = cpu_s(pid)
        said = dnsperf(port, queries, seconds, "-c", "8", "-q", "100")
        row["queries/CPU s"] = figure(said, r"Queries completed:\s+(\d+)") / (cpu_s(pid) - before)
        row["queries/s"] = figure(said, r"Queries per second:\s+([\d.]+)")
        row["PSS MB"] = pss_mb(pid)
    for row, _, port in turns():
        row["p50 µs"], row["p99 µs"], row["late p99"] = latency_us(port, asked, seconds)
    with bulk():
        for row, _, port in turns():
            row["p50 bulk"], row["p99 bulk"], row["late bulk"] = latency_us(port, asked, seconds)
    return rows


def show(rounds: list[dict[str, Row]]) -> None:
    """Medians, and of what the others did the ratio to the first one's in the same round: median, least and most."""
    first, *others = rounds[0]
    print(f"{'':12}" + "".join([f"{title:>15}" for title in TITLES]))
    for name in rounds[0]:
        middle = [statistics.median(one[name][title] for one in rounds) for title in TITLES]
        print(f"{name:12}" + "".join([f"{value:15,.1f}" if value < 100 else f"{value:15,.0f}" for value in middle]))
    print(f"\n{first}'s part of another's in the same round: median (least to most)")
    for name in others:
        print(f"  {name}")
        for title in TITLES:
            ratios = sorted(one[first][title] / one[name][title] for one in rounds)
            print(f"    {title:15}{statistics.median(ratios):8.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1)
    args = parser.parse_args()
    servers: dict[str, Server] = {"pyrun-dns": pyrun_dns}
    servers |= {name: made for name, made in (("unbound", unbound), ("dnsmasq", dnsmasq)) if shutil.which(name)}
    if COREDNS.is_file():
        servers["CoreDNS"] = coredns
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        directory = Path(made)
        questions(directory / "queries")
        asked = [ask(f"n{i % NAMES}.default.{ZONE}", "A", id=i) for i in range(20_000)]
        up = {name: stack.enter_context(server(directory)) for name, server in servers.items()}
        with contextlib.suppress(PermissionError):  # the asker alone, and none of its children
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        show([a_round(up, directory / "queries", asked, args.seconds) for _ in range(args.rounds)])


if __name__ == "__main__":
    main()
