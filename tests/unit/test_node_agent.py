"""What the node agent makes of pods, without a runtime: the CRI's messages, variables, files, uids, records."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format

from pyrun import cri_api as v1
from pyrun.errors import PyrunError
from pyrun.kube.objects.config import ConfigMap, Secret
from pyrun.kube.objects.meta import ObjectMeta
from pyrun.kube.objects.pods import Pod
from pyrun.kube.objects.status import PodStatus
from pyrun.node.agent.actor import Actor
from pyrun.node.agent.agent import Agent
from pyrun.node.agent.applied import write_file
from pyrun.node.agent.carry import Carrier
from pyrun.node.agent.container_config import MASKED, READONLY, ConfigFault, Made, container_config
from pyrun.node.agent.files import HEADER_HOST, hosts_text
from pyrun.node.agent.kept import Kept
from pyrun.node.agent.messages import make_file, read_message
from pyrun.node.agent.pod_slice import limit_properties
from pyrun.node.agent.pull_secrets import pull_auths
from pyrun.node.agent.record import Record, Records
from pyrun.node.agent.rotation import remove_oldest
from pyrun.node.agent.sandbox_config import Dns, limit_dns, read_resolv, sandbox_config
from pyrun.node.agent.source import read_file, uid_of
from pyrun.node.agent.user_ids import first_free, given_to_people, mapping
from pyrun.node.agent.variables import environment
from pyrun.node.downward import PodFacts
from pyrun.node.plan.observed import Attempt, BackOff, Hook, ProbeState, Stop
from pyrun.node.plan.pod import Decision
from pyrun.node.qos import pod_limits
from pyrun.node.volumes import Objects, value_in
from tests.support.node.world import pod_of

GIB = 1 << 30
IDS = 5 << 16
NODE = read_resolv("nameserver 9.9.9.9\nsearch old\nsearch a.test b.test\noptions ndots:2 edns0\n")


def sandbox(spec: str, dns: Dns = Dns(node=NODE)) -> dict[str, Any]:  # noqa: B008
    found = sandbox_config(pod_of(spec), "uid-1", 2, "/var/log/pods", dns)
    return dict(json_format.MessageToDict(found, preserving_proto_field_name=True))


def container(spec: str, name: str = "c", user: str = "", env: dict[str, str] | None = None) -> Any:
    pod = pod_of(spec)
    assert pod.spec is not None
    c = next(c for c in [*(pod.spec.initContainers or ()), *pod.spec.containers] if c.name == name)
    return container_config(pod, c, Made("uid-1", 3, ("sha256:1", user), env or {}, [], 8 * GIB, IDS))


def test_a_sandbox() -> None:
    found = sandbox(
        "containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 53, protocol: UDP}]}]\n"
        "shareProcessNamespace: true\nsecurityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}"
    )
    assert found["metadata"] == {"name": "p", "uid": "uid-1", "namespace": "default", "attempt": 2}
    assert (found["hostname"], found["log_directory"]) == ("p", "/var/log/pods/default_p_uid-1")
    assert found["port_mappings"] == [{"container_port": 80, "host_port": 8080}]
    assert found["linux"]["cgroup_parent"] == "/kubepods/besteffort/poduid-1"
    assert found["linux"]["sysctls"] == {"net.ipv4.tcp_syncookies": "1"}
    options = sandbox_config(pod_of("containers: [{name: c}]\nhostPID: true\nhostIPC: true\nhostNetwork: true"),
                             "u", 0, "/l", Dns()).linux.security_context.namespace_options  # fmt: skip
    assert (options.network, options.pid, options.ipc) == (v1.NODE, v1.NODE, v1.NODE)


LONG = "containers: [{name: c}]\nsetHostnameAsFQDN: true\nhostname: h\nsubdomain: "
NAMES = {
    "hostname: h": "h",
    "hostname: h\nsubdomain: s": "h",
    "hostname: h\nsubdomain: s\nsetHostnameAsFQDN: true": "h.s.default.svc.cluster.local",
    "setHostnameAsFQDN: true": "p",
    "hostname: h\nsubdomain: s\nhostnameOverride: one.two.example": "one.two.example",
    "hostNetwork: true": "",
}


@pytest.mark.parametrize("words", NAMES)
def test_a_host_name(words: str) -> None:
    assert sandbox(f"containers: [{{name: c}}]\n{words}").get("hostname", "") == NAMES[words]


def test_a_whole_host_name_is_what_the_kernel_takes_or_an_error() -> None:
    domain = len("h..default.svc.cluster.local")
    assert len(sandbox(LONG + "s" * (64 - domain))["hostname"]) == 64
    with pytest.raises(PyrunError, match="setHostnameAsFQDN: h.s.* has 65 characters"):
        sandbox(LONG + "s" * (65 - domain))


def test_cgroups_of_systemd() -> None:
    pod = pod_of("containers: [{name: c, resources: {requests: {cpu: 500m}, limits: {cpu: '1', memory: 1Gi}}}]")
    assert pod.spec is not None
    found = sandbox_config(pod, "a-b", 0, "/l", Dns(), systemd=True).linux.cgroup_parent
    assert found == "kubepods-burstable-poda_b.slice"
    limits = dict(limit_properties(pod_limits(pod.spec)))
    wanted = {"CPUWeight": 59, "CPUQuotaPerSecUSec": 1_000_000, "MemoryMax": GIB, "MemorySwapMax": 0}
    assert limits == {name: ("t", value) for name, value in wanted.items()}
    none = pod_of("containers: [{name: c}]").spec
    assert none is not None
    assert dict(limit_properties(pod_limits(none)))["MemoryMax"] == ("t", (1 << 64) - 1)


CLUSTER = Dns(("10.96.0.10",), "cluster.test", NODE)
SEARCHES = ["default.svc.cluster.test", "svc.cluster.test", "cluster.test", "a.test", "b.test"]
DNS: dict[str, tuple[str, Dns, dict[str, Any]]] = {
    "first": ("", CLUSTER, {"servers": ["10.96.0.10"], "searches": SEARCHES, "options": ["ndots:5"]}),
    "no cluster": ("", Dns(node=NODE), {}),
    "default": ("dnsPolicy: Default", CLUSTER, {}),
    "host network": ("hostNetwork: true", CLUSTER, {}),
    "with host network": (
        "hostNetwork: true\ndnsPolicy: ClusterFirstWithHostNet",
        CLUSTER,
        {"servers": ["10.96.0.10"], "searches": SEARCHES, "options": ["ndots:5"]},
    ),
    "none": (
        "dnsPolicy: None\ndnsConfig: {nameservers: [1.2.3.4], options: [{name: ndots, value: '1'}, {name: rotate}]}",
        CLUSTER,
        {"servers": ["1.2.3.4"], "options": ["ndots:1", "rotate"]},
    ),
    "the node's with more": (
        "dnsPolicy: Default\ndnsConfig: {searches: [c.test], options: [{name: ndots, value: '7'}]}",
        CLUSTER,
        {"servers": ["9.9.9.9"], "searches": ["a.test", "b.test", "c.test"], "options": ["ndots:7", "edns0"]},
    ),
}


@pytest.mark.parametrize("name", DNS)
def test_dns(name: str) -> None:
    spec, dns, wanted = DNS[name]
    assert sandbox(f"containers: [{{name: c}}]\n{spec}", dns).get("dns_config", {}) == wanted


def test_dns_has_limits() -> None:
    """As a kubelet's: what is beyond them is left out, and told."""
    config = v1.DNSConfig(servers=["1.1.1.1", "2.2.2.2", "3.3.3.3"], searches=[f"s{n}.test" for n in range(32)])
    before = config.SerializeToString()
    assert not list(limit_dns(config)) and config.SerializeToString() == before
    config.servers.append("4.4.4.4")
    config.searches.append("last.test")
    servers, searches = limit_dns(config)
    assert servers.endswith("is: 1.1.1.1 2.2.2.2 3.3.3.3") and searches.endswith(" s30.test s31.test")
    assert config.SerializeToString() == before
    config = v1.DNSConfig(searches=[f"{n}{'x' * 240}" for n in range(9)])
    (told,) = limit_dns(config)
    assert len(config.searches) == 8 and "Search Line limits were exceeded" in told


