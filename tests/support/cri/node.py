"""A node of the test's own: `pyrun cri` in a network namespace, with its root, state and socket below one directory,
and images put in without a registry.

The daemon is started as a person starts it, or forked from the test, which is quicker and lets a test say at which of
the points of pyrun/pod/points.py it dies. Of what a node has, snapshot() tells all that could be left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from pyrun import cri_api as v1
from pyrun.cri import daemon as serving
from pyrun.errors import Unavailable
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from pyrun.pod.network.builtin import link_name
from pyrun.rpc.client import call_all
from tests.support.container.disk import unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Result, runtime_argv
from tests.support.cri import tools
from tests.support.pods.nets import links, own_network
from tests.support.registry.made import make_image, tree_tar

BUSYBOX = "registry.test/busybox:1"
RPCS = v1.SERVICES["RuntimeService"] | v1.SERVICES["ImageService"]
# As a kubelet asks for it; what says nothing shares the pod's, as the enum's 0 has that meaning.
OWN_PIDS: dict[str, Any] = {"security_context": {"namespace_options": {"pid": int(v1.CONTAINER)}}}
PATIENCE_S = 60.0
UP_S = 60.0
LOOP = "trap 'echo bye; exit 7' TERM; echo started; while :; do sleep 0.02; done"


@dataclass
class Daemon:
    """A daemon that runs. child: Popen's, or forked by us."""

    pid: int
    process: subprocess.Popen[bytes] | None = None

    def wait(self) -> int:
        """Its wait status as Popen has it."""
        if self.process is not None:
            return self.process.wait(PATIENCE_S)
        last = time.monotonic() + PATIENCE_S
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < last, "the daemon does not end"
            time.sleep(0.005)


