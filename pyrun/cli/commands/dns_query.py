"""`pyrun dns query`: what the DNS answers to one question, and why: by the objects in a directory, which needs no root,
or what one that runs would answer now. Asks no other server."""

from __future__ import annotations

import ipaddress
import json
import os
from typing import Any

from pyrun.cli.commands.dns_run import STATE
from pyrun.cli.output import indented, write
from pyrun.dns import wire
from pyrun.dns.directory import all_faults, read_directory
from pyrun.dns.explain import query_json, query_text
from pyrun.dns.look import SOCKET, is_answered, look_text, target_of
from pyrun.dns.plan import MAPPED, plan_dns
from pyrun.dns.plan import Options as Planning
from pyrun.dns.table import Table
from pyrun.errors import PyrunError, Unavailable, UsageError, printable
from pyrun.http.unix import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    client = client_of(o.client) if o.client else None
    if not o.objects:
        return _of_running(o, client)
    if o.state:
        raise UsageError("--objects and --state: the answer is by objects, or that of a server which runs")
    table = planned(g, o, autopath=client is not None)
    name, kind = name_of(o.name), type_of(o.type or "A")
    if o.format == "json":
        write(indented(query_json(table, name, kind, client), " ") + "\n")
    else:
        write("".join([printable(line) + "\n" for line in query_text(table, name, kind, client)]))
    return 0


def _of_running(o: Options, client: bytes | None) -> int:
    """1 where that client gets no answer."""
    found = _ask(os.path.join(o.state or STATE, SOCKET), target_of(name_of(o.name), type_of(o.type or "A"), client))
    if o.format == "json":
        write(indented(found, " ") + "\n")
    else:
        write("".join([printable(line) + "\n" for line in look_text(found)]))
    return 0 if is_answered(found) else 1


def _ask(where: str, target: str) -> dict[str, Any]:
    """Unavailable where nobody answers."""
    hint = "does `pyrun dns run` run, is --state the same, and are you root?"
    try:
        status, data = request(where, target, hint=hint)
    except Unavailable as error:
        raise Unavailable(f"--objects is missing, and no server answers: {error.text}", hint=error.hint) from None
    if status != 200:
        raise Unavailable(f"{where}: {data.decode(errors='replace').strip()}", hint="what does its log say?")
    found: dict[str, Any] = json.loads(data)
    return found


def planned(g: Globals, o: Options, *, autopath: bool = False) -> Table:
    """The table for the objects in --objects. What of them is not served is warned of."""
    if not o.objects:
        raise UsageError("--objects is missing: a directory of Services, EndpointSlices and Pods")
    found = read_directory(o.objects)
    try:
        options = Planning(zone=o.zone, namespaces=tuple(found.namespaces), autopath=autopath)
        table = plan_dns(found.services, found.slices, found.pods, options)
    except wire.WireError as error:
        raise PyrunError(f"--zone {error}")
    for line in all_faults(found, table.refused, table.refused_more):
        g.warn(line)
    return table


def client_of(text: str) -> bytes:
    """An address as the table has it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"--client {text}: no IP address")
    return address.packed if address.version == 6 else MAPPED + address.packed


def name_of(text: str) -> bytes:
    try:
        return wire.name_of(text)
    except wire.WireError as error:
        raise PyrunError(str(error))


def type_of(text: str) -> int:
    """A type by its name, its number, or TYPE and its number (RFC 3597)."""
    word = text.upper()
    number = word.removeprefix("TYPE")
    if word in wire.TYPES:
        return wire.TYPES[word]
    if number.isascii() and number.isdigit() and 0 < int(number) < 65536:
        return int(number)
    raise UsageError(f"{text} is no type of record: {', '.join(wire.TYPES)}")