def test_a_container() -> None:
    config = container(
        """
containers:
- name: c
  image: i:1
  command: [run, $(A), $$(A), $(B)]
  args: ["-$(A)-"]
  workingDir: /w
  resources: {requests: {cpu: 250m, memory: 2Gi}, limits: {cpu: "1", memory: 4Gi}}
  lifecycle: {stopSignal: SIGUSR1}
  securityContext: {runAsUser: 5, runAsGroup: 6, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false,
    capabilities: {add: [NET_ADMIN], drop: [ALL]}, seccompProfile: {type: Localhost, localhostProfile: a.json}}
os: {name: linux}
securityContext: {supplementalGroups: [7], fsGroup: 8, runAsUser: 1, seLinuxOptions: {level: "s0:c1,c2"},
  seccompProfile: {type: RuntimeDefault}}
""",
        env={"A": "x"},
    )
    assert (list(config.command), list(config.args)) == (["run", "x", "$(A)", "$(B)"], ["-x-"])
    assert (config.image.image, config.image.user_specified_image) == ("sha256:1", "i:1")
    assert (config.metadata.attempt, config.log_path, config.working_dir) == (3, "c/3.log", "/w")
    linux, context = config.linux.resources, config.linux.security_context
    assert (linux.cpu_shares, linux.cpu_quota, linux.cpu_period) == (256, 100_000, 100_000)
    assert (linux.memory_limit_in_bytes, linux.oom_score_adj) == (4 * GIB, 750)
    assert dict(linux.unified) == {"memory.oom.group": "1"}
    assert (context.run_as_user.value, context.run_as_group.value, list(context.supplemental_groups)) == (5, 6, [7, 8])
    assert (context.selinux_options.level, context.selinux_options.type) == ("s0:c1,c2", "")
    assert context.readonly_rootfs and context.no_new_privs and not context.privileged
    assert (list(context.capabilities.add_capabilities), list(context.capabilities.drop_capabilities)) == (
        ["NET_ADMIN"],
        ["ALL"],
    )
    assert (context.seccomp.profile_type, context.seccomp.localhost_ref) == (v1.SecurityProfile.Localhost, "a.json")
    assert list(context.masked_paths) == list(MASKED)
    assert config.stop_signal == v1.Signal.Value("SIGNAL_SIGUSR1")
    assert context.supplemental_groups_policy == v1.SupplementalGroupsPolicy.Value("Merge")
    privileged = container("containers: [{name: c, securityContext: {privileged: true}}]").linux.security_context
    assert privileged.privileged and not privileged.masked_paths and not privileged.HasField("seccomp")


