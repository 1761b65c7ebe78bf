"""What volumes come to (pure), and how files are swapped (in plain directories)."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrun.kube.objects.config import ConfigMap, Secret
from pyrun.kube.objects.pods import Pod
from pyrun.kube.objects.volumes import ResourceFieldSelector
from pyrun.node.downward import PodFacts, field_value, quoted, resource_value
from pyrun.node.expansion import expand, expand_strictly
from pyrun.node.volumes import Objects, VolumeError, plan_volumes, wanted
from pyrun.node.volumes.atomic import DATA, write_payload
from pyrun.node.volumes.contents import File
from pyrun.node.volumes.plan import Directory, Filled, HostPath

MIB = 1 << 20
CONFIG = ConfigMap(data={"a": "1", "b.conf": "2"}, binaryData={"raw": base64.b64encode(b"\0\xff").decode()})
SECRET = Secret(data={"key": base64.b64encode(b"s3cret").decode()})
OBJECTS = Objects({("ns", "config"): CONFIG}, {("ns", "secret"): SECRET}, {"cpu": 2000, "memory": 64 * MIB})


def pod_of(*volumes: dict[str, Any], **spec: Any) -> Pod:
    resources = {"limits": {"cpu": "1500m", "memory": "32Mi"}, "requests": {"cpu": "250m"}}
    value = {
        "metadata": {"name": "p", "namespace": "ns", "labels": {"b": "2", "a": 'say "1"\n'}},
        "spec": {"containers": [{"name": "c", "resources": resources}], "volumes": list(volumes), **spec},
    }
    return msgspec.convert(value, Pod)


def files(source: dict[str, Any]) -> dict[str, File]:
    (found,) = plan_volumes(pod_of({"name": "v", **source}), "u1", OBJECTS)
    assert isinstance(found, Filled)
    return found.payload


def test_config_map_and_secret() -> None:
    assert files({"configMap": {"name": "config"}}) == {
        "a": File(b"1", 0o644),
        "b.conf": File(b"2", 0o644),
        "raw": File(b"\0\xff", 0o644),
    }
    items = [{"key": "key", "path": "./deep//er/k", "mode": 0o400}]
    found = files({"secret": {"secretName": "secret", "items": items, "defaultMode": 0o600}})
    assert found == {"deep/er/k": File(b"s3cret", 0o400)}
    assert files({"secret": {"secretName": "secret", "defaultMode": 0}}) == {"key": File(b"s3cret", 0)}


@pytest.mark.parametrize(
    "source, told",
    [
        ({"configMap": {"name": "other"}}, 'configmap "other" not found'),
        ({"secret": {"secretName": "other"}}, 'secret "other" not found'),
        (
            {"configMap": {"name": "config", "items": [{"key": "x", "path": "x"}]}},
            "configmap references non-existent config key: x",
        ),
        ({"secret": {"secretName": "secret", "items": [{"key": "x", "path": "x"}]}}, "non-existent secret key: x"),
        ({"projected": {"sources": [{"secret": {"name": "other"}}]}}, 'secret "other" not found'),
        ({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}, "not supported"),
        ({"configMap": {"name": "config", "items": [{"key": "a", "path": "../up"}]}}, "is no path of a file in it"),
        ({"configMap": {"name": "config", "items": [{"key": "a", "path": "/up"}]}}, "is no path of a file in it"),
        ({"configMap": {"name": "config", "items": [{"key": "a", "path": "..data"}]}}, "must not begin with .."),
        (
            {"configMap": {"name": "config", "items": [{"key": "a", "path": "x"}, {"key": "a", "path": "x/y"}]}},
            "in each other's way",
        ),
    ],
)
def test_what_can_not_be_had_is_named(source: dict[str, Any], told: str) -> None:
    with pytest.raises(VolumeError, match='MountVolume.SetUp failed for volume "v"') as caught:
        files(source)
    assert told in str(caught.value)
    assert caught.value.reason == "FailedMount"


def test_cve_2024_10220_and_2025_1767_git_repo_is_refused_by_name() -> None:
    """A repository's hooks ran on the node. Nothing is cloned; `pyrun node validate` says what to do instead."""
    with pytest.raises(VolumeError, match="gitRepo is not supported"):
        files({"gitRepo": {"repository": "https://example.com/x.git"}})


def test_optional_is_no_files() -> None:
    assert files({"configMap": {"name": "other", "optional": True}}) == {}
    missing = [{"key": "x", "path": "x"}, {"key": "a", "path": "y"}]
    assert list(files({"configMap": {"name": "config", "items": missing, "optional": True}})) == ["y"]


