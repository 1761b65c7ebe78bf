"""--systemd-cgroup with a real systemd: the cgroup is a transient scope, made for root and by a user's own manager."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker, make_bundle, make_config
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.open_files import open_files
from tests.support.container.runner import Runner, runtime_argv, wait_for
from tests.support.serving import Serving
from tests.support.vm.cgroup import MIB, Cgroup, allocate, resources

LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "reservation": 16 * MIB, "swap": 96 * MIB},
    "cpu": {"shares": 2048, "quota": 50000, "period": 100000, "cpus": "1"},
    "pids": {"limit": 33},
    "blockIO": {"weight": 500},
}
PROPERTIES = {
    "MemoryMax": str(64 * MIB),
    "MemoryLow": str(16 * MIB),
    "MemorySwapMax": str(32 * MIB),
    "CPUQuotaPerSecUSec": "500ms",
    "AllowedCPUs": "1",
    "TasksMax": "33",
    "Delegate": "yes",
    "Transient": "yes",
    "ActiveState": "active",
}
IDS = [{"containerID": 0, "hostID": 0, "size": 65536}]
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Runner]:
    """pyrun --systemd-cgroup. No scope of a test's may stay."""
    runner = Runner(tmp_path / "state", [*runtime_argv(), "--systemd-cgroup"])
    yield runner
    runner.delete_all()
    listed = systemctl("list-units", "--all", "--no-legend", "pyrun-*.scope", "test-*.scope")
    assert listed == "", listed


def systemctl(*argv: str) -> str:
    return subprocess.run(["systemctl", *argv], stdout=subprocess.PIPE, text=True, check=True).stdout


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    rows = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(row.split("=", 1) for row in rows)


def wait_gone(unit: str) -> None:
    wait_for(lambda: show(unit, "LoadState")["LoadState"] == "not-found", 20, f"{unit} to go")


def sleeping(bundle: BundleMaker, path: str | None = None, **limits: Any) -> Bundle:
    return bundle(["sleep", "1000"], linux={"cgroupsPath": path, "resources": limits})


@pytest.mark.parametrize(
    ("path", "cgroup"),
    [
        ("test.slice:pyrun:one", "test.slice/pyrun-one.scope"),
        ("test-a-b.slice:test:two", "test.slice/test-a.slice/test-a-b.slice/test-two.scope"),
        (":test:three", "system.slice/test-three.scope"),
        ("system.slice::test-four", "system.slice/test-four.scope"),
        ("-.slice:test:five", "test-five.scope"),
    ],
)
def test_slice_prefix_name(systemd: Runner, bundle: BundleMaker, path: str, cgroup: str) -> None:
    id = systemd.create_started(sleeping(bundle, path))
    assert Cgroup(systemd, id).path == CGROUP_ROOT / cgroup
    unit = cgroup.rpartition("/")[2]
    assert show(unit, "ControlGroup", "ActiveState") == {"ControlGroup": f"/{cgroup}", "ActiveState": "active"}
    systemd.delete(id, "--force").ok()
    wait_gone(unit)
    for slice in sorted((part for part in cgroup.split("/") if part.startswith("test") and "slice" in part), key=len):
        systemctl("stop", slice)


def test_without_a_path(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle))
    assert Cgroup(systemd, id).path == CGROUP_ROOT / "system.slice" / f"pyrun-{id}.scope"


@pytest.mark.parametrize("path", ["/absolute/path", "one:two", "a:b:c:d", "system.slice:test:"])
def test_a_path_of_another_form_is_refused(systemd: Runner, bundle: BundleMaker, path: str) -> None:
    systemd.run(sleeping(bundle, path)).fails(1, "/linux/cgroupsPath", "SLICE:PREFIX:NAME")
    assert systemd.ids() == []


def test_properties(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle, **LIMITS))
    unit = f"pyrun-{id}.scope"
    assert show(unit, *PROPERTIES) == PROPERTIES
    assert id in show(unit, "Description")["Description"]


