"""--systemd-cgroup where D-Bus or systemd is there and does not answer: an error in bounded time, and nothing left.

A bus of our own takes part in the conversation as far as `knows` goes, and then says nothing more.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import pytest
from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.low_level import Message, Parser

from pyrun import cri_api as v1
from pyrun.errors import Unavailable
from pyrun.rpc.client import call_all
from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import REPO, Runner, wait_for
from tests.support.serving import Serving, shut_down

GRAMMAR = re.compile(r"pyrun: [a-z]+ \S+: --systemd-cgroup: .+\n  hint: .+\n")
# pyrun with less patience, where systemd seems to run; on a busy machine a bus that answers needs some.
PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(REPO)!r})
from pyrun.runtime import systemd
systemd.TIMEOUT_S = float(os.environ.get("PATIENCE_S", "8"))
from pyrun.cli.main import main
sys.exit(main(["--systemd-cgroup", *sys.argv[1:]]))
"""
BOOTED = 'mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system; exec "$@"'
ANSWERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "Hello": ("s", (":1.1",)),
    "Get": ("v", (("s", ""),)),
    "AddMatch": ("", ()),
    "Subscribe": ("", ()),
    "StartTransientUnit": ("o", ("/org/freedesktop/systemd1/job/7",)),
}


class Bus:
    """Authenticates if it knows EXTERNAL, and answers the methods that it knows, with `answers` or what is usual."""

    def __init__(
        self, path: Path, knows: tuple[str, ...], answers: dict[str, tuple[str, tuple[Any, ...]]] | None = None
    ) -> None:
        self.knows = knows
        self.answers = ANSWERS | (answers or {})
        self.called: list[str] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.serving = Serving()
        self.serving.accept(self.listener, self._talk)

    def _talk(self, connection: socket.socket) -> None:
        if "EXTERNAL" in self.knows:
            self._answer(connection, self._authenticate(connection))
        while connection.recv(65536):  # and falls silent, but does not hang up
            pass

    def _authenticate(self, connection: socket.socket) -> bytes:
        """What came behind the log-in, which is all sent before we say anything."""
        said = b""
        while b"BEGIN\r\n" not in said:
            part = connection.recv(1024)
            if not part:
                raise ConnectionError("the end, before the log-in")
            said += part
        connection.sendall(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n")
        return said.partition(b"BEGIN\r\n")[2]

    def _answer(self, connection: socket.socket, data: bytes) -> None:
        parser, serial = Parser(), 0
        while data := data or connection.recv(65536):
            parser.add_data(data)
            data = b""
            while (message := parser.get_next_message()) is not None:
                serial += 1
                reply = self._reply(message)
                if reply is not None:
                    connection.sendall(reply.serialise(serial=serial))

    def _reply(self, message: Message) -> Message | None:
        method = message.header.fields[HeaderFields.member]
        self.called.append(method)
        if message.header.message_type != MessageType.method_call or method not in self.knows:
            return None
        if method not in self.answers:
            return new_error(message, "org.freedesktop.systemd1.NoSuchUnit", "s", ("no such unit",))
        return new_method_return(message, *self.answers[method])

    def close(self) -> None:
        self.serving.end()


@pytest.fixture
def pyrun(tmp_path: Path) -> Iterator[Runner]:
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOTED, "sh"]
    runner = Runner(tmp_path / "state", [*shell, str(REPO / ".venv" / "bin" / "python"), "-I", "-c", PROGRAM])
    yield runner
    runner.delete_all()


CONVERSATIONS = [
    ((), "systemd does not answer: timed out"),
    (("EXTERNAL",), "systemd does not answer: timed out"),
    (("EXTERNAL", "Hello"), "systemd does not answer: timed out"),
    (("EXTERNAL", "Hello", "Get"), "systemd does not answer: timed out"),
    (("EXTERNAL", "Hello", "Get", "StartTransientUnit"), "systemd does not answer: timed out"),
    (("EXTERNAL", *ANSWERS), "systemd did not make pyrun-new.scope in 8 s"),
]


@pytest.mark.parametrize(("knows", "text"), CONVERSATIONS, ids=[str(knows[-1:]) for knows, _ in CONVERSATIONS])
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_bus_that_falls_silent(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, verb: str, knows: tuple[str, ...], text: str
) -> None:
    bus = Bus(tmp_path / "bus", knows)
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
    try:
        done = pyrun(verb, "--bundle", bundle(["sleep", "1000"]).path, "new", env=env, timeout=60)
        if "StartTransientUnit" in knows:  # accepted, and so ours to take back; before that it may be another's
            wait_for(lambda: "StopUnit" in bus.called, 30, "the unit to be stopped")
    finally:
        bus.close()
    assert ("StopUnit" in bus.called) == ("StartTransientUnit" in knows)
    done.fails(1, text)
    assert GRAMMAR.fullmatch(done.err), done.describe()
    assert pyrun.ids() == []
    assert {*knows} - {"EXTERNAL"} <= set(bus.called), "the conversation ended before the silence"


