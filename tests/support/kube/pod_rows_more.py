"""Rows of the table of pods: where they may run, whose they are, and what is there twice."""

from __future__ import annotations

from typing import Any

from tests.support.kube.pod_row import EXEC, HTTP, C, init, mounted, row, volume

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
AFFINITY, SPREAD, META = "/spec/affinity", "/spec/topologySpreadConstraints/0", "/metadata"
SELECTOR = f"{SPREAD}/labelSelector/matchExpressions/0"


def spread(**fields: Any) -> dict[str, Any]:
    one = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", **fields}
    return {"topologySpreadConstraints": [one]}


def chosen(operator: str, **fields: Any) -> dict[str, Any]:
    return spread(labelSelector={"matchExpressions": [{"key": "app", "operator": operator, **fields}]})


def nodes(**fields: Any) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": fields}}


def on_nodes(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [one]} for one in expressions]
    return nodes(**{REQUIRED: {"nodeSelectorTerms": terms}})


# Whose it is.
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1", "controller": True}
row("owner of it", metadata={"ownerReferences": [OWNER]})
row(
    "two controllers",
    f"{META}/ownerReferences/1/controller",
    metadata={"ownerReferences": [OWNER, {**OWNER, "uid": "2"}]},
)
row("owner of no kind", f"{META}/ownerReferences/0/kind", metadata={"ownerReferences": [{**OWNER, "kind": ""}]})
row("good finalizers", metadata={"finalizers": ["example.com/wait", "foregroundDeletion"]})
row("finalizer without a domain", f"{META}/finalizers/0", metadata={"finalizers": ["wait"]})
row("finalizer's name", f"{META}/finalizers/0", metadata={"finalizers": ["a b"]})
# Spreading, affinities, tolerations, gates.
row("spread", spec=chosen("In", values=["web"]))
row("spread by no less than one", f"{SPREAD}/maxSkew", spec=spread(maxSkew=0))
row("spread otherwise", f"{SPREAD}/whenUnsatisfiable", spec=spread(whenUnsatisfiable="No"))
row("spread over nothing", f"{SPREAD}/topologyKey", spec=spread(topologyKey=""))
row("spread over no domain", f"{SPREAD}/minDomains", spec=spread(minDomains=0))
row(
    "spread over so many domains or not",
    f"{SPREAD}/minDomains",
    spec=spread(minDomains=2, whenUnsatisfiable="ScheduleAnyway"),
)
row("spread by affinity or not", f"{SPREAD}/nodeAffinityPolicy", spec=spread(nodeAffinityPolicy="Maybe"))
row("selector's operator", f"{SELECTOR}/operator", spec=chosen("Is"))
row("selector of no values", f"{SELECTOR}/values", spec=chosen("In"))
row("selector of values that it has not", f"{SELECTOR}/values", spec=chosen("Exists", values=["x"]))
row(
    "spread twice over the same",
    "/spec/topologySpreadConstraints/1/topologyKey",
    spec={"topologySpreadConstraints": spread()["topologySpreadConstraints"] * 2},
)
row("affinity to nodes", spec=on_nodes({"key": "disk", "operator": "In", "values": ["ssd"]}))
row(
    "affinity to no nodes",
    f"{AFFINITY}/nodeAffinity/{REQUIRED}/nodeSelectorTerms",
    spec=nodes(**{REQUIRED: {"nodeSelectorTerms": []}}),
)
EXPRESSION = f"{AFFINITY}/nodeAffinity/{REQUIRED}/nodeSelectorTerms/0/matchExpressions/0"
row("affinity's operator", f"{EXPRESSION}/operator", spec=on_nodes({"key": "disk", "operator": "Is"}))
row(
    "affinity to more than two numbers",
    f"{EXPRESSION}/values",
    spec=on_nodes({"key": "cores", "operator": "Gt", "values": ["1", "2"]}),
)
row(
    "affinity's weight",
    f"{AFFINITY}/nodeAffinity/{PREFERRED}/0/weight",
    spec=nodes(**{PREFERRED: [{"weight": 0, "preference": {}}]}),
)
row(
    "affinity to pods of nowhere",
    f"{AFFINITY}/podAffinity/{REQUIRED}/0/topologyKey",
    spec={"affinity": {"podAffinity": {REQUIRED: [{"topologyKey": "", "labelSelector": {}}]}}},
)
row(
    "weight against pods",
    f"{AFFINITY}/podAntiAffinity/{PREFERRED}/0/weight",
    spec={"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 101, "podAffinityTerm": {"topologyKey": "a"}}]}}},
)
row("node selector's key", "/spec/nodeSelector/a b", spec={"nodeSelector": {"a b": "c"}})
row("node selector's value", "/spec/nodeSelector/a", spec={"nodeSelector": {"a": "c d"}})
row(
    "toleration's value",
    "/spec/tolerations/0/value",
    spec={"tolerations": [{"key": "a", "operator": "Equal", "value": "a b"}]},
)
ABOVE = {"key": "a", "operator": "Gt", "effect": "NoSchedule"}
NUMBERS = "TaintTolerationComparisonOperators"
row("toleration of a number", gate=NUMBERS, spec={"tolerations": [{**ABOVE, "value": "-5"}]})
row(
    "toleration of no number",
    "/spec/tolerations/0/value",
    gate=NUMBERS,
    spec={"tolerations": [{**ABOVE, "value": "x"}]},
)
row("gates", spec={"schedulingGates": [{"name": "a.example/b"}]})
row("two of a gate", "/spec/schedulingGates/1/name", spec={"schedulingGates": [{"name": "a"}, {"name": "a"}]})
row("gate's name", "/spec/schedulingGates/0/name", spec={"schedulingGates": [{"name": "a b"}]})
row("gate of a pod that has its node", "/spec/nodeName", spec={"schedulingGates": [{"name": "a"}], "nodeName": "n"})
# Resources.
HUGE = {"requests": {"cpu": "1"}}
row(
    "huge pages of no size",
    f"{C}/resources/limits/hugepages-big",
    resources={**HUGE, "limits": {"hugepages-big": "4Mi"}},
)
row(
    "a part of a huge page",
    f"{C}/resources/limits/hugepages-2Mi",
    resources={**HUGE, "limits": {"hugepages-2Mi": "3Mi"}},
)
row(
    "less than a thousandth of a processor",
    f"{C}/resources/requests/cpu",
    ours=True,
    resources={"requests": {"cpu": "1u"}},
)
row("overhead less than nothing", "/spec/overhead/cpu", spec={"overhead": {"cpu": "-1"}})
row("overhead of what is none", "/spec/overhead/gpu", spec={"overhead": {"gpu": "1"}})
CLAIM = {"resourceClaims": [{"name": "x", "resourceClaimName": "y"}]}
row("claim of a device", spec=CLAIM, resources={"claims": [{"name": "x"}]})
row("claim twice", f"{C}/resources/claims/1/name", spec=CLAIM, resources={"claims": [{"name": "x"}, {"name": "x"}]})
row("claim of nothing", "/spec/resourceClaims/0", spec={"resourceClaims": [{"name": "x"}]})
row("claim of the whole pod", "/spec/resources/claims/0/name", spec={**CLAIM, "resources": {"claims": [{"name": "x"}]}})
RESTARTS = {"resourceName": "cpu", "restartPolicy": "RestartContainer"}
row("resize policy", resizePolicy=[RESTARTS])
row("two resize policies", f"{C}/resizePolicy/1/resourceName", resizePolicy=[RESTARTS, RESTARTS])
row(
    "restart of a pod that never does",
    f"{C}/resizePolicy/0/restartPolicy",
    spec={"restartPolicy": "Never"},
    resizePolicy=[RESTARTS],
)
row("deadline too long", "/spec/activeDeadlineSeconds", spec={"activeDeadlineSeconds": 1 << 31})
# Restarts of all containers.
ALL = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
row("all containers restart", restartPolicy="Never", restartPolicyRules=[ALL])
row(
    "all containers restart with a sidecar",
    spec=init(restartPolicy="Always", restartPolicyRules=[ALL], readinessProbe=HTTP, lifecycle={"preStop": EXEC}),
)
# Names that something refers to.
row("path of nothing", readinessProbe={"httpGet": {"port": 80, "path": ""}})
row(
    "variable of a label that is none",
    f"{C}/env/0/valueFrom/fieldRef/fieldPath",
    env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}],
)
row(
    "variable of an annotation with capitals",
    env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['A.B/C']"}}}],
)
row(
    "ConfigMap's name",
    f"{C}/env/0/valueFrom/configMapKeyRef/name",
    env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "K_", "key": "k"}}}],
)
row("name of a Secret of variables", f"{C}/envFrom/0/secretRef/name", envFrom=[{"secretRef": {"name": "A_"}}])
MAPPED = ("::ffff:1.2.3.4", "::FFFF:102:304", "0::ffff:1.2.3.4", "0:0:0:0:0:ffff:0:1")
for server in (*MAPPED, "fe80::1%eth0", "010.0.0.1"):
    config = {"dnsConfig": {"nameservers": [server]}}
    row(f"name server {server}", "/spec/dnsConfig/nameservers/0", spec=config)
    row(f"alias of {server}", "/spec/hostAliases/0/ip", spec={"hostAliases": [{"ip": server, "hostnames": ["a"]}]})
