"""Runs the proxy and the DNS beside the agent, each in a thread of its own.

Neither is on the pods' path: what can't start is said, in the log and by `pyrun node status`, and tried again. Killed,
the data plane and pyrun-dns go on by what they had, and the next agent takes them over. Ended by a signal, they go on
as long as pods do.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...cri.cri import Cri
from ...errors import InvalidArgument, PyrunError
from ...kube.addresses import Prefix, parse_address, parse_prefix
from ...kube.feed.cluster_ips import ClusterIPs
from ...kube.feed.directory import Directory
from ...kube.feed.store import Store
from ...kube.kubeconfig import Cluster
from ..agent.agent import Agent
from .pods import Pods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...kube.feed.server import Kind

DNS_NUMBER = 10  # of a range's addresses, as kubeadm has it
AGAIN_S = (1.0, 30.0)  # before another try
STOP_S = 20.0
DNS_KINDS = frozenset({"Service", "EndpointSlice", "Namespace"})
# What a node's credentials may not do by themselves.
RIGHTS = (
    "kubectl create clusterrole pyrun-services --verb=list,watch "
    "--resource=services,endpointslices.discovery.k8s.io,namespaces,pods && "
    "kubectl create clusterrolebinding pyrun-services --clusterrole=pyrun-services --group=system:nodes"
)


@dataclass(frozen=True, slots=True)
class Serving:
    """cidrs: where Services have their addresses, one of a family, the default one first. mode: of the proxy. dns:
    where the DNS answers; none: nowhere. state: a directory for each of them below it. autopath: whether it walks pods'
    search paths."""

    cidrs: tuple[str, ...]
    state: str
    mode: str = "userspace"
    dns: tuple[str, ...] = ()
    domain: str = "cluster.local"
    node_port_addresses: tuple[Any, ...] | None = None
    autopath: bool = False


def dns_address(cidr: str) -> str:
    """Where the DNS of a range of services is looked for. InvalidArgument where the range has no such address."""
    try:
        return str(ipaddress.ip_network(cidr)[DNS_NUMBER])
    except (ValueError, IndexError) as error:
        raise InvalidArgument(f"--service-cidr {cidr}: {error}", hint="a range such as 10.96.0.0/16") from None


class Services:
    """cluster: whose Services they are; None: those of the manifests, with the agent's own pods."""

    def __init__(
        self, cri: Cri, agent: Agent, given: Serving, cluster: Cluster | None, warn: Callable[[str], None]
    ) -> None:
        self._cri, self._agent, self._given, self._cluster, self._warn = cri, agent, given, cluster, warn
        self._addresses = ClusterIPs(given.cidrs, f"{cri.root}/node/services.db")
        self.pods = Pods(agent.name)
        self._keepers = [Keeper("proxy", self._proxy, warn)]
        if given.dns:
            self._keepers.append(Keeper("dns", self._dns, warn))

    def start(self) -> None:
        """Before the agent does."""
        if self._cluster is None:
            self._agent.host.told, self._agent.ended = self.pods.told, self.pods.ended
            self.pods.expect(self._agent.recorded())
        for keeper in self._keepers:
            keeper.start()

    def stop(self) -> None:
        for keeper in self._keepers:
            keeper.end()
        still = [keeper for keeper in self._keepers if not keeper.join()]
        if not still:
            self._addresses.close()
        self.pods.close()

    @property
    def state(self) -> str:
        """The directory below which each of them has its own, by its name."""
        return self._given.state

    def faults(self) -> list[str]:
        """What is wrong now, for `pyrun node status`."""
        return [f"{keeper.name}: {keeper.error}" for keeper in self._keepers if keeper.error]

    def _nothing_runs(self) -> bool:
        return not any(pod.visible for pod in list(self._cri.pods.pods.values()))

    def _check_rights(self, *kinds: Kind) -> None:
        """Forbidden where the API server does not let us list one of these. One that does not answer is no matter here:
        what was known goes on."""
        from ...kube.client import Client, Forbidden, path

        assert self._cluster is not None
        client = Client(self._cluster)
        try:
            for kind in kinds:
                client.get(path(kind.version, kind.plural), limit=1, **dict(kind.where))
        except Forbidden as error:
            raise Forbidden(error.text, hint=RIGHTS) from None
        except PyrunError:
            pass
        finally:
            client.close()

    def _proxy(self, ended: int, up: Callable[[], None]) -> None:
        from ...kube.feed.server import node as node_kind
        from ...kube.feed.server import services, slices
        from ...proxy import daemon as proxy
        from ...proxy.model import Node, Options

        if self._cluster is not None:
            self._check_rights(services(), slices(), node_kind(self._agent.name))
        ranges = self._cri.network.builtin.leases.ranges
        node = Node(
            name=self._agent.name,
            addresses=tuple(parse_address(text) for text in self._agent.settings.addresses),
            pod_cidrs=_prefixes(tuple(map(str, ranges))),
            service_cidrs=_prefixes(self._given.cidrs),
            node_port_addresses=self._given.node_port_addresses,
        )
        dns = tuple(parse_address(text) for text in self._given.dns)
        options = Options(dns=dns, own=dns)
        given = proxy.Given(
            node=node,
            options=options,
            state=f"{self._given.state}/proxy",
            mode=self._given.mode,
            directories=() if self._cluster else (self._agent.settings.manifests,),
            cluster=self._cluster,
            pods=None if self._cluster else self.pods.feed,
            fill=self._addresses.fill,
        )
        proxy.serve_until(ended, given, lambda line: self._warn(f"proxy: {line}"), self._nothing_runs, up)

    def _dns(self, ended: int, up: Callable[[], None]) -> None:
        from ...dns.daemon import Daemon, Settings
        from ...dns.plan import Options
        from ...dns.servers import PRIVATE

        def say(line: str) -> None:
            self._warn(f"dns: {line}")

        addresses = tuple(parse_address(text) for text in self._given.dns)
        settings = Settings(
            state=f"{self._given.state}/dns",
            listen=tuple((text, 53) for text in self._given.dns),
            allow=_prefixes((*PRIVATE, *map(str, self._cri.network.builtin.leases.ranges))),
            options=Options(
                zone=self._given.domain,
                own=addresses,
                reverse=_prefixes(self._given.cidrs),
                autopath=self._given.autopath,
            ),
            resolv_conf="/etc/resolv.conf",
            searches_of_file=self._given.autopath,
        )
        store = Store()
        sources = self._dns_sources(store, say)
        try:
            daemon = Daemon(settings, store, say)
            daemon.loop.read(ended, lambda: daemon.stop(leave=not self._nothing_runs()))
            for source in sources:
                source.start()
            daemon.run(lambda text: up())
        finally:
            for source in sources:
                source.stop()
            store.close()

    def _dns_sources(self, store: Store, say: Callable[[str], None]) -> tuple[Any, ...]:
        if self._cluster is None:
            directory = Directory(self._agent.settings.manifests, store, DNS_KINDS, say, self._addresses.fill)
            return directory, self.pods.feed(store)
        from ...kube.client import Client
        from ...kube.feed.server import Kind, Server, pods, services, slices

        kinds = (services(), slices(), pods(), Kind("Namespace", "v1", "namespaces"))
        self._check_rights(*kinds)
        return (Server(Client(self._cluster), store, kinds, say),)


