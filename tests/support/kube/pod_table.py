"""The table of pods: all rows (pod_row.py says what one is). Some are in pod_rows_*.py."""

from __future__ import annotations

from tests.support.kube import pod_rows_more, pod_rows_trust, pod_rows_volumes  # noqa: F401  # their rows
from tests.support.kube.pod_row import BASE, EXEC, HTTP, LINUX, ROWS, SIGNAL, C, Row, init, row, volume

__all__ = ["BASE", "ROWS", "Row"]

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
row("negative grace", spec={"terminationGracePeriodSeconds": -1})
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
row(
    "host port's address",
    f"{C}/ports/0/hostIP",
    ours=True,  # an API server leaves it to whoever makes the port, which then fails
    ports=[{"containerPort": 80, "hostPort": 8080, "hostIP": "lo"}],
)
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
    "pod's requests are its containers'",
    spec={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "initContainers": [
        {"name": "i", "image": "i:1", "resources": {"requests": {"cpu": "300m"}}}]},
    resources={"requests": {"cpu": "200m"}},
)  # fmt: skip
row(
    "containers request more than the pod",
    "/spec/resources/requests/cpu",
    spec={"resources": {"requests": {"cpu": "100m"}}},
    resources={"requests": {"cpu": "200m"}},
)
row(
    "a container's limit above the pod's",
    f"{C}/resources/limits/memory",
    spec={"resources": {"limits": {"memory": "1Gi"}}},
    resources={"requests": {"memory": "1Mi"}, "limits": {"memory": "2Gi"}},
)
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
row("stop signal that is none", f"{C}/lifecycle/stopSignal", gate=SIGNAL, spec=LINUX, lifecycle={"stopSignal": "TERM"})
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
    ours=True,  # an API server wants the field, and takes it empty
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
for field, value in (("nodeSelector", {"disk": "ssd"}), ("schedulerName", "mine"), ("nodeName", "n1")):
    row(f"{field} that is good", spec={field: value})