def test_an_ephemeral_container_sees_the_processes_of_its_target() -> None:
    pod = pod_of("containers: [{name: c}]\nephemeralContainers: [{name: e, targetContainerName: c}, {name: alone}]")
    assert pod.spec is not None
    assert pod.spec.ephemeralContainers is not None
    debug, alone = pod.spec.ephemeralContainers
    running, made = Attempt("id-0", "c", 0, 0.0, "", started=0.0), Made("uid-1", 0, ("sha256:1", ""), {}, [], GIB, 0)
    carrier: Any = Carrier.__new__(Carrier)
    carrier._kept = SimpleNamespace(sandboxes=lambda: [], record=SimpleNamespace(past={}))
    with pytest.raises(PyrunError, match="container c, whose processes it is to see, does not run"):
        carrier._target(debug)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyrun.node.agent.carry.attempts_of", lambda pods, record: [running])
        assert (carrier._target(debug), carrier._target(alone)) == ("id-0", "")
    options = container_config(pod, debug, made, "id-0").linux.security_context.namespace_options
    assert (options.pid, options.target_id) == (v1.TARGET, "id-0")
    assert container_config(pod, alone, made, "").linux.security_context.namespace_options.pid == v1.CONTAINER


def test_groups_and_proc_of_a_container() -> None:
    words = "containers: [{name: c, securityContext: {procMount: Unmasked}}, {name: other}]\nhostUsers: false\n"
    words += "securityContext: {supplementalGroups: [7], supplementalGroupsPolicy: Strict}"
    context = container(words).linux.security_context
    assert context.supplemental_groups_policy == v1.SupplementalGroupsPolicy.Value("Strict")
    assert not context.masked_paths and not context.readonly_paths and not context.privileged
    other = container(words, "other").linux.security_context
    assert list(other.masked_paths) == list(MASKED) and list(other.readonly_paths) == list(READONLY)


