"""The rules against the table of pods, and what the table does not say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyrun.kube.defaults import pull_policy
from pyrun.kube.validate.objects import read_object
from tests.support.kube.pod_table import BASE, ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_a_pod_is_good_or_wrong_in_one_place(row: Row) -> None:
    found, faults = read_object(row.pod())
    assert [f.pointer for f in faults] == ([row.fault] if row.fault else []), faults
    assert (found is None) == bool(row.fault)


def test_names_of_rows_differ() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_all_faults_at_once() -> None:
    container = {"name": "A", "volumeMounts": [{"name": "v", "mountPath": "/"}]}
    value = BASE | {"metadata": {"name": "Web"}, "spec": {"restartPolicy": "No", "containers": [container]}}
    assert {f.pointer for f in read_object(value)[1]} == {
        "/metadata/name", "/spec/restartPolicy", "/spec/containers/0/name", "/spec/containers/0/image",
        "/spec/containers/0/volumeMounts/0/name",
    }  # fmt: skip


def test_no_container() -> None:
    assert [f.pointer for f in read_object(BASE | {"spec": {"containers": []}})[1]] == ["/spec/containers"]


def test_defaults() -> None:
    found, _ = read_object(
        BASE
        | {
            "metadata": {"name": "p"},
            "spec": {
                "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}],
                "containers": [
                    {
                        "name": "c",
                        "image": "i",
                        "ports": [{"containerPort": 80}],
                        "resources": {"limits": {"cpu": "1"}},
                        "livenessProbe": {"httpGet": {"port": 80}},
                    }
                ],
            },
        }
    )
    made: dict[str, Any] = msgspec.to_builtins(found)
    assert made["metadata"] == {"name": "p", "namespace": "default"}
    assert made["spec"] == {
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o644}}],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "livenessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"), ("web:latest", "Always"), ("web:1", "IfNotPresent"), ("host:5000/web", "Always"),
        ("host:5000/web:1", "IfNotPresent"), ("web@sha256:" + "0" * 64, "IfNotPresent"),
        ("web:latest@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)  # fmt: skip
def test_pull_policy(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ({"kind": "ConfigMap", "data": {"a": "b"}}, []),
        ({"kind": "ConfigMap", "data": {"a/b": "c", "..": "d"}}, ["/data/a~1b", "/data/.."]),
        ({"kind": "ConfigMap", "data": {"a": "b"}, "binaryData": {"a": "eA=="}}, ["/binaryData/a"]),
        ({"kind": "ConfigMap", "binaryData": {"a": "x"}}, ["/binaryData/a"]),
        ({"kind": "ConfigMap", "data": {"a": "x" * (1 << 20)}}, []),
        ({"kind": "ConfigMap", "data": {"a": "x" * (1 << 20), "b": "y"}}, ["/data"]),
        ({"kind": "Secret", "data": {"a": "eA=="}, "stringData": {"b": "plain"}}, []),
        ({"kind": "Secret", "data": {"a": "plain!"}}, ["/data/a"]),
        ({"kind": "Secret", "type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}, ["/data/tls.key"]),
    ],
)
def test_config(value: dict[str, Any], pointers: list[str]) -> None:
    _, faults = read_object({"apiVersion": "v1", "metadata": {"name": "n"}, **value})
    assert [f.pointer for f in faults] == pointers
