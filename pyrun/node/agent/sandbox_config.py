"""PURE: a pod → the CRI's PodSandboxConfig. Source: kubernetes pkg/kubelet/kuberuntime, network/dns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ... import cri_api as v1
from ...errors import InvalidArgument
from ...kube.objects.containers import Container, EphemeralContainer, SELinuxOptions
from ...kube.objects.pods import Pod, PodSpec
from ..plan.restart import is_sidecar
from ..qos import cgroup_path, cgroup_slice, qos_class
from .user_ids import mapping

# By which tools on the node find a pod's name; the kubelet's.
NAME, NAMESPACE, UID = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"
CONTAINER = "io.kubernetes.container.name"
SOURCE = "kubernetes.io/config.source"  # an annotation: whose it is
FILE, API = "file", "api"
HOST_NAME_MAX = 63
MOST_SERVERS, MOST_SEARCHES, MOST_SEARCH_LETTERS = 3, 32, 2048  # of a resolv.conf
NODE_NAME_MAX = 64  # uname(2), NUL not counted


class Resolv(NamedTuple):
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Dns(NamedTuple):
    """servers: the cluster's, none where there is none; domain: the cluster's; node: the node's own."""

    servers: tuple[str, ...] = ()
    domain: str = "cluster.local"
    node: Resolv = Resolv()


def read_resolv(text: str) -> Resolv:
    """The last of search and domain counts, as resolv.conf(5) has it."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            servers.append(rest[0])
        elif word in ("search", "domain"):
            searches = rest
        elif word == "options":
            options += rest
    return Resolv(tuple(servers), tuple(searches), tuple(options))


def parent_of(spec: PodSpec, uid: str, *, systemd: bool) -> str:
    """The cgroup, or systemd's slice, of a pod."""
    return cgroup_slice(uid, qos_class(spec)) if systemd else cgroup_path(uid, qos_class(spec))


def sandbox_config(
    pod: Pod, uid: str, attempt: int, logs: str, dns: Dns, *, systemd: bool = False, source: str = FILE, ids: int = 0
) -> Any:
    """logs: the directory of all pods' logs. systemd: that makes the cgroups. source: FILE or API. ids: the first of
    its own users, where it has any. InvalidArgument."""
    assert pod.metadata is not None and pod.spec is not None
    meta, spec = pod.metadata, pod.spec
    namespace, name = meta.namespace or "default", meta.name or ""
    config = v1.PodSandboxConfig(
        metadata=v1.PodSandboxMetadata(name=name, namespace=namespace, uid=uid, attempt=attempt),
        hostname="" if spec.hostNetwork else kernel_name(pod, dns.domain),
        log_directory=f"{logs}/{namespace}_{name}_{uid}",
        dns_config=dns_config(spec, namespace, dns),
        labels={**(meta.labels or {}), NAME: name, NAMESPACE: namespace, UID: uid},
        annotations={**(meta.annotations or {}), SOURCE: source},
    )
    if not spec.hostNetwork:
        config.port_mappings.extend(_ports(spec))
    linux = config.linux
    linux.cgroup_parent = parent_of(spec, uid, systemd=systemd)
    context = linux.security_context
    context.namespace_options.CopyFrom(namespaces(spec, ids))
    context.privileged = any(c.securityContext and c.securityContext.privileged for c in all_containers(spec))
    context.seccomp.profile_type = v1.SecurityProfile.RuntimeDefault
    set_selinux(context.selinux_options, spec.securityContext.seLinuxOptions if spec.securityContext else None)
    for sysctl in (spec.securityContext and spec.securityContext.sysctls) or ():
        linux.sysctls[sysctl.name] = sysctl.value
    return config


def set_selinux(found: Any, given: SELinuxOptions | None) -> None:
    """Where the node has no SELinux the runtime leaves it out, with a warning."""
    for name in ("user", "role", "type", "level") if given is not None else ():
        setattr(found, name, getattr(given, name) or "")


def host_names(pod: Pod, cluster: str) -> tuple[str, str]:
    """The host name, and all of it with its domain, the same where it has none. cluster: that one's domain.

    A hostnameOverride is all there is; else it is the pod's name, cut to what a host name may be."""
    assert pod.metadata is not None and pod.spec is not None
    meta, spec = pod.metadata, pod.spec
    if spec.hostnameOverride:
        return spec.hostnameOverride, spec.hostnameOverride
    name = spec.hostname or (meta.name or "")[:HOST_NAME_MAX].rstrip("-.")
    return name, f"{name}.{spec.subdomain}.{meta.namespace or 'default'}.svc.{cluster}" if spec.subdomain else name


