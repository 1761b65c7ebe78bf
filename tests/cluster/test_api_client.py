"""The client of the API server against a real one: what it reads and writes, and watches that outlive the server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import AlreadyExists, NotFound, PyrunError, Unavailable
from pyrun.kube.client import Client, Conflict, Forbidden, Gone, Stream, path
from pyrun.kube.kubeconfig import Cluster, load_kubeconfig
from pyrun.kube.watch import Watch
from tests.support.kube.control_plane import ControlPlane, a_control_plane, a_port
from tests.support.pods.nets import wait_until

MAPS = path("v1", "configmaps", "default")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with a_control_plane(tmp_path_factory.mktemp("plane")) as made:
        yield made


@pytest.fixture
def admin(plane: ControlPlane) -> Iterator[Client]:
    yield plane.admin
    plane.admin.delete(MAPS)


def a_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "test"}}, "data": data}


class Seen:
    """What a watch has told: the objects by name as they are now, and each call."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {}
        self.events: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.lock = threading.Lock()

    def replaced(self, found: list[Any]) -> None:
        with self.lock:
            self.now = {one["metadata"]["name"]: one.get("data") for one in found}

    def changed(self, kind: str, value: Any) -> None:
        name = value["metadata"]["name"]
        with self.lock:
            self.events.append((kind, name))
            if kind == "DELETED":
                self.now.pop(name, None)
            else:
                self.now[name] = value.get("data")

    def watch(self, client: Client, **query: Any) -> Watch:
        made = Watch(client, MAPS, self.replaced, self.changed, told=self.lines.append, **query)
        made.start()
        return made


# --- requests ---------------------------------------------------------------------------------------------------------


def test_objects_are_made_changed_and_removed(admin: Client) -> None:
    made = admin.create(MAPS, a_map("one", a="1"))
    one = f"{MAPS}/one"
    assert admin.get(one)["data"] == {"a": "1"}
    admin.patch(one, {"data": {"b": "2"}})
    admin.patch(one, {"data": {"c": "3"}}, "strategic")
    admin.patch(one, [{"op": "remove", "path": "/data/a"}], "json")
    changed = admin.get(one)
    assert changed["data"] == {"b": "2", "c": "3"}
    changed["data"] = {"d": "4"}
    assert admin.update(one, changed)["data"] == {"d": "4"}
    with pytest.raises(Conflict):  # by the resourceVersion from before
        admin.update(one, made)
    with pytest.raises(AlreadyExists):
        admin.create(MAPS, a_map("one"))
    with pytest.raises(Conflict):
        admin.delete(one, uid="00000000-0000-0000-0000-000000000000")
    admin.delete(one, uid=changed["metadata"]["uid"], grace_s=0)
    with pytest.raises(NotFound) as told:
        admin.get(one)
    assert '"one" not found' in told.value.text