row("runtime class' name", "/spec/runtimeClassName", spec={"runtimeClassName": "Kata"})
row("node's name", "/spec/nodeName", spec={"nodeName": "N 1"})
row("preemption", "/spec/preemptionPolicy", spec={"preemptionPolicy": "Sometimes"})
row("system", spec={"os": {"name": "linux"}})
row("system that is none", "/spec/os/name", spec={"os": {"name": "plan9"}})
row(
    "toleration of a time",
    spec={"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]},
)
row(
    "toleration of a time for another effect",
    "/spec/tolerations/0/effect",
    spec={"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]},
)
row(
    "toleration that exists with a value",
    "/spec/tolerations/0/value",
    spec={"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
)
row("toleration's operator", "/spec/tolerations/0/operator", spec={"tolerations": [{"key": "a", "operator": "Is"}]})
# Names, files and accounts.
row("account", spec={"serviceAccountName": "builder", "automountServiceAccountToken": False})
row("account's name", "/spec/serviceAccountName", spec={"serviceAccountName": "Builder"})
row("pull secrets", spec={"imagePullSecrets": [{"name": "registry"}]})
row("pull secret without a name", "/spec/imagePullSecrets/0/name", ours=True, spec={"imagePullSecrets": [{}]})
row("host's whole name", spec={"hostname": "web", "subdomain": "sub", "setHostnameAsFQDN": True})
row("another host's name", spec={"hostnameOverride": "web.example.com"})
row("another host's name too long", "/spec/hostnameOverride", spec={"hostnameOverride": "w" * 65})
row(
    "another host's name on the node's network",
    "/spec/hostnameOverride",
    spec={"hostnameOverride": "web", "hostNetwork": True},
)
row("no links to services", spec={"enableServiceLinks": False, "shareProcessNamespace": True})
row("DNS on the node's network", spec={"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"})
row("search domain", "/spec/dnsConfig/searches/0", spec={"dnsConfig": {"searches": ["a b"]}})
row(
    "search domains too long",
    "/spec/dnsConfig/searches",
    spec={"dnsConfig": {"searches": ["d" * 60 + f".e{n:02}" for n in range(32)]}},
)
row("search domain of the root", spec={"dnsConfig": {"searches": [".", "_tcp.example.com."]}})
row(
    "variables of a file",
    spec=volume(emptyDir={}),
    env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "env", "key": "A"}}}],
)
row(
    "variables of a file of no volume",
    f"{C}/env/0/valueFrom/fileKeyRef/volumeName",
    env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "env", "key": "A"}}}],
)
row(
    "variables of a file outside",
    f"{C}/env/0/valueFrom/fileKeyRef/path",
    spec=volume(emptyDir={}),
    env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "../env", "key": "A"}}}],
)
row(
    "variable of a request with a divisor",
    env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}}],
)
row("prefix of variables", f"{C}/envFrom/0/prefix", envFrom=[{"prefix": "a=", "configMapRef": {"name": "c"}}])
row("variables from a map without a name", f"{C}/envFrom/0/configMapRef/name", envFrom=[{"configMapRef": {}}])
# More of life.
row(
    "resize",
    resizePolicy=[
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ],
)
row(
    "resize of a disk",
    f"{C}/resizePolicy/0/resourceName",
    resizePolicy=[{"resourceName": "ephemeral-storage", "restartPolicy": "NotRequired"}],
)
row("disk", resources={"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "2Gi"}})
row("hook by HTTP", lifecycle={"preStop": {"httpGet": {"port": 80, "path": "/bye"}}})
row("hook by TCP", lifecycle={"preStop": {"tcpSocket": {"port": 80}}})
row("sleep of nothing", lifecycle={"preStop": {"sleep": {"seconds": 0}}})
row(
    "sleep less than nothing", f"{C}/lifecycle/preStop/sleep/seconds", lifecycle={"preStop": {"sleep": {"seconds": -1}}}
)
row("stop signal", gate=SIGNAL, spec=LINUX, lifecycle={"stopSignal": "SIGUSR1"})
row("stop signal without a system", f"{C}/lifecycle/stopSignal", gate=SIGNAL, lifecycle={"stopSignal": "SIGUSR1"})
row("grpc by a service", readinessProbe={"grpc": {"port": 80, "service": "s"}, "timeoutSeconds": 0})
row(
    "probe's grace of nothing",
    f"{C}/livenessProbe/terminationGracePeriodSeconds",
    livenessProbe={**HTTP, "terminationGracePeriodSeconds": 0},
)
row(
    "probe's scheme HTTPS",
    livenessProbe={"httpGet": {"port": 443, "scheme": "HTTPS", "host": "example.com", "path": "/a"}},
)
row(
    "probe by TCP of a name",
    ports=[{"containerPort": 80, "name": "http"}],
    startupProbe={"tcpSocket": {"port": "http"}},
)
row("message's path", terminationMessagePath="/tmp/end", terminationMessagePolicy="FallbackToLogsOnError")
row("sidecar that is not always", "/spec/initContainers/0/restartPolicy", spec=init(restartPolicy="Sometimes"))
row("init's own policy", spec=init(restartPolicy="Never"))
row(
    "rule for all",
    restartPolicy="Never",
    restartPolicyRules=[{**RULE, "action": "RestartAllContainers"}],
)
row(
    "256 codes",
    f"{C}/restartPolicyRules/0/exitCodes/values",
    restartPolicy="Never",
    restartPolicyRules=[{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": list(range(256))}}],
)
row("terminal", stdin=True, stdinOnce=True, tty=True, workingDir="/tmp", args=["-l"])
# More of security.
row(
    "capabilities",
    securityContext={"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "readOnlyRootFilesystem": True},
)
row("groups that are all", spec={"securityContext": {"supplementalGroups": [1], "supplementalGroupsPolicy": "Strict"}})
row(
    "groups' policy",
    "/spec/securityContext/supplementalGroupsPolicy",
    spec={"securityContext": {"supplementalGroupsPolicy": "All"}},
)
row(
    "group less than nothing",
    "/spec/securityContext/supplementalGroups/0",
    spec={"securityContext": {"supplementalGroups": [-1]}},
)
row("pod's group less than nothing", "/spec/securityContext/fsGroup", spec={"securityContext": {"fsGroup": -1}})
row("SELinux", securityContext={"seLinuxOptions": {"level": "s0:c1,c2", "type": "spc_t"}})
row(
    "SELinux' change",
    "/spec/securityContext/seLinuxChangePolicy",
    spec={"securityContext": {"seLinuxChangePolicy": "Never"}},
)
row(
    "AppArmor of no type",
    f"{C}/securityContext/appArmorProfile/type",
    securityContext={"appArmorProfile": {"type": "Default"}},
)
row(
    "AppArmor without a name",
    f"{C}/securityContext/appArmorProfile/localhostProfile",
    securityContext={"appArmorProfile": {"type": "Localhost"}},
)
row(
    "seccomp of the pod",
    spec={"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}},
)
row(
    "seccomp Localhost with nothing",
    f"{C}/securityContext/seccompProfile/localhostProfile",
    securityContext={"seccompProfile": {"type": "Localhost"}},
)
row(
    "seccomp with ..",
    f"{C}/securityContext/seccompProfile/localhostProfile",
    securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}},
)
row("own users", spec={"hostUsers": False, "securityContext": {"runAsUser": 0}})
row(
    "IPC sysctl with hostIPC",
    "/spec/securityContext/sysctls/0/name",
    spec={"hostIPC": True, "securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}},
)