def kernel_name(pod: Pod, cluster: str) -> str:
    """What `hostname` says in the pod. InvalidArgument where setHostnameAsFQDN asks for more than the kernel takes."""
    assert pod.spec is not None
    name, whole = host_names(pod, cluster)
    if not pod.spec.setHostnameAsFQDN:
        return name
    if len(whole) > NODE_NAME_MAX:
        raise InvalidArgument(
            f"/spec/setHostnameAsFQDN: {whole} has {len(whole)} characters, and a host name {NODE_NAME_MAX} at most",
            hint="take a shorter hostname or subdomain",
        )
    return whole


def all_containers(spec: PodSpec) -> list[Container | EphemeralContainer]:
    return [*(spec.initContainers or ()), *spec.containers, *(spec.ephemeralContainers or ())]


def namespaces(spec: PodSpec, ids: int) -> Any:
    """Of the sandbox and of each container. A pod that is to have users of its own never has the node's."""
    pid = v1.NODE if spec.hostPID else v1.POD if spec.shareProcessNamespace else v1.CONTAINER
    found = v1.NamespaceOption(
        network=v1.NODE if spec.hostNetwork else v1.POD, ipc=v1.NODE if spec.hostIPC else v1.POD, pid=pid
    )
    found.userns_options.mode = v1.NODE
    if spec.hostUsers is False:
        if not ids:
            raise InvalidArgument("/spec/hostUsers: the pod has no users of its own")
        found.userns_options.mode = v1.POD
        found.userns_options.uids.append(mapping(ids))
        found.userns_options.gids.append(mapping(ids))
    return found


def _ports(spec: PodSpec) -> list[Any]:
    """Of app containers and sidecars, those with a port of the node."""
    kept = [*(c for c in spec.initContainers or () if is_sidecar(c)), *spec.containers]
    protocols = {"TCP": v1.TCP, "UDP": v1.UDP, "SCTP": v1.SCTP}
    return [
        v1.PortMapping(
            protocol=protocols[port.protocol or "TCP"],
            container_port=port.containerPort,
            host_port=port.hostPort,
            host_ip=port.hostIP or "",
        )
        for c in kept
        for port in c.ports or ()
        if port.hostPort
    ]


def dns_config(spec: PodSpec, namespace: str, dns: Dns) -> Any:
    """What resolv.conf is made of; empty: the node's. ClusterFirst on the node's network, or where there is no cluster
    DNS, is Default, as a kubelet has it."""
    config = v1.DNSConfig()
    cluster = spec.dnsPolicy == "ClusterFirstWithHostNet" or (spec.dnsPolicy == "ClusterFirst" and not spec.hostNetwork)
    if cluster and dns.servers:
        config.servers.extend(dns.servers)
        config.searches.extend([f"{namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain, *dns.node.searches])
        config.options.append("ndots:5")
    given = spec.dnsConfig
    if given is not None:
        if spec.dnsPolicy != "None" and not (cluster and dns.servers):
            config.servers.extend(dns.node.servers)
            config.searches.extend(dns.node.searches)
            config.options.extend(dns.node.options)
        config.servers.extend(server for server in given.nameservers or () if server not in config.servers)
        config.searches.extend(search for search in given.searches or () if search not in config.searches)
        options = dict(option.partition(":")[::2] for option in config.options)
        options.update({one.name or "": one.value or "" for one in given.options or ()})
        del config.options[:]
        config.options.extend(f"{name}:{value}" if value else name for name, value in options.items())
    return config


def limit_dns(config: Any) -> Iterator[str]:
    """Leaves out what is beyond the limits that Kubernetes has of a pod's resolv.conf, the last first, and says so.

    Source: kubernetes pkg/kubelet/network/dns (formDNSSearchFitsLimits, formDNSNameserversFitsLimits)."""
    searches = list(config.searches[:MOST_SEARCHES])
    while len(" ".join(searches)) > MOST_SEARCH_LETTERS:
        searches.pop()
    for words, kept, told in (
        (config.servers, list(config.servers[:MOST_SERVERS]), "Nameserver limits were exceeded, some nameservers"),
        (config.searches, searches, "Search Line limits were exceeded, some search paths"),
    ):
        if len(kept) < len(words):
            del words[len(kept) :]
            yield f"{told} have been omitted, what is applied is: {' '.join(kept)}"
