"""Objects out of a directory and into a store, and slices out of selectors."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.kube.feed.directory import Directory
from pyrun.kube.feed.looks import is_ours
from pyrun.kube.feed.pods import pod_object
from pyrun.kube.feed.selectors import Selectors
from pyrun.kube.feed.slices import plan_slices
from pyrun.kube.feed.store import Held, Key, Packed, Store, Told

KINDS = frozenset({"Service", "EndpointSlice", "Pod"})
PATIENCE_S = 60.0


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def pod(name: str, ip: str, ready: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", **spec},
        "status": {"podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


class Reader:
    """What a store tells, as it comes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now: dict[Key, Held] = {}

    def wait(self, true: Callable[[], Any]) -> None:
        last = time.monotonic() + PATIENCE_S
        while not true():
            left = last - time.monotonic()
            assert left > 0, (self.now, self.store.faults())
            if select.select([self.store], [], [], left)[0]:
                for key, held in self.store.changes().items():
                    if held is None:
                        self.now.pop(key)
                    else:
                        self.now[key] = held

    def names(self) -> set[str]:
        return {name for _, _, name in self.now}

    def port(self, name: str) -> Any:
        held = self.now.get(("Service", "default", name))
        return held and held.value["spec"]["ports"][0]["port"]


class Files:
    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.lines: list[str] = []
        self.directory = Directory(str(path), store, KINDS, self.lines.append)
        self.reader = Reader(store)

    def write(self, name: str, *objects: dict[str, Any] | str) -> None:
        """As an editor does it: beside it, then in its place."""
        text = "\n---\n".join(one if isinstance(one, str) else json.dumps(one, indent=1) for one in objects)
        (self.path / f".{name}.new").write_text(text)
        (self.path / f".{name}.new").rename(self.path / name)


@pytest.fixture
def files(tmp_path: Path, store: Store) -> Iterator[Files]:
    path = tmp_path / "objects"
    path.mkdir()
    made = Files(path, store)
    yield made
    made.directory.stop()


def with_port(port: int, name: str = "web") -> dict[str, Any]:
    return service(name, ports=[{"port": port}])


def test_what_lies_there_and_what_is_changed(files: Files) -> None:
    files.write("a.yaml", service("one"), service("two"))
    files.directory.start()
    reader = files.reader
    assert files.directory._store.is_whole()
    reader.wait(lambda: reader.names() == {"one", "two"})
    files.write("b.json", with_port(81, "three"))
    reader.wait(lambda: reader.port("three") == 81)
    files.write("a.yaml", service("two"))
    reader.wait(lambda: reader.names() == {"two", "three"})
    (files.path / "b.json").unlink()
    reader.wait(lambda: reader.names() == {"two"})
    (files.path / "c.yml").write_text(json.dumps(service("four")))  # written in place, closed at the end
    reader.wait(lambda: reader.names() == {"two", "four"})
    assert not files.lines and not reader.store.faults()


def test_a_broken_file_keeps_what_it_said_and_is_named(files: Files) -> None:
    files.write("a.yaml", with_port(80))
    files.write("b.yaml", with_port(90, "other"))
    files.directory.start()
    reader = files.reader
    reader.wait(lambda: reader.names() == {"web", "other"})
    files.write("a.yaml", "kind: Service\nmetadata: {name: web\nspec: 1")
    files.write("b.yaml", with_port(91, "other"))
    reader.wait(lambda: reader.port("other") == 91)
    reader.wait(reader.store.faults)
    (fault,) = reader.store.faults()
    assert fault.place.startswith(f"{files.path}/a.yaml:3:"), fault
    assert files.lines[0].endswith("what it said before stays")
    assert reader.port("web") == 80
    files.write("a.yaml", with_port(82))
    reader.wait(lambda: reader.port("web") == 82 and not reader.store.faults())


def test_of_a_file_that_was_never_whole_what_is_right_is_taken(files: Files) -> None:
    files.write("a.yaml", service("good"), "- 1", '{"kind": "Service", "metadata": {}}', service("good"))
    files.directory.start()
    files.reader.wait(lambda: files.reader.names() == {"good"})
    texts = [str(fault) for fault in files.reader.store.faults()]
    assert len(texts) == 3 and "no metadata.name" in texts[1] and "twice" in texts[2], texts
    assert all(text.startswith(f"{files.path}/a.yaml:") for text in texts)


def test_an_object_in_two_files_is_the_first_ones(files: Files) -> None:
    files.write("b.yaml", with_port(2))
    files.write("a.yaml", with_port(1))
    files.directory.start()
    reader = files.reader
    reader.wait(lambda: reader.port("web") == 1)
    (fault,) = reader.store.faults()
    assert fault.place == f"{files.path}/b.yaml:1" and f"{files.path}/a.yaml:1" in fault.text
    (files.path / "a.yaml").unlink()
    reader.wait(lambda: reader.port("web") == 2 and not reader.store.faults())


