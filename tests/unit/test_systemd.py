"""--systemd-cgroup: names, properties and errors; and the messages, as a bus of the test's own carries them.

The manager at the other end of that bus only keeps what it is asked: that systemd does as told is the guest's part
(tests/vm/test_vm_systemd.py).
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import ConfigError, PyrunError
from pyrun.facts import Facts
from pyrun.oci.load import load_resources
from pyrun.oci.model import Linux, Root, Spec
from pyrun.plan.cgroup.scopes import (
    INFINITY,
    annotated_properties,
    expand_slice,
    limit_properties,
    unit_of,
    unit_properties,
)
from pyrun.plan.exec import ATTACH, Target
from pyrun.plan.model.request import Request
from pyrun.runtime import systemd
from pyrun.runtime.systemd import Manager


def spec_of(cgroups_path: str | None) -> Spec:
    return Spec(oci_version="1.3.0", root=Root(path="rootfs"), linux=Linux(cgroups_path=cgroups_path))


@pytest.mark.parametrize(
    "path, rootless, cgroup",
    [
        (None, False, "/system.slice/pyrun-web.scope"),
        (None, True, "/user.slice/pyrun-web.scope"),
        ("a.slice:p:n", False, "/a.slice/p-n.scope"),
        (":p:n", False, "/system.slice/p-n.scope"),
        ("a-b-c.slice:p:n", False, "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
        ("-.slice:p:n", False, "/p-n.scope"),
        ("system.slice::n", False, "/system.slice/n.scope"),
    ],
)
def test_names(path: str | None, rootless: bool, cgroup: str) -> None:
    assert unit_of(spec_of(path), Facts(rootless=rootless), "web").cgroup == cgroup


@pytest.mark.parametrize(
    "path", ["/a/b", "a:b", "a:b:c:d", "a.slice:p:", "a:p:n", "a--b.slice:p:n", ".slice:p:n", "a/b.slice:p:n",
             "a.slice:p:n/m", "a.slice:p:x.slice", f"a.slice:p:{'n' * 250}"]
)  # fmt: skip
def test_bad_names(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        unit_of(spec_of(path), Facts(), "web")
    assert caught.value.faults[0][0] == "/linux/cgroupsPath"
    assert "SLICE:PREFIX:NAME" in (caught.value.hint or "")


def test_expand_slice() -> None:
    assert expand_slice("a.slice") == "/a.slice"
    assert expand_slice("-.slice") == ""


def test_properties_of_the_unit() -> None:
    unit = unit_of(spec_of("a.slice:p:n"), Facts(), "web")
    assert dict(unit_properties(unit, "pyrun container web", 42)) == {
        "Description": ("s", "pyrun container web"),
        "Slice": ("s", "a.slice"),
        "Delegate": ("b", True),
        "PIDs": ("au", [42]),
        "MemoryAccounting": ("b", True),
        "CPUAccounting": ("b", True),
        "IOAccounting": ("b", True),
        "TasksAccounting": ("b", True),
        "TasksMax": ("t", INFINITY),
        "DefaultDependencies": ("b", False),
        "CollectMode": ("s", "inactive-or-failed"),
    }


@pytest.mark.parametrize(
    "resources, wanted",
    [
        ("{}", {}),
        ('{"memory": {"limit": 4096, "swap": 8192, "reservation": 1024}}',
         {"MemoryMax": ("t", 4096), "MemorySwapMax": ("t", 4096), "MemoryLow": ("t", 1024)}),
        ('{"memory": {"limit": -1}}', {"MemoryMax": ("t", INFINITY), "MemorySwapMax": ("t", INFINITY)}),
        ('{"memory": {"limit": 4096, "swap": -1}}', {"MemoryMax": ("t", 4096), "MemorySwapMax": ("t", INFINITY)}),
        ('{"cpu": {"shares": 1024, "quota": 50000, "period": 100000}}',
         {"CPUWeight": ("t", 100), "CPUQuotaPeriodUSec": ("t", 100000), "CPUQuotaPerSecUSec": ("t", 500000)}),
        ('{"cpu": {"quota": 1234}}', {"CPUQuotaPerSecUSec": ("t", 20000)}),
        ('{"cpu": {"quota": -1}}', {"CPUQuotaPerSecUSec": ("t", INFINITY)}),
        ('{"cpu": {"shares": 2, "idle": 1}}', {"CPUWeight": ("t", 0)}),
        ('{"cpu": {"idle": 0}}', {"CPUWeight": ("t", 100)}),
        ('{"cpu": {"idle": 0, "shares": 2}}', {"CPUWeight": ("t", 1)}),
        ('{"cpu": {"cpus": "0,9", "mems": "0"}}',
         {"AllowedCPUs": ("ay", b"\x01\x02"), "AllowedMemoryNodes": ("ay", b"\x01")}),
        ('{"pids": {"limit": 7}}', {"TasksMax": ("t", 7)}),
        ('{"pids": {"limit": -1}}', {"TasksMax": ("t", INFINITY)}),
        ('{"pids": {"limit": 0}}', {"TasksMax": ("t", 1)}),
        ('{"blockIO": {"weight": 1000}}', {"IOWeight": ("t", 10000)}),
        ('{"unified": {"memory.high": "48M", "memory.min": "max", "pids.max": "9", "memory.oom.group": "1"}}',
         {"MemoryHigh": ("t", 48 << 20), "MemoryMin": ("t", INFINITY), "TasksMax": ("t", 9)}),
        ('{"memory": {"limit": 4096}, "unified": {"memory.max": "8192", "io.weight": "8:0 100"}}',
         {"MemoryMax": ("t", 8192)}),
        ('{"unified": {"cpu.max": "30000 60000", "cpu.idle": "1", "cpuset.cpus": "0,9", "cpuset.mems": "0"}}',
         {"CPUQuotaPeriodUSec": ("t", 60000), "CPUQuotaPerSecUSec": ("t", 500000), "CPUWeight": ("t", 0),
          "AllowedCPUs": ("ay", b"\x01\x02"), "AllowedMemoryNodes": ("ay", b"\x01")}),
        ('{"unified": {"cpu.max": "max"}}', {"CPUQuotaPerSecUSec": ("t", INFINITY)}),
    ],
)  # fmt: skip
def test_limits_as_properties(resources: str, wanted: dict[str, object]) -> None:
    assert dict(limit_properties(load_resources(resources.encode()))) == wanted


@pytest.mark.skipif(Path(systemd.BOOTED).exists(), reason="systemd runs here")
def test_without_systemd() -> None:
    with pytest.raises(PyrunError, match="systemd does not run on this machine") as caught:
        Manager(user=False)
    assert "leave --systemd-cgroup out" in (caught.value.hint or "")


@pytest.mark.parametrize("address", ["unix:path=/no/such/socket", "nonsense", ""])
def test_without_a_bus(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with pytest.raises(PyrunError, match="no connection to the user's D-Bus"):
        Manager(user=True)


# --- over a bus -------------------------------------------------------------------------------------------------------

JOB = "/org/freedesktop/systemd1/job/1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bus of our own."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    socket = f"/tmp/pyrun-bus-{tmp_path.name[-40:]}"  # a socket's path is short
    (tmp_path / "bus.conf").write_text(CONFIG.format(socket=socket))
    words = ["dbus-daemon", f"--config-file={tmp_path}/bus.conf", "--nofork", "--print-address"]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    found = daemon.stdout.readline().strip()
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", found)
    yield found
    daemon.kill()
    daemon.communicate()
    Path(socket).unlink(missing_ok=True)


class Recorder:
    """Answers at systemd's name, and keeps what it is asked. answers: for a method, the errors to give first."""

    def __init__(self, address: str, result: str = "done", answers: dict[str, list[str]] | None = None) -> None:
        from jeepney import message_bus
        from jeepney.io.blocking import open_dbus_connection

        self.asked: list[tuple[str, Any]] = []
        self.result = result
        self.answers = answers or {}
        self.bus = open_dbus_connection(address)
        self.bus.send_and_get_reply(message_bus.RequestName(systemd.BUS))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_return, new_signal

        manager = DBusAddress(systemd.PATH, interface=systemd.MANAGER)
        while True:
            try:
                message = self.bus.receive()
            except ConnectionResetError:  # the bus is gone: the test is over
                return
            if message.header.message_type != MessageType.method_call:
                continue
            member = message.header.fields[HeaderFields.member]
            self.asked.append((member, message.body))
            if self.answers.get(member):
                self.bus.send(new_error(message, self.answers[member].pop(0), "s", ("no",)))
                continue
            if member == "StartTransientUnit":
                self.bus.send(new_method_return(message, "o", (JOB,)))
                self.bus.send(new_signal(manager, "JobRemoved", "uoss", (1, JOB, message.body[0], self.result)))
            elif member == "Get":
                self.bus.send(new_method_return(message, "v", (("s", "/user.slice/user-7.slice/user@7.service"),)))
            elif member == "StopUnit":
                self.bus.send(new_method_return(message, "o", (JOB,)))
            else:
                self.bus.send(new_method_return(message))