def test_a_pod_with_users_of_its_own() -> None:
    """Sandbox and containers say the same; without ids of its own it never runs as the node's users."""
    pod = pod_of("containers: [{name: c}]\nhostUsers: false")
    options = sandbox_config(pod, "u", 0, "/l", Dns(), ids=IDS).linux.security_context.namespace_options
    given = options.userns_options
    assert given.mode == v1.POD and list(given.uids) == list(given.gids) == [mapping(IDS)]
    assert (given.uids[0].container_id, given.uids[0].host_id, given.uids[0].length) == (0, IDS, 65536)
    config = container("containers: [{name: c}]\nhostUsers: false")
    assert config.linux.security_context.namespace_options.userns_options == given
    with pytest.raises(PyrunError, match="hostUsers"):
        sandbox_config(pod, "u", 0, "/l", Dns())
    for words in ("", "hostUsers: true"):
        options = sandbox_config(pod_of(f"containers: [{{name: c}}]\n{words}"), "u", 0, "/l", Dns(), ids=IDS)
        assert options.linux.security_context.namespace_options.userns_options.mode == v1.NODE


def test_nobody_is_given_users_that_somebody_has() -> None:
    block = 65536
    assert first_free([]) == block
    assert first_free([range(block, 2 * block), range(2 * block, 3 * block)]) == 3 * block
    assert first_free([range(block, 2 * block), range(3 * block, 4 * block)]) == 2 * block, "one that was given back"
    people = given_to_people("a:100000:65536\nodd\nb:x:1\n:\nkubelet:65536:99999999\nc:393215:2\nd:700000:0\n")
    assert people == [range(100000, 165536), range(393215, 393217), range(700000, 700000)]
    taken = [first_free(people)]
    for _ in range(3):
        taken.append(first_free([*people, *(range(one, one + block) for one in taken)]))
    assert taken == [3 * block, 4 * block, 7 * block, 8 * block], "none of which 100000 to 165535 and 393215 are"
    with pytest.raises(PyrunError, match="hostUsers"):
        first_free([range(0, 1 << 32)])
    assert first_free([range(block, (1 << 32) - 2 * block)]) == (1 << 32) - 2 * block
    with pytest.raises(PyrunError):
        first_free([range(block, (1 << 32) - block)])


USERS = {
    ("", None): "runs as root",
    ("0:5", None): "runs as root",
    ("www", None): "can't be known",
    ("www", 0): "runAsUser is 0",
    ("1000", None): "",
    ("www", 1000): "",
}


@pytest.mark.parametrize("case", USERS)
def test_run_as_non_root(case: tuple[str, int | None]) -> None:
    user, uid = case
    spec = (
        f"containers: [{{name: c}}]\nsecurityContext: {{runAsNonRoot: true{f', runAsUser: {uid}' * (uid is not None)}}}"
    )
    if USERS[case]:
        with pytest.raises(ConfigFault, match=USERS[case]):
            container(spec, user=user)
    else:
        container(spec, user=user)


