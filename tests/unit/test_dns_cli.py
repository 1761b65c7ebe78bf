"""`pyrun dns query` and `pyrun dns explain`: answers with the file, line and pointer of what they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyrun.cli.main import main

WEB = """\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.5
  ports:
  - port: 80
    name: http
---
apiVersion: v1
kind: Service
metadata: {name: ext, namespace: other}
spec: {type: ExternalName, externalName: example.com}
"""


def run(*words: str) -> int:
    return main(["dns", *words])


@pytest.fixture
def objects(tmp_path: Path) -> str:
    (tmp_path / "web.yaml").write_text(WEB)
    (tmp_path / "bad.yaml").write_text("kind: [\n")
    (tmp_path / "broken.json").write_text('{"kind": "Service", "metadata": {"name": "x"}, "spec": {"clusterIP": "10"}}')
    (tmp_path / "space.yaml").write_text("kind: Namespace\nmetadata: {name: space}\n")
    return str(tmp_path)


def test_query(objects: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("query", "--objects", objects, "_http._tcp.web.default.svc.cluster.local", "srv") == 0
    out, err = capfd.readouterr()
    assert "SRV 0 100 80 web.default.svc.cluster.local." in out
    assert f"; {objects}/web.yaml:8:" in out and " Service default/web /spec/ports/0" in out
    assert f"{objects}/bad.yaml:2:1" in err
    assert "Service default/x /spec/clusterIP: '10' is no IP address" in err


def test_query_as_json(objects: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("query", "--objects", objects, "--format", "json", "ext.other.svc.cluster.local") == 0
    value = json.loads(capfd.readouterr().out)
    assert value["forward"] == "example.com."
    assert value["answers"][0]["from"] == f"{objects}/web.yaml:14:28 Service other/ext /spec/externalName"


@pytest.mark.parametrize(
    "name, said",
    [
        ("nope.default.svc.cluster.local", "NXDOMAIN"),
        ("space.svc.cluster.local", "NODATA"),
        ("example.com", "another server is asked for example.com."),
    ],
)
def test_query_of_what_is_not_there(name: str, said: str, objects: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("query", "--objects", objects, name) == 0
    assert said in capfd.readouterr().out


def test_explain(objects: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "--objects", objects) == 0
    out = capfd.readouterr().out
    assert "5.0.96.10.in-addr.arpa." in out and "web.yaml:6:3 Service default/web /spec/clusterIP" in out
    assert run("explain", "--objects", objects, "--format", "json", "other.svc.cluster.local") == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["ext.other.svc.cluster.local."]


@pytest.mark.parametrize(
    "words, said",
    [
        (("query", "web"), "--objects is missing"),
        (("query", "--objects", "/nowhere", "web"), "read /nowhere: no such file"),
        (("query", "--objects", "/", "web", "NONE"), "NONE is no type"),
        (("query", "--objects", "/", "a..b"), "a..b: a label of a DNS name has 1 to 63 bytes"),
        (("query", "--objects", "/", "--zone", "a..b", "x"), "--zone a..b"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*words) != 0
    assert said in capfd.readouterr().err