def asked(recorder: Recorder, action: Callable[[Manager], object]) -> list[str]:
    manager = Manager(user=True)
    try:
        action(manager)
    finally:
        manager.close()
    return [member for member, _ in recorder.asked]


def test_start_waits_for_the_job(address: str) -> None:
    recorder = Recorder(address)
    properties = unit_properties(unit_of(spec_of("a.slice:p:n"), Facts(), "web"), "web", 42)
    properties += limit_properties(load_resources(b'{"memory": {"limit": 4096}, "cpu": {"cpus": "0,9"}}'))
    assert asked(recorder, lambda m: m.start("p-n.scope", properties)) == ["Subscribe", "StartTransientUnit"]
    name, mode, sent, aux = recorder.asked[-1][1]
    assert (name, mode, aux) == ("p-n.scope", "replace", [])
    found = dict(sent)
    assert found["PIDs"] == ("au", [42]) and found["MemoryMax"] == ("t", 4096) and found["Slice"] == ("s", "a.slice")
    assert bytes(found["AllowedCPUs"][1]) == b"\x01\x02"


def test_a_failed_job_is_an_error(address: str) -> None:
    recorder = Recorder(address, result="failed")
    with pytest.raises(PyrunError, match="systemd could not make p-n.scope: failed"):
        asked(recorder, lambda m: m.start("p-n.scope", []))


