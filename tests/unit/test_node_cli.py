"""`pyrun node validate` and `pyrun node explain`, as a person calls them; and what is refused by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyrun.cli.commands import node_status, proxy_top
from pyrun.cli.main import Globals
from pyrun.cli.parse import parse
from pyrun.kube.objects.pods import Pod
from pyrun.kube.validate.objects import read_object
from pyrun.node.admission import Allocatable
from pyrun.node.agent import ask
from pyrun.node.explain import explain_pod
from pyrun.node.supported import CONTAINER, POD, ROWS, unsupported
from tests.support.kube.pod_table import BASE
from tests.support.node.world import pod_of

POD_YAML = """\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 20
  initContainers:
  - name: migrate
    image: web:1
    command: [migrate]
  - name: log
    image: log:1
    restartPolicy: Always
  containers:
  - name: web
    image: web:1
    ports: [{containerPort: 80, hostPort: 8080}]
    resources:
      requests: {cpu: 100m, memory: 64Mi}
      limits: {memory: 128Mi}
    readinessProbe:
      httpGet: {path: /ready, port: 80}
    lifecycle:
      preStop: {sleep: {seconds: 5}}
    volumeMounts:
    - {name: conf, mountPath: /etc/web, readOnly: true}
  volumes:
  - name: conf
    configMap: {name: web-conf}
"""


def pyrun(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pyrun", *words], capture_output=True, text=True, timeout=120)


def test_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(POD_YAML)
    done = pyrun("node", "validate", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 object: no faults\n", "")


def test_all_faults_of_all_files_with_their_places(tmp_path: Path) -> None:
    bad, broken = tmp_path / "bad.yaml", tmp_path / "broken.yaml"
    bad.write_text(POD_YAML.replace("image: log:1", "imagee: log:1").replace("hostPort: 8080", "hostPort: '8080'"))
    broken.write_text("a: 1\na: 2\n")
    done = pyrun("node", "validate", str(bad), str(broken), str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{bad}:11:5: /spec/initContainers/1/imagee Container has no field imagee: did you mean")
    assert (
        lines[1].startswith(f"{bad}:16:") and "/spec/containers/0/ports/0/hostPort must be a whole number" in lines[1]
    )
    assert lines[2].startswith(f"{broken}:2:")
    assert lines[3].startswith(f"{tmp_path}/none.yaml:1:1: read ")
    assert "4 faults in" in done.stderr


def test_for_tools(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(POD_YAML.replace("name: web}", "name: Web}"))
    done = pyrun("node", "validate", "--format", "json", str(file))
    (fault,) = json.loads(done.stdout)
    assert done.returncode == 1
    assert (fault["file"], fault["line"], fault["pointer"]) == (str(file), 3, "/metadata/name")


def test_explain_has_the_line_of_each_thing(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(POD_YAML)
    done = pyrun("node", "explain", "--cpu", "2000", "--memory", "4G", str(file))
    assert done.returncode == 0, done.stderr
    got = [re.sub(r"(\.yaml:\d+):\d+$", r"\1", " ".join(line.split())) for line in done.stdout.splitlines()]
    assert got == [
        f"pod default/web, from {file}:1",
        "admission",
        f"fits: 100m of 2000m cpu, 64 Mi of 4 Gi memory {file}:17",
        f"takes 8080/TCP of the node {file}:16",
        "images",
        f"web:1: IfNotPresent, pull if it is not here {file}:8",
        f"log:1: IfNotPresent, pull if it is not here {file}:11",
        "cgroup",
        f"/kubepods/burstable/podUID Burstable: cpu.weight 17, no memory limit {file}:13",
        f"/kubepods/burstable/podUID/migrate cpu.weight 1, no memory limit, oom_score_adj 999 {file}:7",
        f"/kubepods/burstable/podUID/log cpu.weight 1, no memory limit, oom_score_adj 985 {file}:10",
        f"/kubepods/burstable/podUID/web cpu.weight 17, memory.max 134217728, oom_score_adj 985 {file}:17",
        "volumes",
        f"conf: configMap web-conf, mode 0644 {file}:28",
        f"web: conf at /etc/web, read-only {file}:25",
        "start",
        f"sandbox: a network of its own {file}:4",
        f"init migrate, to its success; run again when it fails, after 0, 10, 20 … 300 s {file}:7",
        f"sidecar log, the next waits till it has started; always run again {file}:10",
        f"web; run again whenever it ends, after 0, 10, 20 … 300 s {file}:14",
        "probes",
        f"web readiness: GET http://POD:80/ready every 10 s, 1 s each; not ready after 3 failures {file}:20",
        "stop",
        f"all within 20 s, preStop included; who is left is killed then {file}:5",
        f"web: preStop (sleep 5 s), then its stop signal {file}:14",
        f"then sidecar log: its stop signal {file}:10",
    ]


VOLUMES_YAML = """\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  securityContext: {fsGroup: 7}
  containers:
  - name: web
    image: web:1
    volumeMounts:
    - {name: all, mountPath: /all}
    - {name: tmp, mountPath: /tmp, subPath: a/b, mountPropagation: HostToContainer}
  volumes:
  - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: disk, emptyDir: {mode: 0o1777, sizeLimit: 1Gi}}
  - name: all
    projected:
      sources:
      - configMap: {name: one}
      - secret: {name: two, optional: true}
      - downwardAPI: {items: []}