def test_limits_outlive_a_reload(systemd: Runner, bundle: BundleMaker) -> None:
    """systemd writes what it knows again, so it must know what was asked for."""
    unified = {"memory.high": str(48 * MIB)}
    id = systemd.create_started(sleeping(bundle, **LIMITS, unified=unified))
    cgroup = Cgroup(systemd, id)
    files = ["memory.max", "memory.low", "memory.swap.max", "memory.high"]
    files += ["cpu.weight", "cpu.max", "cpuset.cpus", "pids.max", "io.weight"]
    before = {file: cgroup.read(file) for file in files}
    assert before["memory.high"] == str(48 * MIB) and before["pids.max"] == "33"
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", f"pyrun-{id}.scope", "IOAccounting=no")  # makes it write them again
    assert {file: cgroup.read(file) for file in files} == before


def test_update_changes_the_unit(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle, **LIMITS))
    unit, cgroup = f"pyrun-{id}.scope", Cgroup(systemd, id)
    systemd("update", "--memory", "80M", "--memory-swap", "80M", "--pids-limit", "44", "--cpu-quota", "20000", id).ok()
    changed = {"MemoryMax": str(80 * MIB), "TasksMax": "44", "CPUQuotaPerSecUSec": "200ms"}
    assert show(unit, *changed) == changed
    systemctl("daemon-reload")
    assert [cgroup.read(file) for file in ("memory.max", "pids.max", "cpu.max")] == [
        str(80 * MIB),
        "44",
        "20000 100000",
    ]


def test_a_failed_update_leaves_the_unit(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle, **LIMITS))
    unit, cgroup = f"pyrun-{id}.scope", Cgroup(systemd, id)
    change = {
        "memory": {"limit": 80 * MIB, "swap": 80 * MIB},
        "unified": {"cgroup.max.depth": "many", "memory.high": "9M"},
    }
    systemd("update", "--resources", "-", id, input=json.dumps(change)).fails(1, "cgroup.max.depth")
    assert show(unit, *PROPERTIES) == PROPERTIES
    assert show(unit, "MemoryHigh") == {"MemoryHigh": "infinity"}
    assert (cgroup.read("memory.max"), cgroup.read("memory.high")) == (str(64 * MIB), "max")


def test_idle_and_unified_outlive_a_reload(systemd: Runner, bundle: BundleMaker) -> None:
    unified = {"cpuset.cpus": "1", "cpu.max": "30000 60000", "memory.low": "1M"}
    id = systemd.create_started(sleeping(bundle, cpu={"idle": 1}, unified=unified))
    cgroup = Cgroup(systemd, id)
    wanted = {"cpu.idle": "1", "cpuset.cpus": "1", "cpu.max": "30000 60000", "memory.low": str(MIB)}
    assert {file: cgroup.read(file) for file in wanted} == wanted
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", f"pyrun-{id}.scope", "IOAccounting=no", "TasksMax=99")
    assert {file: cgroup.read(file) for file in wanted} == wanted
    systemd("update", "--resources", "-", id, input='{"cpu": {"idle": 0}}').ok()
    systemctl("set-property", "--runtime", f"pyrun-{id}.scope", "TasksMax=98")
    assert {file: cgroup.read(file) for file in wanted} == wanted | {"cpu.idle": "0"}


def test_properties_by_annotation(systemd: Runner, bundle: BundleMaker) -> None:
    given = {
        "TimeoutStopSec": "12", "CollectMode": "'inactive'", "MemoryHigh": f"uint64 {48 * MIB}", "SendSIGHUP": "true",
        "After": "['basic.target', \"sysinit.target\"]", "Description": "'a \\u00e4 container'",
    }  # fmt: skip
    made = sleeping(bundle, memory={"limit": 64 * MIB})
    made.update(annotations={f"org.systemd.property.{name}": value for name, value in given.items()})
    id = systemd.create_started(made)
    found = show(f"pyrun-{id}.scope", *given, "TimeoutStopUSec", "MemoryMax")
    assert {"basic.target", "sysinit.target"} <= set(found.pop("After").split())
    assert found == {
        "TimeoutStopUSec": "12s", "CollectMode": "inactive", "MemoryHigh": str(48 * MIB), "SendSIGHUP": "yes",
        "Description": "a ä container", "MemoryMax": str(64 * MIB),
    }  # fmt: skip
    assert Cgroup(systemd, id).number("memory.high") == 48 * MIB


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TasksMax", "uint64 -1", "out of the range"),
        ("TasksMax", "many", "quotes"),
        ("NoSuchThing", "true", "NoSuchThing"),
        ("MemoryHigh", "'much'", "MemoryHigh"),
        ("PIDs", "[uint32 1]", "pyrun's to set"),
    ],
)
def test_a_bad_annotation_names_its_place(
    systemd: Runner, bundle: BundleMaker, name: str, value: str, says: str
) -> None:
    made = sleeping(bundle, "system.slice:test:annotated")
    made.update(annotations={f"org.systemd.property.{name}": value})
    done = systemd("create", "--bundle", made.path, "annotated")
    done.fails(1, f"/annotations/org.systemd.property.{name}", says)
    assert systemd.ids() == []
    assert show("test-annotated.scope", "LoadState")["LoadState"] == "not-found"


