"""`pyrun cri explain` as a function: which of the four forms a file has, and where each step says it comes from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pyrun.cri.explain import Explained, explain_request
from pyrun.errors import PyrunError
from pyrun.plan.words.explain import explain_text
from tests.support.container.runner import REPO

POD: dict[str, Any] = {
    "metadata": {"name": "web-0", "namespace": "default", "uid": "1"},
    "hostname": "web-0",
    "linux": {"sysctls": {"net.core.somaxconn": "10"}},
}
CONTAINER: dict[str, Any] = {
    "metadata": {"name": "web"},
    "image": {"image": "busybox"},
    "command": ["sh"],
    "envs": [{"key": "A", "value": "plain text"}, {"key": "B", "value": "YmFzZTY0"}],
    "mounts": [
        {"container_path": "/data", "host_path": "/srv"},
        {"container_path": "/m", "image": {"image": "other"}, "readonly": True},
    ],
    "linux": {"security_context": {"namespace_options": {"pid": 1}, "run_as_user": {"value": 7}}},
}


def explain(path: Path, document: Any, *more: Any) -> Explained:
    files = []
    for number, value in enumerate((document, *more)):
        file = path / f"{number}.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        files.append(str(file) if value is not None else None)
    assert files[0] is not None
    return explain_request(files[0], *files[1:])


def places(made: Explained) -> set[str]:
    return {step.at for step in made.plan.steps if step.at}


def test_the_files_of_crictls_page(tmp_path: Path) -> None:
    """Both are what they say they are: no key is wrong, and the container's plan has what the page tells of it."""
    pod, container = re.findall(r"```json\n(.*?)```", (REPO / "docs/crictl.md").read_text(), re.DOTALL)
    assert {"/hostname", "/port_mappings"} & places(explain(tmp_path, pod))
    made = explain(tmp_path, container, pod)
    assert made.config is not None
    linux = made.config["linux"]
    assert {"type": "pid"} in linux["namespaces"] and "/proc/kcore" in linux["maskedPaths"]
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def test_a_container_config(tmp_path: Path) -> None:
    made = explain(tmp_path, CONTAINER, POD)
    assert {"/mounts/0", "/mounts/1", "/image", "/command", "/pod/linux/cgroup_parent"} <= places(made)
    assert not any(place.startswith(("/linux/namespaces", "/process")) for place in places(made))
    assert made.config is not None and {"A=plain text", "B=base64"} <= set(made.config["process"]["env"])
    text = "\n".join(explain_text(made.plan))
    assert "/srv" in text and "lowerdir+" in text and "/data" in text


def test_a_create_container_request(tmp_path: Path) -> None:
    made = explain(tmp_path, {"pod_sandbox_id": "x", "config": CONTAINER, "sandbox_config": POD})
    assert {"/config/mounts/0", "/sandbox_config/linux/cgroup_parent"} <= places(made)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sandbox(tmp_path: Path, wrapped: bool) -> None:
    made = explain(tmp_path, {"config": POD} if wrapped else POD)
    inside = "/config" if wrapped else ""
    assert made.what == "the sandbox of a pod" and made.config is None
    assert f"{inside}/linux/security_context/namespace_options/network" in places(made)


def test_the_images_config(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    image = {
        "config": {"Entrypoint": ["/bin/web"], "User": "web", "Volumes": {"/var/data": {}}},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "architecture": "amd64",
        "os": "linux",
    }
    plain = {"image": {"image": "x"}, "linux": {"security_context": {"namespace_options": {"pid": 1}}}}
    made = explain(tmp_path, plain, None, image)
    assert made.config is not None and made.config["process"]["args"] == ["/bin/web"]
    assert any("'web'" in text for text in made.warnings)
    assert "/var/data" in "\n".join(explain_text(made.plan))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("[]", "no JSON object"),
        ("{", "is not JSON"),
        ('{"image": {}, "image": {}}', "twice"),
        ({"config": 5}, "/config"),
        ({**CONTAINER, "colour": "red"}, "colour"),
        ({**CONTAINER, "mounts": [{"container_path": "x", "host_path": "/"}]}, "mounts.0.container_path"),
        ({**CONTAINER, "command": [], "args": [], "image": {"image": "x"}, "windows": {}}, "windows"),
        ({**POD, "linux": {"sysctls": {"vm.swappiness": "1"}}}, "vm.swappiness"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(PyrunError) as caught:
        explain(tmp_path, document)
    assert words in str(caught.value)


@pytest.mark.parametrize("document", [CONTAINER, POD], ids=["container", "sandbox"])
def test_nothing_is_made_and_no_root_is_needed(document: dict[str, Any]) -> None:
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        file = Path(directory) / "request.json"
        file.write_text(json.dumps(document))
        argv = [sys.executable, "-m", "pyrun", "cri", "explain", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=REPO, **other)
    assert done.returncode == 0 and "STAGE1" in done.stdout, done.stderr
    assert not os.path.exists("/run/pyrun-cri/pods/POD") and not os.path.exists("/var/lib/pyrun/pods/POD")