"""


def test_explain_says_what_volumes_are(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(VOLUMES_YAML)
    done = pyrun("node", "explain", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    got = [" ".join(line.split()).rpartition(f" {file}:")[0] for line in done.stdout.splitlines()]
    assert [line for line in got if line.startswith(("tmp:", "disk:", "all", "web: "))] == [
        "tmp: emptyDir in memory, at most 64 Mi, 0777, gone with the pod",
        "disk: emptyDir, at most 1 Gi, or it is evicted, 1777, gone with the pod",
        "all: projected of configMap one, secret two if it is there, downwardAPI",
        "web: all at /all, read-only",
        "web: tmp/a/b at /tmp, read-write, HostToContainer",
        "all but hostPaths: group 7, for it to write",
        "all within 30 s, preStop included; who is left is killed then",
        "web: its stop signal",
    ]


def test_explain_says_whose_names_users_and_resources_a_pod_has() -> None:
    pod = pod_of(
        "hostUsers: false\nsetHostnameAsFQDN: true\nhostname: h\nsubdomain: s\n"
        "resources: {limits: {cpu: 1, memory: 1Gi}}\nsecurityContext: {supplementalGroupsPolicy: Strict}\n"
        "containers: [{name: c, securityContext: {procMount: Unmasked}, volumeMounts: [{name: v, mountPath: /v}]}]\n"
        "volumes: [{name: v, image: {reference: 'data:1'}}]"
    )
    found = {line.pointer: line.text for line in explain_pod(pod, Allocatable(2000, 4 << 30))}
    assert found["/spec/hostUsers"].startswith("users of its own: 65536")
    assert found["/spec/setHostnameAsFQDN"].startswith("host name h.s.NAMESPACE.svc.DOMAIN")
    assert "Guaranteed: cpu.weight 100, cpu.max 100000" in found["/spec/resources"]
    assert "gives none" in found["/spec/securityContext/supplementalGroupsPolicy"]
    assert found["/spec/containers/0/securityContext/procMount"].startswith("c: all of /proc")
    assert found["/spec/containers/0/volumeMounts/0"] == "c: v at /v, read-only"
    assert found["/spec/volumes/0/image"] == "v: image data:1, nothing of it can be written"
    assert found["/spec/volumes/0/image/reference"] == "data:1: IfNotPresent, pull if it is not here, of a volume"
    other = pod_of("hostnameOverride: a.b\ncontainers: [{name: c}]")
    told = [line.text for line in explain_pod(other, Allocatable(2000, 4 << 30)) if line.pointer.endswith("Override")]
    assert told == ["host name a.b, whatever the pod's name and domain are"]


DEPLOYMENT_YAML = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 5
  minReadySeconds: 7
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        resources: {requests: {cpu: 500m}}
        resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
"""