def test_a_group_without_a_user_takes_the_image_s() -> None:
    spec = "containers: [{name: c}]\nsecurityContext: {runAsGroup: 9}"
    for user, wanted in (("www:3", (0, "www")), ("8", (8, "")), ("", (0, ""))):
        context = container(spec, user=user).linux.security_context
        assert (context.run_as_user.value, context.run_as_username) == wanted and context.run_as_group.value == 9


OBJECTS = Objects(
    {("default", "m"): ConfigMap(data={"a": "1", "b": "2"})},
    {("default", "s"): Secret(data={"p": "c2VjcmV0"}, stringData={"q": "plain"})},
    {"cpu": 2000, "memory": GIB},
)
MISSING = {
    "{configMapKeyRef: {name: none, key: a}}": 'configmap "none" not found',
    "{configMapKeyRef: {name: m, key: z}}": "couldn't find key z in configmap default/m",
    "{secretKeyRef: {name: s, key: z}}": "couldn't find key z in secret default/s",
}


def variables(env: str, more: str = "", spec: str = "") -> dict[str, str]:
    pod = pod_of(f"containers: [{{name: c, env: {env}{more}}}]\n{spec}")
    assert pod.spec is not None
    facts = PodFacts(node_name="n1", pod_ips=("10.0.0.2",), host_ips=("192.0.2.1",))
    return environment(pod.spec.containers[0], pod, "uid-1", OBJECTS, facts, {("v", "env"): FILE})


def test_variables() -> None:
    found = variables(
        "[{name: a, value: $(X_b)}, {name: p, valueFrom: {secretKeyRef: {name: s, key: p}}},"
        " {name: none, valueFrom: {configMapKeyRef: {name: none, key: a, optional: true}}},"
        " {name: host, valueFrom: {fieldRef: {fieldPath: status.hostIP}}},"
        " {name: uid, valueFrom: {fieldRef: {fieldPath: metadata.uid}}},"
        " {name: most, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}},"
        " {name: later, value: $(a)-$(after)}, {name: after, value: z}]",
        ", envFrom: [{configMapRef: {name: m}, prefix: X_}, {secretRef: {name: s}},"
        " {secretRef: {name: gone, optional: true}}]",
    )
    assert found == {
        "X_a": "1", "X_b": "2", "p": "secret", "q": "plain", "a": "2", "host": "192.0.2.1", "uid": "uid-1",
        "most": "1024", "later": "2-$(after)", "after": "z",
    }  # fmt: skip


@pytest.mark.parametrize("ref", MISSING)
def test_a_variable_that_is_missing(ref: str) -> None:
    with pytest.raises(ConfigFault) as found:
        variables(f"[{{name: a, valueFrom: {ref}}}]")
    assert found.value.text == MISSING[ref]


FILE = """# made by an init container
A='one'  # first
  B='two $A "x" \\n # no comment
 and three'
C= 'ignored'
A='again'
D=''
E
"""


def test_variables_of_a_file() -> None:
    found = [value_in(FILE.removesuffix("E\n"), key) for key in ("A", "B", "C", "D", "E")]
    assert found == ["one", 'two $A "x" \\n # no comment\n and three', "", "", None]
    assert value_in("A='1'\r\nB='2\r\n3'\r\n", "B") == "2\n3"
    assert value_in(FILE, "D") == "", "what is wrong comes after it"
    faults = {"E": "line 8: is no NAME", "A": "line 1: nothing", "B": "line 1: the value", "C": "line 1: its quote",
              "F": "line 1: 'x'", "G": "line 1: is no"}  # fmt: skip
    texts = {"E": FILE, "A": "A ='1'", "B": "B=1", "C": "C='1\n", "F": "F='1' x", "G": "='1'"}
    for key, told in faults.items():
        with pytest.raises(ValueError, match=told):
            value_in(texts[key], key)


def of_file(key: str, more: str = "", path: str = "env") -> dict[str, str]:
    env = f"[{{name: X, valueFrom: {{fileKeyRef: {{volumeName: v, path: {path}, key: {key}{more}}}}}}}]"
    return variables(env, spec="volumes: [{name: v, emptyDir: {}}]")


