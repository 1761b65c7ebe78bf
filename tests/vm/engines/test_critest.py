"""critest, the validation tests of the CRI, on pods of the handler `pyrun`: those of its specs whose verdict is the
runtime's, which our own tests do not have, and for which our image suffices.
"""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.support.engines.cri_tools import CACHE
from tests.vm.engines.crictl import Kubelet
from tests.vm.engines.engine import IMAGE
from tests.vm.engines.test_cri import SOCKET, kubelet

__all__ = ["kubelet"]  # its fixture

SPECS = {
    "containers": """
        runtime should support reopening container log [Conformance]
        mount with 'rshared' should support propagation from host to container and vice versa
        mount with 'rslave' should support propagation from host to container
    """,
    "pods and streams": """
        should support unsafe sysctls
        runtime should support exec with tty=true and stdin=true [Conformance]
        runtime should support attach [Conformance]
    """,
    "security": """
        runtime should support SupplementalGroups
        runtime should support ReadonlyPaths
        should support seccomp localhost profile on the container
        runtime should ignore a seccomp profile that blocks setting hostname when privileged
        should fail with an unloaded profile
        should enforce a profile blocking writes
    """,
}


@pytest.mark.parametrize("group", SPECS)
def test_critest(group: str, kubelet: Kubelet, tmp_path: Path) -> None:
    specs = [line.strip() for line in SPECS[group].splitlines() if line.strip()]
    report = tmp_path / "report.xml"
    focus = "|".join(spec.replace("[", r"\[").replace("]", r"\]") + "$" for spec in specs)
    images = tmp_path / "images.yaml"
    images.write_text(f"defaultTestContainerImage: {IMAGE}\n")
    server = f"unix://{SOCKET}"
    command = [str(CACHE / "critest"), "--runtime-endpoint", server, "--image-endpoint", server]
    command += ["--runtime-handler", "pyrun", "--test-images-file", str(images)]
    command += ["--ginkgo.focus", focus, "--ginkgo.no-color", "--ginkgo.junit-report", str(report)]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    verdicts = {case.get("name", ""): case.get("status") for case in ElementTree.parse(report).iter("testcase")}
    passed = [spec for spec in specs if any(name.endswith(spec) and verdicts[name] == "passed" for name in verdicts)]
    assert passed == specs, done.stdout[-6000:]
