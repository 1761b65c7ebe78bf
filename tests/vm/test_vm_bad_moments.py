"""What goes wrong around pyrun, and takes a kernel and a systemd of our own to show: limits on pyrun itself, disks that
fill up, systemd that is stopped, a clock that goes back. tests/host/test_bad_moments.py has what any machine shows.

Each is an error by the grammar with a way out; nothing is left, and what was there before lives on.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker, make_bundle, make_config
from tests.support.container.disk import unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.place import WAYS, Place, attempt, refused, refuses_all, stopped
from tests.support.container.runner import Result, Runner, runtime_argv, wait_for
from tests.support.vm.cgroup import MIB, resources

SCRATCH = "/dev/scratch"
INTO = 'echo $$ >{cgroup}/cgroup.procs; exec "$@"'
PATIENCE_S = 100.0


@pytest.fixture(params=WAYS)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path / "state", WAYS[request.param]())
    yield made
    made.here().delete_all()


@pytest.fixture
def limited() -> Iterator[Path]:
    """/bad, which a test limits, and /bad/own in it for pyrun itself. Containers are put into /bad or /good."""
    bad, good = CGROUP_ROOT / "bad", CGROUP_ROOT / "good"
    good.mkdir()
    (bad / "own").mkdir(parents=True)
    (bad / "cgroup.subtree_control").write_text("+pids +memory")
    yield bad
    for directory in (bad / "own", bad, good):
        wait_for(partial(gone, directory), 10, f"{directory} to be empty")


def gone(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True


def inside(cgroup: Path, runner: Runner, **files: int) -> Runner:
    """The runner, its commands in this cgroup, whose files get these values."""
    for name, value in files.items():
        (cgroup / name.replace("_", ".", 1)).write_text(f"{value}\n")
    return Runner(runner.root, ["sh", "-c", INTO.format(cgroup=cgroup), "sh", *runner.argv])


def sleeping(bundle: BundleMaker, **overrides: Any) -> Bundle:
    made = bundle(["sleep", "1000"], **overrides)
    return made


# --- limits on pyrun itself -------------------------------------------------------------------------------------------


def test_no_more_processes_for_the_container(limited: Path, place: Place, bundle: BundleMaker) -> None:
    """pids.max above the container's cgroup, in which only its init is."""
    made = sleeping(bundle, linux={"cgroupsPath": "/bad/new"})
    runner = place.here()
    failed: list[int] = []
    for most in range(4):
        (limited / "pids.max").write_text(f"{most}\n")
        done = attempt(runner, "create", "--bundle", made.path, "new")
        if done.rc == 0:
            assert most == len(failed)
            runner("start", "new").ok()
            assert runner.state("new")["status"] == "running"
            runner.delete("new", "--force").ok()
            break
        failed.append(most)
        refused(done, "EAGAIN", "a pids limit")
        assert runner.ids() == []
        assert not (limited / "new").exists()
    assert failed == [0]


def test_no_more_processes_for_pyrun(limited: Path, place: Place, bundle: BundleMaker) -> None:
    """With pids.max of one in its own cgroup pyrun can't make stage 1; two do for everything, hooks among it."""
    plain = sleeping(bundle, linux={"cgroupsPath": "/good/new"})
    hook = {"path": "/bin/true"}
    hooked = sleeping(bundle, linux={"cgroupsPath": "/good/new"}, hooks={"createRuntime": [hook]})
    refuses_all(inside(limited / "own", place.here(), pids_max=1), plain, "EAGAIN", "a pids limit")
    runner = inside(limited / "own", place.here(), pids_max=2)
    attempt(runner, "create", "--bundle", plain.path, "new").ok()
    for verb in ("start", "pause", "resume", "state"):
        runner(verb, "new").ok()
    attempt(runner, "exec", "new", "true").ok()
    runner.delete("new", "--force").ok()
    attempt(runner, "create", "--bundle", hooked.path, "new").ok()
    runner.delete("new", "--force").ok()