def test_a_variable_of_a_file() -> None:
    assert of_file("A") == {"X": "one"} and of_file("D") == {"X": ""}
    assert of_file("Z", ", optional: true", "none") == {}
    for words, told in (("A", "none"), "file none of volume v is not there"), (("E", "env"), "of volume v: line 8"):
        with pytest.raises(ConfigFault, match=told):
            of_file(words[0], path=words[1])


def test_pull_secrets() -> None:
    """The pod's order counts; one for another registry is none, and one that is broken is an error."""

    def secret(name: str, key: str, value: Any) -> tuple[tuple[str, str], Secret]:
        data = {key: base64.b64encode(json.dumps(value).encode()).decode()}
        return ("default", name), Secret(metadata=ObjectMeta(name=name), data=data)

    entry = {"auth": base64.b64encode(b"me:word").decode()}
    objects = Objects(
        secrets=dict(
            [
                secret("new", ".dockerconfigjson", {"auths": {"q.example/team": entry}}),
                secret("old", ".dockercfg", {"https://q.example": {"username": "old", "password": "p"}}),
                secret("other", ".dockerconfigjson", {"auths": {"r.example": entry}}),
                secret("odd", ".dockerconfigjson", ["auths"]),
            ]
        )
    )

    def found(image: str, *names: str) -> tuple[list[str], list[str]]:
        refs = ", ".join(f"{{name: {name}}}" for name in names)
        pairs, missing = pull_auths(pod_of(f"containers: [{{name: c}}]\nimagePullSecrets: [{refs}]"), objects, image)
        auths = [auth for auth, _ in pairs]
        assert all(auth.server == "q.example" for auth in auths)
        return [auth.username for auth in auths], missing

    assert found("q.example/team/x:1", "old", "new", "other", "none") == (["old", "me"], ["none"])
    assert found("q.example/teams:1", "new", "old") == (["old"], [])
    with pytest.raises(PyrunError, match='"odd"'):
        found("q.example/x", "odd")


def test_a_pod_that_is_over_stays_so() -> None:
    """Whatever of its containers has been removed since."""
    actor = Actor.__new__(Actor)
    actor._final = None
    phases = ("Pending", "Running", "Succeeded", "Failed", "Pending")
    found = [actor._settled(Decision((), 1.0, PodStatus(phase=phase))) for phase in phases]
    assert [one.status.phase for one in found] == ["Pending", "Running", "Succeeded", "Succeeded", "Succeeded"]
    assert all(one.wake == 1.0 for one in found)


def test_other_resources_are_asked_for_at_once() -> None:
    """By who waits for room, backs off, or was refused before; other words ask nothing."""
    pods = [pod_of(f"containers: [{{name: c, resources: {{requests: {{cpu: {cpu}}}}}}}]") for cpu in ("1", "2")]
    for pod, asked in zip(pods, (False, True), strict=True):
        actor = Actor.__new__(Actor)
        actor.record = Record(uid="u", file="f", pod=pods[0], created=0.0, pending=("Infeasible", "too much"))
        actor.waiting, actor.busy, actor._woken = ("OutOfcpu", "no room"), {("admit",)}, asyncio.Event()
        actor.update(pod, {"gate": True})
        assert (actor.record.pending is None, actor.waiting is None, actor.record.retried > 0) == (asked, asked, asked)
        assert (not actor.busy) is asked and actor.record.pod == pod and actor._woken.is_set()


class Deferred:
    """As much of an actor as waits for room, and of an agent as gives it: it has room for all of its pods at once."""

    def __init__(self, agent: Any, number: int) -> None:
        self.agent, self.resize_order, self.is_deferred, self.waits = agent, -number, True, True

    def allocate(self) -> bool:
        self.agent.given.append(self.resize_order)
        self.is_deferred = False
        self.agent.room()
        return True

    def ask_again(self) -> None:
        self.waits = False


