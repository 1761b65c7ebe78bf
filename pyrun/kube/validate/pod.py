"""A pod as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from ..objects.pods import Pod, PodSpec
from ..strict import Fault
from .containers import validate_containers
from .meta import validate_meta
from .names import check, ip_fault, key_fault, label_fault, number_range, one_of, subdomain_fault
from .resources import validate_overhead, validate_resources, validate_whole
from .scheduling import validate_scheduling
from .security import validate_pod_security
from .volumes import validate_volumes

MOST_NAMESERVERS, MOST_SEARCHES, LONGEST_SEARCH = 3, 32, 2048


def validate_pod(pod: Pod) -> Iterator[Fault]:
    """After defaults (`default_pod`)."""
    yield from validate_meta(pod.metadata)
    if pod.spec is None:
        yield Fault("/spec", "is missing")
        return
    yield from validate_pod_spec(pod.spec)


def validate_pod_spec(spec: PodSpec) -> Iterator[Fault]:
    grace = 30 if spec.terminationGracePeriodSeconds is None else spec.terminationGracePeriodSeconds
    yield from validate_volumes(spec)
    yield from validate_containers(spec, grace)
    yield from _policies(spec)
    yield from number_range(spec.activeDeadlineSeconds, 1, (1 << 31) - 1, "/spec/activeDeadlineSeconds")
    yield from validate_pod_security(spec.securityContext, spec, "/spec/securityContext")
    yield from validate_resources(spec.resources, "/spec/resources", of_pod=True)
    yield from validate_whole(spec)
    yield from validate_overhead(spec)
    yield from _names(spec)
    yield from _dns(spec)
    yield from _namespaces(spec)
    for i, gate in enumerate(spec.readinessGates or ()):
        yield from check(key_fault(gate.conditionType), f"/spec/readinessGates/{i}/conditionType")
    yield from validate_scheduling(spec)
    yield from _claims(spec)


def _policies(spec: PodSpec) -> Iterator[Fault]:
    yield from one_of(spec.restartPolicy, ("Always", "OnFailure", "Never"), "/spec/restartPolicy")
    yield from one_of(spec.dnsPolicy, ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), "/spec/dnsPolicy")
    yield from one_of(spec.preemptionPolicy, ("PreemptLowerPriority", "Never"), "/spec/preemptionPolicy")
    if spec.os is not None:
        yield from one_of(spec.os.name, ("linux", "windows"), "/spec/os/name")


def _names(spec: PodSpec) -> Iterator[Fault]:
    for field in ("hostname", "subdomain"):
        if value := getattr(spec, field):
            yield from check(label_fault(value), f"/spec/{field}")
    for field in ("nodeName", "serviceAccountName", "runtimeClassName", "priorityClassName", "hostnameOverride"):
        if value := getattr(spec, field):
            yield from check(subdomain_fault(value), f"/spec/{field}")
    if spec.hostnameOverride:
        if len(spec.hostnameOverride) > 64:
            yield Fault("/spec/hostnameOverride", "is longer than 64 characters")
        for field in ("hostNetwork", "setHostnameAsFQDN"):
            if getattr(spec, field):
                yield Fault("/spec/hostnameOverride", f"must not be set beside {field}: true")
    for i, alias in enumerate(spec.hostAliases or ()):
        yield from check(ip_fault(alias.ip), f"/spec/hostAliases/{i}/ip")
        for j, name in enumerate(alias.hostnames or ()):
            yield from check(subdomain_fault(name), f"/spec/hostAliases/{i}/hostnames/{j}")
    for i, secret in enumerate(spec.imagePullSecrets or ()):
        if not secret.name:
            yield Fault(f"/spec/imagePullSecrets/{i}/name", "is missing")


def _dns(spec: PodSpec) -> Iterator[Fault]:
    found = spec.dnsConfig
    if spec.dnsPolicy == "None" and not (found and found.nameservers):
        yield Fault("/spec/dnsConfig/nameservers", "is missing; dnsPolicy None needs one at least")
    if found is None:
        return
    servers, searches = found.nameservers or [], found.searches or []
    if len(servers) > MOST_NAMESERVERS:
        yield Fault("/spec/dnsConfig/nameservers", f"has {len(servers)}; {MOST_NAMESERVERS} are the most")
    for i, server in enumerate(servers):
        yield from check(ip_fault(server), f"/spec/dnsConfig/nameservers/{i}")
    if len(searches) > MOST_SEARCHES:
        yield Fault("/spec/dnsConfig/searches", f"has {len(searches)}; {MOST_SEARCHES} are the most")
    if len(" ".join(searches)) > LONGEST_SEARCH:
        yield Fault("/spec/dnsConfig/searches", f"is longer than {LONGEST_SEARCH} characters in all")
    for i, name in enumerate(searches):
        bare = name.removesuffix(".")
        if bare or not name:
            yield from check(subdomain_fault(bare.replace("_", "a")), f"/spec/dnsConfig/searches/{i}")
    for i, option in enumerate(found.options or ()):
        if not option.name:
            yield Fault(f"/spec/dnsConfig/options/{i}/name", "is missing")


def _namespaces(spec: PodSpec) -> Iterator[Fault]:
    if spec.shareProcessNamespace and spec.hostPID:
        yield Fault("/spec/shareProcessNamespace", "must not be set beside hostPID: true")
    if spec.hostUsers is False:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if getattr(spec, field):
                yield Fault(f"/spec/{field}", "must not be true with hostUsers: false")


def _claims(spec: PodSpec) -> Iterator[Fault]:
    for i, claim in enumerate(spec.resourceClaims or ()):
        at = f"/spec/resourceClaims/{i}"
        yield from check(label_fault(claim.name), f"{at}/name")
        if (claim.resourceClaimName is None) == (claim.resourceClaimTemplateName is None):
            yield Fault(at, "must have one of resourceClaimName and resourceClaimTemplateName")