@dataclass
class Node:
    """words: the command that it is, its verb first. config: a file for --config. plugins: its network is CNI's, of
    which snapshot() tells nothing."""

    path: Path
    rootfs: Path
    daemon: Daemon | None = None
    config: str | None = None
    plugins: bool = False
    words: tuple[str, ...] = ("cri",)

    def __post_init__(self) -> None:
        self.root, self.state, self.logs = self.path / "root", self.path / "state", self.path / "logs"
        self.socket = self.state / "cri.sock"
        self.said = self.path / "daemon.log"
        self.root.mkdir(0o700, parents=True, exist_ok=True)
        if self.config is None:
            self.configure('cgroup_driver = "cgroupfs"\n')
        self.state.mkdir(0o700, exist_ok=True)

    # --- the daemon ---

    def configure(self, text: str) -> None:
        """Before the daemon starts."""
        path = self.path / "pyrun.toml"
        path.write_text(text)
        self.config = str(path)

    def add_image(self, name: str = BUSYBOX, config: dict[str, Any] | None = None, layers: str = "dir") -> None:
        """Before the daemon starts."""
        images = Images(str(self.root / "image"), layers=layers)
        try:
            made = make_image(
                [tree_tar(self.rootfs)], config or {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"]}, form=""
            )
            images.add(made.source(), [parse_reference(name)])
        finally:
            images.close()

    def start(self, *, wait: bool = True) -> float:
        """By its command line. Returns how long it took until it served."""
        argv = [*runtime_argv(), *self.words, "--root", str(self.root), "--state", str(self.state)]
        argv += ["--config", self.config] if self.config else []
        begun = time.monotonic()
        with self.said.open("ab") as said:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.daemon = Daemon(process.pid, process)
        if wait:
            self._wait_up()
        return time.monotonic() - begun

    def fork(self, die_at: str = "", points: Path | None = None, *, wait: bool = True) -> float:
        """As start(), forked from us. die_at: a point at which it kills itself. points: a file to which the names of
        those that it reaches are appended."""
        begun = time.monotonic()
        pid = os.fork()
        if not pid:
            _serve(self, die_at, points)
        self.daemon = Daemon(pid)
        if wait:
            self._wait_up()
        return time.monotonic() - begun

    def _wait_up(self) -> None:
        last = time.monotonic() + UP_S
        while True:
            assert self.daemon is not None
            with contextlib.suppress(Unavailable):
                self.call("Version")
                return
            assert time.monotonic() < last, self.said.read_text()
            time.sleep(0.005)

    def kill(self) -> None:
        """kill -9."""
        daemon = self._daemon()
        os.kill(daemon.pid, signal.SIGKILL)
        self.died()

    def died(self) -> None:
        """It killed itself, or was killed."""
        assert self._daemon().wait() == -signal.SIGKILL, self.said.read_text()
        self.daemon = None

    def stop(self) -> int:
        os.kill(self._daemon().pid, signal.SIGTERM)
        code = self._daemon().wait()
        self.daemon = None
        return code

    @property
    def pid(self) -> int:
        return self._daemon().pid

    def _daemon(self) -> Daemon:
        assert self.daemon is not None
        return self.daemon

    # --- clients ---

    def call(self, rpc: str, **fields: Any) -> Any:
        request = json_format.ParseDict(fields, RPCS[rpc].request())
        try:
            return call_all(str(self.socket), [(RPCS[rpc], request)], PATIENCE_S)[0]
        except AttributeError as error:  # grpclib's, of a connection that was lost before it was used
            raise Unavailable(str(error)) from None

    def stream(self, rpc: str, meanwhile: Callable[[], int] | None = None, **fields: Any) -> list[Any]:
        """All of its messages. meanwhile: for a stream without an end; it is called in a thread, once the stream is
        open, and says how many messages are waited for."""
        row, request = RPCS[rpc], json_format.ParseDict(fields, RPCS[rpc].request())

        async def read() -> list[Any]:
            async with Channel(path=str(self.socket)) as channel:
                method: Any = UnaryStreamMethod(channel, row.path, row.request, row.response)
                async with method.open(timeout=PATIENCE_S) as stream:
                    await stream.send_message(request, end=True)
                    if meanwhile is None:
                        return [one async for one in stream]
                    for _ in range(3):  # on the same connection: it has been begun when these are answered
                        await _version(channel)
                    found = [await stream.recv_message() for _ in range(await asyncio.to_thread(meanwhile))]
                    await stream.cancel()
                    return found

        return asyncio.run(read())

    def crictl_argv(self) -> list[str]:
        return [str(tools.program("crictl")), "-c", "/dev/null", "-r", f"unix://{self.socket}", "-t", "30s"]

    def crictl(self, *argv: str, timeout: float = PATIENCE_S) -> Result:
        command = [*self.crictl_argv(), *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        return Result(tuple(command), done.returncode, done.stdout, done.stderr)

    def file(self, name: str, content: dict[str, Any]) -> str:
        """A request for crictl."""
        path = self.path / f"{name}.json"
        path.write_text(json.dumps(content))
        return str(path)

    def pod_config(self, name: str = "p", **fields: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 0}
        return {
            "metadata": metadata,
            "hostname": name,
            "log_directory": str(self.logs / name),
            "linux": OWN_PIDS,
            **fields,
        }

    def container_config(self, name: str = "c", script: str = LOOP, **fields: Any) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": BUSYBOX},
            "command": ["sh", "-c", script],
            "log_path": f"{name}.log",
            "linux": OWN_PIDS,
            **fields,
        }

    def run_pod(self, name: str = "p", **fields: Any) -> str:
        made = self.call("RunPodSandbox", config=self.pod_config(name, **fields))
        return str(made.pod_sandbox_id)

    def create(self, pod: str, name: str = "c", script: str = LOOP, pod_name: str = "p", **fields: Any) -> str:
        made = self.call(
            "CreateContainer",
            pod_sandbox_id=pod,
            config=self.container_config(name, script, **fields),
            sandbox_config=self.pod_config(pod_name),
        )
        return str(made.container_id)

    def run(self, pod: str, name: str = "c", script: str = LOOP, pod_name: str = "p", **fields: Any) -> str:
        id = self.create(pod, name, script, pod_name, **fields)
        self.call("StartContainer", container_id=id)
        return id

    def status(self, id: str) -> Any:
        return self.call("ContainerStatus", container_id=id).status

    def wait_state(self, id: str, state: int, patience_s: float = PATIENCE_S) -> Any:
        last = time.monotonic() + patience_s
        while (status := self.status(id)).state != state:
            assert time.monotonic() < last, f"{status}\n{self.said.read_text()}"
            time.sleep(0.01)
        return status

    def log(self, name: str = "c", pod: str = "p") -> list[str]:
        """The lines that a container wrote, without time and stream."""
        path = self.logs / pod / f"{name}.log"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the last line may be on its way
        return [line.split(" ", 3)[3] for line in whole.splitlines()]

    # --- what there is ---

    def snapshot(self) -> dict[str, set[str]]:
        """All that pods and containers leave traces in."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return {
            "pods": _names(self.root / "pods"),
            "containers": {path.name for path in (self.root / "pods").glob("*/*") if path.is_dir()},
            "sandboxes": _names(self.state / "pods"),
            "states": _names(self.state / "containers"),
            "leases": _names(self.root / "network" / "leases"),
            "links": {name for name in links() if name != "lo"},
            "mounts": {mount for mount in mounts if mount.startswith(f"{self.state}/pods/")},
            "cgroups": {
                os.path.relpath(path, CGROUP_ROOT)
                for path, _, _ in os.walk(CGROUP_ROOT / "pyrun")
                if "exec-" not in path
            },
            "holds": self._holds(),
        }

    def _holds(self) -> set[str]:
        import sqlite3

        path = next((self.root / "image").glob("*.db"))
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return {owner.partition("/")[0] for (owner,) in db.execute("SELECT owner FROM holds")}

    def expected(self) -> dict[str, set[str]]:
        """What there should be, by what the daemon says that there is."""
        pods = self.call("ListPodSandbox").items
        containers = self.call("ListContainers").containers
        ready = {pod.id for pod in pods if pod.state == v1.SANDBOX_READY}
        live = [c for c in containers if c.state != v1.CONTAINER_EXITED]
        cgroups = {f"pyrun/{c.pod_sandbox_id}/{c.id}" for c in live}
        for id in ready:
            cgroups |= {f"pyrun/{id}", f"pyrun/{id}/pod"}
        return {
            "pods": {pod.id for pod in pods},
            "containers": {c.id for c in containers},
            "sandboxes": ready,
            "states": {c.id for c in live},
            "leases": ready,
            "links": {link_name(id) for id in ready},
            "mounts": {f"{self.state}/pods/{id}/ns{of}" for id in ready for of in ("", "/net", "/ipc", "/uts", "/shm")},
            "cgroups": cgroups,
            "holds": {c.id for c in containers},
        }

    def check(self, patience_s: float = 30.0) -> None:
        """There is what the daemon says, and nothing else."""
        last = time.monotonic() + patience_s
        while True:
            found, expected = self.snapshot(), self.expected()
            found["cgroups"].discard("pyrun")
            wrong = {
                key: {"too much": found[key] - expected[key], "missing": expected[key] - found[key]}
                for key in expected
                if found[key] != expected[key] and not (self.plugins and key in ("leases", "links"))
            }
            if not wrong:
                return
            assert time.monotonic() < last, f"{json.dumps(wrong, default=list, indent=1)}\n{self.said.read_text()}"
            time.sleep(0.02)

    def clear(self) -> None:
        """Removes all pods."""
        for pod in self.call("ListPodSandbox").items:
            self.call("RemovePodSandbox", pod_sandbox_id=pod.id)
        self.check()

    def end(self) -> None:
        """Nothing is left."""
        if self.daemon is None:
            self.fork()
        self.clear()
        assert self.stop() == 0, self.said.read_text()
        unmount(self.state / "pods")
        with contextlib.suppress(FileNotFoundError):
            (CGROUP_ROOT / "pyrun").rmdir()


async def _version(channel: Channel) -> None:
    row = RPCS["Version"]
    method: Any = UnaryUnaryMethod(channel, row.path, row.request, row.response)
    await method(row.request(), timeout=PATIENCE_S)


def _names(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _serve(node: Node, die_at: str, points: Path | None) -> None:
    """In a child of ours: never returns."""
    code = 1
    try:
        from pyrun.pod import points as where

        said = os.open(node.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(said, fd)

        def hook(name: str) -> None:
            if points is not None:
                with points.open("a") as file:
                    file.write(name + "\n")
            if name == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        where.hook = hook
        code = serving.serve(serving.Places(str(node.root), str(node.state)), node.config, _say)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


@contextlib.contextmanager
def a_node(path: Path, rootfs: Path, kind: type[Node] = Node, layers: str = "dir") -> Iterator[Node]:
    """With busybox, in a network namespace that this thread is in too, and without a daemon."""
    with own_network():
        node = kind(path, rootfs)
        node.add_image(layers=layers)
        try:
            yield node
        except BaseException:
            if node.daemon is not None:
                with contextlib.suppress(BaseException):
                    node.end()
            raise
        node.end()


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[Node]:
    """For all tests of a module that import it and `node`: its daemon runs, and the cgroup of all pods is there."""
    with a_node(tmp_path_factory.mktemp("node"), busybox_rootfs) as node:
        node.start()
        node.run_pod()
        node.clear()
        yield node


@pytest.fixture
def node(one_node: Node) -> Iterator[Node]:
    """The same for one test, which leaves no pod and no log."""
    yield one_node
    one_node.clear()
    shutil.rmtree(one_node.logs, ignore_errors=True)
