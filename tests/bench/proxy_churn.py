"""The service proxy while its endpoints never stand still: what of memory, descriptors and flows is left behind.

    python -m tests.bench.proxy_churn [--seconds N] [--services N] [--mode MODE]      (root; make churn-proxy)

Several times a second Services come and go, and get other endpoints, policies and affinities, while clients connect and
send datagrams without a pause. The Service that they ask always has endpoints that answer, so no connection may fail.
It ends with 1 where one did, or where daemon or data plane have more memory, descriptors or flows in the last third of
the time than in the second, beyond what noise explains; the first third is for warming up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.dns import cpu_s, pss_mb
from tests.support.daemon import until
from tests.support.proxy.answers import Answer, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import Proxy, running
from tests.support.proxy.topology import Place, topology
from tests.support.proxy.world import PODS, VIP, Load, World

ROWS = 30
PAUSE_S = 0.2  # between two changes
LEAST_S = 600  # a flow lives for three minutes, so that as many end as begin only then


class Row(NamedTuple):
    """flows: of datagrams that the data plane has, or what the kernel tracks."""

    daemon_mb: float
    plane_mb: float
    daemon_fds: float
    plane_fds: float
    flows: float


NOISE = Row(2.0, 1.0, 16, 512, 512)  # and a tenth


class Datagrams:
    """A client whose sockets live for one question each, so that flows come and go. Lost ones are counted: an endpoint
    may go while a question is under way."""

    def __init__(self, client: Place) -> None:
        self._client = client
        self._ended = threading.Event()
        self.good = self.lost = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            if isinstance(ask(self._client, VIP, 53, udp=True, silent=True), Answer):
                self.good += 1
            else:
                self.lost += 1

    def end(self) -> None:
        self._ended.set()
        self._thread.join(60)


def objects(chance: random.Random, count: int) -> str:
    """The Service that is asked, and others that nobody asks."""
    both = "{name: tcp, port: 80}, {name: dns, port: 53, protocol: UDP}"
    targets = "{name: tcp, port: 8080}, {name: dns, port: 8080, protocol: UDP}"
    some = chance.sample([pod for pod, _ in PODS], chance.randint(1, len(PODS)))
    kept = chance.choice(["", "sessionAffinity: ClientIP"])
    text = service("web", VIP, kept, ports=both) + slice_of("web", *some, ports=targets)
    for number in chance.sample(range(count), chance.randint(count // 2, count)):
        name, address = f"s{number}", f"10.96.{1 + number // 250}.{1 + number % 250}"
        more = chance.choice(["", "sessionAffinity: ClientIP", "internalTrafficPolicy: Local", "type: NodePort"])
        port = f", nodePort: {30000 + number}" if more == "type: NodePort" else ""
        protocol = chance.choice(["TCP", "UDP"])
        text += service(name, address, more, ports=f"{{name: a, port: 80, protocol: {protocol}{port}}}")
        ends = [f"10.1.{chance.randint(1, 9)}.{at}" for at in range(1, chance.randint(1, 9))]
        text += slice_of(name, *ends, ports=f"{{name: a, port: 8080, protocol: {protocol}}}")
    return text


def seen(proxy: Proxy, plane: int) -> Row:
    assert proxy.process is not None
    pid = proxy.process.pid
    mine, its = (len(os.listdir(f"/proc/{one}/fd")) if one else 0 for one in (pid, plane))
    return Row(pss_mb(pid), pss_mb(plane) if plane else 0.0, mine, its, _flows(proxy, plane))


def _flows(proxy: Proxy, plane: int) -> int:
    if not plane:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    lines = proxy.get(10249, "/metrics")[1].splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("pyrun_proxy_udp_flows ")))


def churn(proxy: Proxy, plane: int, chance: random.Random, args: argparse.Namespace) -> tuple[list[Row], int]:
    """A row for each thirtieth of the time, and how many changes there were."""
    rows: list[Row] = []
    changes = 0
    begun = time.monotonic()
    while len(rows) < ROWS:
        while time.monotonic() < begun + (len(rows) + 1) * args.seconds / ROWS:
            proxy.write(objects(chance, args.services))
            changes += 1
            time.sleep(PAUSE_S)
        rows.append(seen(proxy, plane))
        print(f"{time.monotonic() - begun:5.0f} s, {changes} changes:", _text(rows[-1]), flush=True)
    return rows, changes


def _text(row: Row) -> str:
    return ", ".join([f"{name} {value:.1f}" for name, value in zip(Row._fields, row, strict=True)])


def growth(rows: list[Row]) -> list[str]:
    """What the last third has more of than the second."""
    third = len(rows) // 3
    before, after = (
        Row._make(statistics.mean(column) for column in zip(*some, strict=True))
        for some in (rows[third:-third], rows[-third:])
    )
    print("second third:", _text(before), "\n last third: ", _text(after))
    return [
        f"{name} grows from {was:.1f} to {now:.1f}"
        for name, was, now, noise in zip(Row._fields, before, after, NOISE, strict=True)
        if now > 1.1 * was + noise
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=24 * 3600.0)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--mode", choices=("userspace", "nftables"), default="userspace")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.seconds < LEAST_S:
        parser.error(f"--seconds {args.seconds:g}: in less than {LEAST_S} it tells nothing")
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as directory, topology() as net, contextlib.ExitStack() as stack:
        world = World(net)
        stack.callback(world.close)
        home = Path(directory) / "proxy"
        proxy = stack.enter_context(running(home, args.mode, objects(chance, args.services)))
        plane = until(proxy.plane_pid, "there is no data plane") if args.mode == "userspace" else 0
        load, datagrams = Load(world.client), Datagrams(world.outside)
        try:
            rows, changes = churn(proxy, plane, chance, args)
        finally:
            load.end()
            datagrams.end()
        bad = growth(rows)
        assert proxy.process is not None
        print(
            f"{changes} changes, {load.good} connections, {datagrams.good} answers to datagrams, {datagrams.lost} lost"
        )
        print(f"CPU: daemon {cpu_s(proxy.process.pid):.1f} s, data plane {cpu_s(plane) if plane else 0:.1f} s")
        bad += [f"{len(load.bad)} connections failed: {load.bad[:5]}"] if load.bad else []
        bad += ["the data plane was replaced"] if plane and proxy.plane_pid() != plane else []
        if bad:
            sys.exit("; ".join(bad))


if __name__ == "__main__":
    main()
