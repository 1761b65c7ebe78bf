"""Cluster IPs for Services of files, which have no API server that hands them out.

As an API server does, addresses are taken from the upper part of a range, so that those that people write into files
(the DNS' 10.96.0.10) are not among them (KEP-3070). Which one is a matter of the Service's name: on each node, and
after each loss of what was written down, it is the same unless two names meet at one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import sqlite3
import threading
from collections.abc import Collection, Mapping
from typing import Any

from ...errors import PyrunError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LEAST, MOST = 16, 256  # addresses at a range's beginning that nobody is given


def wants_one(spec: Mapping[str, Any]) -> bool:
    """Whether this is a Service that has a cluster IP, and says none."""
    return spec.get("type") != "ExternalName" and not spec.get("clusterIP") and not spec.get("clusterIPs")


def families(spec: Mapping[str, Any], there: Collection[int]) -> list[int]:
    """4 and 6, in order, of a Service: ipFamilies and ipFamilyPolicy, as an API server fills them in. there: of the
    ranges, the first being the default. PyrunError where one has no range."""
    given = [6 if word == "IPv6" else 4 for word in spec.get("ipFamilies") or ()]
    policy = spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(given) == 2 else "SingleStack")
    found = given or list(there)[:1]
    if policy != "SingleStack":
        found += [family for family in there if family not in found]
    missing = [family for family in found if family not in there]
    if missing:
        raise PyrunError(f"/spec/ipFamilies: no range of services has IPv{missing[0]}", hint="--service-cidr names one")
    if policy == "RequireDualStack" and len(found) < 2:
        raise PyrunError("/spec/ipFamilyPolicy: RequireDualStack wants a range of each family", hint="--service-cidr")
    return found


def choose(name: str, range: Network, taken: Collection[str]) -> str:
    """An address of the range that nobody has. PyrunError where there is none."""
    size = range.num_addresses
    lower = min(max(LEAST, size // 16), MOST)
    last = size - 1 if range.version == 4 else size  # the last one of IPv4 is a broadcast address elsewhere
    count = last - lower
    if count > 0:
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count
        step = 0
        while step < count and step <= len(taken):
            address = str(range[lower + (start + step) % count])
            if address not in taken:
                return address
            step += 1
    raise PyrunError(f"/spec/clusterIP: no address of {range} is left", hint="a Service may name one by itself")


class ClusterIPs:
    """Thread-safe. ranges: as text, the first being the default. path: a database in which each Service that was ever
    given addresses keeps them. PyrunError where a range is none, or the database can't be had."""

    def __init__(self, ranges: Collection[str], path: str) -> None:
        self._ranges: dict[int, Network] = {}
        for text in ranges:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise PyrunError(f"--service-cidr {text}: {error}") from None
            if network.version in self._ranges:
                raise PyrunError(
                    f"--service-cidr {text}: {self._ranges[network.version]} is one of this family already"
                )
            self._ranges[network.version] = network
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is found again by its name
            self._db.execute("CREATE TABLE IF NOT EXISTS given (address TEXT PRIMARY KEY, service TEXT NOT NULL)")
            rows = self._db.execute("SELECT address, service FROM given").fetchall()
        except sqlite3.Error as error:
            raise PyrunError(f"{path}: {error}", hint="Services are given addresses without it: remove it") from None
        self._owners: dict[str, str] = dict(rows)
        self._given: dict[str, dict[int, str]] = {}
        for address, service in rows:
            self._given.setdefault(service, {})[6 if ":" in address else 4] = address

    def close(self) -> None:
        self._db.close()

    def fill(self, value: dict[str, Any]) -> None:
        """Gives a Service its cluster IPs, in place, if it wants some. PyrunError where there are none."""
        spec, meta = value.get("spec"), value.get("metadata")
        if value.get("kind") != "Service" or not isinstance(spec, dict) or not isinstance(meta, dict):
            return
        if not wants_one(spec):
            return
        name = f"{meta.get('namespace') or 'default'}/{meta.get('name')}"
        with self._lock:
            found = [self._of(name, family) for family in families(spec, self._ranges)]
        spec["clusterIP"], spec["clusterIPs"] = found[0], found

    def _of(self, name: str, family: int) -> str:
        mine, range = self._given.setdefault(name, {}), self._ranges[family]
        before = mine.get(family)
        if before is not None and ipaddress.ip_address(before) in range:
            return before
        address = choose(name, range, self._owners)
        try:
            self._db.execute("DELETE FROM given WHERE address = ?", (before,))
            self._db.execute("INSERT INTO given VALUES (?, ?)", (address, name))
        except sqlite3.Error as error:
            raise PyrunError(f"/spec/clusterIP: {self._path}: {error}") from None
        if before is not None:
            del self._owners[before]
        self._owners[address] = name
        mine[family] = address
        return address
