"""What the node as a whole uses, read from /proc (proc(5)) as cAdvisor does for the root of the cgroups."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ..pod.stats.network import parse_net_dev

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """time: when it was read; started: the boot; both nanoseconds since 1970. cpu: nanoseconds. working: bytes in use
    but those of files that nobody has used of late. available: what the kernel thinks can be had (MemAvailable).
    received, sent: bytes of the interfaces that the default routes lead to; None where there is no such route."""

    time: int
    started: int
    cpu: int
    used: int
    working: int
    available: int
    rss: int
    swap: int
    page_faults: int
    major_page_faults: int
    received: int | None = None
    sent: int | None = None


def collect_node() -> NodeUsage:
    stat, memory, faults = _read("/proc/stat"), _numbers("/proc/meminfo", ":"), _numbers("/proc/vmstat", " ")
    cpu, boot = _cpu_and_boot(stat)
    kib = {name: value * 1024 for name, value in memory.items()}
    used = kib["MemTotal"] - kib["MemFree"]
    return NodeUsage(
        time.time_ns(),
        boot * SECOND,
        cpu * SECOND // os.sysconf("SC_CLK_TCK"),
        used,
        max(0, used - kib["Inactive(file)"]),
        kib["MemAvailable"],
        kib["AnonPages"],
        kib["SwapTotal"] - kib["SwapFree"],
        faults["pgfault"],
        faults["pgmajfault"],
        *_network(),
    )


def _network() -> tuple[int | None, int | None]:
    ways = parse_ways(_read_or_nothing("/proc/net/route"), _read_or_nothing("/proc/net/ipv6_route"))
    found = [one for one in parse_net_dev(_read_or_nothing("/proc/net/dev")) if one.name in ways]
    return (sum(one.rx_bytes for one in found), sum(one.tx_bytes for one in found)) if found else (None, None)


def parse_ways(ipv4: str, ipv6: str) -> set[str]:
    """The interfaces of the default routes, by /proc/net/route and /proc/net/ipv6_route (proc_pid_net(5)). Pure."""
    four = [words for line in ipv4.splitlines()[1:] if len(words := line.split()) > 7]
    six = [words for line in ipv6.splitlines() if len(words := line.split()) > 9]
    found = {words[0] for words in four if words[1] == words[7] == "00000000"}
    return found | {words[9] for words in six if words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo"}


def _cpu_and_boot(stat: str) -> tuple[int, int]:
    """Ticks of processors that were not idle, and seconds since 1970. A guest's time is in user's already."""
    cpu = boot = 0
    for line in stat.splitlines():
        words = line.split()
        if words and words[0] == "cpu":
            user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
            cpu = user + nice + system + irq + softirq + steal
        elif words and words[0] == "btime":
            boot = int(words[1])
    return cpu, boot


def _numbers(path: str, separator: str) -> dict[str, int]:
    found = {}
    for line in _read(path).splitlines():
        name, _, value = line.partition(separator)
        found[name] = int(value.split()[0])
    return found


def _read_or_nothing(path: str) -> str:
    """A kernel may be without IPv6."""
    try:
        return _read(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
