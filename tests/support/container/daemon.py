"""A long-lived program, as a node's agent is one: makes, execs into and removes containers from many threads by
pyrun.runtime.runtime, and tells on stdout, as JSON, what it found wrong and what of itself has changed.

Run as ``python daemon.py ROOT BUNDLE COUNT THREADS``. It has a child of its own that is no container's, whose exit
status must be there for it at the end, and makes others meanwhile that may inherit nothing.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from pyrun.oci.load import load_bytes
from pyrun.oci.model import Hook, Hooks, Process, Spec
from pyrun.runtime.runtime import Container, Runtime

OWN_CODE = 42
PATH = ("PATH=/bin:/usr/bin",)
SELF = ("Umask", "SigIgn", "SigCgt", "SigBlk")
IMAGE = "memfd:pyrun-init"  # the init's image: one for the process


def status() -> dict[str, str]:
    """What may never change, as the main thread has it."""
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {name: lines[name] for name in SELF} | {"cwd": os.getcwd(), "environ": repr(sorted(os.environ.items()))}


def descriptors() -> list[str]:
    """What is open, but for the directory that lists it."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(found)


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


class Daemon:
    def __init__(self, root: str, bundle: str, count: int, threads: int) -> None:
        self.runtime = Runtime(root, warn=lambda text: self.wrong.append(f"warned: {text}"))
        self.bundle = bundle
        self.config = Path(bundle, "config.json").read_bytes()
        self.left = iter(range(count))
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]
        self.wrong: list[str] = []
        self.done = 0

    def work(self) -> None:
        while True:
            with self.lock:
                number = next(self.left, None)
            if number is None:
                return
            try:
                self.one(number)
                self.done += 1
            except BaseException:
                self.wrong.append(f"container {number}: {traceback.format_exc()}")
                return

    def one(self, number: int) -> None:
        """One container, from create to delete, in one of the ways that a caller may take."""
        id = f"d{number}"
        inside, outside = os.pipe(), os.pipe()
        spec = self.spec(number) if number % 2 else self.config
        stdio = (inside[0], outside[1], outside[1])
        try:
            make = self.runtime.run if number % 5 == 4 else self.runtime.create
            container = make(spec, id=id, bundle=self.bundle, stdio=stdio)
        finally:
            os.close(inside[0])
            os.close(outside[1])
        try:
            if number % 5 != 4:
                container.start()
            self.talk(container, number, inside[1], outside[0])
            self.end(container, number, inside[1])
        finally:
            os.close(inside[1])
            os.close(outside[0])

    def spec(self, number: int) -> Spec:
        """Some with a hook that does not read its state, which a pipe can't hold: EPIPE, and no SIGPIPE for us."""
        spec = load_bytes(self.config)
        hooks = Hooks(create_runtime=(Hook(path="/bin/true"),))
        return spec if number % 25 else spec.replace(hooks=hooks, annotations={"long": "x" * 70_000})

    def talk(self, container: Container, number: int, to: int, back: int) -> None:
        os.write(to, b"hello %d\n" % number)
        self.expect("the program's output", read_line(back), f"got hello {number}\n")
        self.expect("status", container.status(), "running")
        self.expect("exec", *self.exec(container, number))
        if number % 7 == 0:
            container.pause()
            self.expect("status", container.status(), "paused")
            container.resume()
        if number % 11 == 0:
            self.expect("a terminal", self.terminal(container), "/dev/pts/0")
        if number % 13 == 0:  # nobody waits for it: it goes with the container
            container.exec(Process(cwd="/", args=("sleep", "1000"), env=PATH))

    def exec(self, container: Container, number: int) -> tuple[str, str]:
        """(what it said and its exit code, what these should be)."""
        out, into = os.pipe()
        with open("/dev/null") as null:
            process = Process(cwd="/", args=("sh", "-c", "env; exit $0", str(number % 100)), env=PATH)
            made = container.exec(process, (null.fileno(), into, into))
        os.close(into)
        with open(out) as file:
            said = file.read()
        code = made.wait(60)
        made.close()
        return f"{code} {'NOTIFY' in said} {'PATH=' in said}", f"{number % 100} False True"

    def terminal(self, container: Container) -> str:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = Process(cwd="/", args=("tty",), env=PATH, terminal=True)
            made = container.exec(process, console=theirs.fileno())
            _, ancillary, _, _ = ours.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            (master,) = array.array("i", ancillary[0][2])
            line = read_line(master)
            made.wait(60)
            os.close(master)
        return line.strip()

    def end(self, container: Container, number: int, to: int) -> None:
        """By its own end, by a signal, or by force."""
        if number % 3 == 0:
            os.write(to, b"end\n")
            self.expect("exit code", str(container.wait(60)), "3")
        elif number % 3 == 1:
            container.kill("KILL")
            self.expect("exit code", str(container.wait(60)), "137")
        container.delete(force=number % 3 == 2)

    def expect(self, what: str, got: str, wanted: str) -> None:
        if got != wanted:
            raise AssertionError(f"{what}: {got!r}, not {wanted!r}")

    def bystander(self) -> None:
        """A child that is no container's, made while others are: it has its three streams, and nothing of ours."""
        done = subprocess.run(["ls", "/proc/self/fd"], stdout=subprocess.PIPE, text=True, check=True)
        if done.stdout.split() not in (["0", "1", "2"], ["0", "1", "2", "3"]):  # ls has the directory itself open
            self.wrong.append(f"a bystander has {done.stdout.split()}")


def read_line(fd: int) -> str:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(fd, 1)):
        line += byte
    return line.decode()


def main() -> None:
    root, bundle, count, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that a change would show
    own = subprocess.Popen(["sh", "-c", f"exit {OWN_CODE}"])
    daemon = Daemon(root, bundle, count, threads)
    first = threading.Thread(target=time.time)  # with it the C library takes a signal of its own
    first.start()
    first.join()
    before, fds = status(), descriptors()
    for thread in daemon.threads:
        thread.start()
    while any(thread.is_alive() for thread in daemon.threads):
        if (now := status()) != before:
            daemon.wrong.append(f"{now}, not {before}")
            break
        daemon.bystander()
        time.sleep(0.05)
    for thread in daemon.threads:
        thread.join()
    extra = [fd for fd in descriptors() if IMAGE not in fd]
    print(
        json.dumps(
            {
                "done": daemon.done,
                "wrong": daemon.wrong,
                "ids": daemon.runtime.ids(),
                "changed": {name: [before[name], now] for name, now in status().items() if now != before[name]},
                "descriptors": [sorted(set(extra) - set(fds)), len(extra) - len(fds)],
                "children": len(children() - {own.pid}),
                "own": os.waitstatus_to_exitcode(os.waitpid(own.pid, 0)[1]),
            }
        )
    )


if __name__ == "__main__":
    main()
