"""Pods of the handler `pyrun`, beside those of runc, as a kubelet has them: containerd's CRI, configured as
docs/containerd.md says, driven by crictl and by critest, the validation tests of the CRI.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines.cri_tools import CACHE, WHY_NOT
from tests.vm.engines.crictl import CONTAINER, HOST, POD, Kubelet
from tests.vm.engines.engine import IMAGE, Client, config_file, config_of, containers_in, systemctl, wait_until

CONF = "/etc/containerd/config.toml"
SOCKET = "/run/containerd/containerd.sock"
STATE = Path("/run/containerd/runc/k8s.io")
# There is no registry: the sandbox's image is ours as well.
OFFLINE = f'\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "{IMAGE}"\n'
SYSTEMD = "  SystemdCgroup = true\n"
CNI = "/etc/cni/net.d/10-bridge.conflist"
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": IPAM}
NETWORK = json.dumps({"cniVersion": "0.4.0", "name": "net", "plugins": [BRIDGE]})
SERVE = "echo of $0 >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"
LIMITS = {"memory_limit_in_bytes": 64 << 20, "cpu_period": 100000, "cpu_quota": 50000}


def restart_containerd() -> None:
    systemctl("restart", "containerd")
    wait_until(lambda: Client("ctr")("version").rc == 0, "containerd to answer")


@pytest.fixture(scope="module")
def kubelet(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    program = CACHE / "crictl"
    if not program.exists():
        pytest.skip(f"no crictl: {WHY_NOT.read_text().strip()}")
    kubelet = Kubelet(program, SOCKET, tmp_path_factory.mktemp("pods"))
    with config_file(CONF, config_of("containerd.md", CONF) + OFFLINE), config_file(CNI, NETWORK):
        restart_containerd()
        Client("ctr", "-n", "k8s.io")("images", "import", str(image)).ok()
        with kubelet.only_for_now():
            yield kubelet
        systemctl("stop", "containerd")
        subprocess.run(["ip", "link", "delete", "cni0"], check=False)


@pytest.fixture(scope="module")
def pod(kubelet: Kubelet) -> str:
    """A pod of pyrun's, for all tests that need no other; a test's containers go with the test."""
    return kubelet.pod("pyrun")


@pytest.fixture(autouse=True)
def clean_up(kubelet: Kubelet, leak_check: None) -> Iterator[None]:
    """Removes the pods and containers that a test has made, before it is looked for what it left."""
    with kubelet.only_for_now():
        yield


def test_pods_of_both_handlers_side_by_side(kubelet: Kubelet) -> None:
    """Each has a network of its own, and each is served by the other."""
    address, main = {}, {}
    for handler in ("pyrun", "runc"):
        pod = kubelet.pod(handler, {"security_context": {"namespace_options": {"network": POD}}})
        inspected = json.loads(kubelet("inspectp", pod).ok().out)
        assert inspected["info"]["runtimeHandler"] == handler
        address[handler] = inspected["status"]["network"]["ip"]
        main[handler] = kubelet.run(pod, "sh", "-c", SERVE, handler)
        assert (STATE / main[handler] / "record").exists() == (handler == "pyrun")
    for here, there in (("pyrun", "runc"), ("runc", "pyrun")):
        ask = (main[here], "wget", "-qO-", f"http://{address[there]}:8080/")
        wait_until(lambda ask=ask: kubelet.exec(*ask).rc == 0, f"{there}'s server to answer")  # type: ignore[misc]
        assert kubelet.exec(*ask).ok().out == f"of {there}\n"


def namespaces_of(kubelet: Kubelet, container: str) -> dict[str, str]:
    pid = kubelet.info(container)["pid"]
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc", "uts", "pid", "mnt")}


def test_containers_share_their_pods_namespaces(kubelet: Kubelet, pod: str) -> None:
    options = {"network": HOST, "pid": CONTAINER}
    one, other = (kubelet.run(pod, linux={"security_context": {"namespace_options": options}}) for _ in "12")
    first, second = namespaces_of(kubelet, one), namespaces_of(kubelet, other)
    assert {kind for kind in first if first[kind] == second[kind]} == {"net", "ipc", "uts"}
    assert first["net"] == os.readlink("/proc/self/ns/net") and first["ipc"] != os.readlink("/proc/self/ns/ipc")


def test_a_pod_with_one_pid_namespace(kubelet: Kubelet) -> None:
    pod = kubelet.pod("pyrun", {"security_context": {"namespace_options": {"pid": POD}}})
    one, other = kubelet.run(pod, "sleep", "4321"), kubelet.run(pod)
    assert namespaces_of(kubelet, one)["pid"] == namespaces_of(kubelet, other)["pid"]
    assert "sleep 4321" in kubelet.exec(other, "ps").ok().out


def test_a_pod_in_the_hosts_pid_namespace(kubelet: Kubelet) -> None:
    pod = kubelet.pod("pyrun", {"security_context": {"namespace_options": {"pid": HOST}}})
    assert "containerd" in kubelet.told(pod, "ps")


def test_a_pod_in_a_user_namespace(kubelet: Kubelet) -> None:
    """Its containers join the namespace of its sandbox, and so does its network. containerd 1.6 knows of none."""
    maps = [{"host_id": 200000, "container_id": 0, "length": 65536}]
    options = {"network": POD, "userns_options": {"mode": POD, "uids": maps, "gids": maps}}
    pod = kubelet.pod("pyrun", {"security_context": {"namespace_options": options}})
    one, other = (kubelet.run(pod, linux=limits()) for _ in "12")
    script = "cat /proc/self/uid_map; touch /mine; stat -c %u /mine; cat /sys/class/net/eth0/operstate"
    told = kubelet.exec(one, "sh", "-c", script).ok().out.split()
    if Client("containerd").version() < (1, 7):
        assert told == ["0", "0", "4294967295", "0", "up"]
        return
    assert told == ["0", "200000", "65536", "0", "up"]
    users = {os.readlink(f"/proc/{kubelet.info(id)['pid']}/ns/user") for id in (one, other)}
    assert len(users) == 1 and users != {os.readlink("/proc/self/ns/user")}


def test_exec_and_its_exit_code(kubelet: Kubelet, pod: str) -> None:
    id = kubelet.run(pod)
    assert kubelet.exec(id, "echo", "out").ok().out == "out\n"
    assert "exited with 3: err" in kubelet.exec(id, "sh", "-c", "echo err >&2; exit 3").err
    result = kubelet("exec", id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert result.out == "out\n" and "err\n" in result.err and "exit code 3" in result.err, result.describe()
    assert kubelet("exec", "-i", id, "cat", input="in").ok().out == "in"
    assert "/dev/pts/" in kubelet.crictl.terminal("exec", "-it", id, "tty").ok().out
    assert "4321" not in kubelet.exec(id, "ps").ok().out
    started = time.monotonic()
    assert kubelet("exec", "--sync", "--timeout", "2", id, "sleep", "4321").rc != 0
    assert time.monotonic() - started < 30 and "4321" not in kubelet.exec(id, "ps").ok().out


def test_logs(kubelet: Kubelet, pod: str) -> None:
    id = kubelet.run(pod, "sh", "-c", "echo one; echo two >&2")
    kubelet.wait(id)
    result = kubelet("logs", id).ok()
    assert (result.out, result.err) == ("one\n", "two\n")
    lines = Path(kubelet.status(id)["logPath"]).read_text().splitlines()
    assert sorted(line.split(maxsplit=1)[1] for line in lines) == ["stderr F two", "stdout F one"]


def test_stats(kubelet: Kubelet, pod: str) -> None:
    """A container that has 32 MiB and a busy loop, against its cgroup's own files."""
    busy = "head -c 33554432 /dev/zero >/dev/shm/x; while :; do :; done"
    id = kubelet.run(pod, "sh", "-c", busy, linux=limits())
    cgroup = Path("/sys/fs/cgroup/k8s.io", id)
    wait_until(lambda: int((cgroup / "memory.current").read_text()) > 32 << 20, "the memory to be used")
    (stats,) = json.loads(kubelet("stats", "-o", "json", "--id", id).ok().out)["stats"]
    used = int((cgroup / "memory.current").read_text())
    usage = re.search(r"usage_usec (\d+)", (cgroup / "cpu.stat").read_text())
    assert usage
    assert 0.8 * used < int(stats["memory"]["workingSetBytes"]["value"]) <= 1.1 * used
    assert 0 < int(stats["cpu"]["usageCoreNanoSeconds"]["value"]) <= int(usage[1]) * 1000