def test_a_limit_holds(systemd: Runner, bundle: BundleMaker) -> None:
    made = bundle(allocate(64), linux=resources(memory={"limit": 16 * MIB}))
    assert systemd.run(made).rc == 137


def test_device_rules_outlive_a_reload(systemd: Runner, bundle: BundleMaker) -> None:
    rdev = os.stat("/dev/scratch").st_rdev
    device = {"path": "/dev/disk", "type": "b", "major": os.major(rdev), "minor": os.minor(rdev)}
    made = sleeping(bundle, devices=[{"allow": False, "access": "rwm"}])
    made.update(linux={"devices": [device]})
    id = systemd.create_started(made)
    read = ["dd", "if=/dev/disk", "of=/dev/null", "count=1"]
    assert "not permitted" in systemd.exec(id, *read).err
    systemctl("daemon-reload")
    assert "not permitted" in systemd.exec(id, *read).err
    systemctl("set-property", "--runtime", f"pyrun-{id}.scope", "DevicePolicy=closed", "DeviceAllow=/dev/scratch rwm")
    systemctl("set-property", "--runtime", f"pyrun-{id}.scope", "DevicePolicy=auto", "DeviceAllow=")
    assert "not permitted" in systemd.exec(id, *read).err
    systemd.exec(id, "dd", "if=/dev/zero", "of=/dev/null", "count=1").ok()


def test_the_container_owns_its_subtree(systemd: Runner, bundle: BundleMaker) -> None:
    """Delegation: what a process makes below the scope, systemd leaves alone."""
    id = systemd.create_started(sleeping(bundle))
    below = Cgroup(systemd, id).path / "below"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(systemd.pid(id)))
    systemctl("daemon-reload")
    assert Path(f"/proc/{systemd.pid(id)}/cgroup").read_text().strip().endswith("/below")
    systemd.delete(id, "--force").ok()
    assert not below.parent.exists()


