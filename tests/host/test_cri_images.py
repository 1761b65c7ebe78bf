"""The ImageService as crictl sees it, over a registry that can fail. The daemon is a real one, in its own network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.disk import unmount
from tests.support.cri import tools
from tests.support.engines.golang import Unavailable
from tests.support.layers import Tar
from tests.support.pods.nets import own_network, setns
from tests.support.registry import stub as faults
from tests.support.registry.made import make_image, small_tar
from tests.support.registry.stub import Stub

SECRET = ("me", "secret")


class Node:
    """A daemon, a registry, and crictl."""

    def __init__(self, directory: Path, crictl: str) -> None:
        self.directory = directory
        self.crictl = crictl
        self.socket = directory / "state" / "cri.sock"
        (directory / "certs.d").mkdir()
        (directory / "pyrun.toml").write_text(
            f'certs_dir = "{directory}/certs.d"\npinned_images = ["q.example/pinned:1"]\ncni_conf_dir = ""\n'
        )
        with own_network():
            self.registry = Stub()
            self.daemon = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        places = ["--root", str(self.directory / "root"), "--state", str(self.directory / "state")]
        argv = [sys.executable, "-m", "pyrun", "cri", *places]
        with open(self.directory / "log", "ab") as log:
            daemon = subprocess.Popen([*argv, "--config", self.directory / "pyrun.toml"], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self.socket.exists() and daemon.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.socket.exists(), (self.directory / "log").read_text()
        return daemon

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait(60)
        self.registry.close()
        # Where namespaces are pinned; it stays for the next daemon.
        unmount(self.directory / "state" / "pods")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        address = f"unix://{self.socket}"
        return subprocess.run(
            [self.crictl, "--config", "/dev/null", "-r", address, "-i", address, *argv],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def ok(self, *argv: str) -> str:
        done = self.run(*argv)
        assert done.returncode == 0, done.stderr + (self.directory / "log").read_text()
        return done.stdout

    def images(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.ok("images", "-o", "json"))["images"]
        return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    try:
        crictl = str(tools.program("crictl"))
    except Unavailable as error:
        pytest.skip(str(error))
    made = Node(tmp_path_factory.mktemp("node"), crictl)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean(node: Node) -> None:
    node.registry.faults.clear()
    node.registry.log.clear()
    node.registry.basic = node.registry.token = None
    for image in node.images():
        node.ok("rmi", str(image["id"]))


def test_pull_list_inspect_remove(node: Node) -> None:
    config = {"User": "1000:1000", "Env": ["A=1"], "Cmd": ["sh"], "Labels": {"l": "1"}}
    made = make_image([small_tar("a"), small_tar("b")], config)
    name = node.registry.add("org/app", "1", made)
    assert node.ok("pull", name) == f"Image is up to date for {made.id}\n"
    (image,) = node.images()
    assert (image["id"], image["repoTags"]) == (made.id, [name])
    assert image["repoDigests"] == [f"{node.registry.host}/org/app@{made.top}"]
    assert image["uid"] == {"value": "1000"}
    assert int(str(image["size"])) > 0
    for word in (name, made.id, made.id[7:20], f"{node.registry.host}/org/app@{made.top}"):
        assert json.loads(node.ok("inspecti", word))["status"]["id"] == made.id
    assert json.loads(node.ok("images", "-o", "json", name))["images"] == [image]
    assert node.ok("rmi", name) == f"Deleted: {name}\n"
    assert node.images() == []


def test_what_is_not_there(node: Node) -> None:
    assert json.loads(node.ok("images", "-o", "json", "q.example/none:1"))["images"] == []
    assert "no such image" in node.run("inspecti", "q.example/none:1").stderr
    done = node.run("pull", f"{node.registry.host}/none:1")
    assert done.returncode and "NotFound" in done.stderr
    assert "InvalidArgument" in node.run("pull", "UPPER CASE").stderr


def test_credentials(node: Node) -> None:
    node.registry.token = SECRET
    name = node.registry.add("private", "1", make_image([small_tar("a")]))
    assert "refuses the credentials" in node.run("pull", name).stderr
    node.ok("pull", "--creds", "me:secret", name)
    assert "secret" not in (node.directory / "log").read_text()


def test_two_kubelets_pull_once(node: Node) -> None:
    made = make_image([Tar().dir("./").file("big", os.urandom(1 << 20)).bytes()])
    name = node.registry.add("a", "1", made)
    node.registry.fault("/manifests/", faults.silent(10, 0.7))
    threads = [threading.Thread(target=node.ok, args=("pull", name)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(node.registry.asked("/manifests/")) == 1


def test_a_pull_outlives_its_client(node: Node) -> None:
    """A kubelet whose deadline is over asks again: it must not begin anew each time."""
    made = make_image([Tar().dir("./").file("big", os.urandom(1 << 20)).bytes()])
    name = node.registry.add("slow", "1", made)
    node.registry.fault(made.layers[0], faults.silent(200_000, 2.0))
    assert "DeadlineExceeded" in node.run("-t", "1s", "pull", "--pull-timeout", "1s", name).stderr
    node.ok("pull", name)
    assert len(node.registry.asked(made.layers[0])) == 1


def test_image_fs_info(node: Node) -> None:
    before = json.loads(node.ok("imagefsinfo", "-o", "json"))["status"]["imageFilesystems"][0]
    name = node.registry.add("a", "1", make_image([Tar().dir("./").file("big", os.urandom(1 << 20)).bytes()]))
    node.ok("pull", name)
    after = json.loads(node.ok("imagefsinfo", "-o", "json"))["status"]["imageFilesystems"][0]
    assert int(after["usedBytes"]["value"]) - int(before["usedBytes"]["value"]) >= 1 << 20
    assert int(after["inodesUsed"]["value"]) - int(before["inodesUsed"]["value"]) == 2
    assert os.path.isdir(after["fsId"]["mountpoint"])


def test_pinned(node: Node) -> None:
    (node.directory / "certs.d" / "q.example").mkdir(exist_ok=True)
    (node.directory / "certs.d" / "q.example" / "hosts.toml").write_text(f'server = "{node.registry.url}"\n')
    node.registry.add("pinned", "1", make_image([small_tar("p")]))
    node.ok("pull", "q.example/pinned:1")
    assert [image["pinned"] for image in node.images()] == [True]


def test_killed_in_the_middle_of_a_pull(node: Node, tmp_path: Path) -> None:
    own = Node(tmp_path, node.crictl)
    try:
        kill_and_go_on(own)
    finally:
        own.close()


def kill_and_go_on(node: Node) -> None:
    made = make_image([small_tar("first"), Tar().dir("./").file("big", os.urandom(1 << 20)).bytes()])
    name = node.registry.add("a", "1", made)
    node.registry.fault(made.layers[1], faults.silent(500_000, 3.0))
    client = subprocess.Popen(
        [node.crictl, "--config", "/dev/null", "-i", f"unix://{node.socket}", "pull", name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not node.registry.asked(made.layers[1]) and time.monotonic() < deadline:
        time.sleep(0.02)
    namespace = os.open(f"/proc/{node.daemon.pid}/ns/net", os.O_RDONLY)
    node.daemon.kill()
    node.daemon.wait()
    client.wait(60)
    node.socket.unlink(missing_ok=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    setns(namespace)
    try:
        node.daemon = node.start()
    finally:
        setns(before)
        os.close(before)
        os.close(namespace)
    assert node.images() == []
    node.ok("pull", name)
    assert os.listdir(node.directory / "root" / "image" / "ingest") == []