def test_a_bus_that_goes_away(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """The connection is closed in the middle."""
    bus = Bus(tmp_path / "bus", ("EXTERNAL", "Hello", "Get", "AddMatch", "Subscribe"))

    def close_later() -> None:
        wait_for(lambda: "StartTransientUnit" in bus.called, 20, "the call")
        for one in bus.serving.open:
            if one is not bus.listener:
                shut_down(one)

    thread = threading.Thread(target=close_later)
    thread.start()
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
    done = pyrun("create", "--bundle", bundle(["sleep", "1000"]).path, "new", env=env, timeout=60)
    thread.join()
    bus.close()
    done.fails(1, "systemd does not answer: the bus closed the connection")
    assert GRAMMAR.fullmatch(done.err), done.describe()
    assert pyrun.ids() == []


LEFT = CGROUP_ROOT / "test-left.scope"


@contextmanager
def a_stranger() -> Iterator[Popen[bytes]]:
    with Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("whose", ["ours", "another's", "ours, in use", "ours, without a cgroup"])
@pytest.mark.parametrize("force", ["--force", "--force=false"])
def test_a_create_that_is_killed_while_systemd_makes_the_unit(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, whose: str, force: str
) -> None:
    """delete stops what systemd then has in vain, and never the unit of another nor one that is in use."""
    what = "pyrun container new" if whose != "another's" else "pyrun container old"
    row = ("test-left.scope", what, "loaded", "active", "running", "", "/unit", 0, "", "/")
    answers = {"ListUnitsByNames": ("a(ssssssouso)", ([row],)), "StopUnit": ("o", ("/job/8",))}
    bus = Bus(tmp_path / "bus", ("EXTERNAL", *ANSWERS, *answers, "ResetFailedUnit"), answers)
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus", "PATIENCE_S": "60"}
    made = bundle(["sleep", "1000"], linux={"cgroupsPath": "-.slice:test:left"})
    try:
        with pyrun.popen("create", "--bundle", made.path, "new", env=os.environ | env) as create:
            wait_for(lambda: "StartTransientUnit" in bus.called, 60, "the call")
            create.kill()
        if whose != "ours, without a cgroup":
            LEFT.mkdir()
        with a_stranger() as stranger:
            if whose == "ours, in use":
                (LEFT / "cgroup.procs").write_text(str(stranger.pid))
            wait_for(lambda: pyrun.state("new")["status"] == "stopped", 60, "the create to be over")
            assert "StopUnit" not in bus.called
            pyrun.delete("new", force, env=env).ok()
            assert stranger.poll() is None
    finally:
        bus.close()
        if LEFT.exists():
            wait_for(lambda: "populated 0" in (LEFT / "cgroup.events").read_text(), 60, "the stranger to leave")
            LEFT.rmdir()
    assert ("StopUnit" in bus.called) == (whose in ("ours", "ours, without a cgroup"))
    assert pyrun.ids() == []


def test_a_delete_that_cannot_ask_systemd_of_a_killed_create(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path
) -> None:
    """It says so, and removes what it can."""
    bus = Bus(tmp_path / "bus", ("EXTERNAL", *ANSWERS))
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus", "PATIENCE_S": "60"}
    try:
        with pyrun.popen("create", "--bundle", bundle(["true"]).path, "new", env=os.environ | env) as create:
            wait_for(lambda: "StartTransientUnit" in bus.called, 60, "the call")
            create.kill()
    finally:
        bus.close()
    done = pyrun.delete("new", "--force", env={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/no/such/bus"}).ok()
    assert "no connection to the system's D-Bus" in done.err, done.describe()
    assert pyrun.ids() == []


AS_SYSTEMD = f"set -e; ip link set lo up; {BOOTED}"
DAEMON = """
import sys
from pyrun.cri import cgroup_driver
cgroup_driver.ANSWER_S = {}
from pyrun.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def cri_below_systemd(tmp_path: Path, patience_s: float) -> Iterator[Popen[str]]:
    """`pyrun cri` in namespaces whose process 1 is named systemd. patience_s: its, with the bus."""
    shutil.copy("/bin/sh", tmp_path / "systemd")
    words = ["unshare", "--mount", "--propagation", "private", "--net"]
    words += ["--pid", "--fork", "--kill-child", "--mount-proc"]
    words += ["sh", "-c", AS_SYSTEMD, "sh", str(tmp_path / "systemd"), "-c", '"$@"; exit $?', "systemd"]
    words += [sys.executable, "-c", DAEMON.format(patience_s), "cri"]
    words += ["--root", str(tmp_path / "root"), "--state", str(tmp_path / "state")]
    env = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}
    with (tmp_path / "said").open("w") as said:
        process = Popen(words, stdin=DEVNULL, stderr=said, text=True, cwd=REPO, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_without_a_bus_there_is_no_other_writer_of_cgroups(tmp_path: Path) -> None:
    """Where systemd runs the node and can't be asked, the daemon does not start."""
    with cri_below_systemd(tmp_path, 0.3) as process:
        assert process.wait(60) == 1
    said = (tmp_path / "said").read_text()
    assert "cgroup_driver: systemd makes this node's cgroups and can't be asked: " in said
    assert "no connection to the system's D-Bus" in said and "hint: what says systemctl status dbus" in said


def test_a_bus_that_comes_late(tmp_path: Path) -> None:
    rpc = v1.SERVICES["RuntimeService"]["RuntimeConfig"]
    found = []

    def answers() -> bool:
        with suppress(Unavailable):
            found.extend(call_all(f"{tmp_path}/state/cri.sock", [(rpc, v1.RuntimeConfigRequest())], 20))
        return bool(found)

    with cri_below_systemd(tmp_path, 60):
        wait_for(lambda: "systemd can't be asked yet" in (tmp_path / "said").read_text(), 60, "the first try")
        bus = Bus(tmp_path / "bus", ("EXTERNAL", *ANSWERS))
        try:
            wait_for(answers, 60, "the daemon")
        finally:
            bus.close()
    assert found[0].linux.cgroup_driver == v1.SYSTEMD