def test_every_verb(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create(sleeping(bundle, pids={"limit": 20}))
    assert systemd.state(id)["status"] == "created"
    systemd("start", id).ok()
    systemd.exec(id, "sh", "-c", "cat /proc/self/cgroup").ok()
    systemd("pause", id).ok()
    assert systemd.state(id)["status"] == "paused"
    systemd("resume", id).ok()
    assert '"pids"' in systemd("events", "--stats", id).ok().out
    systemd("kill", id, "KILL").ok()
    systemd.wait_status(id, "stopped")
    systemd.delete(id).ok()


def test_the_same_name_again(systemd: Runner, bundle: BundleMaker) -> None:
    """After a container that ended well, one that could not start, and one that failed."""
    path = "system.slice:test:again"
    for args, rc in ((["true"], 0), (["/no/such"], 1), (["false"], 1), (["true"], 0)):
        made = bundle(args, linux={"cgroupsPath": path})
        assert systemd.run(made, id="again").rc == rc
        assert systemd.ids() == []


def test_a_failed_unit_of_the_same_name_is_reset(systemd: Runner, bundle: BundleMaker) -> None:
    words = ["--scope", "--quiet", "--unit=test-left.scope", "--property=RuntimeMaxSec=1", "sleep", "1000"]
    assert subprocess.run(["systemd-run", *words], check=False).returncode != 0
    wait_for(lambda: show("test-left.scope", "ActiveState")["ActiveState"] == "failed", 20, "the unit to fail")
    systemd.run(bundle(["true"], linux={"cgroupsPath": "system.slice:test:left"})).ok()


def test_a_name_that_runs_is_refused(systemd: Runner, bundle: BundleMaker) -> None:
    path = "system.slice:test:taken"
    id = systemd.create_started(sleeping(bundle, path))
    done = systemd("create", "--bundle", sleeping(bundle, path).path, "other")
    done.fails(1, "test-taken.scope")
    assert systemd.ids() == [id]
    assert systemd.state(id)["status"] == "running"


def test_a_failed_create_leaves_no_unit(systemd: Runner, bundle: BundleMaker) -> None:
    made = sleeping(bundle, "system.slice:test:failed")
    made.add_mount("/missing", "/no/such/source", "bind")
    systemd("create", "--bundle", made.path, "failed").fails(1, "/no/such/source")
    assert show("test-failed.scope", "LoadState")["LoadState"] == "not-found"


class HeldBus:
    """A way to the system's bus on which a call that names StartTransientUnit waits for `let_go`."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self.came, self.let_go = threading.Event(), threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.serving = Serving()
        self.serving.accept(self.listener, self._connected)

    def _connected(self, ours: socket.socket) -> None:
        bus = self.serving.hold(socket.socket(socket.AF_UNIX))
        bus.connect("/run/dbus/system_bus_socket")
        back = self.serving.run(self._hand_on, bus, ours)
        self._hand_on(ours, bus)
        back.join()  # the bus is not told that the caller has gone

    def _hand_on(self, source: socket.socket, to: socket.socket) -> None:
        seen = b""
        while data := source.recv(1 << 16):
            seen += data
            if b"StartTransientUnit" in seen:
                self.came.set()
                self.let_go.wait(120)
            to.sendall(data)

    def close(self) -> None:
        self.let_go.set()
        self.serving.end()


@pytest.mark.parametrize("userns", [False, True])
def test_a_create_that_is_killed_while_systemd_makes_the_unit(
    systemd: Runner, bundle: BundleMaker, tmp_path: Path, userns: bool
) -> None:
    """What systemd is to put into the unit has ended by then, and nobody has reaped it: systemd makes the unit, puts
    nothing in it, and never hears of an end."""
    made = sleeping(bundle, "system.slice:test:killed")
    if userns:
        made.add_namespace("user").update(linux={"uidMappings": IDS, "gidMappings": IDS})
    bus = HeldBus(tmp_path / "bus")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0  # or process 1 reaps what we kill create for
    try:
        env = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        with systemd.popen("create", "--bundle", made.path, "killed", env=env) as create:
            assert bus.came.wait(60)
            (child,) = map(int, Path(f"/proc/{create.pid}/task/{create.pid}/children").read_text().split())
            create.kill()
        wait_for(lambda: ") Z " in Path(f"/proc/{child}/stat").read_text(), 60, "its process to end")
        bus.let_go.set()
        state = {"ActiveState": "active", "SubState": "running"}
        wait_for(lambda: show("test-killed.scope", *state) == state, 60, "the unit")
        os.waitpid(child, 0)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        bus.close()
    assert (CGROUP_ROOT / "system.slice" / "test-killed.scope" / "cgroup.procs").read_text() == ""
    systemd.delete("killed", "--force").ok()
    wait_gone("test-killed.scope")
    assert systemd.ids() == []
    systemd.run(bundle(["true"], linux={"cgroupsPath": "system.slice:test:killed"}), id="killed").ok()


def test_no_bus_is_a_clear_error(systemd: Runner, bundle: BundleMaker) -> None:
    env = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/no/such/bus"}
    done = systemd("create", "--bundle", sleeping(bundle).path, "nobus", env=env)
    done.fails(1, "--systemd-cgroup", "D-Bus")
    assert systemd.ids() == []


# --- events, and what others do to the unit ---------------------------------------------------------------------------


def test_events_tell_of_kills_for_want_of_memory(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle, memory={"limit": 16 * MIB}))
    told = systemd.popen("events", "--interval", "1h", id, stdout=subprocess.PIPE)

    def watches() -> bool:
        return any("memory.events" in name for name in open_files(told.pid).values())

    wait_for(watches, 60, "events to watch")
    assert systemd.exec(id, *allocate(64)).rc == 137
    assert told.stdout is not None
    assert json.loads(told.stdout.readline()) == {"type": "oom", "id": id}
    systemd("kill", id, "KILL").ok()
    assert told.wait(20) == 0
    told.stdout.close()


def test_statistics_of_a_scope(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle, memory={"limit": 64 * MIB}, pids={"limit": 9}))
    data = json.loads(systemd("events", "--stats", id).ok().out)["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["pids"] == {"current": 1, "limit": 9}
    assert data["cpu"]["usage"]["total"] > 0


def test_nothing_is_left_of_a_container_that_nobody_deletes(systemd: Runner, bundle: BundleMaker) -> None:
    """Whether it ended well, failed, or was killed for want of memory."""
    for args in (["true"], ["false"], allocate(64)):
        id = systemd.create_started(bundle(args, linux=resources(memory={"limit": 16 * MIB})))
        unit, path = f"pyrun-{id}.scope", CGROUP_ROOT / "system.slice" / f"pyrun-{id}.scope"
        systemd.wait_status(id, "stopped", 60)
        wait_gone(unit)
        assert not path.exists()
        systemd.delete(id).ok()


def test_stopped_by_systemctl(systemd: Runner, bundle: BundleMaker) -> None:
    id = systemd.create_started(sleeping(bundle))
    unit = f"pyrun-{id}.scope"
    systemctl("stop", unit)
    assert systemd.state(id)["status"] == "stopped"
    assert show(unit, "LoadState")["LoadState"] == "not-found"
    systemd.exec(id, "true").fails(1, "not running")
    systemd("update", "--pids-limit", "5", id).fails(1, "not running")
    systemd("kill", id, "KILL").fails(1, "not running")
    systemd.delete(id).ok()
    assert systemd.ids() == []


def test_kill_all_reaches_the_whole_scope(systemd: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "sleep 1000 & sleep 1000 & wait"])
    made.config["linux"]["namespaces"] = [n for n in made.config["linux"]["namespaces"] if n["type"] != "pid"]
    id = systemd.create_started(made)
    cgroup = Cgroup(systemd, id)
    wait_for(lambda: len(cgroup.read("cgroup.procs").split()) == 3, 20, "all to run")
    systemd("kill", "--all", id, "KILL").ok()
    wait_for(lambda: not cgroup.path.exists(), 20, "the scope to go")
    systemd.delete(id).ok()


# --- without root -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def user() -> Iterator[pwd.struct_passwd]:
    """A user with a manager of its own."""
    entry = pwd.getpwnam("user")
    subprocess.run(["loginctl", "enable-linger", entry.pw_name], check=True)
    wait_for(lambda: Path(f"/run/user/{entry.pw_uid}/bus").exists(), 60, "the user's bus")
    yield entry
    subprocess.run(["loginctl", "disable-linger", entry.pw_name], check=True)
    systemctl("stop", f"user@{entry.pw_uid}.service")


@pytest.fixture
def rootless(tmp_path: Path, user: pwd.struct_passwd) -> Iterator[Runner]:
    """pyrun --systemd-cgroup as that user."""
    yield from run_as(user, tmp_path, [*runtime_argv(), "--systemd-cgroup"])


@pytest.fixture
def delegated(tmp_path: Path, user: pwd.struct_passwd) -> Iterator[Runner]:
    """pyrun as that user, without the option but in a scope that was delegated to it."""
    scope = ["systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes"]
    yield from run_as(user, tmp_path, [*scope, *runtime_argv()])


def run_as(user: pwd.struct_passwd, tmp_path: Path, command: list[str]) -> Iterator[Runner]:
    home = Path(user.pw_dir) / tmp_path.name
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    runtime = f"/run/user/{user.pw_uid}"
    env = ["env", f"XDG_RUNTIME_DIR={runtime}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"]
    runner = Runner(home / "state", ["runuser", "-u", user.pw_name, "--", *env, *command])
    yield runner
    runner.delete_all()
    subprocess.run(["rm", "-rf", home], check=True)


def rootless_bundle(rootless: Runner, rootfs: Path, args: list[str], **linux: object) -> Bundle:
    """A bundle for that user: its id and its subordinate ids are the container's."""
    config = make_config(args, linux=linux, process={"rlimits": None})
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65535},
        ]
    made = make_bundle(rootless.root.parent / "bundle", config, rootfs)
    subprocess.run(["chown", "-R", "user:user", made.path], check=True)
    return made