def limits(**changes: Any) -> dict[str, Any]:
    return {"resources": LIMITS | changes}


def test_stop_gracefully_stop_by_force_and_remove(kubelet: Kubelet, pod: str) -> None:
    polite = kubelet.run(pod, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")
    deaf = kubelet.run(pod, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    assert "running" in kubelet("rm", polite).err
    kubelet("stop", "--timeout", "20", polite).ok()
    kubelet("stop", "--timeout", "1", deaf).ok()
    assert [kubelet.status(id)["exitCode"] for id in (polite, deaf)] == [7, 137]
    kubelet("rm", polite, deaf).ok()
    kubelet("rm", "--force", kubelet.run(pod)).ok()
    assert kubelet("ps", "-aq", "--pod", pod).ok().out == ""
    assert containers_in(STATE) == [pod]


# It ends with the status of what was killed, but only when it is let.
EAT = "until [ -e /tmp/end ]; do tail /dev/zero; code=$?; sleep 0.5; done; exit $code"


def test_an_oom_kill_is_the_reason(kubelet: Kubelet, pod: str) -> None:
    """The shim reads of the kill in the cgroup, to which it listens a moment after the start, and which it has the
    runtime remove as soon as the main process has ended. So it may not hear that this one was killed, whatever the
    runtime (containerd's issues 8180 and 8893): the main process goes on, until containerd has heard of a kill in it.
    """
    id = kubelet.run(pod, "sh", "-c", EAT, linux=limits(memory_limit_in_bytes=16 << 20))
    wait_until(lambda: kubelet.status(id)["reason"] == "OOMKilled", "containerd to hear of the kill")
    kubelet.exec(id, "touch", "/tmp/end").ok()
    status = kubelet.wait(id)
    assert (status["reason"], status["exitCode"]) == ("OOMKilled", 137)


def test_limits_and_their_update(kubelet: Kubelet, pod: str) -> None:
    id = kubelet.run(pod, linux=limits(cpu_shares=512, cpuset_cpus="0"))
    files = ("memory.max", "cpu.max", "cpu.weight", "cpuset.cpus")
    show = ("sh", "-c", f"cd /sys/fs/cgroup; cat {' '.join(files)}")
    assert kubelet.exec(id, *show).ok().out.split() == [str(64 << 20), "50000", "100000", "59", "0"]
    update = ("--memory", str(96 << 20), "--cpu-quota", "25000", "--cpu-period", "100000", "--cpu-share", "1024")
    kubelet("update", *update, "--cpuset-cpus", "1", id).ok()
    assert kubelet.exec(id, *show).ok().out.split() == [str(96 << 20), "25000", "100000", "100", "1"]


def facts(text: str) -> dict[str, str]:
    """What /proc/self/status and the like said, by the first word of each line."""
    return {row[0].rstrip(":"): row[-1] for row in (line.split(maxsplit=1) for line in text.splitlines() if line)}


def test_privileged(kubelet: Kubelet) -> None:
    pod = kubelet.pod("pyrun", {"security_context": {"privileged": True}})
    script = "cat /proc/self/status; cd /sys/fs/cgroup; test -b /dev/nvme0n1 && mkdir x && rmdir x; echo done $?"
    told = facts(kubelet.told(pod, "sh", "-c", script, linux={"security_context": {"privileged": True}}))
    everything = (Path("/proc/1/status").read_text().partition("CapBnd:\t")[2]).split()[0]
    assert (told["CapEff"], told["Seccomp"], told["done"]) == (everything, "0", "0")


REPORT = "cat /proc/self/status; touch /x; echo written $?; echo apparmor $(cat /proc/self/attr/current)"


def test_run_as_user_and_groups(kubelet: Kubelet, pod: str) -> None:
    user = {"run_as_user": {"value": 1000}, "run_as_group": {"value": 5}, "supplemental_groups": [7, 8]}
    told = facts(kubelet.told(pod, "sh", "-c", REPORT, linux={"security_context": user}))
    assert told["Uid"].split()[0] == "1000" and told["Gid"].split()[0] == "5"
    assert {"7", "8"} <= set(told["Groups"].split()) and told["CapEff"] == "0000000000000000"


def test_capabilities_read_only_root_and_no_new_privileges(kubelet: Kubelet, pod: str) -> None:
    capabilities = {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]}
    context = {"capabilities": capabilities, "readonly_rootfs": True, "no_new_privs": True}
    told = facts(kubelet.told(pod, "sh", "-c", REPORT, linux={"security_context": context}))
    assert (told["CapBnd"], told["written"], told["NoNewPrivs"]) == ("0000000000000400", "1", "1")


def test_seccomp_and_apparmor_runtime_default(kubelet: Kubelet, pod: str) -> None:
    default = {"seccomp": {"profile_type": 0}, "apparmor": {"profile_type": 0}}
    told = facts(kubelet.told(pod, "sh", "-c", REPORT, linux={"security_context": default}))
    assert (told["Seccomp"], told["apparmor"]) == ("2", "cri-containerd.apparmor.d (enforce)")
    unconfined = {"seccomp": {"profile_type": 1}, "apparmor": {"profile_type": 1}}
    told = facts(kubelet.told(pod, "sh", "-c", REPORT, linux={"security_context": unconfined}))
    assert (told["Seccomp"], told["apparmor"]) == ("0", "unconfined")


def test_a_bad_command_names_itself_and_leaves_nothing(kubelet: Kubelet, pod: str) -> None:
    id = kubelet.create(pod, "no-such-program").ok().out.strip()
    result = kubelet("start", id)
    assert result.rc != 0 and '"no-such-program": executable file not found in $PATH' in result.err
    status = kubelet.status(id)
    assert (status["reason"], status["exitCode"]) == ("StartError", 128)
    assert containers_in(STATE) == [pod]


def test_pods_outlive_a_restart_of_containerd(kubelet: Kubelet, pod: str) -> None:
    id = kubelet.run(pod, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")
    restart_containerd()
    assert kubelet.status(id)["state"] == "CONTAINER_RUNNING"
    assert kubelet.exec(id, "echo", "inside").ok().out == "inside\n"
    kubelet("stop", "--timeout", "20", id).ok()
    assert kubelet.status(id)["exitCode"] == 7


def test_the_systemd_cgroup_driver(kubelet: Kubelet) -> None:
    """With SystemdCgroup = true in the options, as a kubelet has it by default. It stops its slices itself."""
    with config_file(CONF, config_of("containerd.md", CONF) + SYSTEMD + OFFLINE):
        restart_containerd()
        pod = kubelet.pod("pyrun", {"cgroup_parent": "kubepods-pod1.slice"})
        id = kubelet.run(pod, linux=limits())
        unit = f"cri-containerd-{id}.scope"
        shown = systemctl("show", "-p", "MemoryMax,CPUQuotaPerSecUSec,Slice,ActiveState", unit).split()
        assert sorted(shown) == [
            "ActiveState=active",
            "CPUQuotaPerSecUSec=500ms",
            f"MemoryMax={64 << 20}",
            "Slice=kubepods-pod1.slice",
        ]
        kubelet("update", "--memory", str(96 << 20), id).ok()
        assert kubelet.exec(id, "cat", "/sys/fs/cgroup/memory.max").ok().out == f"{96 << 20}\n"
        assert systemctl("show", "-p", "MemoryMax", unit) == f"MemoryMax={96 << 20}\n"
        kubelet.remove(pod)
        assert systemctl("show", "-p", "ActiveState", unit) == "ActiveState=inactive\n"
        systemctl("stop", "kubepods.slice")
    restart_containerd()
