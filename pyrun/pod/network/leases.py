"""Which pod has which addresses: one number a pod, one small file a lease.

The number gives the addresses in each range, the link's index and its MACs, so that no two of these can disagree. A
lease is on disk before anything is made by it, and off it after everything is unmade: who is killed in between leaves a
file that says so. The numbers go round, and one that has just been given back comes last, since others may still know
who had it. No clock is read. Nothing is synced: after a power cut there is no pod for whom a lease would count.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import threading

from ...errors import InvalidArgument, PyrunError, ResourceExhausted, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST = 65534  # pods on one node: the numbers of a /16, which a larger range has no more of
FIRST = 2  # 0 is the network, 1 is what people take for a gateway
MAX_BYTES = 64 << 10


class Lease:
    """pod, number, ips: as text, one a range; ports: what the firewall needs to know of it, kept as it came. leaving:
    the pod is gone, and its link may not be."""

    __slots__ = ("ips", "leaving", "number", "pod", "ports")

    def __init__(
        self, pod: str, number: int, ips: tuple[str, ...], ports: list[list[Any]], leaving: bool = False
    ) -> None:
        self.pod = pod
        self.number = number
        self.ips = ips
        self.ports = ports
        self.leaving = leaving


def parse_ranges(texts: tuple[str, ...]) -> tuple[IpNetwork, ...]:
    """Ranges of addresses, IPv4 first, one of each at the most. InvalidArgument."""
    found: dict[int, IpNetwork] = {}
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError as e:
            raise InvalidArgument(f"pod CIDR {text!r}: {e}") from None
        if network.version in found:
            raise InvalidArgument(f"pod CIDR {text}: there is one of IPv{network.version} already")
        if network.num_addresses < 8:
            raise InvalidArgument(f"pod CIDR {text}: too few addresses for pods; take a larger range")
        found[network.version] = network
    if not found:
        raise InvalidArgument("no pod CIDR: the built-in network needs one range of addresses")
    return tuple(found[version] for version in sorted(found))


class Leases:
    """The leases below a directory. Thread-safe. The lock on --root keeps a second daemon from it."""

    def __init__(self, directory: str, ranges: tuple[IpNetwork, ...]) -> None:
        self._lock = threading.Lock()
        self.directory = directory
        self.ranges = ranges
        self._by_pod: dict[str, Lease] = {}
        self._next = FIRST
        os.makedirs(directory, 0o700, exist_ok=True)
        self._load()

    def _load(self) -> None:
        newest = 0.0
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            lease = None if name.startswith(".") else _read(path)
            if lease is None or lease.pod != name:  # a write that was cut off: by nobody used yet
                with contextlib.suppress(OSError):
                    os.unlink(path)
                continue
            self._by_pod[name] = lease
            if (made := os.stat(path).st_mtime) >= newest:  # a hint where to go on, and no more
                newest, self._next = made, lease.number + 1

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self._by_pod.values())

    def find(self, pod: str) -> Lease | None:
        with self._lock:
            return self._by_pod.get(pod)

    def take(self, pod: str, ports: list[list[Any]]) -> Lease:
        """A lease for a pod; the one that it has, where it has one. ResourceExhausted, or PyrunError where it can't be
        written."""
        with self._lock:
            lease = self._by_pod.get(pod)
            if lease is not None and not lease.leaving and lease.ports == ports:
                return lease
            if lease is not None:
                raise PyrunError(f"pod {pod[:13]} has left the network, or asks for other ports than it had")
            number = self._free()
            ips = tuple(str(network[number]) for network in self.ranges)
            lease = Lease(pod, number, ips, ports)
            self._write(lease)
            self._by_pod[pod] = lease
            self._next = number + 1
            return lease

    def leave(self, pod: str) -> Lease | None:
        """Marks a lease, on disk too, as one to be given back. None where there is none."""
        with self._lock:
            lease = self._by_pod.get(pod)
            if lease is not None and not lease.leaving:
                lease.leaving = True
                with contextlib.suppress(PyrunError):  # a full disk keeps nobody from leaving
                    self._write(lease)
            return lease

    def free(self, pod: str) -> None:
        """Gives a lease back."""
        with self._lock:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{pod}")
            self._by_pod.pop(pod, None)

    def _free(self) -> int:
        used = {lease.number for lease in self._by_pod.values()}
        last = min(MOST, *(network.num_addresses - 2 for network in self.ranges))
        count = last - FIRST + 1
        for step in range(count):
            number = FIRST + (self._next - FIRST + step) % count
            if number not in used:
                return number
        ranges = ", ".join(str(network) for network in self.ranges)
        raise ResourceExhausted(
            f"all {count} addresses of {ranges} are in use", hint="remove pods, or give the node a larger pod CIDR"
        )

    def _write(self, lease: Lease) -> None:
        path = f"{self.directory}/{lease.pod}"
        data = {"pod": lease.pod, "number": lease.number, "ips": lease.ips, "ports": lease.ports}
        text = json.dumps({**data, "leaving": lease.leaving})
        new = f"{self.directory}/.{lease.pod}"
        try:
            with open(new, "w", opener=_opener) as file:
                file.write(text)
            os.rename(new, path)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise PyrunError(f"the lease {path} can't be written: {reason(e)}") from None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(path: str) -> Lease | None:
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read(MAX_BYTES))
        return Lease(data["pod"], int(data["number"]), tuple(data["ips"]), data["ports"], bool(data["leaving"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