def test_a_unit_that_is_left_over_is_reset_once(address: str) -> None:
    recorder = Recorder(address, answers={"StartTransientUnit": [systemd.EXISTS]})
    wanted = ["Subscribe", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]
    assert asked(recorder, lambda m: m.start("p-n.scope", [])) == wanted


def test_what_systemd_says_is_told(address: str) -> None:
    Recorder(address, answers={"StartTransientUnit": ["org.freedesktop.DBus.Error.AccessDenied"]})
    with pytest.raises(PyrunError, match=r"systemd would not make it: no \(org.freedesktop.DBus.Error.AccessDenied\)"):
        systemd.with_manager(True, lambda m: m.start("p-n.scope", []), "make it")


def test_stop_also_resets_and_takes_a_missing_unit(address: str) -> None:
    recorder = Recorder(address, answers={"StopUnit": [systemd.UNKNOWN]})
    assert asked(recorder, lambda m: m.stop("p-n.scope")) == ["StopUnit", "ResetFailedUnit"]


def test_the_path_of_a_users_unit_begins_with_the_managers(address: str) -> None:
    recorder = Recorder(address)
    path = systemd.unit_cgroup(spec_of("a.slice:p:n"), Facts(rootless=True, cgroup_mount="/cg"), "web")
    assert path == "/cg/user.slice/user-7.slice/user@7.service/a.slice/p-n.scope"
    assert systemd.is_of_user(path)
    assert [member for member, _ in recorder.asked] == ["Get"]


def test_limits_are_set_on_the_unit(address: str) -> None:
    recorder = Recorder(address)
    resources = load_resources(b'{"pids": {"limit": 7}}')
    systemd.set_limits("/cg/user.slice/user@7.service/p-n.scope", resources)
    assert recorder.asked[0] == ("SetUnitProperties", ("p-n.scope", True, [("TasksMax", ("t", 7))]))
    assert [member for member, _ in recorder.asked[1:]] == ["Get"]  # waits until systemd has written its part


