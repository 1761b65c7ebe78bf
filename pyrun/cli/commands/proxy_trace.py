"""`pyrun proxy trace`: what becomes of one packet, and which field of which object says so. Needs no root."""

from __future__ import annotations

import dataclasses
from typing import Any

from pyrun.cli.output import compact, write
from pyrun.errors import UsageError, printable
from pyrun.kube.addresses import Prefix, address_text, parse_address, parse_prefix, port_text
from pyrun.proxy.files import Files, read_files
from pyrun.proxy.model import Node
from pyrun.proxy.model import Options as Decided
from pyrun.proxy.plan import plan_proxy
from pyrun.proxy.rules import ACTIONS, DROP, FORWARD, PROTOCOLS, REJECT, Key
from pyrun.proxy.trace import Verdict, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if not getattr(o, "from"):
        raise UsageError("--from is missing: the client's address")
    if not o.to:
        raise UsageError("--to is missing: ADDRESS:PORT/PROTOCOL, such as 10.96.0.10:53/udp")
    source, key = one(getattr(o, "from"), parse_address, "--from"), target(o.to)
    if len(source) != len(key[1]):
        raise UsageError(f"--from {getattr(o, 'from')} and --to {o.to} are of two families")
    files, node, decided = given(g, o)
    rules = plan_proxy(files.objects.services.values(), files.objects.slices.values(), node, decided)
    for refusal in rules.refused:
        g.warn(f"{files.place_text(refusal.origin)}: {refusal.subject}: {refusal.why}")
    verdict = trace(rules, source, key)
    if o.format == "json":
        write(compact(as_json(verdict, files)) + "\n")
    else:
        write("".join([printable(line) + "\n" for line in as_text(verdict, files)]))
    return 0


def given(g: Globals, o: Options) -> tuple[Files, Node, Decided]:
    """The objects, this node and what is decided by the command line. Warns of what is wrong with objects."""
    if not o.objects:
        raise UsageError("--objects is missing: a directory of Services and EndpointSlices")
    files = read_files(o.objects)
    for line in files.warnings():
        g.warn(line)
    nodes = files.objects.nodes
    name = o.node or (next(iter(nodes)) if len(nodes) == 1 else "")
    node = nodes.get(name, Node(name))
    return (
        files,
        dataclasses.replace(
            node,
            addresses=many(o.node_ip, parse_address, "--node-ip") or node.addresses,
            zone=o.node_zone or node.zone,
            pod_cidrs=many(o.cluster_cidr, parse_prefix, "--cluster-cidr"),
            service_cidrs=many(o.service_cidr, parse_prefix, "--service-cidr"),
            node_port_addresses=node_port_addresses(o),
        ),
        Decided(
            external_ips=many(o.allow_external_ips, parse_prefix, "--allow-external-ips"),
            dns=many(o.cluster_dns, parse_address, "--cluster-dns"),
            masquerade_all=o.masquerade_all,
        ),
    )


def node_port_addresses(o: Options) -> tuple[Prefix, ...] | None:
    """None for the primary ones, as kube-proxy's nftables mode has it by default."""
    if not o.nodeport_addresses or o.nodeport_addresses == ("primary",):
        return None
    return many(o.nodeport_addresses, parse_prefix, "--nodeport-addresses")


def many(words: tuple[str, ...], parse: Callable[[str], Any], option: str) -> tuple[Any, ...]:
    """An option that may be repeated, or have its values between commas."""
    return tuple([one(part, parse, option) for word in words for part in word.split(",") if part])


def one(text: str, parse: Callable[[str], Any], option: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}")


def target(text: str) -> Key:
    """ADDRESS:PORT[/PROTOCOL], an IPv6 address in brackets. UsageError."""
    place, _, word = text.partition("/")
    protocol = {name: number for number, name in PROTOCOLS.items()}.get(word.lower() or "tcp")
    if protocol is None:
        raise UsageError(f"--to {text}: {word!r} is none of tcp, udp, sctp")
    address, colon, port = place.rpartition(":")
    if not (colon and port.isdecimal() and port.isascii() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise UsageError(f"--to {text}: it is ADDRESS:PORT/PROTOCOL, such as 10.96.0.10:53/udp or [fd00::1]:80/tcp")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise UsageError(f"--to {text}: an IPv6 address stands in brackets, such as [fd00::1]:80/tcp")
    return protocol, one(address, parse_address, "--to"), int(port)


def as_json(verdict: Verdict, files: Files) -> dict[str, Any]:
    found: dict[str, Any] = {
        "action": ACTIONS[verdict.action],
        "endpoints": [port_text(each.address, each.port) for each in verdict.endpoints],
        "masquerade": verdict.masquerade,
        "hairpin": [port_text(each.address, each.port) for each in verdict.hairpin],
        "rule": verdict.rule,
    }
    if verdict.frontend is not None:
        found["frontend"] = verdict.frontend.name
        found["object"] = f"Service {verdict.frontend.name.partition(':')[0]}"
        found.update(files.place(deciding(verdict)))
    return found


def deciding(verdict: Verdict) -> str:
    """The origin of the field that decided."""
    assert verdict.frontend is not None and verdict.choice is not None
    start, _, pointer = verdict.frontend.origin.partition(" ")
    return f"{start} {verdict.choice.pointer or pointer}"


def as_text(verdict: Verdict, files: Files) -> list[str]:
    lines = [_first_line(verdict), f"  rule    {verdict.rule}"]
    if verdict.frontend is not None:
        origin = deciding(verdict)
        lines.append(f"  object  Service {verdict.frontend.name.partition(':')[0]}, {files.place_text(origin)}")
    return lines


def _first_line(verdict: Verdict) -> str:
    if verdict.action == REJECT:
        return "reject: a TCP reset, or ICMP port unreachable"
    if verdict.action == DROP:
        return "drop: without an answer"
    if verdict.action != FORWARD:
        return "pass: none of the proxy's business"
    some = ", ".join([port_text(each.address, each.port) for each in verdict.endpoints])
    if not verdict.masquerade:
        return f"forward to {some}; the endpoint sees the client's address"
    assert verdict.choice is not None
    if verdict.choice.replace_source:
        return f"forward to {some}; the endpoint sees the node's address"
    itself = ", ".join(sorted({address_text(each.address) for each in verdict.hairpin}))
    return f"forward to {some}; {itself}, which is the client itself, sees the node's address"