for server in ("::ffff:1", "::ffff:1:2:3", "::1.2.3.4", "64:ff9b::1.2.3.4", "2001:DB8:0::1", "fe80::1"):
    row(f"name server {server}", spec={"dnsConfig": {"nameservers": [server]}})
row("empty search domain", "/spec/dnsConfig/searches/0", spec={"dnsConfig": {"searches": [""]}})
APPARMOR = f"{C}/securityContext/appArmorProfile/localhostProfile"
row(
    "AppArmor with a space",
    APPARMOR,
    securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": " a"}},
)
row(
    "AppArmor too long",
    APPARMOR,
    securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": "a" * 4096}},
)
# Volumes.
row("image of no name", "/spec/volumes/0/image/reference", spec=volume(image={}))
row("driver of no name", "/spec/volumes/0/csi/driver", spec=volume(csi={"driver": ""}))
row("claim of no template", "/spec/volumes/0/ephemeral/volumeClaimTemplate", spec=volume(ephemeral={}))
BLOCK, DEVICE = volume(persistentVolumeClaim={"claimName": "data"}), [{"name": "v", "devicePath": "/a"}]
row("device that is mounted", f"{C}/volumeDevices/0", spec=BLOCK, volumeDevices=DEVICE, volumeMounts=mounted())
row("device with own users", f"{C}/volumeDevices/0", spec={**BLOCK, "hostUsers": False}, volumeDevices=DEVICE)