def test_projected_and_downward() -> None:
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    cpu = {"path": "cpu", "mode": 0o440, "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}
    sources = [
        {"configMap": {"name": "config", "items": [{"key": "a", "path": "a"}]}},
        {"secret": {"name": "secret", "items": [{"key": "key", "path": "a"}]}},
        {"downwardAPI": {"items": [labels, cpu]}},
    ]
    assert files({"projected": {"sources": sources, "defaultMode": 0o600}}) == {
        "a": File(b"s3cret", 0o600),
        "labels": File(b'a="say \\"1\\"\\n"\nb="2"', 0o600),
        "cpu": File(b"2", 0o440),
    }


def test_directories() -> None:
    memory = {"medium": "Memory"}
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "mode", "emptyDir": {"mode": 0o1777}},
        {"name": "small", "emptyDir": {**memory, "sizeLimit": "1Mi"}},
        {"name": "pods", "emptyDir": {**memory, "sizeLimit": "1Gi"}},
        {"name": "host", "hostPath": {"path": "/srv", "type": "Directory"}},
    ]
    assert plan_volumes(pod_of(*volumes, securityContext={"fsGroup": 7}), "u1", OBJECTS) == [
        Directory("disk", 0o777, None, 7),
        Directory("mode", 0o1777, None, 7),
        Directory("small", 0o777, MIB, 7),
        Directory("pods", 0o777, 32 * MIB, 7),
        HostPath("host", "/srv", "Directory"),
    ]
    (found,) = plan_volumes(pod_of({"name": "m", "emptyDir": memory}), "u1", Objects())
    assert found == Directory("m", 0o777, 32 * MIB, None)


def test_wanted() -> None:
    sources = [{"configMap": {"name": "c2"}}, {"secret": {"name": "s2"}}, {"downwardAPI": {}}]
    volumes = [
        {"name": "1", "configMap": {"name": "c1"}},
        {"name": "2", "secret": {"secretName": "s1"}},
        {"name": "3", "projected": {"sources": sources}},
    ]
    assert wanted(pod_of(*volumes)) == {("ConfigMap", "c1"), ("ConfigMap", "c2"), ("Secret", "s1"), ("Secret", "s2")}


# --- fields, variables ------------------------------------------------------------------------------------------------


def test_field_values() -> None:
    pod, facts = pod_of(), PodFacts("node-1", "default", ("10.0.0.1",), ("10.1.0.2", "fd00::2"))
    shown = {
        "metadata.name": "p",
        "metadata.namespace": "ns",
        "metadata.uid": "u1",
        "metadata.labels['b']": "2",
        "metadata.labels['none']": "",
        "metadata.annotations": "",
        "spec.nodeName": "node-1",
        "status.hostIP": "10.0.0.1",
        "status.podIP": "10.1.0.2",
        "status.podIPs": "10.1.0.2,fd00::2",
    }
    assert {path: field_value(pod, "u1", path, facts) for path in shown} == shown
    with pytest.raises(ValueError, match="no field"):
        field_value(pod, "u1", "spec.containers", facts)


def test_quoted_is_gos() -> None:
    assert quoted("a\tb\\\x01\u2028é") == '"a\\tb\\\\\\x01\\u2028é"'


@pytest.mark.parametrize(
    "resource, divisor, value",
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "0", "1"),
        ("limits.memory", "1Mi", "32"),
        ("requests.memory", "1Mi", "0"),
        ("limits.ephemeral-storage", None, "0"),
    ],
)
def test_resource_values(resource: str, divisor: str | None, value: str) -> None:
    assert pod_of().spec is not None
    ref = ResourceFieldSelector(resource=resource, divisor=divisor)
    assert resource_value(ref, pod_of().spec.containers[0], OBJECTS.allocatable) == value  # type: ignore[union-attr]