def test_rootless_scope(rootless: Runner, busybox_rootfs: Path) -> None:
    made = rootless_bundle(rootless, busybox_rootfs, ["sleep", "1000"], **resources(memory={"limit": 32 * MIB}))
    id = rootless.create_started(made)
    cgroup = Cgroup(rootless, id)
    manager = CGROUP_ROOT / "user.slice" / "user-1000.slice" / "user@1000.service"
    assert cgroup.path == manager / "user.slice" / f"pyrun-{id}.scope"
    assert cgroup.number("memory.max") == 32 * MIB
    assert rootless.exec(id, "id", "-u").ok().out == "0\n"
    rootless("update", "--memory", "64M", id).ok()
    assert cgroup.number("memory.max") == 64 * MIB
    rootless("pause", id).ok()
    rootless("resume", id).ok()
    rootless("kill", id, "KILL").ok()
    rootless.wait_status(id, "stopped")
    rootless.delete(id).ok()
    assert not cgroup.path.exists()


def test_rootless_exec_is_in_the_scope(rootless: Runner, busybox_rootfs: Path) -> None:
    made = rootless_bundle(rootless, busybox_rootfs, ["sleep", "1000"], **resources(memory={"limit": 16 * MIB}))
    id = rootless.create_started(made)
    assert rootless.exec(id, *allocate(64)).rc == 137
    assert rootless.exec(id, "cat", "/proc/self/cgroup").ok().out == "0::/\n"
    inside = Cgroup(rootless, id).path / "below"
    subprocess.run(["runuser", "-u", "user", "--", "mkdir", inside], check=True)
    done = rootless.exec(id, "cat", "/proc/self/cgroup", options=["--cgroup", "below"])
    assert done.ok().out == "0::/below\n"


