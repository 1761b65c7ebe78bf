"""Pods, each a valid one with something changed, and where they are wrong: for our rules (tests/unit) and, as a dry
run, for a real API server (tests/cluster).

A row's fault is the JSON pointer of what is wrong, "" for none. `ours`: where we are stricter than an API server on
purpose; `gate`: a feature gate of 1.37 that an API server needs for it.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

BASE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
}


class Row(NamedTuple):
    name: str
    spec: dict[str, Any]
    container: dict[str, Any]
    metadata: dict[str, Any]
    fault: str
    ours: bool
    gate: str

    def pod(self) -> dict[str, Any]:
        made = copy.deepcopy(BASE)
        made["spec"].update(copy.deepcopy(self.spec))
        made["spec"]["containers"][0].update(copy.deepcopy(self.container))
        made["metadata"].update(self.metadata)
        return made


ROWS: list[Row] = []


def row(
    name: str,
    fault: str = "",
    *,
    spec: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    ours: bool = False,
    gate: str = "",
    **container: Any,
) -> None:
    """Keywords are fields of the first container."""
    ROWS.append(Row(name, spec or {}, container, metadata or {}, fault, ours, gate))


C = "/spec/containers/0"
HTTP = {"httpGet": {"port": 80}}
EXEC = {"exec": {"command": ["true"]}}


def init(**fields: Any) -> dict[str, Any]:
    return {"initContainers": [{"name": "i", "image": "i:1", **fields}]}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


def mounted(**mount: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "mountPath": "/v", **mount}]


row("as it is")
# Names.
row("name with a capital", "/metadata/name", metadata={"name": "Web"})
row("name with dots", metadata={"name": "web.example"})
row("name that ends in a hyphen", "/metadata/name", metadata={"name": "web-"})
row("name too long", "/metadata/name", metadata={"name": "w" * 254})
row("label's value", "/metadata/labels/app", metadata={"labels": {"app": "a b"}})
row("label's key", "/metadata/labels/a b", metadata={"labels": {"a b": "c"}})
row("label's key with two slashes", "/metadata/labels/a~1b~1c", metadata={"labels": {"a/b/c": "d"}})
row("label with a prefix", metadata={"labels": {"example.com/app": "web", "empty": ""}})
row("annotations of any text", metadata={"annotations": {"note": "any text: äöü\n"}})
row("container's name with a dot", f"{C}/name", spec={"containers": [{"name": "a.b", "image": "i"}]})
row("two of a name", "/spec/containers/0/name", spec={"initContainers": [{"name": "web", "image": "i"}]})
row("image is missing", f"{C}/image", image="")
row("image with a space before it", f"{C}/image", image=" web")
row("hostname", "/spec/hostname", spec={"hostname": "Web"})
row("hostname and subdomain", spec={"hostname": "web", "subdomain": "sub"})
row("hostname with a dot", "/spec/hostname", spec={"hostname": "a.b"})
row("host alias", spec={"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b", "c"]}]})
row("host alias without an address", "/spec/hostAliases/0/ip", spec={"hostAliases": [{"ip": "x", "hostnames": ["a"]}]})
row("host alias' name", "/spec/hostAliases/0/hostnames/0", spec={"hostAliases": [{"ip": "::1", "hostnames": ["_"]}]})
# Policies.
row("restart policy", "/spec/restartPolicy", spec={"restartPolicy": "Sometimes"})
row("restart policy of small letters", "/spec/restartPolicy", spec={"restartPolicy": "always"})
row("DNS policy", "/spec/dnsPolicy", spec={"dnsPolicy": "Cluster"})
row("DNS policy None without servers", "/spec/dnsConfig/nameservers", spec={"dnsPolicy": "None"})
row("DNS policy None", spec={"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"]}})
row(
    "four name servers",
    "/spec/dnsConfig/nameservers",
    spec={"dnsConfig": {"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]}},
)
row("name server without an address", "/spec/dnsConfig/nameservers/0", spec={"dnsConfig": {"nameservers": ["a"]}})
row("33 search domains", "/spec/dnsConfig/searches", spec={"dnsConfig": {"searches": [f"d{n}" for n in range(33)]}})
row("32 search domains", spec={"dnsConfig": {"searches": [f"d{n}" for n in range(32)]}})
row("DNS options", spec={"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}})
row("DNS option without a name", "/spec/dnsConfig/options/0/name", spec={"dnsConfig": {"options": [{"value": "2"}]}})
row("negative grace", "/spec/terminationGracePeriodSeconds", spec={"terminationGracePeriodSeconds": -1})
row("no grace", spec={"terminationGracePeriodSeconds": 0})
row("active deadline of nothing", "/spec/activeDeadlineSeconds", spec={"activeDeadlineSeconds": 0})
row("active deadline", spec={"activeDeadlineSeconds": 1})
row("pull policy", f"{C}/imagePullPolicy", imagePullPolicy="Sometimes")
row("message policy", f"{C}/terminationMessagePolicy", terminationMessagePolicy="Logs")
# Ports.
row("port", ports=[{"containerPort": 80, "name": "http", "protocol": "TCP"}])
row("port of nothing", f"{C}/ports/0/containerPort", ports=[{"containerPort": 0}])
row("port too high", f"{C}/ports/0/containerPort", ports=[{"containerPort": 65536}])
row("port's name too long", f"{C}/ports/0/name", ports=[{"containerPort": 80, "name": "a-name-too-long-x"}])
row("port's name without a letter", f"{C}/ports/0/name", ports=[{"containerPort": 80, "name": "80"}])
row("port's name with --", f"{C}/ports/0/name", ports=[{"containerPort": 80, "name": "a--b"}])
row(
    "two ports of a name",
    f"{C}/ports/1/name",
    ports=[{"containerPort": 80, "name": "http"}, {"containerPort": 81, "name": "http"}],
)
row("protocol", f"{C}/ports/0/protocol", ports=[{"containerPort": 80, "protocol": "tcp"}])
row("host port", ports=[{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}])
row("host port's address", f"{C}/ports/0/hostIP", ports=[{"containerPort": 80, "hostPort": 8080, "hostIP": "lo"}])
row(
    "two of a host port",
    f"{C}/ports/1/hostPort",
    ports=[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080}],
)
row(
    "a host port for two protocols",
    ports=[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080, "protocol": "UDP"}],
)
row(
    "another host port with hostNetwork",
    f"{C}/ports/0/hostPort",
    spec={"hostNetwork": True},
    ports=[{"containerPort": 80, "hostPort": 81}],
)
row("port with hostNetwork", spec={"hostNetwork": True}, ports=[{"containerPort": 80}])
# Resources.
row("resources", resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": 1, "memory": "1Gi"}})
row("a number with a point", resources={"requests": {"cpu": 0.5}})
row("no quantity", f"{C}/resources/requests/memory", resources={"requests": {"memory": "64MB"}})
row("less than nothing", f"{C}/resources/limits/cpu", resources={"limits": {"cpu": "-1"}})
row(
    "request over limit",
    f"{C}/resources/requests/cpu",
    resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
)
row("memory in thousandths", f"{C}/resources/requests/memory", ours=True, resources={"requests": {"memory": "100m"}})
row("unknown resource", f"{C}/resources/limits/gpu", resources={"limits": {"gpu": "1"}})
row("extended resource", resources={"limits": {"example.com/gpu": "1"}})
row(
    "extended resource without a limit",
    f"{C}/resources/limits/example.com~1gpu",
    resources={"requests": {"example.com/gpu": "1"}},
)
row(
    "part of an extended resource",
    f"{C}/resources/limits/example.com~1gpu",
    resources={"limits": {"example.com/gpu": "0.5"}},
)
row("huge pages alone", f"{C}/resources", resources={"limits": {"hugepages-2Mi": "2Mi"}})
row("huge pages", resources={"limits": {"hugepages-2Mi": "2Mi", "memory": "1Mi"}})
row("pod's resources", spec={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})
row(
    "pod's disk",
    "/spec/resources/limits/ephemeral-storage",
    spec={"resources": {"limits": {"ephemeral-storage": "1Gi"}}},
)
# Variables.
row("variables", env=[{"name": "A", "value": "1"}, {"name": "b.c-d", "value": "$(A)"}, {"name": "E"}])
row("variable without a name", f"{C}/env/0/name", env=[{"name": "", "value": "1"}])
row("variable's name with =", f"{C}/env/0/name", env=[{"name": "A=B", "value": "1"}])
row(
    "value and source",
    f"{C}/env/0/valueFrom",
    env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
)
row("source of nothing", f"{C}/env/0/valueFrom", env=[{"name": "A", "valueFrom": {}}])
for path in (
    "metadata.name",
    "metadata.uid",
    "spec.nodeName",
    "status.podIP",
    "status.hostIPs",
    "metadata.labels['a']",
):
    row(f"variable of {path}", env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}])
for path in ("metadata.labels", "spec.hostname", "status.phase"):
    row(
        f"no variable of {path}",
        f"{C}/env/0/valueFrom/fieldRef/fieldPath",
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}],
    )
row("variable of a limit", env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}])
row(
    "divisor",
    f"{C}/env/0/valueFrom/resourceFieldRef",
    env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}}],
)
row(
    "resource that is none",
    f"{C}/env/0/valueFrom/resourceFieldRef",
    env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}],
)
row("variables from", envFrom=[{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}])
row("variables from nothing", f"{C}/envFrom/0", envFrom=[{"prefix": "P_"}])
row(
    "key",
    f"{C}/env/0/valueFrom/secretKeyRef/key",
    env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}}],
)
# Volumes.
row("volume of nothing", spec=volume(), volumeMounts=mounted())
row("emptyDir", spec=volume(emptyDir={"medium": "Memory", "sizeLimit": "64Mi"}), volumeMounts=mounted(subPath="a/b"))
row("emptyDir's medium", "/spec/volumes/0/emptyDir/medium", spec=volume(emptyDir={"medium": "Disk"}))
row("emptyDir's size", "/spec/volumes/0/emptyDir/sizeLimit", spec=volume(emptyDir={"sizeLimit": "-1"}))
row("hostPath", spec=volume(hostPath={"path": "/srv", "type": "DirectoryOrCreate"}))
row("hostPath's type", "/spec/volumes/0/hostPath/type", spec=volume(hostPath={"path": "/srv", "type": "Dir"}))
row("hostPath with ..", "/spec/volumes/0/hostPath/path", spec=volume(hostPath={"path": "/srv/../etc"}))
row("two sources", "/spec/volumes/0/hostPath", spec=volume(emptyDir={}, hostPath={"path": "/srv"}))
row("volume's name", "/spec/volumes/0/name", spec={"volumes": [{"name": "a.b", "emptyDir": {}}]})
row("two volumes of a name", "/spec/volumes/1/name", spec={"volumes": [{"name": "v"}, {"name": "v"}]})
row("configMap", spec=volume(configMap={"name": "c", "defaultMode": 0o400, "items": [{"key": "k", "path": "a/b"}]}))
row("configMap without a name", "/spec/volumes/0/configMap/name", spec=volume(configMap={}))
row("mode", "/spec/volumes/0/configMap/defaultMode", spec=volume(configMap={"name": "c", "defaultMode": 0o1000}))
row(
    "absolute path of an item",
    "/spec/volumes/0/configMap/items/0/path",
    spec=volume(configMap={"name": "c", "items": [{"key": "k", "path": "/a"}]}),
)
row(
    "path of an item with ..",
    "/spec/volumes/0/secret/items/0/path",
    spec=volume(secret={"secretName": "s", "items": [{"key": "k", "path": "a/../../b"}]}),
)
row(
    "path of an item that begins with ..",
    "/spec/volumes/0/secret/items/0/path",
    spec=volume(secret={"secretName": "s", "items": [{"key": "k", "path": "..data"}]}),
)
row("secret without a name", "/spec/volumes/0/secret/secretName", spec=volume(secret={}))
row(
    "downwardAPI",
    spec=volume(downwardAPI={"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}),
)
row(
    "downwardAPI of an address",
    "/spec/volumes/0/downwardAPI/items/0/fieldRef/fieldPath",
    spec=volume(downwardAPI={"items": [{"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}),
)
row(
    "downwardAPI of a resource without a container",
    "/spec/volumes/0/downwardAPI/items/0/resourceFieldRef",
    spec=volume(downwardAPI={"items": [{"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
)
row(
    "projected",
    spec=volume(projected={"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "token"}}]}),
)
row("projected of nothing", "/spec/volumes/0/projected/sources/0", spec=volume(projected={"sources": [{}]}))
row(
    "two of a projected path",
    "/spec/volumes/0/projected/sources/1/secret/items/0/path",
    spec=volume(
        projected={
            "sources": [
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "a"}]}},
                {"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}},
            ]
        }
    ),
)
row(
    "token of a minute",
    "/spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds",
    spec=volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}),
)
row("mount of no volume", f"{C}/volumeMounts/0/name", volumeMounts=mounted())
row("mount of nowhere", f"{C}/volumeMounts/0/mountPath", spec=volume(), volumeMounts=[{"name": "v", "mountPath": ""}])
row("two mounts at a place", f"{C}/volumeMounts/1/mountPath", spec=volume(), volumeMounts=mounted() * 2)
row("subPath with ..", f"{C}/volumeMounts/0/subPath", spec=volume(), volumeMounts=mounted(subPath="a/../b"))
row("absolute subPath", f"{C}/volumeMounts/0/subPath", spec=volume(), volumeMounts=mounted(subPath="/a"))
row(
    "both subPaths",
    f"{C}/volumeMounts/0/subPathExpr",
    spec=volume(),
    volumeMounts=mounted(subPath="a", subPathExpr="$(A)"),
)
row(
    "Bidirectional without privileges",
    f"{C}/volumeMounts/0/mountPropagation",
    spec=volume(),
    volumeMounts=mounted(mountPropagation="Bidirectional"),
)
row(
    "Bidirectional",
    spec=volume(),
    volumeMounts=mounted(mountPropagation="Bidirectional"),
    securityContext={"privileged": True},
)
row(
    "recursive read-only without read-only",
    f"{C}/volumeMounts/0/recursiveReadOnly",
    spec=volume(),
    volumeMounts=mounted(recursiveReadOnly="Enabled"),
)
row("recursive read-only", spec=volume(), volumeMounts=mounted(readOnly=True, recursiveReadOnly="IfPossible"))
# Probes and hooks.
row("probes", livenessProbe=HTTP, readinessProbe={"tcpSocket": {"port": 80}}, startupProbe=EXEC)
row("probe of nothing", f"{C}/livenessProbe", livenessProbe={})
row("probe of two kinds", f"{C}/livenessProbe/httpGet", livenessProbe={**HTTP, **EXEC})
row("probe of no command", f"{C}/livenessProbe/exec/command", livenessProbe={"exec": {}})
row("probe's port", f"{C}/livenessProbe/httpGet/port", livenessProbe={"httpGet": {"port": 0}})
row("probe's port by name", ports=[{"containerPort": 80, "name": "http"}], livenessProbe={"httpGet": {"port": "http"}})
row(
    "probe's port by a name that is not there",
    f"{C}/livenessProbe/httpGet/port",
    ours=True,
    livenessProbe={"httpGet": {"port": "http"}},
)
row("probe's scheme", f"{C}/livenessProbe/httpGet/scheme", livenessProbe={"httpGet": {"port": 80, "scheme": "http"}})
row(
    "probe's header",
    f"{C}/livenessProbe/httpGet/httpHeaders/0/name",
    livenessProbe={"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "c"}]}},
)
row("liveness of two successes", f"{C}/livenessProbe/successThreshold", livenessProbe={**HTTP, "successThreshold": 2})
row("startup of two successes", f"{C}/startupProbe/successThreshold", startupProbe={**HTTP, "successThreshold": 2})
row("readiness of two successes", readinessProbe={**HTTP, "successThreshold": 2})
row("negative period", f"{C}/livenessProbe/periodSeconds", livenessProbe={**HTTP, "periodSeconds": -1})
row("negative delay", f"{C}/livenessProbe/initialDelaySeconds", livenessProbe={**HTTP, "initialDelaySeconds": -1})
row("liveness' own grace", livenessProbe={**HTTP, "terminationGracePeriodSeconds": 5})
row(
    "readiness' own grace",
    f"{C}/readinessProbe/terminationGracePeriodSeconds",
    readinessProbe={**HTTP, "terminationGracePeriodSeconds": 5},
)
row("grpc", livenessProbe={"grpc": {"port": 80}})
row("grpc's port", f"{C}/livenessProbe/grpc/port", livenessProbe={"grpc": {"port": 0}})
row("hooks", lifecycle={"postStart": EXEC, "preStop": {"sleep": {"seconds": 5}}})
row("hook of nothing", f"{C}/lifecycle/preStop", lifecycle={"preStop": {}})
row(
    "sleep longer than the grace",
    f"{C}/lifecycle/preStop/sleep/seconds",
    lifecycle={"preStop": {"sleep": {"seconds": 31}}},
)
row("stop signal that is none", f"{C}/lifecycle/stopSignal", ours=True, lifecycle={"stopSignal": "TERM"})
# Init containers, sidecars, restarts.
row("init", spec=init())
row("init with a probe", "/spec/initContainers/0/livenessProbe", spec=init(livenessProbe=HTTP))
row("init with a hook", "/spec/initContainers/0/lifecycle", spec=init(lifecycle={"preStop": EXEC}))
row("sidecar", spec=init(restartPolicy="Always", startupProbe=HTTP, lifecycle={"preStop": EXEC}))
row("container's policy", f"{C}/restartPolicy", restartPolicy="Sometimes")
RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
row("rules", restartPolicy="Never", restartPolicyRules=[RULE])
row("rules without a policy", f"{C}/restartPolicy", restartPolicyRules=[RULE])
row("21 rules", f"{C}/restartPolicyRules", restartPolicy="Never", restartPolicyRules=[RULE] * 21)
row(
    "rule's action",
    f"{C}/restartPolicyRules/0/action",
    restartPolicy="Never",
    restartPolicyRules=[{**RULE, "action": "Stop"}],
)
row(
    "rule without codes",
    f"{C}/restartPolicyRules/0/exitCodes",
    restartPolicy="Never",
    restartPolicyRules=[{"action": "Restart"}],
)
row(
    "rule's operator",
    f"{C}/restartPolicyRules/0/exitCodes/operator",
    restartPolicy="Never",
    restartPolicyRules=[{"action": "Restart", "exitCodes": {"operator": "Is", "values": [1]}}],
)
row(
    "rule of no codes",
    f"{C}/restartPolicyRules/0/exitCodes/values",
    restartPolicy="Never",
    restartPolicyRules=[{"action": "Restart", "exitCodes": {"operator": "In", "values": []}}],
)
# Security.
row("user", securityContext={"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True})
row("user less than nothing", f"{C}/securityContext/runAsUser", securityContext={"runAsUser": -1})
row("user too high", f"{C}/securityContext/runAsUser", securityContext={"runAsUser": 1 << 31})
row(
    "pod's groups", spec={"securityContext": {"fsGroup": 1, "supplementalGroups": [2], "fsGroupChangePolicy": "Always"}}
)
row(
    "change policy",
    "/spec/securityContext/fsGroupChangePolicy",
    spec={"securityContext": {"fsGroupChangePolicy": "Never"}},
)
row("privileged", securityContext={"privileged": True})
row(
    "privileged without escalation",
    f"{C}/securityContext/allowPrivilegeEscalation",
    securityContext={"privileged": True, "allowPrivilegeEscalation": False},
)
row(
    "SYS_ADMIN without escalation",
    f"{C}/securityContext/capabilities/add/0",
    ours=True,  # an API server looks for CAP_SYS_ADMIN alone
    securityContext={"capabilities": {"add": ["SYS_ADMIN"]}, "allowPrivilegeEscalation": False},
)
row("seccomp", securityContext={"seccompProfile": {"type": "RuntimeDefault"}})
row(
    "seccomp of no type",
    f"{C}/securityContext/seccompProfile/type",
    securityContext={"seccompProfile": {"type": "Default"}},
)
row(
    "seccomp Localhost without a name (CVE-2023-2431)",
    f"{C}/securityContext/seccompProfile/localhostProfile",
    securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": ""}},
)
row(
    "seccomp with a name that is not for it",
    f"{C}/securityContext/seccompProfile/localhostProfile",
    securityContext={"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}},
)
row(
    "seccomp by absolute path",
    f"{C}/securityContext/seccompProfile/localhostProfile",
    securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "/a"}},
)
row("AppArmor", securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}})
row("proc mount", f"{C}/securityContext/procMount", securityContext={"procMount": "None"})
row("proc unmasked on the host's users", f"{C}/securityContext/procMount", securityContext={"procMount": "Unmasked"})
row("proc unmasked", spec={"hostUsers": False}, securityContext={"procMount": "Unmasked"})
row("sysctl", spec={"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}})
row(
    "sysctl's name",
    "/spec/securityContext/sysctls/0/name",
    spec={"securityContext": {"sysctls": [{"name": "A", "value": "1"}]}},
)
row(
    "two of a sysctl",
    "/spec/securityContext/sysctls/1/name",
    spec={"securityContext": {"sysctls": [{"name": "net.a", "value": "1"}, {"name": "net/a", "value": "1"}]}},
    ours=True,
)
row(
    "net sysctl with hostNetwork",
    "/spec/securityContext/sysctls/0/name",
    spec={"hostNetwork": True, "securityContext": {"sysctls": [{"name": "net.a", "value": "1"}]}},
)
row("host namespaces", spec={"hostNetwork": True, "hostPID": True, "hostIPC": True})
row(
    "shared processes and the host's",
    "/spec/shareProcessNamespace",
    spec={"hostPID": True, "shareProcessNamespace": True},
)
for field in ("hostNetwork", "hostPID", "hostIPC"):
    row(f"own users and {field}", f"/spec/{field}", spec={"hostUsers": False, field: True})
# Where it may run.
row("tolerations", spec={"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]})
row("toleration without a key", "/spec/tolerations/0/operator", spec={"tolerations": [{"effect": "NoSchedule"}]})
row("toleration's effect", "/spec/tolerations/0/effect", spec={"tolerations": [{"operator": "Exists", "effect": "No"}]})
row("readiness gate", spec={"readinessGates": [{"conditionType": "example.com/ready"}]})
row(
    "readiness gate's name", "/spec/readinessGates/0/conditionType", spec={"readinessGates": [{"conditionType": "a b"}]}
)
