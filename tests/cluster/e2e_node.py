"""`make e2e-node`: upstream's end-to-end specs of a node, over a real kubelet and `pyrun cri`, or over `pyrun kubelet`.

    tests/view python -m tests.cluster.e2e_node [--agent] [--procs N] [--minutes N] [--labels FILTER] [--keep DIR]
                                                [GINKGO...]

The suite has an API server and etcd inside and starts the kubelet that lies beside it; images come from a registry of
ours under the names that it asks for. It prints the score and every spec that did not pass; KNOWN.md says why. The exit
code is 1 where one failed that KNOWN.md does not name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import make_rootfs
from tests.support.container.runner import runtime_argv
from tests.support.cri.node import Node
from tests.support.kube import build, suite
from tests.support.kube.images import node_images
from tests.support.kube.kubelet import ADDRESS, FIXED, NAME, own_address
from tests.support.pods.nets import own_network

LABELS = "Conformance && NodeConformance && !Serial && !Slow && !Flaky && !Disruptive"
TOKEN = "e2e-token"
# Paths that programs of the suite have fixed: what lies there is the run's own.
OWN = (FIXED, Path("/run/kubernetes"), Path("/usr/libexec/kubernetes"))


@contextlib.contextmanager
def own_places() -> Iterator[None]:
    """The suite starts its kubelet by systemd-run where there is one; and OWN are empty."""
    mounted = []
    try:
        for path in OWN:
            path.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "e2e", path], check=True)
            mounted.append(path)
        systemd_run = shutil.which("systemd-run")
        if systemd_run:
            subprocess.run(["mount", "--bind", "/dev/null", systemd_run], check=True)
            mounted.append(Path(systemd_run))
        yield
    finally:
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=False)


def kubelet_configuration(path: Path, node: Node, agent: bool) -> dict[str, Any]:
    """agent: for ours, which is content where the node's cgroup lacks controllers."""
    made = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "staticPodPath": str(path / "manifests"),
        "podLogsDir": str(path / "podlogs"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": ["none"],
        "failSwapOn": False,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "readOnlyPort": 10255,
        "podCIDR": "10.100.0.0/24",
        "serializeImagePulls": False,
        "fileCheckFrequency": "10s",
        "volumeStatsAggPeriod": "10s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
    if agent:
        del made["cgroupsPerQOS"]
    return made


def write_files(path: Path, node: Node, agent: bool) -> None:
    for name in ("manifests", "report", "suite"):
        (path / name).mkdir()
    for name in ("e2e_node.test",) if agent else ("e2e_node.test", "kubelet"):
        (path / "suite" / name).symlink_to(build.program(name))
    if agent:
        ours = path / "suite" / "kubelet"
        ours.write_text(f'#!/bin/sh\nexec {shlex.join(runtime_argv())} kubelet "$@"\n')
        ours.chmod(0o755)
    (path / "kubelet.yaml").write_text(yaml.safe_dump(kubelet_configuration(path, node, agent)))
    (path / "system.yaml").write_text("os: Linux\nkernelSpec: {versions: ['.*']}\n")
    cluster = {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True}
    named = {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": TOKEN}}]}
    context = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}
    (path / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **context, **named}))


def run_suite(path: Path, node: Node, o: argparse.Namespace, more: list[str]) -> None:
    """Its words go to e2e.log."""
    command = [*suite.ginkgo(path, o.procs, o.minutes, o.labels), *more]
    flags = [f"--node-ip={ADDRESS}"]
    if o.agent:
        flags += [f"--root-dir={node.root}", f"--state={node.state}", f"--runtime-config={node.config}"]
    command += [str(path / "suite" / "e2e_node.test"), "--", f"--kubelet-flags={' '.join(flags)}"]
    command += [f"--bearer-token={TOKEN}", f"--node-name={NAME}", "--prepull-images=false", "--v=2"]
    command += [f"--container-runtime-endpoint=unix://{node.socket}", f"--system-spec-file={path}/system.yaml"]
    command += [f"--report-dir={path}/report", f"--kubelet-config-file={path}/kubelet.yaml"]
    with (path / "e2e.log").open("w") as log:
        subprocess.run(command, cwd=path, env=os.environ | {"HOME": str(path)}, stdout=log, stderr=log, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="e2e_node", description="upstream's node specs over pyrun cri")
    parser.add_argument("--agent", action="store_true", help="with `pyrun kubelet` in the kubelet's place")
    parser.add_argument("--procs", type=int, default=6)
    parser.add_argument("--minutes", type=int, default=15)
    parser.add_argument("--labels", default=LABELS)
    parser.add_argument("--keep", type=Path, help="a directory that is not there; what the run writes stays in it")
    o, more = parser.parse_known_args()
    path = o.keep or Path(tempfile.mkdtemp(prefix="pyrun-e2e-"))
    path.mkdir(0o755, exist_ok=o.keep is None, parents=True)
    rootfs = make_rootfs("busybox")
    with own_places(), own_network():
        own_address()
        with suite.a_registry(path, node_images(rootfs)) as certs:
            (path / "pyrun.toml").write_text(f'certs_dir = "{certs}"\ncni_conf_dir = ""\n')
            node = Node(path / "node", rootfs, config=str(path / "pyrun.toml"))
            write_files(path, node, o.agent)
            if not o.agent:
                node.start()
            try:
                run_suite(path, node, o, more)
            finally:
                if o.agent:  # its own has ended with the suite
                    node.start()
                for pod in node.call("ListPodSandbox").items:
                    node.call("RemovePodSandbox", pod_sandbox_id=pod.id)
                node.stop()
                subprocess.run(["umount", node.state / "pods"], check=False)
    code = suite.tell(path, "e2e-node", "Of a node")
    if o.keep is None:
        shutil.rmtree(path, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
