"""Pods, units of systemd, and systemd itself on podman with pyrun."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.container.disk import unmount
from tests.vm.engines.engine import IMAGE, ISOLATED, Client, config_file, share, systemctl, wait_until

INFRA = ("--infra-image", IMAGE, "--infra-command", "sleep 1000")
KUBE = f"""
apiVersion: v1
kind: Pod
metadata: {{name: kube}}
spec:
  hostname: hh
  restartPolicy: Never
  volumes: [{{name: v, hostPath: {{path: DIRECTORY}}}}]
  containers:
  - name: one
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, "id -u; hostname; cat /v/file /sys/fs/cgroup/memory.max; echo $A; sleep 1000"]
    env: [{{name: A, value: b}}]
    resources: {{limits: {{memory: 64Mi}}}}
    securityContext: {{runAsUser: 1000, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    volumeMounts: [{{name: v, mountPath: /v, readOnly: true}}]
  - name: two
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, exit 3]
"""
UNIT = """
[Service]
Type=notify
NotifyAccess=all
Delegate=yes
ExecStart=/usr/bin/podman run --rm --replace -d --name unit --cgroups=HOW --sdnotify=WHO --network none MORE
ExecStop=/usr/bin/podman stop -t 1 unit
ExecStopPost=/usr/bin/podman rm -f -i unit
"""


def test_pod_shares_namespaces_and_a_limit(podman: Client) -> None:
    """net, ipc, uts and pid are the pod's, the mounts each container's own; the pod's cgroup has its limit."""
    limits = ("--memory", "64m", "--hostname", "podhost", "--sysctl", "net.ipv4.ip_forward=1")
    podman("pod", "create", "--name", "pod", "--share", "net,ipc,uts,pid", *limits, *ISOLATED, *INFRA).ok()
    try:
        podman("run", "-d", "--pod", "pod", "--name", "one", IMAGE, "sleep", "1001").ok()
        podman("run", "-d", "--pod", "pod", "--name", "two", IMAGE, "sleep", "1002").ok()
        namespaces = "cd /proc/self/ns; for n in net ipc uts pid mnt; do readlink $n; done"
        script = namespaces + "; cat /proc/sys/net/ipv4/ip_forward; hostname; ps"
        one, two = (podman.says("exec", name, "sh", "-c", script).splitlines() for name in ("one", "two"))
        assert one[:4] == two[:4] and one[4] != two[4] and one[5:7] == ["1", "podhost"]
        assert {"sleep 1000", "sleep 1001", "sleep 1002"} <= {" ".join(line.split()[2:]) for line in one}
        id = podman.says("pod", "inspect", "--format", "{{.ID}}", "pod")
        limit = Path(f"/sys/fs/cgroup/machine.slice/machine-libpod_pod_{id}.slice/memory.max")
        assert int(limit.read_text()) == 64 << 20
        state = ("pod", "inspect", "--format", "{{.State}}", "pod")
        for verb, wanted in ("pause", "Paused"), ("unpause", "Running"), ("restart", "Running"), ("stop", "Exited"):
            podman("pod", verb, *(("-t", "1") if verb == "stop" else ()), "pod").ok()
            assert podman.says(*state) == wanted
    finally:
        podman("pod", "rm", "-f", "-t", "0", "pod").ok()


def test_play_kube(podman: Client, tmp_path: Path) -> None:
    (share(tmp_path) / "file").write_text("volume\n")
    file = tmp_path / "pod.yaml"
    file.write_text(KUBE.replace("DIRECTORY", str(tmp_path)))
    podman("play", "kube", "--network", "none", str(file)).ok()
    try:
        wait_until(lambda: len(podman("logs", "kube-one").out.split()) >= 5, "its output")
        assert podman.says("logs", "kube-one").split() == ["1000", "hh", "volume", str(64 << 20), "b"]
        assert podman.says("wait", "kube-two") == "3"
        assert podman.says("inspect", "--format", "{{.OCIRuntime}}", "kube-one") == "pyrun"
    finally:
        podman("play", "kube", "--down", str(file)).ok()


def test_units_with_sdnotify(podman: Client) -> None:
    """sdnotify=conmon: conmon says ready. sdnotify=container: the program does, and the start of the unit waits."""
    libraries = " ".join(f"-v {path}:{path}:ro" for path in ("/lib", "/lib64", "/usr/lib"))
    script = "sleep 2; touch /ready; /notify --ready; sleep 99"
    late = f"{libraries} -v /usr/bin/systemd-notify:/notify {IMAGE} sh -c '{script}'"
    for who, how, more in (("conmon", "no-conmon", f"{IMAGE} sleep 99"), ("container", "split", late)):
        text = UNIT.replace("WHO", who).replace("HOW", how).replace("MORE", more)
        with config_file("/run/systemd/system/engine-test.service", text):
            systemctl("daemon-reload")
            systemctl("start", "engine-test")
            try:
                main = systemctl("show", "-p", "MainPID", "--value", "engine-test").strip()
                assert Path(f"/proc/{main}/comm").read_text() == "conmon\n"
                assert podman.says("exec", "unit", "ls", *(["/ready"] if more == late else [])) != ""
            finally:
                systemctl("stop", "engine-test")
            assert podman.says("ps", "-aq") == ""
    systemctl("daemon-reload")


def test_systemd_in_a_container(podman: Client) -> None:
    """The guest's own Debian boots in a container, on an overlay over the guest's root."""
    base = Path("/run/systemd-root")
    for name in ("upper", "work", "root"):
        (base / name).mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={base}/upper,workdir={base}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", base / "root"], check=True, timeout=20)
    try:
        boot = ("/sbin/init", "systemd.unit=basic.target")
        podman("run", "-d", "--name", "sys", "--systemd=always", *ISOLATED, "--rootfs", str(base / "root"), *boot).ok()
        running = ("exec", "sys", "systemctl", "is-active", "basic.target")
        wait_until(lambda: podman(*running).out == "active\n", "basic.target", 100)
        script = "tr '\\0' '\\n' </proc/1/environ | grep container; cat /proc/1/cgroup"
        told = podman.says("exec", "sys", "sh", "-c", script).split()
        assert "0::/init.scope" in told and "container_uuid=" in " ".join(told)
        podman("stop", "-t", "60", "sys").ok()
        assert podman.says("inspect", "--format", "{{.State.ExitCode}}", "sys") in ("0", "130")
    finally:
        podman("rm", "-f", "-t", "0", "sys")
        unmount(base / "root")
        subprocess.run(["rm", "-r", base], check=True, timeout=20)
