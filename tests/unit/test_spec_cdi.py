"""Devices by the Container Device Interface: specs as vendors' tools write them, read from files, and what they make of
a container's config.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import InvalidArgument
from pyrun.pod.spec.cdi import VERSIONS, collect_edits, plan_cdi
from tests.support.cri.drafts import mount
from tests.support.cri.requests import container, draft

# As the tools of vendors of GPUs write them: YAML, a device for all, edits for every device, hooks and many mounts.
GPU = """\
---
cdiVersion: 0.5.0
kind: gpu.test/gpu
containerEdits:
  env:
  - VISIBLE=void
  deviceNodes:
  - path: /dev/null
  hooks:
  - hookName: createContainer
    path: /usr/bin/gpu-hook
    args: [gpu-hook, create-symlinks, --link, "libgpu.so.1::/usr/lib/libgpu.so"]
  mounts:
  - hostPath: /usr/lib/libgpu.so.1
    containerPath: /usr/lib/libgpu.so.1
    options: [ro, nosuid, nodev, bind]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/zero
      fileMode: 438
      permissions: rw
- name: "1"
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu1, type: c, major: 195, minor: 1, uid: 5, gid: 6}
- name: all
  containerEdits:
    env: [VISIBLE=all]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/zero}
    - {path: /dev/gpu1, type: c, major: 195, minor: 1}
