"""A Spec written as config.json is read as the same Spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyrun.oci import model
from pyrun.oci.dump import dump_spec
from pyrun.oci.load import load_bytes
from pyrun.oci.readers import MEMBERS

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPO / "bundles").glob("*/config.json"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parent.name)
def test_what_is_written_is_read_as_the_same(config: Path) -> None:
    spec = load_bytes(config.read_bytes())
    assert load_bytes(dump_spec(spec)) == spec


def test_the_members_have_the_specs_names() -> None:
    spec = load_bytes(
        json.dumps(
            {
                "ociVersion": "1.2.0",
                "root": {"path": "r"},
                "process": {
                    "cwd": "/",
                    "args": [""],
                    "capabilities": {"bounding": ["CAP_KILL", "CAP_NEW"]},
                    "ioPriority": {"class": "IOPRIO_CLASS_RT"},
                    "user": {"uid": 0, "gid": 5},
                },
                "linux": {
                    "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": []},
                    "resources": {"memory": {"disableOOMKiller": True, "limit": -1}, "unified": {"a": ""}},
                    "namespaces": [{"type": "user"}],
                    "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                },
            }
        ).encode()
    )
    dumped = json.loads(dump_spec(spec))
    assert dumped["process"]["ioPriority"] == {"class": "IOPRIO_CLASS_RT"}
    assert dumped["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW", "flags": []}
    assert dumped["linux"]["resources"] == {"memory": {"disableOOMKiller": True, "limit": -1}, "unified": {"a": ""}}
    assert load_bytes(dump_spec(spec)) == spec


def test_every_class_can_be_written() -> None:
    classes = {value for value in vars(model).values() if isinstance(value, type) and issubclass(value, model.Value)}
    assert set(MEMBERS) == classes - {model.Value}