def test_limits_are_as_they_were_after_a_failed_update(address: str) -> None:
    recorder = Recorder(address)
    change = load_resources(b'{"pids": {"limit": 7}, "memory": {"reservation": 5}, "cpu": {"cpus": "0"}}')
    systemd.reset_limits(
        "/cg/user.slice/user@7.service/p-n.scope", change, load_resources(b'{"pids": {"limit": 3}}'), print
    )
    (_, _, sent) = recorder.asked[0][1]
    assert dict(sent) == {"TasksMax": ("t", 3), "MemoryLow": ("t", 0), "AllowedCPUs": ("ay", b"")}


def test_that_systemd_refuses_the_old_limits_does_not_hide_why_the_update_failed(
    address: str,
) -> None:
    warned: list[str] = []
    Recorder(address, answers={"SetUnitProperties": ["org.freedesktop.DBus.Error.AccessDenied"]})
    change = load_resources(b'{"pids": {"limit": 7}}')
    systemd.reset_limits("/cg/user.slice/user@7.service/p-n.scope", change, load_resources(b"{}"), warned.append)
    assert "--systemd-cgroup: systemd would not set the limits of p-n.scope" in warned[0]


@pytest.mark.parametrize("annotations", [{}, {"org.systemd.property.IPAddressDeny": "[(2, [byte 0], uint32 0)]"}])
def test_an_exec_runs_outside_of_the_unit_only_where_nothing_is_asked_of_that(
    address: str, annotations: dict[str, str]
) -> None:
    Recorder(address, answers={"AttachProcessesToUnit": ["org.freedesktop.DBus.Error.AccessDenied"]})
    spec = Spec(oci_version="1.3.0", root=Root(path="rootfs"), annotations=annotations)
    attach = systemd.Attach(spec, Target(cgroup="/cg/user.slice/user@7.service/p-n.scope"), Request(id="web"))
    if not annotations:
        attach.on_yield(ATTACH, 1)
        return
    with pytest.raises(PyrunError, match="systemd would not move a process into p-n.scope"):
        attach.on_yield(ATTACH, 1)


def test_an_old_systemd_is_not_asked_for_an_idle_weight(address: str) -> None:
    Recorder(address)  # whose Version is not a number
    properties = limit_properties(load_resources(b'{"cpu": {"idle": 1}, "pids": {"limit": 7}}'))
    assert systemd.with_manager(True, lambda m: m.understood(properties), "ask") == [("TasksMax", ("t", 7))]


# --- annotations ------------------------------------------------------------------------------------------------------


def annotated(**properties: str) -> dict[str, str]:
    return {f"org.systemd.property.{name}": value for name, value in properties.items()}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("CollectMode", "'inactive'", ("CollectMode", ("s", "inactive"))),
        ("TimeoutStopSec", "12", ("TimeoutStopUSec", ("t", 12_000_000))),
        ("TimeoutStopSec", "uint64 12", ("TimeoutStopUSec", ("t", 12_000_000))),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", ("t", 1_500_000))),
        ("TimeoutStopUSec", "uint64 12", ("TimeoutStopUSec", ("t", 12))),
        ("CPUQuotaPerSecUSec", "uint64 5", ("CPUQuotaPerSecUSec", ("t", 5))),
        ("Wants", "['a.service', 'b.service']", ("Wants", ("as", ["a.service", "b.service"]))),
    ],
)
def test_annotations_are_properties(name: str, value: str, wanted: object) -> None:
    assert annotated_properties({"other": "x", **annotated(**{name: value})}) == [wanted]


def test_bad_annotations_are_told_all_at_once() -> None:
    given = {"Ab": "true", "With-dash": "true", "TasksMax": "many", "StopSec": "'x'", "Slice": "'a.slice'", "Good": "1"}
    with pytest.raises(ConfigError) as caught:
        annotated_properties(annotated(**given))
    at = "/annotations/org.systemd.property."
    assert [pointer for pointer, _ in caught.value.faults] == [at + name for name in given if name != "Good"]
    assert "uint64" in (caught.value.hint or "")