def test_room_for_many_at_once_is_given_by_priority() -> None:
    """However many wait for it, each one that has it asks for the others."""
    agent: Any = SimpleNamespace(_asking=False, given=[])
    agent.room, agent._deferred = (lambda: Agent._room(agent)), (lambda: Agent._deferred(agent))
    agent.actors = {number: Deferred(agent, number) for number in range(500)}
    agent.room()
    assert agent.given == list(range(-499, 1)) and not any(one.waits for one in agent.actors.values())


def test_hosts() -> None:
    pod = pod_of("containers: [{name: c}]\nhostAliases: [{ip: 10.9.9.9, hostnames: [one, two]}]")
    text = hosts_text(pod, ["10.0.0.2", "fd00::2"], "own\n")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.2\tp\nfd00::2\tp\n" in text and text.endswith("10.9.9.9\tone\ttwo\n") and "own" not in text
    text = hosts_text(pod_of("containers: [{name: c}]\nhostname: h\nsubdomain: s"), ["10.0.0.2"], "", "c.local")
    assert "10.0.0.2\th.s.default.svc.c.local\th\n" in text
    words = "containers: [{name: c}]\nhostnameOverride: a.b\nhostname: h\nsubdomain: s"
    assert "10.0.0.2\ta.b\n" in hosts_text(pod_of(words), ["10.0.0.2"], "", "c.local")
    assert (
        hosts_text(pod_of("containers: [{name: c}]\nhostNetwork: true"), ["10.0.0.2"], "own\n") == HEADER_HOST + "own\n"
    )


def test_termination_messages(tmp_path: Path) -> None:
    path, log = tmp_path / "a" / "message", tmp_path / "0.log"
    make_file(str(path))
    assert path.stat().st_mode & 0o777 == 0o666
    spec = pod_of("containers: [{name: c, terminationMessagePolicy: FallbackToLogsOnError}]").spec
    assert spec is not None
    c = spec.containers[0]
    at = b"2026-11-27T12:00:00.000000000Z stderr "
    log.write_bytes(b"".join(at + b"F line %d\n" % n for n in range(100)) + at + b"P in \n" + at + b"F two\n")
    assert read_message(str(path), c, 0, str(log)) == ""
    said = read_message(str(path), c, 1, str(log)).splitlines()
    assert len(said) == 80 and said[-1] == "in two" and said[0] == "line 21"
    log.write_bytes(at + b"F " + b"x" * 5000 + b"\n")
    assert len(read_message(str(path), c, 1, str(log))) == 2048
    path.write_bytes(b"a" * 10 + b"b" * 4096)
    assert read_message(str(path), c, 1, str(log), 3) == "b" * 4096
    assert read_message(str(path), c, 1, str(log), 4) == "b" * 3072
    path.write_text("ä" * 2000)
    assert read_message(str(path), c, 1, str(log), 5) == "ä" * 1228, "no half of a letter"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert read_message(str(path), c, 0, str(log)) == ""
    with pytest.raises(PyrunError):
        make_file(str(path))


def test_a_uid_is_the_words(tmp_path: Path) -> None:
    def uid(text: str) -> str:
        file = tmp_path / "pod.yaml"
        file.write_text(text)
        (found,) = read_file(str(file), "n1")[0].values()
        assert isinstance(found.object, Pod)
        return uid_of(found.object, "n1")

    base = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: x, b: w}}\n"
    base += "spec: {containers: [{name: c, image: i}]}\n"
    assert uid(base) == uid(f"# another\n{base}") == uid(base.replace("a: x, b: w", "b: w, a: x"))
    assert uid(base) != uid(base.replace("a: x", "a: z")) and len(uid(base)) == 36
    assert uid(base.replace("{name: p,", "{name: p, uid: given,")) == "given"


