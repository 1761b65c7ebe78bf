"""Kubernetes' types: made by the generator, whole, and read strictly."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrun.kube.objects import KINDS
from pyrun.kube.strict import decode, fields_of
from tests.support.kube import generate_objects

FILES = {
    "Pod": "core.v1.Pod",
    "ConfigMap": "core.v1.ConfigMap",
    "Secret": "core.v1.Secret",
    "Service": "core.v1.Service",
    "Node": "core.v1.Node",
    "Deployment": "apps.v1.Deployment",
    "EndpointSlice": "discovery.k8s.io.v1.EndpointSlice",
}


@cache
def upstream() -> Path:
    """k8s.io/api's testdata, which has each kind with every field set, where Go's module cache has it."""
    try:
        out = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("Go is not installed")
    found = sorted(Path(out.stdout.strip(), "k8s.io").glob("api@v0.37.*/testdata/HEAD"))
    if not found:
        pytest.skip("k8s.io/api v0.37 is not in Go's module cache: go mod download k8s.io/api@v0.37.2")
    return found[-1]


def without_nulls_and_bookkeeping(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls_and_bookkeeping(v) for k, v in value.items() if v is not None and k != "managedFields"}
    return [without_nulls_and_bookkeeping(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", FILES)
def test_every_field_comes_back(kind: str) -> None:
    """What upstream's own serializer wrote, decoded strictly and encoded again, is the same."""
    given = json.loads((upstream() / f"{FILES[kind]}.json").read_text())
    found, faults = decode(given)
    assert not faults, faults[:5]
    assert msgspec.to_builtins(found) == without_nulls_and_bookkeeping(given)


def test_files_are_what_the_generator_makes() -> None:
    there = generate_objects.installed()
    if there is None:
        pytest.skip("lightkube-models is not installed: pip install 'pyrun[dev]'")
    for name, text in generate_objects.generate(*there).items():
        assert (generate_objects.OBJECTS / name).read_text() == generate_objects.formatted(text), (
            f"{name}: make kube-objects"
        )


def test_every_type_can_be_looked_at() -> None:
    """No annotation leads nowhere."""
    for kind in KINDS.values():
        assert fields_of(kind)


GRACE = "/spec/terminationGracePeriodSeconds"


def pod(**spec: Any) -> dict[str, Any]:
    containers = spec.pop("containers", [{"name": "c", "image": "i"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}


@pytest.mark.parametrize(
    ("value", "pointer", "text"),
    [
        (pod(hostNetwrk=True), "/spec/hostNetwrk", "PodSpec has no field hostNetwrk: did you mean hostNetwork?"),
        (pod(HostNetwork=True), "/spec/HostNetwork", "PodSpec has no field HostNetwork: did you mean hostNetwork?"),
        (pod(zebra=1), "/spec/zebra", "PodSpec has no field zebra"),
        (pod(containers=[{"image": "i"}]), "/spec/containers/0/name", "is missing"),
        (pod(containers=[{"name": None}]), "/spec/containers/0/name", "is missing"),
        (pod(containers={}), "/spec/containers", "must be a list, is an object"),
        (pod(hostNetwork="true"), "/spec/hostNetwork", "must be true or false, is 'true'"),
        (pod(nodeSelector={"a/b": True}), "/spec/nodeSelector/a~1b", "must be a string, is true; quote it"),
        (pod(terminationGracePeriodSeconds=1.5), GRACE, "must be a whole number, is 1.5"),
        (pod(terminationGracePeriodSeconds=True), GRACE, "must be a whole number, is true"),
        (pod(overhead={"cpu": True}), "/spec/overhead/cpu", "must be a string or a whole number, is true"),
        ({"kind": "Pod"}, "/apiVersion", "is missing"),
        ({"apiVersion": "v1", "kind": 3}, "/kind", "must be a string"),
        ({"apiVersion": "v2", "kind": "Pod"}, "/apiVersion", "Pod is of v1, not v2"),
        ({"apiVersion": "v1", "kind": "Pods"}, "/kind", "Pods is not a kind that is taken here: did you mean Pod?"),
        ([], "", "must be an object with apiVersion and kind, is a list"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place(value: Any, pointer: str, text: str) -> None:
    found, faults = decode(value)
    assert found is None
    assert [tuple(f) for f in faults] == [(pointer, text)]


def test_all_faults_at_once() -> None:
    value = pod(containers=[{"nam": "c"}, 3], volumes="x")
    assert [f.pointer for f in decode(value)[1]] == [
        "/spec/containers/0/nam", "/spec/containers/0/name", "/spec/containers/1", "/spec/volumes",
    ]  # fmt: skip


def test_null_is_absent_and_bookkeeping_is_not_kept() -> None:
    value = pod(hostname=None)
    value["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    found, faults = decode(value)
    assert not faults
    assert "managedFields" not in msgspec.to_builtins(found)["metadata"]


def test_a_float_that_is_whole_is_a_number() -> None:
    """YAML's 3e1, as kubectl has it."""
    found, faults = decode(pod(terminationGracePeriodSeconds=30.0))
    assert not faults
    assert found is not None and msgspec.to_builtins(found)["spec"]["terminationGracePeriodSeconds"] == 30
