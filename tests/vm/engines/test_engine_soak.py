"""SIGKILL at random moments of lifecycles, while others go on beside: the engine removes what was hit by its own
command, nothing of it is left, and the others notice nothing.

Each test is one seed: KILLS kills, and ROUNDS whole lifecycles beside. PYRUN_SOAK_SEED is the first seed, and
PYRUN_SOAK_SEEDS how many; `make soak` does 100. PYRUN_SOAK_RUNTIME=runc or crun shows what is the engine's own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.soak import INIT, KINDS, MONITOR, Killer, Process
from tests.vm.engines.engine import IMAGE, Client, config_file, systemctl

KILLS, ROUNDS, MISSES = 2, 1, 6
FIRST = int(os.environ.get("PYRUN_SOAK_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("PYRUN_SOAK_SEEDS", "1")))
RUNTIME = os.environ.get("PYRUN_SOAK_RUNTIME", "pyrun")
BINARY = shutil.which(RUNTIME) or RUNTIME
COMMAND_S = 60.0
REMOVE_S, KNOWN_S = 30.0, 3.0
BEFORE = {"exec": ["start"], "pause": ["start"], "unpause": ["start", "pause"], "stop": ["start"], "remove": ["start"]}
BEFORE["start again"] = ["start", "stop"]
# A shim and its FIFOs are containerd's, not the runtime's: where it forgot them, the way out must do.
SHIMS = ("process containerd-shim", "/run/containerd/fifo/")
EXITS = "/run/libpod/exits/"
WITH_INIT = ("start", "exec", "start again")


class Engine:
    """The commands of a container's life, by name, as podman and docker have them. late: how that begins which it may
    leave of a container that it has forgotten, and that ended only then."""

    late: tuple[str, ...] = ()

    def __init__(self, client: Client, create: str, state: str) -> None:
        self.client = client
        self.first = create  # the command that makes a container, but for its name
        self.states = ["/run", state]
        self.force = "rm -f -t 0" if client.argv[0] == "podman" else "rm -f"

    def create(self, name: str) -> str:
        """A container that no runtime has to do with yet; its id."""
        return self.client(*self.first.split(), "--name", name, IMAGE, timeout=COMMAND_S).ok().out.strip()

    def life(self, name: str) -> dict[str, str]:
        """The commands from then on."""
        return {
            "start": f"start {name}",
            "exec": f"exec {name} true",
            "pause": f"pause {name}",
            "unpause": f"unpause {name}",
            "stop": f"stop -t 1 {name}",
            "start again": f"start {name}",
            "remove": f"{self.force} {name}",
        }

    def known(self, killer: Killer) -> tuple[str, ...]:
        """What it leaves with any runtime, by how that begins."""
        return ()

    def warm_up(self) -> None:
        """A first container makes what the later ones share."""
        self.create("first")
        assert self.run(self.life("first")["start"]) + self.remove("first") == ""

    def run(self, command: str) -> str:
        """What it said when it failed; empty when it did not."""
        try:
            done = self.client(*command.split(), timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            return f"{command}: hangs"
        return done.describe() if done.rc else ""

    def remove(self, name: str) -> str:
        """By the engine's own command; what is wrong, if it stays."""
        said = self.run(self.life(name)["remove"])
        return said and said * (self.client("container", "inspect", name).rc == 0)


class Podman(Engine):
    """It has no runtime delete a container whose conmon died, and `rm` forgets one whose runtime's `kill` died: conmon
    then writes down an exit that nobody asks for."""

    late = (EXITS,)

    def known(self, killer: Killer) -> tuple[str, ...]:
        if killer.killed.startswith(f"{RUNTIME} kill"):
            return ("",)
        return (f"/run/{RUNTIME}/",) if killer.kind == MONITOR else ()


class Docker(Engine):
    """Its `rm -f` forgets a container whose shim could not delete it, because the runtime's `delete` died."""

    def known(self, killer: Killer) -> tuple[str, ...]:
        return ("",) if killer.killed.startswith(f"{RUNTIME} delete") else SHIMS


class Containerd(Engine):
    """By ctr, which itself makes the container's FIFOs, and forgets them when the shim died; containerd can forget the
    shim of a task whose making failed."""

    def known(self, killer: Killer) -> tuple[str, ...]:
        return SHIMS

    def create(self, name: str) -> str:
        return name

    def life(self, name: str) -> dict[str, str]:
        return {
            "start": f"{self.first} {IMAGE} {name}",
            "exec": f"tasks exec --exec-id e {name} true",
            "pause": f"tasks pause {name}",
            "unpause": f"tasks resume {name}",
            "stop": f"tasks delete --force {name}",
            "start again": f"tasks start -d {name}",
            "remove": f"tasks delete --force {name}",
        }

    def remove(self, name: str) -> str:
        said = self.run(self.life(name)["remove"])
        if problem := self.run(f"containers delete {name}"):
            return f"{said}\n{problem}" * (name in self.client("containers", "ls", "-q").ok().out.split())
        return ""


def traces(engine: Engine, id: str) -> list[str]:
    """What there is of a container: processes, cgroups, units, mounts, and files in the engine's and the runtime's
    state."""
    found = [f"process {process.name} {pid}" for pid, process in processes(id) if process.kind]
    found += [f"cgroup {path}" for path, _, _ in os.walk(CGROUP_ROOT) if id in path]
    found += [f"unit {line}" for line in systemctl("list-units", "--all", "--no-legend", f"*{id}*").splitlines()]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if id in line]
    states = ["find", *engine.states, "-xdev", "-name", f"*{id}*", "-prune"]
    return found + subprocess.run(states, capture_output=True, text=True, timeout=COMMAND_S).stdout.splitlines()


