"""PodSandboxConfig → SandboxRequest: what each field becomes, and what is refused before anything is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import InvalidArgument
from pyrun.facts import Facts
from pyrun.plan.sandbox import SandboxRequest
from pyrun.pod.sandbox.cgroups import CGROUPFS, SYSTEMD, cgroup_parent, plan_cgroups, slice_of
from pyrun.pod.sandbox.config import plan_request

FILES = {"resolv.conf": "nameserver 9.9.9.9\n", "hostname": "node1\n", "hosts": "127.0.0.1 node1\n"}
ID = "a" * 64


def request(**words: Any) -> SandboxRequest:
    return plan_request(ID, "/run/p", v1.PodSandboxConfig(**words), Facts(), files=FILES)


def linux(*, options: dict[str, Any] | None = None, **words: Any) -> v1.Message:
    context = v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption(**(options or {})))
    return v1.LinuxPodSandboxConfig(security_context=context, **words)


def userns(mode: int = 0, *, host: int = 100000, size: int = 65536) -> v1.Message:
    maps = [v1.IDMapping(host_id=host, container_id=0, length=size)]
    return v1.UserNamespace(mode=mode, uids=maps, gids=maps)


def test_a_plain_pod() -> None:
    found = request(hostname="web")
    assert found.namespaces == ("net", "ipc", "uts")
    assert (found.hostname, found.shm_size) == ("web", 64 << 20)
    assert found.cgroup == f"/sys/fs/cgroup/pyrun/{ID}/pod"
    assert found.files["resolv.conf"] == FILES["resolv.conf"]
    assert "node1" not in found.files["hosts"] and found.files["hostname"] == "web\n"
    unnamed = request(hostname="")  # its UTS namespace is a copy of the node's, with that name
    assert (unnamed.hostname, unnamed.files["hostname"]) == ("", "node1\n")
    assert found.sysctls["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert json.loads(found.record)["cgroups"] == [found.cgroup, f"/sys/fs/cgroup/pyrun/{ID}"]


def test_the_nodes_network_brings_its_host_name_and_files() -> None:
    found = request(linux=linux(options={"network": v1.NODE, "ipc": v1.NODE}))
    assert found.namespaces == () and found.shm_size == 0 and not found.sysctls
    assert found.files == {**FILES, "hostname": "node1\n"}


def test_a_user_namespace_comes_first() -> None:
    found = request(linux=linux(options={"userns_options": userns()}))
    assert found.namespaces == ("user", "net", "ipc", "uts")
    assert [(m.container_id, m.host_id, m.size) for m in found.uid_mappings] == [(0, 100000, 65536)]
    assert not found.sysctls, "ids beyond the map can't be in ping_group_range"
    assert request(linux=linux(options={"userns_options": userns(v1.NODE)})).namespaces == ("net", "ipc", "uts")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": v1.CONTAINER}, "network: a pod has mode POD or NODE, not CONTAINER"),
        ({"ipc": v1.TARGET}, "ipc: a pod has mode POD or NODE, not TARGET"),
        ({"pid": v1.TARGET}, "pid: a pod can't have mode TARGET"),
        ({"userns_options": v1.UserNamespace()}, "uids: a user namespace needs a mapping"),
        ({"userns_options": userns(size=0)}, "is no range of ids"),
        ({"userns_options": userns(host=(1 << 32) - 1)}, "is no range of ids"),
    ],
)
def test_modes_that_there_are_not(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        request(linux=linux(options=options))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel.shmmax", "65536"),
        ("net.core.somaxconn", "10"),
        ("net/ipv4/conf/eth0.1/rp_filter", "1"),
        ("fs.mqueue.msg_max", "10"),
    ],
)
def test_sysctls_of_the_pods_own_namespaces(key: str, value: str) -> None:
    assert request(linux=linux(sysctls={key: value})).sysctls[key] == value


@pytest.mark.parametrize(
    "key",
    ["kernel.core_pattern", "kernel.panic", "vm.overcommit_memory", "fs.file-max", "kernel.hostname",
     "user.max_mnt_namespaces", "net/../kernel/core_pattern", "net", "", "net.ipv4.x\n"],
)  # fmt: skip
def test_sysctls_of_the_node_are_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.sysctls: "):
        request(linux=linux(sysctls={key: "1"}))


@pytest.mark.parametrize(("key", "option"), [("net.ipv4.ip_forward", "network"), ("kernel.shmmax", "ipc")])
def test_cve_2022_0532_a_sysctl_of_a_namespace_that_is_the_nodes(key: str, option: str) -> None:
    with pytest.raises(InvalidArgument, match="it would change the host's"):
        request(linux=linux(options={option: v1.NODE}, sysctls={key: "1"}))


@pytest.mark.parametrize("value", ["1\nkernel.core_pattern=|/evil", "1\0"])
def test_cve_2022_0811_a_value_is_one_line(value: str) -> None:
    with pytest.raises(InvalidArgument, match="one line"):
        request(linux=linux(sysctls={"net.ipv4.ip_forward": value}))


def test_cve_2022_0811_a_plus_is_part_of_the_value() -> None:
    value = "1+kernel.core_pattern=|/evil"
    assert request(linux=linux(sysctls={"kernel.shm_rmid_forced": value})).sysctls["kernel.shm_rmid_forced"] == value


def test_resolv_conf() -> None:
    dns = v1.DNSConfig(servers=["10.0.0.10", "fd00::10"], searches=["a.svc", "svc"], options=["ndots:5"])
    text = request(dns_config=dns).files["resolv.conf"]
    assert text == "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::10\noptions ndots:5\n"
    assert request(dns_config=v1.DNSConfig()).files["resolv.conf"] == FILES["resolv.conf"]


@pytest.mark.parametrize("kind", ["servers", "searches", "options"])
@pytest.mark.parametrize("word", ["a\nnameserver 6.6.6.6", "a b", "", "\x1b[2J", "x" * 2000])
def test_a_word_of_resolv_conf_is_one_word(kind: str, word: str) -> None:
    with pytest.raises(InvalidArgument, match=f"dns_config.{kind}"):
        request(dns_config=v1.DNSConfig(**{kind: [word]}))


@pytest.mark.parametrize("name", ["a" * 65, "web\n127.0.0.1 bank", "web one", "wéb", "a/b"])
def test_a_host_name_is_one(name: str) -> None:
    with pytest.raises(InvalidArgument, match="hostname"):
        request(hostname=name)


def test_cgroup_parents() -> None:
    assert cgroup_parent(ID, "") == f"/pyrun/{ID}"
    assert cgroup_parent(ID, "/kubepods/burstable/pod1/") == "/kubepods/burstable/pod1"
    assert cgroup_parent(ID, "/kubepods.slice/a.slice") == "/kubepods.slice/a.slice"
    found = request(linux=linux(cgroup_parent="/kubepods/pod1"))
    assert json.loads(found.record)["cgroups"] == [f"/sys/fs/cgroup/kubepods/pod1/{ID}"], "the parent is the kubelet's"


def test_slices() -> None:
    """A kubelet gives all of the path, a person the name."""
    name = "kubepods-burstable-podu_1.slice"
    path = f"/kubepods.slice/kubepods-burstable.slice/{name}"
    assert slice_of(ID, name) == slice_of(ID, path) == name
    assert slice_of(ID, "") == f"system-pyrun_{ID}.slice"
    scope = f"pyrun-pod-{ID}.scope"
    found = plan_cgroups(ID, path, SYSTEMD, Facts())
    assert found.own == f"/sys/fs/cgroup{path}/{scope}"
    assert (found.removed, found.units) == ([found.own], (scope,)), "the slice is the kubelet's"
    found = plan_cgroups(ID, "", SYSTEMD, Facts())
    own = f"/sys/fs/cgroup/system.slice/system-pyrun_{ID}.slice"
    assert found.removed == [f"{own}/{scope}", own] and found.units == (scope, f"system-pyrun_{ID}.slice")
    made = plan_request(ID, "/run/p", v1.PodSandboxConfig(), Facts(), files=FILES, driver=SYSTEMD)
    assert made.cgroup is None, "systemd makes it"
    assert json.loads(made.record)["cgroup"] == f"{own}/{scope}"


@pytest.mark.parametrize(
    "given", ["/kubepods/pod1", "pod1", "/b.slice/a.slice", "a--b.slice", ".slice", "-a.slice", "a\nb.slice", "x.scope"]
)
def test_what_is_no_slice_is_refused(given: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup_parent.*the cgroup driver is systemd") as refused:
        slice_of(ID, given)
    assert "cgroupDriver" in (refused.value.hint or "") and "cgroup_driver" in (refused.value.hint or "")


@pytest.mark.parametrize("given", ["a-b.slice", "/a.slice/a-b.slice", "system.slice", "/system.slice"])
def test_a_slice_is_refused_by_cgroupfs(given: str) -> None:
    with pytest.raises(InvalidArgument, match="is a systemd unit, and the cgroup driver is cgroupfs"):
        plan_cgroups(ID, given, CGROUPFS, Facts())


@pytest.mark.parametrize("given", ["/a/../b", "a//b", "/./x", "kubepods-pod1.slice", "/a\nb"])
def test_cgroup_parents_that_are_none(given: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup_parent"):
        cgroup_parent(ID, given)
