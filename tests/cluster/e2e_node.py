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
import re
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
from tests.support.kube import build
from tests.support.kube.images import node_images
from tests.support.kube.kubelet import ADDRESS, FIXED, NAME, own_address
from tests.support.pods.nets import own_network
from tests.support.registry.stub import Stub

KNOWN = Path(__file__).with_name("KNOWN.md")
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


@contextlib.contextmanager
def a_registry(path: Path, rootfs: Path) -> Iterator[str]:
    """registry.k8s.io, for the daemon; yields the directory of its hosts.toml."""
    stub = Stub()
    try:
        for (repository, tag), made in node_images(rootfs).items():
            stub.add(repository, tag, made)
        hosts = path / "certs.d" / "registry.k8s.io"
        hosts.mkdir(parents=True)
        lines = [f'server = "{stub.url}"', f'[host."{stub.url}"]', 'capabilities = ["pull", "resolve"]']
        (hosts / "hosts.toml").write_text("\n".join(lines) + "\n")
        yield str(hosts.parent)
    finally:
        stub.close()


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
    command = [str(build.program("ginkgo")), "run", f"--procs={o.procs}", "--no-color", f"--label-filter={o.labels}"]
    command += [f"--timeout={o.minutes}m", "--poll-progress-after=0", f"--json-report={path}/report.json", *more]
    flags = [f"--node-ip={ADDRESS}"]
    if o.agent:
        flags += [f"--root-dir={node.root}", f"--state={node.state}", f"--runtime-config={node.config}"]
    command += [str(path / "suite" / "e2e_node.test"), "--", f"--kubelet-flags={' '.join(flags)}"]
    command += [f"--bearer-token={TOKEN}", f"--node-name={NAME}", "--prepull-images=false", "--v=2"]
    command += [f"--container-runtime-endpoint=unix://{node.socket}", f"--system-spec-file={path}/system.yaml"]
    command += [f"--report-dir={path}/report", f"--kubelet-config-file={path}/kubelet.yaml"]
    with (path / "e2e.log").open("w") as log:
        subprocess.run(command, cwd=path, env=os.environ | {"HOME": str(path)}, stdout=log, stderr=log, check=False)


def results(path: Path) -> dict[str, tuple[str, str]]:
    """Name of each spec that began → (how it ended, its first words about it)."""
    found = {}
    for line in [path / "report.json", *path.glob("report/report.json")]:
        if line.exists():
            for suite in json.loads(line.read_text()):
                for spec in suite["SpecReports"] or []:
                    if spec["LeafNodeType"] == "It" and spec["State"] not in ("skipped", "pending"):
                        name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
                        found[name] = (spec["State"], spec.get("Failure", {}).get("Message", "").split("\n")[0])
    return found


def known() -> list[re.Pattern[str]]:
    rows = re.findall(r"^\| `(.+?)` \|", KNOWN.read_text(), re.MULTILINE)
    return [re.compile(row.replace("\\|", "|")) for row in rows]


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
        with a_registry(path, rootfs) as certs:
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
    code = tell(path)
    if o.keep is None:
        shutil.rmtree(path, ignore_errors=True)
    return code


def tell(path: Path) -> int:
    found = results(path)
    if not found:
        print((path / "e2e.log").read_text()[-3000:], "\ne2e-node: nothing was run")
        return 1
    failed = {name: how for name, how in found.items() if how[0] != "passed"}
    new = [name for name in failed if not any(row.search(name) for row in known())]
    for name, (state, words) in sorted(failed.items()):
        print(f"{state}{'' if name in new else ' (known)'}: {name}\n    {words[:300]}")
    print(f"e2e-node: {len(found) - len(failed)} of {len(found)} specs passed, {len(new)} that KNOWN.md does not name")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