def test_pyrun_runs_out_of_memory(limited: Path, place: Place, bundle: BundleMaker) -> None:
    """Killed by the OOM killer wherever that may be; `delete --force` clears what is left, for another try."""
    made = sleeping(bundle, linux={"cgroupsPath": "/good/new"})
    here, killed = place.here(), 0
    for kib in (64, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048, 3072, 4096, 5120, 6144, 8192, 65536):
        runner = inside(limited / "own", here, memory_max=kib << 10)
        (limited / "own" / "memory.swap.max").write_text("0\n")
        done = attempt(runner, "create", "--bundle", made.path, "new")
        assert "Traceback" not in done.err, done.describe()
        if done.rc in (-9, 137):
            killed += 1
        elif done.rc:
            refused(done, "memory")
        here.delete("new", "--force").ok()
        assert here.ids() == []
    assert done.rc == 0, done.describe()
    assert killed


# --- full disks -------------------------------------------------------------------------------------------------------


@contextmanager
def small_ext4(place: Place, path: Path, *options: str) -> Iterator[Runner]:
    """pyrun with its state on a file system of a MiB, in blocks of 1 KiB."""
    mkfs = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", "-O", "^has_journal", *options]
    subprocess.run([*mkfs, SCRATCH, "1M"], check=True)
    path.mkdir()
    subprocess.run(["mount", SCRATCH, path], check=True)
    (path / "lost+found").rmdir()
    runner = place.here(path)
    try:
        yield runner
    finally:
        runner.delete_all()
        unmount(path)


def leave(directory: Path, kib: int) -> None:
    """Fills the file system but for some KiB."""
    filler, size = directory / ".filler", 0
    filler.unlink(missing_ok=True)
    with open(filler, "wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left"):
            while True:
                size += file.write(bytes(1024))
        file.truncate(size - (kib << 10))


