"""`pyrun proxy explain`: who gets a Service's traffic, from where and why, each with its place.

Of objects in files, which needs no root; or of a proxy that runs, with what it can't serve.
"""

from __future__ import annotations

from typing import Any

from pyrun.cli.commands.proxy_list import asked
from pyrun.cli.commands.proxy_trace import given
from pyrun.cli.output import columns, indented, write
from pyrun.errors import NotFound, UsageError, printable
from pyrun.kube.addresses import address_text, parse_address, port_text, prefix_text
from pyrun.proxy.explain import Explained, Fate, explain_service
from pyrun.proxy.plan import plan_proxy
from pyrun.proxy.rules import ACTIONS, FORWARD, PROTOCOLS, SCTP, Choice, Frontend, Refusal
from pyrun.proxy.sctp import KEEPS, fits_sockets
from pyrun.proxy.service_plan import Surroundings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.proxy.files import Files
    from pyrun.proxy.model import Objects, Service


def run(g: Globals, o: Options) -> int:
    if not o.objects:
        return _of_running(g, o)
    if o.state:
        raise UsageError("--state is of a proxy that runs, and --objects of files: take one of them")
    files, node, decided = given(g, o)
    objects = files.objects
    service = find(objects, o.service)
    slices = [one for one in objects.slices.values() if one.service_id == service.id]
    made = explain_service(service, slices, Surroundings.of(node, decided))
    every = plan_proxy(objects.services.values(), objects.slices.values(), node, decided)
    starts = {service.origin, *[one.origin for one in slices]}
    refused = [one for one in every.refused if one.origin.partition(" /")[0] in starts]
    taken = {one.key for one in every.frontends if one in made.frontends}
    frontends = [one for one in made.frontends if one.key in taken]
    if o.format == "json":
        write(indented(as_json(made, frontends, refused, files), " ") + "\n")
    else:
        write("".join([printable(line) + "\n" for line in as_text(made, frontends, refused, files)]))
    return 0


def _of_running(g: Globals, o: Options) -> int:
    found = asked(o)
    every = [*found["frontends"], *found["refused"]]
    name = _name_of(list(dict.fromkeys(one["service"] for one in every)), o.service, "that the proxy serves or refuses")
    frontends, refused = ([one for one in found[key] if one["service"] == name] for key in ("frontends", "refused"))
    for one in found["hurdles"]:
        g.warn(f"{one['what']}: {one['why']}, since {one['since']}")
    if o.format == "json":
        write(indented({"service": name, "frontends": frontends, "refused": refused}, " ") + "\n")
    else:
        write("".join([printable(line) + "\n" for line in running_text(name, frontends, refused)]))
    return 0


def find(objects: Objects, word: str) -> Service:
    """NAME or NAMESPACE/NAME; a name alone is one of `default`, or the only one that is called so. NotFound."""
    found = _name_of(["/".join(one) for one in objects.services], word, "in what --objects has")
    namespace, _, name = found.partition("/")
    return objects.services[namespace, name]


def _name_of(known: list[str], word: str, where: str) -> str:
    """Of these, NAMESPACE/NAME each. NotFound."""
    from pyrun.cli.parse import nearest

    whole = word if "/" in word else f"default/{word}"
    if whole in known:
        return whole
    named = [one for one in known if one.partition("/")[2] == word.rpartition("/")[2]]
    if "/" not in word and len(named) == 1:
        return named[0]
    if named:
        raise NotFound(f"no Service {word}", hint=f"there is {', '.join(sorted(named))}")
    near = nearest(whole, known)
    hint = f"did you mean {near}?" if near else f"there are {len(known)} {where}" if known else None
    raise NotFound(f"no Service {word}", hint=hint)


def running_text(name: str, frontends: list[dict[str, Any]], refused: list[dict[str, Any]]) -> list[str]:
    """Of what a proxy that runs says."""
    lines = [f"Service {name}"]
    for one in frontends:
        where = f"{port_text(parse_address(one['address']), one['port'])}/{one['protocol']}"
        lines += ["", f"{where}  {one['service']}:{one['servicePort']} {one['kind']}, {one['origin']}"]
        if one["unserved"]:
            lines.append(f"  not served, since {one['unserved']['since']}: {one['unserved']['why']}")
        for choice in one["choices"]:
            sources = ", ".join(choice["sources"])
            rest = "from all others" if len(one["choices"]) > 1 else "from anywhere"
            whose = "the node's" if choice["masquerade"] else "the client's"
            what = f"forward to {', '.join(choice['endpoints'])}, which see {whose} address"
            what = what if choice["action"] == ACTIONS[FORWARD] else choice["action"]
            lines += [f"  {f'from {sources}' if sources else rest}: {what}", f"    {choice['why']}"]
    if refused:
        lines += ["", "Refused"]
    for one in refused:
        since = f", since {one['since']}" if one["since"] else ""
        lines.append(f"  {one['reason']}: {one['subject']}: {one['why']}; {one['origin']}{since}")
    return lines


