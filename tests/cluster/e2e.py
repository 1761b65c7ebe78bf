"""`make e2e`: upstream's conformance specs of a cluster that has one node, and that is pyrun alone.

    tests/view python -m tests.cluster.e2e [--procs N] [--minutes N] [--labels FILTER] [--keep DIR] [GINKGO...]

API server, controllers, scheduler and kubectl are Kubernetes' own; `pyrun node run` has joined them, with its proxy and
its DNS, in a network namespace. Images come from a registry of ours under the names that the suite asks for. It prints
the score and every spec that did not pass; KNOWN.md says why. The exit code is 1 where one failed that is not there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import make_rootfs
from tests.support.kube import build, suite
from tests.support.kube.cluster import a_plane_and_node
from tests.support.kube.control_plane import ControlPlane
from tests.support.kube.images import cluster_images
from tests.support.node.agent import AgentNode

# Those of sig-api-machinery ask nothing of a node.
LABELS = "Conformance && !Serial && !Slow && !Flaky && !Disruptive && !sig-api-machinery"
# What this node refuses by name: such specs wait five minutes each for nothing. KNOWN.md says why.
LEFT_OUT = ("Pod InPlace Resize", "at least two untainted nodes")
# What the proxy and the DNS of a node may read, as docs/node.md says.
READ = ("--verb=list,watch", "--resource=services,endpointslices.discovery.k8s.io,namespaces,pods")


def run_suite(path: Path, plane: ControlPlane, o: argparse.Namespace, more: list[str]) -> None:
    """Its words go to e2e.log."""
    command = [*suite.ginkgo(path, o.procs, o.minutes, o.labels), *more, *(f"--skip={one}" for one in LEFT_OUT)]
    command += [str(build.program("e2e.test")), "--"]
    command += [f"--kubeconfig={plane.config('admin')}", f"--kubectl-path={build.program('kubectl')}"]
    command += ["--provider=skeleton", "--disable-log-dump", f"--report-dir={path}/report", "--v=2"]
    (path / "report").mkdir()
    with (path / "e2e.log").open("w") as log:
        subprocess.run(command, cwd=path, env=os.environ | {"HOME": str(path)}, stdout=log, stderr=log, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="e2e", description="upstream's conformance specs over a node of pyrun")
    parser.add_argument("--procs", type=int, default=6)
    parser.add_argument("--minutes", type=int, default=40)
    parser.add_argument("--labels", default=LABELS)
    parser.add_argument("--keep", type=Path, help="a directory that is not there; what the run writes stays in it")
    o, more = parser.parse_known_args()
    path = o.keep or Path(tempfile.mkdtemp(prefix="pyrun-e2e-"))
    path.mkdir(0o755, exist_ok=o.keep is None, parents=True)
    rootfs = make_rootfs("busybox")
    images = cluster_images(rootfs)
    with contextlib.ExitStack() as stack:

        def prepare(agent: AgentNode) -> None:
            certs = stack.enter_context(suite.a_registry(path, images))  # in the node's network
            agent.node.configure(f'cgroup_driver = "cgroupfs"\ncerts_dir = "{certs}"\ncni_conf_dir = ""\n')
            words = ("--manifests", str(agent.manifests), "--logs", str(agent.node.logs), "--node-name", "n1")
            agent.node.words = ("node", "run", *words, "--eviction-hard", "nodefs.available<1%")

        with a_plane_and_node(path, rootfs, "n1", whole=True, prepare=prepare) as (plane, _):
            plane.kubectl("create", "clusterrole", "pyrun-services", *READ)
            bound = ("--clusterrole=pyrun-services", "--group=system:nodes")
            plane.kubectl("create", "clusterrolebinding", "pyrun-services", *bound)
            plane.kubectl("wait", "--for=condition=Ready", "node/n1", "--timeout=100s")
            run_suite(path, plane, o, more)
            plane.kubectl("delete", "namespaces", "-l", "e2e-framework", "--timeout=110s")
    code = suite.tell(path, "e2e", "Of a cluster")
    if o.keep is None:
        shutil.rmtree(path, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