def _prefixes(texts: tuple[str, ...]) -> tuple[Prefix, ...]:
    return tuple(parse_prefix(text) for text in texts)


@dataclass(slots=True)
class Keeper:
    """A thread that runs something until it is to end, and again where it fails. run: given a descriptor that is
    readable then, and whom to tell that it is up. error: why it does not run."""

    name: str
    run: Callable[[int, Callable[[], None]], None]
    warn: Callable[[str], None]
    error: str = ""
    _ended: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        os.eventfd_write(self._ended, 1)

    def join(self) -> bool:
        """Whether it has ended."""
        assert self._thread is not None
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            self.warn(f"{self.name}: does not end")
            return False
        os.close(self._ended)
        return True

    def up(self) -> None:
        """What runs says that it does its work."""
        self.error = ""

    def _keep(self) -> None:
        wait = AGAIN_S[0]
        while not self._end.is_set():
            began = time.monotonic()
            try:
                self.run(self._ended, self.up)
                if self._end.is_set():
                    return
                text = "it has ended by itself"
            except PyrunError as error:
                text = "; ".join(line.strip() for line in error.lines())
            except ModuleNotFoundError as error:
                text = f"the Python package {error.name} is not installed"
            except Exception as error:  # a fault of ours here is not to end the pods
                text = f"{type(error).__name__}: {error}"
            if time.monotonic() - began > AGAIN_S[1]:
                wait = AGAIN_S[0]
            self.error = text
            self.warn(f"{self.name}: {text}; tried again in {wait:g} s")
            self._end.wait(wait)
            wait = min(2 * wait, AGAIN_S[1])
