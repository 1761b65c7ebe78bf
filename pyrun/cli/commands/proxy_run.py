"""`pyrun proxy run`: serves Services until a signal ends it."""

from __future__ import annotations

import socket

from pyrun.cli.commands.proxy_trace import many, node_port_addresses
from pyrun.errors import PyrunError, UsageError
from pyrun.kube.addresses import parse_address, parse_prefix
from pyrun.proxy.model import Node
from pyrun.proxy.model import Options as Decided

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.kube.kubeconfig import Cluster

STATE = "/run/pyrun-proxy"
NEEDS = ("urllib3", "h11", "yaml", "google", "grpclib", "cffi")
OUTSIDE = {4: "192.0.2.1", 6: "2001:db8::1"}  # documentation's: nothing is sent there


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.proxy.daemon import Given, say, serve
        from pyrun.proxy.messages import Settings
    except ModuleNotFoundError as error:
        raise missing_package(error)
    cluster = cluster_of(o)
    if not o.objects and cluster is None:
        raise UsageError("no Services: --objects DIR, --kubeconfig FILE or --in-cluster")
    given = Given(
        node=node_of(o, from_server=cluster is not None),
        options=Decided(
            external_ips=many(o.allow_external_ips, parse_prefix, "--allow-external-ips"),
            dns=many(o.cluster_dns, parse_address, "--cluster-dns"),
            masquerade_all=o.masquerade_all,
        ),
        state=o.state or STATE,
        mode=o.proxy_mode,
        directories=o.objects,
        cluster=cluster,
        cri=o.cri.removeprefix("unix://") if o.cri else None,
        healthz=address(o.healthz_bind_address, ":10256"),
        metrics=address(o.metrics_bind_address, "127.0.0.1:10249"),
        settings=Settings(drain_s=o.drain),
        force_node_ports=o.force_node_ports,
    )
    return serve(given, say)


def cluster_of(o: Options) -> Cluster | None:
    """The API server, if one is asked for."""
    if o.kubeconfig and o.in_cluster:
        raise UsageError("--kubeconfig and --in-cluster exclude each other")
    if not o.kubeconfig and not o.in_cluster:
        return None
    from pyrun.kube.kubeconfig import in_cluster, load_kubeconfig

    return load_kubeconfig(o.kubeconfig, o.context) if o.kubeconfig else in_cluster()


def node_of(o: Options, from_server: bool) -> Node:
    """This node as the command line has it. from_server: what is left out may come with its Node object; else the
    addresses are those by which the node reaches the world."""
    addresses = many(o.node_ip, parse_address, "--node-ip")
    if not addresses and not from_server:
        addresses = tuple(parse_address(text) for text in outward())
    return Node(
        name=o.node or socket.gethostname().lower(),
        addresses=addresses,
        zone=o.node_zone or "",
        pod_cidrs=many(o.cluster_cidr, parse_prefix, "--cluster-cidr"),
        service_cidrs=many(o.service_cidr, parse_prefix, "--service-cidr"),
        node_port_addresses=node_port_addresses(o),
    )


def outward() -> list[str]:
    """The addresses that this node's default routes take, of each family that has one."""
    found = []
    for family, there in ((socket.AF_INET, OUTSIDE[4]), (socket.AF_INET6, OUTSIDE[6])):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            try:
                s.connect((there, 9))
            except OSError:
                continue
            found.append(s.getsockname()[0])
    return found


def address(word: str | None, default: str) -> str | None:
    return None if word == "none" else word or default


def missing_package(error: ModuleNotFoundError) -> Exception:
    """What to tell of a package that an extra brings; the error itself where it is one of ours."""
    name = (error.name or "").partition(".")[0]
    if name not in NEEDS:
        return error
    return PyrunError(
        f"the Python package {name} is not installed", hint="pip install 'pyrun[cri,kube]' has all that it takes"
    )
