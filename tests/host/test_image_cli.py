"""`pyrun image`: what people type, and what they and their tools get to see."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import stub as faults
from tests.support.registry.made import make_image, small_tar
from tests.support.registry.stub import Stub, running


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def argv(self, verb: str, *argv: str) -> list[str]:
        return [sys.executable, "-m", "pyrun", "image", verb, "--root", str(self.root), *argv]

    def run(self, verb: str, *argv: str, **more: bytes) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "DOCKER_CONFIG": str(self.root)}
        return subprocess.run(self.argv(verb, *argv), capture_output=True, timeout=60, env=environment, **more)  # type: ignore[call-overload,no-any-return]

    def ok(self, verb: str, *argv: str, **more: bytes) -> str:
        done = self.run(verb, *argv, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running() as made:
        yield made


def test_a_tour(store: Store, stub: Stub, tmp_path: Path) -> None:
    made = make_image([small_tar("a"), small_tar("b")], {"Cmd": ["sh"]})
    name = stub.add("org/app", "1", made)
    done = store.run("pull", name)
    assert done.stdout.decode() == f"{name}\n"
    lines = done.stderr.decode().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(layer[7:19] for layer in made.layers)
    assert all(line.split()[1] == "done" for line in lines)
    assert store.ok("pull", "-q", name) == f"{made.id}\n"
    assert json.loads(store.ok("pull", "--format", "json", name))["id"] == made.id
    title, row = store.ok("ls").splitlines()
    assert title.split() == ["NAME", "ID", "SIZE", "PULLED"]
    assert row.split()[:2] == [name, made.id[7:19]]
    assert store.ok("ls", "-q") == f"{made.id}\n"
    assert json.loads(store.ok("ls", "--format", "json"))[0]["digests"] == [f"{stub.host}/org/app@{made.top}"]
    shown = json.loads(store.ok("inspect", made.id[7:15]))
    assert shown["config"]["config"] == {"Cmd": ["sh"]} and shown["written"] is True
    assert all(os.path.isdir(layer["directory"]) for layer in shown["layers"])
    archive = str(tmp_path / "a.tar")
    store.ok("export", "-o", archive, name)
    assert set(os.listdir(tmp_path)) == {"store", "a.tar"}
    assert store.ok("rm", name) == f"removed {made.id}\n"
    assert store.ok("import", archive) == f"{name}\n"
    (image,) = json.loads(store.ok("ls", "--format", "json"))
    assert image["tags"] == [name]
    assert store.ok("prune").startswith("removed 0 images")
    assert json.loads(store.ok("prune", "--all", "--format", "json"))["images"] == 1
    assert store.ok("ls", "-q") == ""


def test_through_pipes(store: Store, stub: Stub, tmp_path: Path) -> None:
    name = stub.add("app", "1", make_image([small_tar("a")]))
    store.ok("pull", name)
    archive = store.run("export", name).stdout
    other = Store(tmp_path / "other")
    assert other.ok("import", "--name", "q.io/b:2", "-", input=archive) == "q.io/b:2\n"


def test_names_come_and_go(store: Store, stub: Stub) -> None:
    made = make_image([small_tar("a")])
    first, second = stub.add("a", "1", made), stub.add("b", "2", made)
    store.ok("pull", first)
    store.ok("pull", second)
    assert store.ok("rm", first) == f"untagged {first}\n"
    assert json.loads(store.ok("ls", "--format", "json"))[0]["tags"] == [second]
    assert store.ok("rm", made.id) == f"removed {made.id}\n"


def test_lines_that_move_on_a_terminal(store: Store, stub: Stub) -> None:
    made = make_image([small_tar("a", "x" * 500_000)], form="")
    name = stub.add("a", "1", made)
    stub.fault(made.layers[0], faults.silent(200_000, 0.3))
    master, slave = pty.openpty()
    process = subprocess.Popen(store.argv("pull", name), stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 1 << 16):
            seen += data
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait(60) == 0
    assert b"\x1b[1A" in seen
    assert b"done" in seen.splitlines()[-1]


def test_password_on_standard_input(store: Store, stub: Stub) -> None:
    stub.basic = ("me", "secret")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    assert b"wants credentials" in store.run("pull", name).stderr
    assert store.ok("pull", "--user", "me", name, input=b"secret\n") == f"{name}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("rm", "q.io/none:1"), "there is no image q.io/none:1"),
        (("rm",), "IMAGE is missing"),
        (("export",), "IMAGE is missing"),
        (("pull", "UPPER CASE"), "image reference"),
        (("import", "/nowhere"), "/nowhere: no such file"),
        (("pull", "127.0.0.1:1/a:1"), "127.0.0.1:1"),
    ],
)
def test_errors_are_told(store: Store, argv: tuple[str, ...], said: str) -> None:
    done = store.run(*argv)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_terminals_sequences_of_an_image_are_shown_as_text(store: Store, stub: Stub) -> None:
    name = stub.add("a", "1", make_image([small_tar("a")], {"Labels": {"x": "\x1b]0;owned\x07"}}))
    store.ok("pull", name)
    assert "\x1b" not in store.ok("inspect", name)