def test_a_volume_of_a_configmap_is_changed_by_one_rename(files: Files) -> None:
    for number in (1, 2):
        (files.path / f"..v{number}").mkdir()
        (files.path / f"..v{number}" / "web.yaml").write_text(json.dumps(with_port(number)))
    (files.path / "..data").symlink_to("..v1")
    (files.path / "web.yaml").symlink_to("..data/web.yaml")
    files.directory.start()
    reader = files.reader
    reader.wait(lambda: reader.port("web") == 1)
    (files.path / "..data_tmp").symlink_to("..v2")
    (files.path / "..data_tmp").rename(files.path / "..data")
    reader.wait(lambda: reader.port("web") == 2)


def test_a_directory_that_goes_and_comes_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrun.kube.feed.directory.AGAIN_S", 0.05)
    files.write("a.yaml", with_port(1))
    files.directory.start()
    reader = files.reader
    reader.wait(lambda: reader.port("web") == 1)
    files.path.rename(files.path.with_name("away"))
    reader.wait(reader.store.faults)
    assert reader.port("web") == 1
    files.path.mkdir()
    files.write("a.yaml", with_port(2))
    reader.wait(lambda: reader.port("web") == 2 and not reader.store.faults())
    assert files.lines[-1].endswith("is there again")


def test_a_directory_that_is_not_there_yet(tmp_path: Path, store: Store) -> None:
    directory = Directory(str(tmp_path / "none"), store, KINDS)
    directory.start()
    assert not store.is_whole() and store.waits_for() == [str(tmp_path / "none")]
    assert [fault.text for fault in store.faults()]
    directory.stop()


@pytest.mark.parametrize(
    ("name", "taken"),
    [("a.yaml", True), ("a.yml", True), ("a.json", True), (".a.yaml", False), ("a.yaml~", False), ("#a.yaml#", False)]
    + [(".a.yaml.swp", False), ("a.yaml.partial", False), ("4913", False), ("#a.yaml", False), ("README.md", False)],
)
def test_names(name: str, taken: bool) -> None:
    assert is_ours(name) == taken


def test_a_pipe_is_no_file(files: Files) -> None:
    os.mkfifo(files.path / "a.yaml")
    files.directory.start()
    (fault,) = files.reader.store.faults()
    assert "not a regular file" in fault.text


# --- slices -----------------------------------------------------------------------------------------------------------


def endpoints(slices: list[dict[str, Any]]) -> dict[str, tuple[bool, bool, bool]]:
    """Address → ready, serving, terminating."""
    return {one["addresses"][0]: tuple(one["conditions"].values()) for slice in slices for one in slice["endpoints"]}


def test_ready_serving_and_terminating() -> None:
    going = pod("going", "10.1.0.3")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ended = pod("ended", "10.1.0.4")
    ended["status"]["phase"] = "Failed"
    other = pod("other", "10.1.0.5")
    other["metadata"]["labels"] = {"app": "other"}
    none = pod("none", "")
    pods = [pod("a", "10.1.0.1"), pod("b", "10.1.0.2", ready=False), going, ended, other, none]
    found = endpoints(plan_slices(service(), pods))
    assert found == {
        "10.1.0.1": (True, True, False),
        "10.1.0.2": (False, False, False),
        "10.1.0.3": (False, True, True),
    }
    found = endpoints(plan_slices(service(publishNotReadyAddresses=True), pods))
    assert {address: ready for address, (ready, _, _) in found.items()} == dict.fromkeys(found, True)


def test_named_ports_are_each_pods_own() -> None:
    def named(number: int) -> dict[str, Any]:
        return {"containers": [{"ports": [{"name": "http", "containerPort": number}]}]}

    pods = [pod("a", "10.1.0.1", **named(8080)), pod("b", "10.1.0.2", **named(9090)), pod("c", "10.1.0.3")]
    made = plan_slices(service(ports=[{"port": 80, "targetPort": "http"}, {"port": 90, "protocol": "UDP"}]), pods)
    ports = {
        one["addresses"][0]: {port["protocol"]: port["port"] for port in slice["ports"]}
        for slice in made
        for one in slice["endpoints"]
    }
    assert ports == {
        "10.1.0.1": {"TCP": 8080, "UDP": 90},
        "10.1.0.2": {"TCP": 9090, "UDP": 90},
        "10.1.0.3": {"UDP": 90},
    }
    assert len({slice["metadata"]["name"] for slice in made}) == 3


def test_families_host_names_and_zones() -> None:
    both = pod("a", "10.1.0.1", hostname="a", subdomain="web")
    both["status"]["podIPs"].append({"ip": "fd00::1"})
    made = plan_slices(service(), [both], "z1")
    assert [(one["addressType"], one["endpoints"][0]["addresses"]) for one in made] == [("IPv4", ["10.1.0.1"])]
    (one,) = made[0]["endpoints"]
    assert (one["zone"], one["nodeName"], one["hostname"]) == ("z1", "n1", "a")
    made = plan_slices(service(clusterIP="None", clusterIPs=["None"]), [both])
    assert [one["addressType"] for one in made] == ["IPv4", "IPv6"]
    made = plan_slices(service(ipFamilies=["IPv6"]), [both])
    assert [one["endpoints"][0]["addresses"] for one in made] == [["fd00::1"]]


