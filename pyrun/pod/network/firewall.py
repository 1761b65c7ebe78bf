"""The node's rules for pods, in one nftables table of ours: the way out masqueraded, ports of the host, and guards.

The rules are the same for any number of pods; what a pod adds are elements of maps. So a pod without a port of the host
costs nothing here, and the table can be made anew from the leases at any time. `nft` carries each change out as one
transaction.
"""

from __future__ import annotations

import ipaddress
import subprocess

from ...errors import AlreadyExists
from ...nft import run_nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .leases import IpNetwork, Lease

PATIENCE_S = 20.0
PREFIX = "pyr"  # of the names of the links' ends on the node
_FAMILIES = (("4", "ip", "ipv4_addr"), ("6", "ip6", "ipv6_addr"))


def plan_table(table: str, ranges: Iterable[IpNetwork], leases: Iterable[Lease]) -> str:
    """The whole table as nft reads it, in place of what is there. Pure."""
    name, sets, by_range = f"inet {table}", [], []
    wide = list(ranges)
    for digit, family, kind in _FAMILIES:
        pods = ", ".join(str(network) for network in wide if network.version == int(digit))
        sets += [
            f"map ports{digit} {{ type inet_proto . inet_service : {kind} . inet_service; }}",
            f"map at{digit} {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; }}",
            f"set self{digit} {{ type {kind} . {kind}; }}",
            f"set pods{digit} {{ type {kind}; flags interval; auto-merge; "
            + (f"elements = {{ {pods} }} }}" if pods else "}"),
        ]
        by_range.append(f"{family} saddr @pods{digit} {family} daddr != @pods{digit} masquerade")
    chains = {
        "guard": (
            "type filter hook prerouting priority -300; policy accept",
            f'iifname "{PREFIX}*" ip daddr 127.0.0.0/8 drop',  # CVE-2020-8558
            f'iifname "{PREFIX}*" ip6 saddr != {{ fe80::/10, :: }} fib saddr . iif oif 0 drop',
        ),
        "ports": tuple(
            f"dnat {family} to {match}meta l4proto . th dport map @{kind}{digit}"
            for digit, family, _ in _FAMILIES
            for kind, match in (("at", f"{family} daddr . "), ("ports", ""))
        ),
        "arriving": ("type nat hook prerouting priority -100; policy accept", "fib daddr type local jump ports"),
        "own": ("type nat hook output priority -100; policy accept", "fib daddr type local jump ports"),
        "leaving": (
            "type nat hook postrouting priority 100; policy accept",
            "ip saddr . ip daddr @self4 masquerade",
            "ip6 saddr . ip6 daddr @self6 masquerade",
            f'oifname "{PREFIX}*" ip saddr 127.0.0.0/8 masquerade',
            *by_range,
        ),
    }
    body = "\n".join(sets) + "\n"
    for chain, rules in chains.items():
        body += f"chain {chain} {{\n" + "".join(f"  {rule};\n" for rule in rules) + "}\n"
    elements = "".join(plan_elements(table, "add", lease) for lease in leases if not lease.leaving)
    return f"table {name}\ndelete table {name}\ntable {name} {{\n{body}}}\n{elements}"


def plan_elements(table: str, verb: str, lease: Lease) -> str:
    """The elements of one pod: add or delete them. Pure. "" for a pod without ports of the host."""
    lines = []
    by_version = {ipaddress.ip_address(ip).version: ip for ip in lease.ips}
    for version, ip in by_version.items():
        found = False
        for protocol, host_ip, host_port, port in lease.ports:
            at = ipaddress.ip_address(host_ip) if host_ip else None
            if at is not None and at.version != version:
                continue
            found = True
            any_address = at is None or at.is_unspecified
            where = f"ports{version}" if any_address else f"at{version}"
            key = f"{protocol} . {host_port}" if any_address else f"{host_ip} . {protocol} . {host_port}"
            value = f" : {ip} . {port}" if verb == "add" else ""
            lines.append(f"{verb} element inet {table} {where} {{ {key}{value} }}\n")
        if found:
            lines.append(f"{verb} element inet {table} self{version} {{ {ip} . {ip} }}\n")
    return "".join(lines)


def check_ports(lease_of: str, ports: list[list[object]], leases: Iterable[Lease]) -> None:
    """AlreadyExists where another pod has one of these ports of the host."""
    for lease in leases:
        if lease.pod == lease_of or lease.leaving:
            continue
        for protocol, host_ip, host_port, _ in lease.ports:
            for mine in ports:
                same_place = not host_ip or not mine[1] or host_ip == mine[1]
                if same_place and (protocol, host_port) == (mine[0], mine[2]):
                    where = f"{host_ip or '*'}:{host_port}/{protocol}"
                    raise AlreadyExists(f"port {where} of the host is taken by pod {lease.pod[:13]}")


def change_table(text: str) -> None:
    """Carries a transaction out. Unavailable, PyrunError."""
    run_nft(text, "masquerades what pods send", "NAT and fib")


def has_table(table: str) -> bool:
    """Whether the table is there. Another's `flush ruleset` takes it away."""
    command = ["nft", "list", "chain", "inet", table, "leaving"]
    try:
        return not subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False).returncode
    except (OSError, subprocess.SubprocessError):
        return False