def as_json(made: Explained, frontends: list[Frontend], refused: list[Refusal], files: Files) -> dict[str, Any]:
    service = made.service
    return {
        "service": "/".join(service.id),
        "type": service.type,
        "clusterIPs": [address_text(address) for address in service.cluster_ips],
        **files.place(service.origin),
        "skipped": made.skipped,
        "frontends": [_frontend_json(one, made, files) for one in frontends],
        "endpoints": [_fate_json(one, files) for one in made.fates],
        "refused": [_refused_json(one, files) for one in refused],
    }


def _frontend_json(one: Frontend, made: Explained, files: Files) -> dict[str, Any]:
    return {
        "name": one.name,
        "protocol": PROTOCOLS[one.protocol],
        "address": address_text(one.address),
        "port": one.port,
        "affinity": one.affinity,
        "kernel": one.kernel,
        **files.place(one.origin),
        "choices": [_choice_json(choice, one, made, files) for choice in one.choices],
    }


def _choice_json(choice: Choice, frontend: Frontend, made: Explained, files: Files) -> dict[str, Any]:
    return {
        "sources": [prefix_text(prefix) for prefix in choice.sources],
        "action": ACTIONS[choice.action],
        "endpoints": _endpoints(choice, made),
        "masquerade": choice.replace_source,
        "why": choice.why,
        **files.place(origin_of(choice, frontend)),
    }


def _refused_json(one: Refusal, files: Files) -> dict[str, Any]:
    return {"reason": one.reason, "subject": one.subject, "why": one.why, **files.place(one.origin)}


def _fate_json(fate: Fate, files: Files) -> dict[str, Any]:
    one = fate.endpoint
    return {
        "port": fate.port,
        "endpoint": port_text(one.address, one.port),
        "local": one.local,
        "policies": list(fate.policies),
        "why": fate.why,
        **files.place(one.origin),
    }


def _endpoints(choice: Choice, made: Explained) -> list[str]:
    for one in made.rules.sets:
        if one.key == choice.endpoints:
            return [port_text(each.address, each.port) for each in one.endpoints]
    return []


def origin_of(choice: Choice, frontend: Frontend) -> str:
    """The field that decides a choice, or the frontend's own."""
    start, _, pointer = frontend.origin.partition(" ")
    return f"{start} {choice.pointer or pointer}"


def as_text(made: Explained, frontends: list[Frontend], refused: list[Refusal], files: Files) -> list[str]:
    service = made.service
    addresses = ", ".join([address_text(address) for address in service.cluster_ips]) or "no cluster IP"
    lines = [f"Service {'/'.join(service.id)}, {service.type}, {addresses}, {files.place_text(service.origin)}"]
    if made.skipped:
        return [*lines, f"  nothing is done for it: {made.skipped}"]
    for one in frontends:
        lines += ["", *_frontend_text(one, made, files)]
    if made.fates:
        rows = [("ENDPOINT", "PORT", "NODE", "TRAFFIC", "WHY", "FROM")]
        rows += [_fate_row(fate, files) for fate in made.fates]
        lines += ["", *columns(rows).splitlines()]
    if refused:
        lines += ["", "Refused"]
        lines += [f"  {one.reason}: {one.subject}: {one.why}; {files.place_text(one.origin)}" for one in refused]
    return lines


def _frontend_text(one: Frontend, made: Explained, files: Files) -> list[str]:
    where = f"{port_text(one.address, one.port)}/{PROTOCOLS[one.protocol]}"
    lines = [f"{where}  {one.name}, {files.place_text(one.origin)}"]
    if one.affinity:
        lines.append(f"  a client keeps its endpoint for {one.affinity} s after its last connection")
    if one.kernel:
        lines.append("  in the kernel, by its annotation")
    elif one.protocol == SCTP:
        lines.append(f"  in {'user space' if fits_sockets(one) else 'the kernel, as ' + KEEPS}")
    for choice in one.choices:
        sources = ", ".join([prefix_text(prefix) for prefix in choice.sources])
        rest = "from all others" if len(one.choices) > 1 else "from anywhere"
        lines.append(f"  {f'from {sources}' if sources else rest}: {_what(choice, made)}")
        pointed = f"; {files.place_text(origin_of(choice, one))}" if choice.pointer else ""
        lines.append(f"    {choice.why}{pointed}")
    return lines


def _what(choice: Choice, made: Explained) -> str:
    if choice.action != FORWARD:
        return ACTIONS[choice.action]
    whose = "the node's" if choice.replace_source else "the client's"
    return f"forward to {', '.join(_endpoints(choice, made))}, which see {whose} address"


def _fate_row(fate: Fate, files: Files) -> tuple[str, str, str, str, str, str]:
    one = fate.endpoint
    return (
        port_text(one.address, one.port),
        fate.port,
        "this" if one.local else "another",
        ", ".join(fate.policies) or "none",
        fate.why or "-",
        files.place_text(one.origin),
    )