def test_a_list_comes_in_pages_of_one_moment(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.kube.client.PAGE", 7)
    names = {f"page-{number}" for number in range(20)}
    for name in names:
        admin.create(MAPS, a_map(name))
    pages = list(admin.pages(MAPS, labelSelector="of=test"))
    assert [len(page["items"]) for page in pages] == [7, 7, 6]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    found, version = admin.list(MAPS, lambda one: one["metadata"]["name"], labelSelector="of=test")
    assert set(found) == names and int(version) > 0


def test_a_list_whose_moment_is_forgotten_is_made_in_one_piece(
    plane: ControlPlane, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrun.kube.client.PAGE", 2)
    names = {f"late-{number}" for number in range(5)}
    for name in names:
        admin.create(MAPS, a_map(name))
    plane.forget()
    real = admin._call

    def late(verb: str, where: str, query: dict[str, Any], *words: Any) -> Any:
        """As if all the time that the server keeps a moment had passed between two pages."""
        old = {"continue": _older(query["continue"])} if "continue" in query else {}
        return real(verb, where, {**query, **old}, *words)

    monkeypatch.setattr(admin, "_call", late)
    with pytest.raises(Gone):
        list(admin.pages(MAPS, labelSelector="of=test"))
    found, version = admin.list(MAPS, lambda one: one["metadata"]["name"], labelSelector="of=test")
    assert set(found) == names and int(version) > 1


def _older(token: str) -> str:
    """The token with the first of all moments in it."""
    value = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    value["rv"] = 1
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_who_we_are_not_is_told(plane: ControlPlane) -> None:
    with pytest.raises(Forbidden, match="cannot list resource"):
        Client(plane.cluster("nobody")).get(MAPS)
    with pytest.raises(Forbidden) as told:
        Client(Cluster(server=plane.url, ca_file=plane.ca, token="wrong")).get(MAPS)
    assert told.value.hint == "the credentials are not known to the API server"
    with pytest.raises(Unavailable, match="certificate verify failed"):
        Client(Cluster(server=plane.url, token="admin-token")).get(MAPS)
    as_nobody = Cluster(
        server=plane.url, ca_file=plane.ca, token="admin-token", headers=(("Impersonate-User", "nobody"),)
    )
    with pytest.raises(Forbidden, match='"nobody"'):
        Client(as_nobody).get(MAPS)


def test_nobody_there(plane: ControlPlane) -> None:
    with a_port() as port, pytest.raises(Unavailable, match="(?i)connection refused"):
        Client(Cluster(server=f"https://127.0.0.1:{port}", token="x")).get(MAPS)


def test_kubeconfigs_with_certificates_and_with_a_tokens_file(plane: ControlPlane) -> None:
    plane.certificate("client", "/O=system:masters/CN=client", "extendedKeyUsage=clientAuth")
    files = {"client-certificate": "client.crt", "client-key": "client.key"}
    data = {f"{key}-data": _base64(plane.path / name) for key, name in files.items()}
    (plane.path / "token").write_text("admin-token\n")
    for number, user in enumerate((files, data, {"tokenFile": "token"})):
        client = Client(load_kubeconfig(plane.config(f"by{number}", **user)))
        assert client.get(MAPS)["kind"] == "ConfigMapList"
        client.close()


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_credentials_that_are_replaced_are_taken_with_the_next_request(plane: ControlPlane) -> None:
    plane.certificate("good", "/O=system:masters/CN=client", "extendedKeyUsage=clientAuth")
    plane.certificate("rotated", "/CN=nobody", "extendedKeyUsage=clientAuth")
    token = plane.path / "rotating"
    token.write_text("nobody-token")
    by_token = Client(load_kubeconfig(plane.config("token", tokenFile="rotating")))
    files = {"client-certificate": "rotated.crt", "client-key": "rotated.key"}
    by_certificate = Client(load_kubeconfig(plane.config("certificate", **files)))
    for client in (by_token, by_certificate):
        with pytest.raises(Forbidden):
            client.get(MAPS)
    token.write_text("admin-token")
    for ending in ("key", "crt"):
        (plane.path / f"good.{ending}").rename(plane.path / f"rotated.{ending}")
    for client in (by_token, by_certificate):
        assert client.get(MAPS)["kind"] == "ConfigMapList"
        client.close()


# --- watches ----------------------------------------------------------------------------------------------------------


def test_a_watch_of_a_forgotten_moment_is_gone(plane: ControlPlane, admin: Client) -> None:
    plane.forget()
    with pytest.raises(Gone):
        list(admin.open_watch(MAPS, "1", 5))


def test_a_watch_tells_what_is_there_and_what_changes(admin: Client) -> None:
    admin.create(MAPS, a_map("before", a="1"))
    seen = Seen()
    watch = seen.watch(admin, labelSelector="of=test")
    try:
        assert watch.synced.wait(PATIENCE_S)
        assert seen.now == {"before": {"a": "1"}} and not seen.events
        admin.create(MAPS, {**a_map("other"), "metadata": {"name": "other"}})
        admin.create(MAPS, a_map("after"))
        admin.patch(f"{MAPS}/before", {"data": {"a": "2"}})
        admin.delete(f"{MAPS}/after")
        assert wait_until(lambda: ("DELETED", "after") in seen.events, PATIENCE_S)
        assert seen.events == [("ADDED", "after"), ("MODIFIED", "before"), ("DELETED", "after")]
        assert seen.now == {"before": {"a": "2"}} and watch.lists == 1
    finally:
        watch.stop()
    assert not watch._thread.is_alive()


def test_a_watch_goes_on_when_the_server_ends_it(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.kube.watch.WATCH_S", (1, 1))
    seen = Seen()
    watch = seen.watch(admin)
    opened = []
    real = admin.open_watch

    def counted(where: str, version: str, seconds: int) -> Stream:
        opened.append(version)
        return real(where, version, seconds)

    monkeypatch.setattr(admin, "open_watch", counted)
    try:
        assert wait_until(lambda: len(opened) >= 3, PATIENCE_S)
        admin.create(MAPS, a_map("long"))
        assert wait_until(lambda: ("ADDED", "long") in seen.events, PATIENCE_S)
        assert watch.lists == 1 and watch.failures == 0
    finally:
        watch.stop()


def test_a_fault_of_a_callback_does_not_end_the_watch(admin: Client) -> None:
    seen = Seen()
    fault = [True]

    def changed(kind: str, value: Any) -> None:
        if fault:
            fault.pop()
            raise RuntimeError("no thought was given to this")
        seen.changed(kind, value)

    watch = Watch(admin, MAPS, seen.replaced, changed, told=seen.lines.append)
    watch.start()
    try:
        assert watch.synced.wait(PATIENCE_S)
        admin.create(MAPS, a_map("hard"))
        assert wait_until(lambda: "hard" in seen.now, PATIENCE_S)
        assert watch.lists == 2 and "no thought was given to this" in seen.lines[0]
    finally:
        watch.stop()


def test_a_watch_outlives_the_server(plane: ControlPlane, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.kube.watch.MOST_S", 1.0)
    seen = Seen()
    watch = seen.watch(admin)
    try:
        assert watch.synced.wait(PATIENCE_S)
        admin.create(MAPS, a_map("old"))
        assert wait_until(lambda: "old" in seen.now, PATIENCE_S)
        plane.kill("kube-apiserver")
        assert wait_until(lambda: watch.failures >= 2, PATIENCE_S)
        assert seen.now.keys() >= {"old"} and watch.error and seen.lines
        plane.compact()
        plane.start_api()
        admin.create(MAPS, a_map("new"))
        admin.delete(f"{MAPS}/old")
        assert wait_until(lambda: "new" in seen.now and "old" not in seen.now, PATIENCE_S)
        assert wait_until(lambda: watch.error is None, PATIENCE_S)
        assert seen.lines[-1].endswith("goes on")
    finally:
        watch.stop()


def test_a_watch_begins_before_there_is_a_server(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.kube.watch.MOST_S", 1.0)
    plane.kill("kube-apiserver")
    client = Client(plane.cluster("admin"))
    seen = Seen()
    watch = seen.watch(client)
    try:
        assert wait_until(lambda: watch.failures, PATIENCE_S)
        assert not watch.synced.is_set()
        plane.start_api()
        assert watch.synced.wait(PATIENCE_S)
    finally:
        watch.stop()
        client.close()


def test_refused_by_name(plane: ControlPlane) -> None:
    for user, told in (
        ({"exec": {"command": "aws"}}, "exec: credentials from a program"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider: "),
        ({"username": "a", "password": "b"}, "username: "),
        ({"client-certificate-data": "%"}, "client-certificate-data is no base64"),
    ):
        with pytest.raises(PyrunError, match=told):
            load_kubeconfig(plane.config("bad", **user))
