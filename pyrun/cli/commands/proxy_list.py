"""`pyrun proxy list`: each address and port that the proxy has for Services, and how many endpoints. Needs no root."""

from __future__ import annotations

from typing import Any

from pyrun.cli.commands.proxy_trace import given
from pyrun.cli.output import columns, indented, write
from pyrun.kube.addresses import address_text, port_text, prefix_text
from pyrun.proxy.plan import plan_proxy
from pyrun.proxy.rules import ACTIONS, FORWARD, PROTOCOLS, EndpointSet, Frontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.proxy.files import Files


def run(g: Globals, o: Options) -> int:
    files, node, decided = given(g, o)
    rules = plan_proxy(files.objects.services.values(), files.objects.slices.values(), node, decided)
    for refusal in rules.refused:
        g.warn(f"{files.place_text(refusal.origin)}: {refusal.subject}: {refusal.why}")
    sets = {one.key: one for one in rules.sets}
    frontends = sorted(rules.frontends, key=lambda one: (one.name, len(one.address), one.address, one.port))
    if o.format == "json":
        write(indented([_as_json(one, sets, files) for one in frontends], " ") + "\n")
    else:
        rows = [("SERVICE", "KIND", "ADDRESS", "ENDPOINTS", "FROM")]
        write(columns([*rows, *[_row(one, sets, files) for one in frontends]]))
    return 0


def _parts(one: Frontend) -> tuple[str, str, str]:
    """Service, port and class of its name, "default/web:http cluster"."""
    title, _, kind = one.name.rpartition(" ")
    service, _, port = title.partition(":")
    return service, port, kind


def _used(one: Frontend, sets: dict[str, EndpointSet]) -> list[str]:
    """The endpoints of all of its choices, each once."""
    some = [sets[choice.endpoints] for choice in one.choices if choice.endpoints is not None]
    return list(dict.fromkeys([port_text(each.address, each.port) for found in some for each in found.endpoints]))


def _row(one: Frontend, sets: dict[str, EndpointSet], files: Files) -> tuple[str, str, str, str, str]:
    service, port, kind = _parts(one)
    used = _used(one, sets)
    count = str(len(used)) if used else f"none, {ACTIONS[one.choices[-1].action]}"
    where = f"{port_text(one.address, one.port)}/{PROTOCOLS[one.protocol]}"
    return f"{service}:{port}", kind, where, count, files.place_text(one.origin)


def _as_json(one: Frontend, sets: dict[str, EndpointSet], files: Files) -> dict[str, Any]:
    service, port, kind = _parts(one)
    return {
        "service": service,
        "servicePort": port,
        "kind": kind,
        "protocol": PROTOCOLS[one.protocol],
        "address": address_text(one.address),
        "port": one.port,
        "endpoints": _used(one, sets),
        "affinity": one.affinity,
        "kernel": one.kernel,
        "choices": [
            {
                "sources": [prefix_text(prefix) for prefix in choice.sources],
                "action": ACTIONS[choice.action],
                "masquerade": choice.action == FORWARD and choice.replace_source,
                "why": choice.why,
            }
            for choice in one.choices
        ],
        **files.place(one.origin),
    }