def test_what_a_file_may_have(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n"
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
    deployment = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template:"
        " {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n"
    )
    file.write_text("---\n".join([pod, service, pod, deployment]))
    found, faults = read_file(str(file), "n1")
    assert list(found) == [("Pod", "default", "p"), ("Deployment", "default", "d")]
    assert [fault.line for fault in faults] == [11], faults
    assert "twice" in faults[0].text
    found, faults = read_file(str(file), "n1", suffix="-n1")
    assert list(found) == [("Pod", "default", "p-n1")]
    assert [fault.line for fault in faults] == [11, 17] and "has an API server" in faults[1].text
    file.write_text("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n")
    found, faults = read_file(str(file), "n1")
    assert not found and len(faults) == 1 and "ServiceAccount" in faults[0].text


def test_records_are_what_they_were(tmp_path: Path) -> None:
    pod = pod_of("containers: [{name: c, image: 'i:1'}]")
    record = Record(uid="u", file="/f", pod=pod, created=1.5, deleted=2.0, grace=3, admitted=True, started=1.6)
    record.ids = IDS
    record.failure = ("DeadlineExceeded", "late")
    record.restarts["c"] = BackOff(10.0, 1.7)
    record.stops["id"] = Stop("why", 1.0, 2.0, 1.5)
    record.hooks["id"] = {"preStop": Hook(1.0, 1.1, "no")}
    record.probes["id"] = {"readiness": ProbeState(1, 0, 1.0, True, "out")}
    records = Records(str(tmp_path / "pods.db"))
    records.write("u", records.encode(record))
    records.close()
    records = Records(str(tmp_path / "pods.db"))
    told: list[str] = []
    records.write("odd", b'{"uid": 1}')
    assert list(records.all(told.append)) == [record] and "the record of pod odd" in told[0]
    record.forget_containers(set())
    assert not record.stops and not record.hooks and not record.probes
    records.remove("u")
    assert not list(records.all(told.append)) and len(told) == 1
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(PyrunError, match="bad.db"):
        Records(str(tmp_path / "bad.db"))


def test_a_disk_that_takes_nothing_holds_up_who_writes_and_not_the_loop(tmp_path: Path) -> None:
    """And what is written last is what stays."""
    path = str(tmp_path / "pods.db")
    records, other = Records(path), sqlite3.connect(path, isolation_level=None)
    records._db.execute("PRAGMA busy_timeout = 60000")
    record = Record(uid="u", file="/f", pod=pod_of("containers: [{name: c}]"), created=1.0)
    host: Any = SimpleNamespace(records=records, warn=pytest.fail)

    async def main() -> None:
        kept = Kept(host, record)
        other.execute("BEGIN IMMEDIATE")
        saves = [asyncio.create_task(kept.save())]
        await asyncio.sleep(0)
        record.grace = 7
        saves += [asyncio.create_task(kept.save()), asyncio.create_task(kept.save())]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(save.done() for save in saves), "none says that it is written"
        other.execute("COMMIT")
        await asyncio.gather(*saves)
        assert [one.grace for one in records.all(pytest.fail)] == [7]
        await kept.forget()
        await kept.save()
        assert not list(records.all(pytest.fail)), "what is gone is not written again"

    asyncio.run(main())
    other.close()
    records.close()


def test_the_oldest_logs_go(tmp_path: Path) -> None:
    names = ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "0.log.20260103-000000", "1.log"]
    for name in names:
        (tmp_path / name).touch()
    remove_oldest(str(tmp_path / "0.log"), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], *names[2:]]


def test_half_a_file_of_who_was_killed_goes_with_the_next_one_that_is_written(tmp_path: Path) -> None:
    """Of any name, once nobody can be at it any more; others' files that begin with a dot stay."""
    for name, age in ((".a.json.01234567.pyrun-half", 100), (".b.json.01234567.pyrun-half", 1), (".mine", 100)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    write_file(str(tmp_path / "c.json"), b"{}", 0o600)
    assert sorted(os.listdir(tmp_path)) == [".b.json.01234567.pyrun-half", ".mine", "c.json"]
    assert stat.S_IMODE((tmp_path / "c.json").stat().st_mode) == 0o600