"""
# As those of accelerators of Intel's are: JSON, and no edits for all.
QAT = {
    "cdiVersion": "1.1.0",
    "kind": "qat.test/cy",
    "annotations": {"who": "the vendor"},
    "devices": [
        {
            "name": "vf-0000:3d:01.1",
            "annotations": {"pci": "0000:3d:01.1"},
            "containerEdits": {
                "env": ["QAT0=0000:3d:01.1"],
                "deviceNodes": [{"path": "/dev/vfio/vfio", "type": "c", "major": 10, "minor": 196}],
                "mounts": [
                    {"hostPath": "/run/qat", "containerPath": "/run/qat", "type": "none", "options": ["rw", "bind"]}
                ],
                "additionalGids": [0, 44, 109, 44],
                "intelRdt": {"closID": "qat", "l3CacheSchema": "L3:0=f"},
                "netDevices": [{"hostInterfaceName": "eno5", "name": "net1"}],
            },
        }
    ],
}


@pytest.fixture
def specs(tmp_path: Path) -> tuple[str, str]:
    """/etc/cdi and /var/run/cdi, of which the second one wins."""
    low, high = tmp_path / "etc", tmp_path / "run"
    low.mkdir()
    high.mkdir()
    (low / "gpu.yaml").write_text(GPU)
    (high / "qat.json").write_text(json.dumps(QAT))
    (high / "README").write_text("not a spec")
    return str(low), str(high)


def made(specs: tuple[str, ...], *names: str, **fields: Any) -> dict[str, Any]:
    d = draft(container(**fields))
    plan_cdi(d, collect_edits(list(names), specs))
    return d.doc


def env_of(doc: dict[str, Any]) -> dict[str, str]:
    return dict(v.split("=", 1) for v in doc["process"]["env"])


def test_what_is_for_all_comes_before_what_is_for_one(specs: tuple[str, str]) -> None:
    doc = made(specs, "gpu.test/gpu=0")
    assert env_of(doc)["VISIBLE"] == "void"
    devices = {device["path"]: device for device in doc["linux"]["devices"]}
    assert devices["/dev/gpu0"] == {"type": "c", "path": "/dev/gpu0", "major": 1, "minor": 5, "fileMode": 0o666}
    assert devices["/dev/null"]["minor"] == 3
    rules = doc["linux"]["resources"]["devices"]
    assert {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rw"} in rules
    (hook,) = doc["hooks"]["createContainer"]
    assert hook["path"] == "/usr/bin/gpu-hook" and hook["args"][1] == "create-symlinks"
    library = mount(doc, "/usr/lib/libgpu.so.1")
    assert library["source"] == "/usr/lib/libgpu.so.1" and {"ro", "bind"} <= set(library["options"])


def test_a_device_over_another_has_the_last_word(specs: tuple[str, str]) -> None:
    doc = made(specs, "gpu.test/gpu=1", "gpu.test/gpu=all")
    assert env_of(doc)["VISIBLE"] == "all"
    assert len(doc["hooks"]["createContainer"]) == 1  # what is for all is done once
    paths = [device["path"] for device in doc["linux"]["devices"]]
    assert sorted(path for path in paths if "gpu" in path) == ["/dev/gpu0", "/dev/gpu1"]


def test_all_that_a_spec_can_say(specs: tuple[str, str]) -> None:
    doc = made(specs, "qat.test/cy=vf-0000:3d:01.1", envs=[{"key": "QAT0", "value": "bm9uZQ=="}])
    assert env_of(doc)["QAT0"] == "0000:3d:01.1"
    assert [gid for gid in doc["process"]["user"]["additionalGids"] if gid] == [44, 109]
    assert doc["linux"]["intelRdt"] == {"closID": "qat", "l3CacheSchema": "L3:0=f"}
    assert doc["linux"]["netDevices"] == {"eno5": {"name": "net1"}}
    assert mount(doc, "/run/qat")["source"] == "/run/qat"


def test_a_later_directory_wins(specs: tuple[str, str]) -> None:
    other = {
        "cdiVersion": "0.3.0",
        "kind": "gpu.test/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}],
    }
    Path(specs[1], "gpu.json").write_text(json.dumps(other))
    doc = made(specs, "gpu.test/gpu=0")
    assert env_of(doc)["A"] == "1" and "hooks" not in doc
    Path(specs[1], "gpu-2.json").write_text(json.dumps(other))
    with pytest.raises(InvalidArgument, match=r"is in .*gpu-2.json and in .*gpu.json"):
        made(specs, "gpu.test/gpu=0")


@pytest.mark.parametrize("name", ["gpu", "gpu.test/gpu", "=0", "gpu.test/gpu=", "../gpu=0", "gpu.test/gpu=a\nb"])
def test_a_name_that_is_none(specs: tuple[str, str], name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"CDI_devices.0: .*vendor.com/class=device"):
        made(specs, name)


BAD: dict[str, tuple[Any, str]] = {
    "unknown edit": ({"containerEdits": {"capabilities": ["SYS_ADMIN"]}}, "'capabilities' is not known"),
    "no list": ({"containerEdits": {"env": "A=1"}}, "env must be a list"),
    "no variable": ({"containerEdits": {"env": ["A"]}}, "is no variable"),
    "no hook": ({"containerEdits": {"hooks": [{"hookName": "never", "path": "/x"}]}}, "'never' is no hook"),
    "hook without a path": ({"containerEdits": {"mounts": [{"hostPath": "/x"}]}}, "not of the form"),
    "device that is not there": ({"containerEdits": {"deviceNodes": [{"path": "/dev/no/such"}]}}, "no such file"),
    "device that is none": ({"containerEdits": {"deviceNodes": [{"path": "/etc/passwd"}]}}, "is no device"),
    "relative mount": ({"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "x"}]}}, "CDI_devices.0"),
    "unknown rdt": ({"containerEdits": {"intelRdt": {"enableCMT": True}}}, "'enableCMT' is not known"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_spec_that_can_not_be_done_is_refused_by_name(tmp_path: Path, what: str) -> None:
    device, words = BAD[what]
    spec = {"cdiVersion": "0.6.0", "kind": "a.test/b", "devices": [{"name": "c", **device}]}
    (tmp_path / "a.json").write_text(json.dumps(spec))
    with pytest.raises(InvalidArgument, match="CDI_devices.0") as caught:
        made((str(tmp_path),), "a.test/b=c")
    assert words in str(caught.value)


def test_a_file_that_can_not_be_read_is_a_fault_for_who_needs_it(specs: tuple[str, str]) -> None:
    low = Path(specs[0])
    (low / "damaged.yaml").write_text("a: [")
    (low / "new.json").write_text(json.dumps({"cdiVersion": "9.0.0", "kind": "x.test/y", "devices": [{"name": "z"}]}))
    (low / "large.json").write_text(" " * (2 << 20))
    os.mkfifo(low / "fifo.json")
    assert made(specs, "gpu.test/gpu=1")
    with pytest.raises(InvalidArgument) as caught:
        made(specs, "x.test/y=z")
    for words in (
        "damaged.yaml: is no YAML",
        f"'9.0.0' is not known: {VERSIONS[-1]}",
        "larger than",
        "no regular file",
    ):
        assert words in str(caught.value)