def processes(id: str) -> Iterator[tuple[int, Process]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name), Process(int(name), id)


def forget(id: str, left: list[str]) -> None:
    """Removes what the engine has lost: the runtime's state by the runtime, a shim by SIGKILL, whereupon containerd
    cleans up, and FIFOs as they are."""
    subprocess.run([BINARY, "delete", "--force", id], check=True, timeout=COMMAND_S)
    for pid in [int(line.split()[2]) for line in left if line.startswith(SHIMS[0])]:
        os.kill(pid, signal.SIGKILL)
    for path in map(Path, left):
        if path.is_fifo():
            path.unlink()
        elif str(path).startswith(EXITS):
            path.unlink()
        elif path.parent == Path("/run/docker/containerd"):
            shutil.rmtree(path)


class Soak:
    """Lives of one engine's containers."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.seed = seed
        self.notes: list[str] = []
        self.trouble: list[str] = []

    def kill(self, name: str) -> bool:
        """A life in which one process is killed, at a random verb or later, and what is left of it then. Whether there
        was such a process."""
        id = self.engine.create(name)
        life = self.engine.life(name)
        kind = self.chance.choice(KINDS)
        first, hit = self.chance.choice(WITH_INIT if kind == INIT else list(life)), ""
        known: tuple[str, ...] = ()
        for verb in BEFORE.get(first, []):
            self.command(verb, life)
        for verb in list(life)[list(life).index(first) :]:
            with Killer(id, kind, self.chance) as killer:
                said = self.engine.run(life[verb])
            if killer.killed:
                hit, known = killer.killed, self.engine.known(killer)
                self.notes.append(f"{verb}{' fails' * bool(said)}: {killer.killed}")
                break
            self.expect(said)
        self.remove(name, id, known)
        return bool(hit)

    def remove(self, name: str, id: str, known: tuple[str, ...] = ()) -> None:
        """By the engine, which may take a moment to notice what happened. known: where what it leaves begins."""
        deadline, attempts = time.monotonic() + REMOVE_S, 0
        while said := self.engine.remove(name):
            attempts += 1
            if time.monotonic() > deadline:
                break
        if attempts:
            self.notes.append(f"removed after {attempts} failed")
        self.expect(said)
        started = time.monotonic()
        while (left := traces(self.engine, id)) and time.monotonic() < started + REMOVE_S:
            if known and time.monotonic() > started + KNOWN_S and all(trace.startswith(known) for trace in left):
                self.notes.append("the engine left " + " ".join(left))
                forget(id, left)
                known = self.engine.late
        self.expect("\n".join(["left behind:", *left]) if left else "")

    def round(self, name: str) -> None:
        """A whole life, with nobody killed."""
        id = self.engine.create(name)
        life = self.engine.life(name)
        for verb in life:
            if verb != "remove":
                self.command(verb, life)
        self.remove(name, id)

    def command(self, verb: str, life: dict[str, str]) -> None:
        """One that must succeed."""
        self.expect(self.engine.run(life[verb]))

    def expect(self, trouble: str) -> None:
        """Notes what should be empty."""
        if trouble:
            self.trouble.append(f"after {self.notes[-1:]}: {trouble}")

    def rounds(self) -> None:
        try:
            for number in range(ROUNDS):
                self.round(f"round{self.seed}x{number}")
        except Exception as error:  # a thread's own would be lost
            self.expect(repr(error))

    def run(self) -> None:
        beside = threading.Thread(target=self.rounds)
        started = time.monotonic()
        beside.start()
        try:
            hits = sum(self.kill(f"kill{self.seed}x{number}") for number in range(KILLS))
            for number in range(MISSES):
                hits += hits < KILLS and self.kill(f"again{self.seed}x{number}")
            self.expect("" if hits == KILLS else f"hit {hits} of {KILLS}")
        finally:
            beside.join()
        self.notes.append(f"{time.monotonic() - started:.0f} s")
        print(f"seed {self.seed}: " + "\n  ".join(self.notes))
        assert not self.trouble, "\n".join([f"seed {self.seed}", *self.notes, "", *self.trouble])


@pytest.fixture(scope="module")
def podman(image: Path) -> Engine:
    client = Client("podman", "--runtime", BINARY)
    client("load", "-q", "-i", str(image)).ok()
    engine = Podman(client, "create --network none", "/var/lib/containers")
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def docker(image: Path) -> Iterator[Engine]:
    client = Client("docker")
    with config_file("/etc/docker/daemon.json", json.dumps({"runtimes": {"soaked": {"path": BINARY}}})):
        systemctl("start", "docker")
        client("load", "-q", "-i", str(image)).ok()
        engine = Docker(client, "create --network none --runtime soaked", "/var/lib/docker")
        engine.warm_up()
        yield engine
        systemctl("stop", "docker.socket", "docker", "containerd")


@pytest.fixture(scope="module")
def containerd(image: Path) -> Iterator[Engine]:
    client = Client("ctr")
    systemctl("start", "containerd")
    client("images", "import", str(image)).ok()
    engine = Containerd(client, f"run -d --runc-binary {BINARY}", "/var/lib/containerd")
    engine.warm_up()
    yield engine
    systemctl("stop", "containerd")


@pytest.mark.vm("containerd")
@pytest.mark.parametrize("seed", SEEDS)
def test_containerd(containerd: Engine, seed: int) -> None:
    Soak(containerd, seed).run()


@pytest.mark.vm("podman")
@pytest.mark.parametrize("seed", SEEDS)
def test_podman(podman: Engine, seed: int) -> None:
    Soak(podman, seed).run()


@pytest.mark.vm("docker")
@pytest.mark.parametrize("seed", SEEDS)
def test_docker(docker: Engine, seed: int) -> None:
    Soak(docker, seed).run()
