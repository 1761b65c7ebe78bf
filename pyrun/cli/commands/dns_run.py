"""`pyrun dns run`: the cluster's DNS, until a signal ends it."""

from __future__ import annotations

import ipaddress

from pyrun.dns import wire
from pyrun.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.dns.daemon import Settings
    from pyrun.kube.feed.store import Store

    class Source(Protocol):
        def start(self) -> None: ...
        def stop(self) -> None: ...


STATE = "/run/pyrun-dns"
RESOLV_CONF = "/etc/resolv.conf"


def run(g: Globals, o: Options) -> int:
    from pyrun.dns.daemon import Daemon, catch_signals
    from pyrun.kube.feed.store import Store
    from pyrun.listen import notify

    settings = settings_of(o)
    store = Store()
    sources = sources_of(o, store, g.warn)
    daemon = Daemon(settings, store, g.warn)
    catch_signals(daemon)
    try:
        for source in sources:
            source.start()
        daemon.run(notify)
    finally:
        for source in sources:
            source.stop()
    return 0


def settings_of(o: Options) -> Settings:
    from pyrun.dns.daemon import Settings
    from pyrun.dns.plan import Options as Planning
    from pyrun.dns.servers import PRIVATE, read_address, read_upstreams

    listen = tuple(read_address(word) for word in o.listen or ("127.0.0.1",))
    try:
        wire.name_of(o.zone)
    except wire.WireError as error:
        raise PyrunError(f"--zone {error}")
    for word in o.search:
        try:
            wire.name_of(word)
        except wire.WireError as error:
            raise PyrunError(f"--search {error}")
    if o.search and not o.autopath:
        raise UsageError("--search is of use with --autopath only")
    own = tuple(ipaddress.ip_address(address).packed for address, _ in listen)
    upstreams = read_upstreams(o.upstream) if o.upstream else None
    by_file = upstreams is None or wire.ROOT not in upstreams.zones
    return Settings(
        state=o.state or STATE,
        listen=listen,
        allow=tuple(prefix(word) for word in o.allow or PRIVATE),
        options=Planning(
            zone=o.zone,
            ttl=o.ttl,
            own=tuple(address for address in own if any(address)),
            reverse=tuple(prefix(word) for word in o.service_cidr),
            autopath=o.autopath,
            searches=tuple(o.search),
        ),
        upstreams=upstreams,
        resolv_conf=(o.resolv_conf or RESOLV_CONF) if by_file else None,
        rate=o.rate,
        stale_s=o.stale,
        metrics=o.metrics_bind_address,
        searches_of_file=o.autopath and by_file and not o.search,
    )


def sources_of(o: Options, store: Store, warn: Callable[[str], None]) -> list[Source]:
    if not o.objects and not o.kubeconfig:
        raise UsageError("--objects or --kubeconfig is missing: where Services come from")
    sources: list[Source] = []
    if o.objects:
        from pyrun.dns.directory import KINDS
        from pyrun.kube.feed.directory import Directory

        sources.append(Directory(o.objects, store, KINDS, warn))
    if o.kubeconfig:
        from pyrun.kube.client import Client
        from pyrun.kube.feed.server import Kind, Server, pods, services, slices
        from pyrun.kube.kubeconfig import load_kubeconfig

        kinds = (services(), slices(), pods(), Kind("Namespace", "v1", "namespaces"))
        sources.append(Server(Client(load_kubeconfig(o.kubeconfig)), store, kinds, warn))
    return sources


def prefix(text: str) -> tuple[bytes, int]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise PyrunError(f"{text} is no range of addresses: 10.0.0.0/8, or fd00::/8")
    return network.network_address.packed, network.prefixlen
