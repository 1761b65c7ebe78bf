"""The service proxy beside haproxy and nginx, in both of its modes, and a connection without any: in shuffled rounds.

    python -m tests.bench.proxy [--rounds N] [--seconds S] [--only streams,connections,…]      (root; make bench-proxy)

A client and a server are in network namespaces of their own, with the proxies' between them, as pods and their node
are. `pyrun proxy run` has one Service that its data plane carries and one that the kernel does (by its annotation).
haproxy (tcp mode, `splice-auto` as people run it, and spliced through large pipes) and nginx (stream) have a thread
each, as the data plane has. What counts is CPU time of the proxy (schedstat of its threads) for a unit of work, and
ratios within a run: the machine is shared by client, server and proxy. "total" is client, server and proxy together;
what the kernel does for a packet is in the total alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.dns import cpu_s, pss_mb
from tests.support.daemon import until
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import running
from tests.support.proxy.topology import NODE4, Place, topology

CLIENT, PORT = "10.1.0.9", 8080
# The server has an address for each way on which it sees the client's own, as two of them may have one source port.
SERVER, BY_US, BY_KERNEL = SERVERS = "10.1.0.1", "10.1.0.2", "10.1.0.3"
IDLE = 4000
STREAM, CONNECTION, REQUEST, DATAGRAM, LATENCY = "stream", "connections", "requests", "datagrams", "latency"
WORDS = {STREAM: (), CONNECTION: ("32",), REQUEST: ("32",), DATAGRAM: ("4", "32"), LATENCY: ()}
TCP_ONLY = ("haproxy", "haproxy, large pipes")


class Way(NamedTuple):
    """A way to the server: an address and port, and the processes that carry (none: the kernel does)."""

    address: str
    port: int
    pids: tuple[int, ...]


class Load:
    """The program load.c, as server and as client."""

    def __init__(self, directory: Path, client: Place, server: Place) -> None:
        self.path = directory / "load"
        source = Path(__file__).with_name("load.c")
        subprocess.run(["cc", "-O2", "-o", self.path, source], check=True)
        self._client, self._server = client, server

    def command(self, place: Place, *words: str) -> list[str]:
        return ["nsenter", f"--net={place.path}", str(self.path), *words]

    @contextlib.contextmanager
    def serving(self) -> Iterator[list[int]]:
        made = [subprocess.Popen(self.command(self._server, "serve", address, str(PORT))) for address in SERVERS]
        try:
            yield [process.pid for process in made]
        finally:
            for process in made:
                process.terminate()
                process.wait()

    def ask(self, what: str, way: Way, *words: str) -> list[float]:
        command = self.command(self._client, what, way.address, str(way.port), *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{what} by {way}: {done.stderr}")
        return [float(word) for word in done.stdout.split()]

    @contextlib.contextmanager
    def idle(self, way: Way, count: int) -> Iterator[None]:
        command = self.command(self._client, "idle", way.address, str(way.port), "0", str(count))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.stdin.close()
            process.wait()


# --- the contenders ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[int]:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> None:
    def takes() -> bool:
        with socket.socket() as s:
            return s.connect_ex((NODE4, port)) == 0

    until(takes, f"nobody listens on {port}")


@contextlib.contextmanager
def haproxy(directory: Path, port: int, more: str, tune: str = "") -> Iterator[Way]:
    path = directory / f"haproxy{port}"
    path.write_text(
        f"global\n nbthread 1\n maxconn 6000\n{tune}defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n"
        f" timeout server 1h\n{more}listen a\n bind {NODE4}:{port}\n server a {SERVER}:{PORT}\n"
    )
    with started(["haproxy", "-db", "-f", str(path)]) as pid:
        listens(port)
        yield Way(NODE4, port, (pid,))


@contextlib.contextmanager
def nginx(directory: Path, port: int) -> Iterator[Way]:
    prefix = directory / "nginx"
    prefix.mkdir()
    path = prefix / "conf"
    server = f"proxy_pass {SERVER}:{PORT}; proxy_timeout 1h; proxy_buffer_size 64k;"
    path.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\ndaemon off;\nworker_processes 1;\n"
        f"pid {prefix}/pid;\nerror_log /dev/null;\nworker_rlimit_nofile 20000;\n"
        f"events {{ worker_connections 19000; }}\n"
        f"stream {{\nserver {{ listen {NODE4}:{port}; {server} proxy_half_close on; }}\n"
        f"server {{ listen {NODE4}:{port} udp; {server} }}\n}}\n"
    )
    with started(["nginx", "-p", str(prefix), "-c", str(path)]) as pid:

        def workers() -> list[int]:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

        listens(port)
        until(workers, "nginx has no worker")
        yield Way(NODE4, port, (pid, *workers()))


@contextlib.contextmanager
def pyrun(directory: Path) -> Iterator[dict[str, Way]]:
    ports = "{name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}"
    targets = f"{{name: tcp, port: {PORT}}}, {{name: udp, port: {PORT}, protocol: UDP}}"
    mark = "metadata: {annotations: {pyrun.io/proxy-mode: nftables}, "
    text = service("ours", "10.96.0.10", ports=ports) + slice_of("ours", BY_US, ports=targets)
    text += service("kernel", "10.96.0.11", ports=ports).replace("metadata: {", mark)
    text += slice_of("kernel", BY_KERNEL, ports=targets)
    with running(directory / "pyrun", "userspace", text) as proxy:
        yield {
            "pyrun": Way("10.96.0.10", 80, (proxy.plane_pid(),)),
            "pyrun, in the kernel": Way("10.96.0.11", 80, ()),
        }


@contextlib.contextmanager
def ways(directory: Path) -> Iterator[dict[str, Way]]:
    with contextlib.ExitStack() as stack:
        found = {"direct": Way(SERVER, PORT, ())}
        found |= stack.enter_context(pyrun(directory))
        if shutil.which("haproxy"):
            splice = " option splice-auto\n"
            found["haproxy"] = stack.enter_context(haproxy(directory, 8001, splice))
            splice = " option splice-request\n option splice-response\n"
            tune = " tune.pipesize 524288\n"
            found["haproxy, large pipes"] = stack.enter_context(haproxy(directory, 8002, splice, tune))
        if shutil.which("nginx"):
            found["nginx"] = stack.enter_context(nginx(directory, 8003))
        yield found


# --- the work ---------------------------------------------------------------------------------------------------------


class Used(NamedTuple):
    """rate: units a second. own, total: CPU seconds a unit, of the proxy and of all."""

    rate: float
    own: float
    total: float


def measure(load: Load, servers: list[int], what: str, way: Way, seconds: float) -> Used:
    def spent() -> tuple[float, float]:
        own = sum(cpu_s(pid) for pid in way.pids)
        times = os.times()
        return own, own + sum(map(cpu_s, servers)) + times.children_user + times.children_system

    before, begun = spent(), time.perf_counter()
    rate = load.ask(what, way, str(seconds), *WORDS[what])[0]
    after = spent()
    units = rate * min(time.perf_counter() - begun, seconds)
    return Used(rate, (after[0] - before[0]) / units, (after[1] - before[1]) / units)


def table(title: str, heads: list[str], rows: dict[str, list[str]]) -> None:
    print(f"\n{title:24}" + "".join(f"{head:>20}" for head in heads))
    for name, cells in rows.items():
        print(f"{name:24}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def ratio(some: list[float], to: list[float]) -> str:
    """The median of the ratios within a round."""
    return (
        f"({statistics.median(a / b for a, b in zip(some, to, strict=True)):.2f})" if all(some) and all(to) else "(–)"
    )


def work(found: dict[str, Way], load: Load, servers: list[int], what: str, rounds: int, seconds: float) -> None:
    able = [name for name in found if what != DATAGRAM or name not in TCP_ONLY]
    used: dict[str, list[Used]] = {name: [] for name in able}
    for _ in range(rounds):
        for name in random.sample(able, len(able)):
            used[name].append(measure(load, servers, what, found[name], seconds))
    peer = "nginx" if what == DATAGRAM else "haproxy"
    medians = {name: Used(*map(statistics.median, zip(*rows, strict=True))) for name, rows in used.items()}
    base = used.get(peer, used["direct"])
    scale, unit, per = (8e-9, "Gbit/s", 1e9) if what == STREAM else (1.0, "a second", 1e6)
    each = "s a GB" if what == STREAM else "µs each"
    rows = {}
    for name, one in medians.items():
        ratios = [ratio([found[at] for found in used[name]], [found[at] for found in base]) for at in range(3)]
        cells = (f"{one.rate * scale:,.1f}", f"{one.own * per:.3g}", f"{one.total * per:.3g}")
        rows[name] = [f"{cell} {more}" for cell, more in zip(cells, ratios, strict=True)]
    table(f"{what} (to {peer})", [unit, f"proxy, {each}", f"total, {each}"], rows)


def latencies(found: dict[str, Way], load: Load, rounds: int, seconds: float) -> None:
    rows: dict[str, list[list[float]]] = {name: [] for name in found}
    for _ in range(rounds):
        for name in random.sample(list(found), len(found)):
            rows[name].append(load.ask(LATENCY, found[name], str(seconds / 2)))
    heads = ["request p50", "p99", "connection p50", "p99"]
    medians = {
        name: [f"{statistics.median(column):.0f}" for column in zip(*some, strict=True)] for name, some in rows.items()
    }
    table("latency, µs", heads, medians)


def memory(found: dict[str, Way], load: Load) -> None:
    rows = {}
    for name, way in found.items():
        if not way.pids:
            continue
        before = sum(map(pss_mb, way.pids))
        with load.idle(way, IDLE):
            after = sum(map(pss_mb, way.pids))
        rows[name] = [f"{before:.1f}", f"{after:.1f}", f"{(after - before) * 10_000 / IDLE:.2f}"]
    table("memory, MB PSS", ["at rest", f"{IDLE} connections", "10,000 more"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--only", default=",".join([*WORDS, "memory"]))
    args = parser.parse_args()
    only = args.only.split(",")
    with tempfile.TemporaryDirectory() as made, topology() as net:
        directory = Path(made)
        client, server = net.host(CLIENT, "fd01::9"), net.host(SERVER, "fd01::1")
        for place in (client, net.node):
            place.run("sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
            place.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 60999")
        net.also(server, (BY_US, BY_KERNEL))
        load = Load(directory, client, server)
        with load.serving() as pids, ways(directory) as found:
            print(
                f"{os.cpu_count()} cores; {args.rounds} rounds of {args.seconds:g} s; medians, and ratios in brackets"
            )
            for what in (STREAM, CONNECTION, REQUEST, DATAGRAM):
                if what in only:
                    work(found, load, pids, what, args.rounds, args.seconds)
            if LATENCY in only:
                latencies(found, load, args.rounds, args.seconds)
            if "memory" in only:
                memory(found, load)
            print(f"\nload of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