def test_rootless_exec_outside_of_the_limits_is_refused(rootless: Runner, busybox_rootfs: Path) -> None:
    """Without the user's manager nobody can move the process; where nothing is limited it may run where it is."""
    made = rootless_bundle(rootless, busybox_rootfs, ["sleep", "1000"], **resources(memory={"limit": 16 * MIB}))
    id = rootless.create_started(made)
    at = rootless.argv.index(runtime_argv()[0])
    no_bus = ["env", "DBUS_SESSION_BUS_ADDRESS=unix:path=/no/such/bus"]
    outside = Runner(rootless.root, [*rootless.argv[:at], *no_bus, *rootless.argv[at:]])
    outside.exec(id, "true").fails(1, "D-Bus", "limits would not hold")
    assert Cgroup(rootless, id).read("cgroup.procs").split() == [str(rootless.pid(id))]
    rootless("update", "--memory", "-1", id).ok()
    outside.exec(id, "true").ok()


def test_rootless_limits_hold(rootless: Runner, busybox_rootfs: Path) -> None:
    made = rootless_bundle(rootless, busybox_rootfs, allocate(64), **resources(memory={"limit": 16 * MIB}))
    assert rootless.run(made).rc == 137


def test_limits_in_a_delegated_scope(delegated: Runner, busybox_rootfs: Path) -> None:
    made = rootless_bundle(delegated, busybox_rootfs, ["sleep", "1000"], **resources(memory={"limit": 16 * MIB}))
    id = delegated.create_started(made)
    assert "/user@1000.service/" in str(Cgroup(delegated, id).path)
    assert delegated.exec(id, *allocate(64)).rc == 137
    delegated("update", "--memory", "128M", id).ok()
    delegated.exec(id, *allocate(64)).ok()


def test_a_limit_that_was_not_delegated_names_the_controller(rootless: Runner, busybox_rootfs: Path) -> None:
    made = rootless_bundle(
        rootless, busybox_rootfs, ["true"], **resources(hugepageLimits=[{"pageSize": "2MB", "limit": 0}])
    )
    rootless.run(made).fails(1, "+hugetlb", "a controller is not available there")
    assert rootless.ids() == []