def test_explain_of_a_deployment(tmp_path: Path) -> None:
    """How its pods come and go, how many of them fit, and what each is; also by standard input."""
    file = tmp_path / "web.yaml"
    file.write_text(DEPLOYMENT_YAML)
    done = pyrun("node", "explain", "--cpu", "2000", "--memory", "4G", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    got = [re.sub(r"(\.yaml:\d+):\d+$", r"\1", " ".join(line.split())) for line in done.stdout.splitlines()]
    assert got[:7] == [
        f"deployment default/web, from {file}:1",
        "deployment",
        f"5 pods NAME-HASH-SUFFIX, kept so whatever ends {file}:5",
        f"4 of 5 fit, the others wait: OutOfcpu: 500m of cpu wanted, 0m of 2000m left {file}:5",
        f"another template: 2 more than 5 at a time, 4 of them available {file}:4",
        f"a pod is available once it is ready for 7 s; without any progress for 600 s it is told as stuck {file}:6",
        "admission",
    ]
    assert (
        f"web: other memory by a restart {file}:15" in got
        and f"web:1: IfNotPresent, pull if it is not here {file}:13" in got
    )
    command = [sys.executable, "-m", "pyrun", "node", "explain", "--format", "json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, input=DEPLOYMENT_YAML)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["pointer"] == "/spec/replicas" and lines[0]["place"].startswith("(stdin):5")
    image = next(line for line in lines if line["part"] == "images")
    assert image["pointer"] == "/spec/template/spec/containers/0/image"
    recreate = DEPLOYMENT_YAML.replace("  replicas: 5\n", "  strategy: {type: Recreate}\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, input=recreate)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines[:2]] == [
        "1 pods NAME-HASH-SUFFIX, kept so whatever ends",
        "another template: all end, and then the new ones start",
    ]


def test_a_node_that_is_too_small_refuses(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(POD_YAML)
    done = pyrun("node", "explain", "--cpu", "50", str(file))
    assert "refused, OutOfcpu: 100m of cpu wanted, 50m of 50m left" in done.stdout


def refused(spec: dict[str, Any], container: dict[str, Any]) -> list[str]:
    base: dict[str, Any] = BASE["spec"]
    value = {**BASE, "spec": {**base, "containers": [{**base["containers"][0], **container}], **spec}}
    found, faults = read_object(value)
    assert isinstance(found, Pod), faults
    return [f.pointer for f in unsupported(found, "n1")]


@pytest.mark.parametrize(
    ("spec", "container", "pointer"),
    [
        ("overhead: {cpu: 1m}", "", "/spec/overhead"),
        ("hostUsers: false", "securityContext: {procMount: Unmasked}", ""),
        ("hostUsers: true", "", ""),
        ("affinity: {nodeAffinity: {}}", "", "/spec/affinity"),
        ("nodeSelector: {a: b}", "", "/spec/nodeSelector"),
        ("nodeName: n2", "", "/spec/nodeName"),
        ("nodeName: n1", "", ""),
        ("volumes: [{name: v, gitRepo: {repository: x}}]", "", "/spec/volumes/0/gitRepo"),
        ("volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]", "", ""),
        ("volumes: [{name: v, emptyDir: {medium: HugePages}}]", "", "/spec/volumes/0/emptyDir/medium"),
        ("volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]", "", ""),
        ("volumes: [{name: v, projected: {sources: [{configMap: {name: c}}]}}]", "", ""),
        (
            "serviceAccountName: default\n"
            "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
            "",
            "/spec/volumes/0/projected/sources/0/serviceAccountToken",
        ),
        ("volumes: [{name: v, image: {reference: 'a:1'}}]", "volumeMounts: [{name: v, mountPath: /v, subPath: a}]", ""),
        ("automountServiceAccountToken: false", "", ""),
        ("tolerations: [{operator: Exists}]", "", ""),
        ("", "stdin: true", ""),
        (
            "",
            "livenessProbe: {httpGet: {port: 1, protocol: HTTP2}}",
            "/spec/containers/0/livenessProbe/httpGet/protocol",
        ),
        ("", "lifecycle: {preStop: {tcpSocket: {port: 1}}}", "/spec/containers/0/lifecycle/preStop/tcpSocket"),
        ("", "resources: {limits: {example.com/gpu: 1}}", "/spec/containers/0/resources/limits/example.com~1gpu"),
        ("", "securityContext: {seccompProfile: {type: RuntimeDefault}}", ""),
    ],
)
def test_what_is_not_supported_is_refused_by_name(spec: str, container: str, pointer: str) -> None:
    found = refused(yaml.safe_load(spec) or {}, yaml.safe_load(container) or {})
    assert found == ([pointer] if pointer else [])


def test_rows_name_fields_that_exist() -> None:
    """A row that is misspelt would refuse nothing."""
    from pyrun.kube.objects.containers import Container
    from pyrun.kube.objects.pods import PodSpec
    from pyrun.kube.strict import fields_of

    for rows, kind in ((POD, PodSpec), (CONTAINER, Container)):
        for row in rows:
            assert _leads_somewhere(row.split("/"), kind, fields_of), row
    assert len(ROWS) == len(POD) + 2 * len(CONTAINER)


def _leads_somewhere(parts: list[str], kind: Any, fields_of: Any) -> bool:
    import typing

    for part in parts:
        if typing.get_origin(kind) is list:
            kind = typing.get_args(kind)[0]
            continue
        if typing.get_origin(kind) is dict:
            return True
        fields = fields_of(kind)
        if part == "*":
            kind = next(iter(fields.values())).type
        elif part in fields:
            kind = fields[part].type
        else:
            return False
    return True


def test_an_older_agent_that_still_runs_is_understood(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After an upgrade, until it is started anew: it tells nothing of a configuration, nor a proxy of endpoints."""
    older = {"version": "0.0.9", "node": "n1", "pods": 2, "manifests": "/m", "error": "", "faults": []}
    monkeypatch.setattr(ask, "ask", lambda state, what: {**older, "drained": False, "conditions": [], "events": []})
    call = parse(["node", "status"])
    assert node_status.run(Globals(), call.options) == 0
    assert capfd.readouterr().out == "pyrun node 0.0.9, node n1\n  2 pods of /m\n"
    (told,) = proxy_top.endpoints_table({"mode": "userspace", "frontends": []}, {}, 1.0)
    assert "is an older one" in told


def test_an_annotation_that_asked_for_a_profile_is_refused_as_nobody_heeds_it() -> None:
    old = {"container.apparmor.security.beta.kubernetes.io/web": "runtime/default"}
    found, _ = read_object({**BASE, "metadata": {"name": "web", "annotations": {"note": "x", **old}}})
    assert isinstance(found, Pod)
    at = "/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1web"
    assert [f.pointer for f in unsupported(found, "n1")] == [at]
    assert not list(unsupported(found, "n1", served=True))  # an API server has looked at it