def test_ext4_fills_up(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """At whatever write: for the directory, the record, config.json. What is there stays."""
    made, failed = sleeping(bundle), []
    with small_ext4(place, tmp_path / "disk") as runner:
        runner.create_started(made, id="one")
        for kib in range(0, 40, 2):
            leave(runner.root, kib)
            done = attempt(runner, "create", "--bundle", made.path, "new")
            if done.rc == 0:
                runner.delete("new", "--force").ok()
            else:
                failed.append(kib)
                refused(done, "ENOSPC no space left on device", "disk of --root is full")
            assert runner.ids() == ["one"], kib
        assert failed == list(range(0, 2 * len(failed), 2)), failed
        assert len(failed) > 2
        assert runner.state("one")["status"] == "running"
        leave(runner.root, 0)
        runner.exec("one", "true").ok()
        runner.delete("one", "--force").ok()


def test_ext4_without_inodes(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """For each of the files in turn."""
    made, failed = sleeping(bundle), 0
    with small_ext4(place, tmp_path / "disk", "-N", "32") as runner:
        for free in range(8):
            fillers = os.statvfs(runner.root).f_ffree - free
            names = [runner.root / f".filler{number}" for number in range(fillers)]
            for name in names:
                name.touch()
            done = attempt(runner, "create", "--bundle", made.path, "new")
            if done.rc == 0:
                runner.delete("new", "--force").ok()
            else:
                failed += 1
                refused(done, "ENOSPC")
            for name in names:
                name.unlink()
            assert runner.ids() == [], free
    assert 4 <= failed < 8


def test_run_is_read_only(place: Place, bundle: BundleMaker) -> None:
    where = place.where("mount -o remount,bind,ro /run", Path("/run/bad"))
    refuses_all(where, sleeping(bundle), "/run/bad", "read-only file system", "--root")


def test_no_tmp(bundle: BundleMaker) -> None:
    """Nothing of pyrun's is there."""
    place = Place(Path("/run/no-tmp/state"), runtime_argv())
    made = make_bundle(Path("/run/no-tmp/bundle"), make_config(["true"]), bundle().rootfs)
    place.where("mount -t tmpfs -o ro,mode=000 tmpfs /tmp; mount --rbind /tmp /var/tmp").run(made).ok()
    subprocess.run(["rm", "-r", "/run/no-tmp"], check=True)


# --- cgroups ----------------------------------------------------------------------------------------------------------


def test_only_cgroup_v1(place: Place, bundle: BundleMaker) -> None:
    setup = "umount -l /sys/fs/cgroup; mount -t cgroup -o none,name=old cgroup /sys/fs/cgroup"
    refuses_all(place.where(setup), sleeping(bundle), "no cgroup2 hierarchy is mounted", "mount -t cgroup2")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory of the user's."""
    entry = pwd.getpwnam("user")
    path = Path(entry.pw_dir) / tmp_path.name
    path.mkdir()
    os.chown(path, entry.pw_uid, entry.pw_gid)
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def rootless_bundle(home: Path, rootfs: Path, **linux: object) -> Bundle:
    config = make_config(["sleep", "1000"], linux=linux, process={"rlimits": None})
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    made = make_bundle(home / f"bundle{len(list(home.iterdir()))}", config, rootfs)
    subprocess.run(["chown", "-R", "user:user", made.path], check=True)
    return made


def as_user(home: Path, *options: str, env: tuple[str, ...] = ("-u", "XDG_RUNTIME_DIR")) -> Runner:
    return Runner(home / "state", ["runuser", "-u", "user", "--", "env", *env, *runtime_argv(), *options])


def test_a_user_without_a_manager(home: Path, busybox_rootfs: Path) -> None:
    """No cgroup is the user's: a container goes without one, and a limit or a scope is refused."""
    runner, plain = as_user(home), rootless_bundle(home, busybox_rootfs)
    limits = rootless_bundle(home, busybox_rootfs, **resources(memory={"limit": 32 * MIB}))
    attempt(runner, "run", "--detach", "--bundle", plain.path, "one").ok()
    assert runner.state("one")["status"] == "running"
    runner.delete("one", "--force").ok()
    refuses_all(runner, limits, "/linux/cgroupsPath", "systemd-run --user --scope -p Delegate=yes")
    scoped = as_user(home, "--systemd-cgroup")
    refuses_all(scoped, plain, "--systemd-cgroup: no connection to the user's D-Bus")
    assert runner.ids() == []


def test_a_controller_that_is_not_handed_on(home: Path, busybox_rootfs: Path) -> None:
    """A cgroup that was given to the user, below one that hands no controllers on."""
    given = CGROUP_ROOT / "given"
    (given / "own").mkdir(parents=True)
    for path in (given, given / "own", *given.glob("cgroup.*"), *given.glob("own/cgroup.*")):
        os.chown(path, 1000, 1000)
    try:
        limits = rootless_bundle(
            home,
            busybox_rootfs,
            cgroupsPath="/given/new",
            **resources(hugepageLimits=[{"pageSize": "2MB", "limit": 0}]),
        )
        user = as_user(home)
        runner = Runner(user.root, ["sh", "-c", INTO.format(cgroup=given / "own"), "sh", *user.argv])
        refuses_all(runner, limits, "hugetlb", "a controller is not available there")
        assert [path.name for path in given.iterdir() if path.is_dir()] == ["own"]
    finally:
        for path in (given / "own", given):
            path.rmdir()


# --- systemd that does not answer -------------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Runner]:
    """pyrun --systemd-cgroup. No scope may stay."""
    runner = Runner(tmp_path / "state", [*runtime_argv(), "--systemd-cgroup"])
    yield runner
    runner.delete_all()
    assert scopes() == ""


def systemctl(*argv: str) -> str:
    return subprocess.run(["systemctl", *argv], stdout=subprocess.PIPE, text=True, check=True).stdout


def scopes(*options: str) -> str:
    return systemctl(*options, "list-units", "--all", "--no-legend", "pyrun-*.scope")


def pid_of(unit: str) -> int:
    """Its main process."""
    systemctl("start", unit)
    pid = int(systemctl("show", "--property=MainPID", "--value", unit))
    assert pid > 1
    return pid


def test_the_bus_stands_still(systemd: Runner, bundle: BundleMaker) -> None:
    """A create ends in a time that a person waits for, and nothing comes of it when the bus goes on."""
    made = sleeping(bundle)
    with stopped(pid_of("dbus.service")):
        begin = time.monotonic()
        done = systemd("create", "--bundle", made.path, "new", timeout=PATIENCE_S)
        took = time.monotonic() - begin
    refused(done, "--systemd-cgroup: systemd does not answer: timed out")
    assert 20 < took < 60, took
    assert systemd.ids() == []
    time.sleep(1)
    assert scopes() == ""
    systemd.create_started(made, id="new")


def test_what_runs_needs_no_bus(systemd: Runner, bundle: BundleMaker) -> None:
    """All but a delete does without; that one waits, warns unless systemd was quicker, and removes the container."""
    systemd.create_started(sleeping(bundle), id="one")
    with stopped(pid_of("dbus.service")):
        systemd.exec("one", "true").ok()
        systemd("pause", "one").ok()
        systemd("resume", "one").ok()
        assert systemd.state("one")["status"] == "running"
        done = systemd("delete", "--force", "one", timeout=PATIENCE_S).ok()
        assert done.err == "" or "warning: --systemd-cgroup: systemd does not answer" in done.err
        assert systemd.ids() == []
    wait_for(lambda: scopes() == "", 10, "the unit to go")


@pytest.mark.parametrize("setup", ["rm", "tmpfs"])
def test_no_socket_of_the_bus(systemd: Runner, bundle: BundleMaker, setup: str) -> None:
    systemd.create_started(sleeping(bundle), id="one")
    script = {"rm": "mount --bind /dev/null /run/dbus/system_bus_socket", "tmpfs": "mount -t tmpfs tmpfs /run/dbus"}
    where = Place(systemd.root, systemd.argv).where(script[setup])
    refuses_all(where, sleeping(bundle), "--systemd-cgroup: no connection to the system's D-Bus")
    where("delete", "--force", "one").ok()
    wait_for(lambda: scopes() == "", 10, "the unit to go")


def test_paused_in_a_scope(systemd: Runner, bundle: BundleMaker) -> None:
    systemd.create_started(sleeping(bundle), id="one")
    systemd("pause", "one").ok()
    systemd.delete("one", "--force").ok()
    assert scopes() == ""


@pytest.fixture
def manager() -> Iterator[int]:
    """The pid of a user's manager."""
    subprocess.run(["loginctl", "enable-linger", "user"], check=True)
    wait_for(Path("/run/user/1000/bus").exists, 60, "the user's bus")
    yield pid_of("user@1000.service")
    subprocess.run(["loginctl", "disable-linger", "user"], check=True)
    systemctl("stop", "user@1000.service")
    wait_for(lambda: not Path("/sys/fs/cgroup/user.slice/user-1000.slice").exists(), 60, "the user's slice to go")


ENV = ("XDG_RUNTIME_DIR=/run/user/1000", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus")


def user_scopes() -> str:
    listing = ["systemctl", "--user", "list-units", "--all", "--no-legend", "pyrun-*.scope"]
    return subprocess.run(
        ["runuser", "-u", "user", "--", "env", *ENV, *listing], stdout=-1, text=True, check=True
    ).stdout


def create_while_it_stands_still(runner: Runner, made: Bundle, manager: int) -> Result:
    """It has said where its cgroup is, and is to make the scope."""
    command = runner.command("create", "--bundle", made.path, "new")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        wait_for((runner.root / "new").exists, 30, "the state directory")
        with stopped(manager):
            rc = process.wait(PATIENCE_S)
        errors.seek(0)
        return Result(tuple(command), rc, "", errors.read().decode())


def test_a_users_manager_stands_still(home: Path, busybox_rootfs: Path, manager: int) -> None:
    runner, made = as_user(home, "--systemd-cgroup", env=ENV), rootless_bundle(home, busybox_rootfs)
    for _ in range(5):
        done = create_while_it_stands_still(runner, made, manager)
        if done.rc:
            break
        runner.delete("new", "--force").ok()  # it was quicker than we
    refused(done, "--systemd-cgroup: systemd d")  # does not answer, or did not make it
    assert runner.ids() == []
    time.sleep(1)
    assert user_scopes() == ""
    attempt(runner, "create", "--bundle", made.path, "new").ok()
    runner.delete("new", "--force").ok()


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Iterator[None]:
    """Puts the clock right again."""
    begin, wall = time.monotonic(), time.time()
    yield
    time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - begin)


def test_the_clock_goes_back(place: Place, bundle: BundleMaker, clock: None) -> None:
    """What runs is still the same, and what was planned may be planned again."""
    runner, made = place.here(), sleeping(bundle)
    runner.create_started(made, id="one")
    time.clock_settime(time.CLOCK_REALTIME, time.time() - 86400)
    assert runner.state("one")["status"] == "running"
    runner.create_started(made, id="two")
    young = bundle(["sleep", "1000"])
    os.utime(young.path / "config.json", (time.time() + 86400, time.time() + 86400))
    runner.create_started(young, id="three")
    assert runner("list", "--quiet").ok().out.split() == ["one", "three", "two"]
    runner.exec("one", "true").ok()
    for id in ("one", "two", "three"):
        runner.delete(id, "--force").ok()