@pytest.mark.parametrize("limits", [{}, {"cpu": "0"}])
def test_a_limit_that_is_not_there_is_the_nodes(limits: dict[str, str]) -> None:
    pod = msgspec.convert({"spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]}}, Pod)
    assert pod.spec is not None
    ref = ResourceFieldSelector(resource="limits.cpu", divisor="1m")
    assert resource_value(ref, pod.spec.containers[0], OBJECTS.allocatable) == "2000"


def test_expansion() -> None:
    variables = {"A": "1", "B": "$(A)"}
    assert expand("$(A)-$(B)-$$(A)-$(C)-$A-$(", variables) == "1-$(A)-$(A)-$(C)-$A-$("
    assert expand_strictly("$(A)/$$(C)", variables) == "1/$(C)"
    with pytest.raises(ValueError, match="'C'"):
        expand_strictly("$(A)/$(C)", variables)


# --- the swap ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def shown(path: Path) -> dict[str, str]:
    """What a program sees: each file that no name beginning with .. leads to."""
    found = {}
    for directory, names, files_ in os.walk(path, followlinks=True):
        names[:] = [name for name in names if not name.startswith("..")]
        for name in files_:
            if not name.startswith(".."):
                found[str(Path(directory, name).relative_to(path))] = Path(directory, name).read_text()
    return found


def test_swap(tmp_path: Path, root: int) -> None:
    old_umask = os.umask(0o077)
    try:
        assert write_payload(root, {"a": File(b"1", 0o644), "d/e/f": File(b"2", 0o400)}, None)
    finally:
        os.umask(old_umask)
    assert shown(tmp_path) == {"a": "1", "d/e/f": "2"}
    assert stat.S_IMODE((tmp_path / "d/e/f").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "d/e").stat().st_mode) == 0o755
    first = os.readlink(tmp_path / DATA)
    held = os.open(tmp_path / "a", os.O_RDONLY)
    assert not write_payload(root, {"a": File(b"1", 0o644), "d/e/f": File(b"2", 0o400)}, None)
    assert os.readlink(tmp_path / DATA) == first, "equal files were written again"
    assert write_payload(root, {"a": File(b"10", 0o644), "g": File(b"3", 0o644)}, None)
    assert shown(tmp_path) == {"a": "10", "g": "3"}
    assert os.read(held, 10) == b"1", "a file that somebody reads was changed"
    os.close(held)
    assert sorted(name for name in os.listdir(tmp_path)) == sorted([DATA, os.readlink(tmp_path / DATA), "a", "g"])
    assert write_payload(root, {}, None)
    assert shown(tmp_path) == {}


def test_another_mode_is_another_content(tmp_path: Path, root: int) -> None:
    assert write_payload(root, {"a": File(b"1", 0o644)}, None)
    assert write_payload(root, {"a": File(b"1", 0o600)}, None)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_swap_mends_what_a_killed_agent_left(tmp_path: Path, root: int) -> None:
    """A half-written directory, a link that was not renamed yet, names that are missing."""
    write_payload(root, {"a": File(b"1", 0o644), "b": File(b"2", 0o644)}, None)
    half = tmp_path / "..2026_01_01_00_00_00.half"
    half.mkdir()
    (half / "c").touch()
    (tmp_path / "..data_tmp").symlink_to(half.name)
    (tmp_path / "b").unlink()
    write_payload(root, {"a": File(b"1", 0o644), "b": File(b"2", 0o644)}, None)
    assert shown(tmp_path) == {"a": "1", "b": "2"}
    write_payload(root, {"a": File(b"3", 0o644)}, None)
    assert not half.exists()
    assert shown(tmp_path) == {"a": "3"}


def test_the_old_files_stay_where_the_new_can_not_be_written(tmp_path: Path, root: int) -> None:
    write_payload(root, {"a": File(b"1", 0o644)}, None)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError):
        write_payload(root, {"b": File(b"2", 0o644), "c" * 300: File(b"3", 0o644)}, None)
    assert sorted(os.listdir(tmp_path)) == before
    assert shown(tmp_path) == {"a": "1"}


def test_cve_2017_1002102_no_link_in_a_volume_is_followed(tmp_path: Path) -> None:
    """Whatever has been put in the place of a volume's files: what it leads to is neither read nor removed."""
    kept, volume = tmp_path / "kept", tmp_path / "volume"
    kept.mkdir()
    (kept / "file").write_text("the host's")
    volume.mkdir()
    fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_payload(fd, {"d/a": File(b"1", 0o644)}, None)
        (volume / "..2026_01_01_00_00_00.evil").symlink_to(kept)
        real = volume / os.readlink(volume / DATA)
        (real / "out").symlink_to(kept)
        os.rename(real / "d", real / "moved")
        (real / "d").symlink_to(kept)
        write_payload(fd, {"d/a": File(b"2", 0o644)}, None)
        assert (volume / "d/a").read_text() == "2"
        (volume / DATA).unlink()
        (volume / DATA).symlink_to("../kept")
        write_payload(fd, {"d/a": File(b"3", 0o644)}, None)
    finally:
        os.close(fd)
    assert (volume / "d/a").read_text() == "3"
    assert (kept / "file").read_text() == "the host's"
    assert os.listdir(kept) == ["file"]