def test_who_has_no_selector_gets_none() -> None:
    pods = [pod("a", "10.1.0.1")]
    assert plan_slices(service(selector={}), pods) == []
    assert plan_slices(service(type="ExternalName"), pods) == []


def test_slices_follow_services_and_pods(store: Store) -> None:
    selectors = Selectors(store)
    reader = Reader(store)

    def settle() -> dict[str, Any]:
        while selectors.update(changes := store.changes()) or changes:
            pass
        slices = [dict(held.value) for held in store.all("EndpointSlice").values()]
        return endpoints(slices)

    def put(value: dict[str, Any], source: str = "x") -> None:
        store.put(source, Told(value, source))

    put(pod("a", "10.1.0.1"))
    assert settle() == {}
    put(service())
    assert settle().keys() == {"10.1.0.1"}
    put(pod("b", "10.1.0.2"))
    assert settle().keys() == {"10.1.0.1", "10.1.0.2"}
    put(pod("a", "10.1.0.9"))
    assert settle().keys() == {"10.1.0.9", "10.1.0.2"}
    put(service(selector={"app": "none"}))
    assert settle() == {}
    put(service())
    assert len(settle()) == 2
    own = plan_slices(service(), [pod("z", "10.9.9.9")])[0]
    own["metadata"] |= {"name": "by-hand", "labels": {"kubernetes.io/service-name": "web"}}
    put(own, "hand")
    assert settle().keys() == {"10.9.9.9"}
    store.remove("hand", ("EndpointSlice", "default", "by-hand"))
    assert len(settle()) == 2
    store.remove("x", ("Service", "default", "web"))
    assert settle() == {}
    assert reader.store.is_whole()


# --- pods of the runtime ----------------------------------------------------------------------------------------------


def container(name: str, state: int, attempt: int = 0, exit_code: int = 0, annotations: Any = None) -> Any:
    meta = v1.ContainerMetadata(name=name, attempt=attempt)
    return v1.ContainerStatus(metadata=meta, state=state, exit_code=exit_code, annotations=annotations)


@pytest.mark.parametrize(
    ("containers", "ready"),
    [
        ([], "False"),
        ([container("c", v1.CONTAINER_RUNNING)], "True"),
        ([container("init", v1.CONTAINER_EXITED), container("c", v1.CONTAINER_RUNNING)], "True"),
        ([container("init", v1.CONTAINER_EXITED)], "False"),
        ([container("c", v1.CONTAINER_RUNNING), container("d", v1.CONTAINER_CREATED)], "False"),
        ([container("c", v1.CONTAINER_RUNNING), container("d", v1.CONTAINER_EXITED, exit_code=1)], "False"),
        ([container("c", v1.CONTAINER_EXITED, exit_code=1), container("c", v1.CONTAINER_RUNNING, 1)], "True"),
    ],
)
def test_a_pod_is_ready_while_its_containers_run(containers: list[Any], ready: str) -> None:
    made = pod_object(v1.PodSandboxStatus(metadata=v1.PodSandboxMetadata(name="p")), containers, "n1")
    assert made["status"]["conditions"] == [{"type": "Ready", "status": ready}]


def test_what_a_pod_has_of_its_sandbox() -> None:
    network = v1.PodSandboxNetworkStatus(ip="10.1.0.1", additional_ips=[v1.PodIP(ip="fd00::1")])
    meta = v1.PodSandboxMetadata(name="p", namespace="ns", uid="u", attempt=3)
    ports = {"io.kubernetes.container.ports": '[{"name":"http","containerPort":80}]'}
    one = container("c", v1.CONTAINER_RUNNING, annotations=ports)
    made = pod_object(v1.PodSandboxStatus(metadata=meta, network=network, labels={"app": "web"}), [one], "n1")
    assert made["metadata"]["labels"] == {"app": "web"}
    assert made["status"]["podIPs"] == [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]
    assert made["spec"]["containers"] == [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]
    options = v1.NamespaceOption(network=v1.NODE)
    linux = v1.LinuxPodSandboxStatus(namespaces=v1.Namespace(options=options))
    made = pod_object(v1.PodSandboxStatus(metadata=meta, linux=linux), [one], "n1", ("192.0.2.1",))
    assert made["spec"]["hostNetwork"] and made["status"]["podIPs"] == [{"ip": "192.0.2.1"}]


def test_packed_objects_are_as_others_and_their_change_is_noticed() -> None:
    def value(port: int) -> dict[str, Any]:
        return {"kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": port}] * 40}}

    key = ("Service", "default", "web")
    with contextlib.closing(Store()) as store:
        store.put("api", Packed(value(80), "api"))
        held = store.changes()[key]
        assert held is not None and held.value == value(80) and held.place() == Told(value(80), "api").place()
        store.replace("api", {key: Packed(value(80), "api")})
        assert not store.changes()
        store.replace("api", {key: Packed(value(81), "api")})
        changed = store.changes()[key]
        assert changed is not None and changed.value == value(81)
        store.remove("api", key)
        assert store.changes() == {key: None}
    with pytest.raises(ValueError, match="no kind"):
        Packed({"metadata": {"name": "web"}}, "api")
