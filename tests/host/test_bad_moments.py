"""What goes wrong around pyrun, and not in it: full and read-only disks, no cgroup2, half a /proc, tiny limits, who
does not answer. Each is an error by the grammar with a way out; nothing is left, and what was there before lives on.

Surroundings are made in a mount namespace of one command, by `unshare`. Each case runs by the launcher and by Python.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker, make_bundle, make_config
from tests.support.container.disk import remount, unmount
from tests.support.container.place import (
    GRAMMAR,
    UNSHARE,
    WAYS,
    Place,
    attempt,
    fill,
    limited,
    refused,
    refuses_all,
    stopped,
)
from tests.support.container.runner import REPO, Result, Runner, python_argv, wait_for

NOBODY = 65534
PID_NAMESPACE = [*UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc"]
HALF_PROC = "mount -t proc -o subset=pid proc /proc"
NO_PROC = {"unmounted": "umount -l /proc", "tmpfs": "mount -t tmpfs tmpfs /proc", "subset": HALF_PROC}
PROC_GRAMMAR = re.compile(r"pyrun: ([a-z]+ \S+: )?/proc.+\n  hint: .+\n")


@pytest.fixture(params=WAYS)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path / "state", WAYS[request.param]())
    yield made
    made.here().delete_all()


@pytest.fixture
def small_disk(tmp_path: Path, place: Place) -> Iterator[Path]:
    """A tmpfs of 128 KiB, for the containers' state."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", path], check=True)
    yield path
    for root in (path, path / "state"):
        for id in [name for name in place.here(root).ids() if name != "state"]:
            place.here(root).delete(id, "--force")
    unmount(path)


def sleeping(bundle: BundleMaker, **overrides: Any) -> Bundle:
    return bundle(["sleep", "1000"], **overrides)


# --- file systems that are missing, read-only, or something else --------------------------------------------------


@pytest.mark.parametrize("directory", ["/mnt/pyrun", "/run/pyrun"])
def test_state_directory_is_read_only(place: Place, bundle: BundleMaker, directory: str) -> None:
    where = place.where(f"mount -t tmpfs -o ro tmpfs {os.path.dirname(directory)}", Path(directory))
    made = sleeping(bundle)
    for verb in ("create", "run"):
        done = subprocess.run(where.command(verb, "-b", made.path, "new"), capture_output=True, text=True, check=False)
        refused(
            Result((verb,), done.returncode, done.stdout, done.stderr), directory, "read-only file system", "--root"
        )


def test_state_directory_becomes_read_only(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    """What can be done without writing still can; a delete says why not, and goes once it can."""
    runner = place.here(small_disk)
    runner.create_started(sleeping(bundle), id="one")
    remount(small_disk, "ro")  # which nobody may hinder who has a file open there for writing: the start is over
    assert runner.state("one")["status"] == "running"
    assert runner.exec("one", "echo", "hi").ok().out == "hi\n"
    refused(attempt(runner, "create", "--bundle", bundle().path, "two"), "read-only file system")
    runner("kill", "one", "KILL").ok()
    runner.wait_status("one", "stopped")
    refused(runner.delete("one"), "EROFS")
    assert runner.state("one")["status"] == "stopped"
    remount(small_disk, "rw")
    runner.delete("one").ok()


@pytest.mark.parametrize(
    "setup",
    [
        "umount -l /sys/fs/cgroup",
        "mount -t tmpfs tmpfs /sys/fs/cgroup",
        "umount -l -R /sys",
        "mount -t tmpfs tmpfs /sys",
    ],
)
def test_no_cgroup2(place: Place, bundle: BundleMaker, setup: str) -> None:
    refuses_all(place.where(setup), sleeping(bundle), "no cgroup2 hierarchy is mounted", "mount -t cgroup2")


def test_cgroup2_is_read_only(place: Place, bundle: BundleMaker) -> None:
    where = place.where("mount -o remount,bind,ro /sys/fs/cgroup")
    refuses_all(where, sleeping(bundle), "EROFS", "/linux/cgroupsPath", "cgroup file system is read-only")


def test_cgroup2_without_delegation(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """Without root and in a cgroup that is root's, a container goes without one of its own; a limit is refused."""
    made = rootless_bundle(tmp_path, bundle)
    runner = as_nobody(place, made)
    attempt(runner, "run", "--bundle", made.path, "--detach", "one").ok()
    assert runner.state("one")["status"] == "running"
    runner.delete("one", "--force").ok()
    made.update(linux={"resources": {"unified": {"cgroup.max.depth": "3"}}})
    refuses_all(runner, made, "/linux/cgroupsPath", "systemd-run --user --scope -p Delegate=yes")


@pytest.mark.parametrize("setup", NO_PROC.values(), ids=NO_PROC)
def test_no_proc(place: Place, bundle: BundleMaker, setup: str) -> None:
    refuses_all(place.where(setup), sleeping(bundle), "/proc", "mount -t proc", grammar=PROC_GRAMMAR)


@pytest.mark.parametrize("setup", NO_PROC.values(), ids=NO_PROC)
def test_without_proc_a_container_that_runs_is_not_taken_for_stopped(
    place: Place, bundle: BundleMaker, setup: str
) -> None:
    here, where = place.here(), place.where(setup)
    here.create_started(sleeping(bundle), id="one")
    pid = here.pid("one")
    for argv in (["state"], ["delete"], ["delete", "--force"], ["kill"], ["pause"], ["start"]):
        refused(where(*argv, "one"), "/proc", "mount -t proc", grammar=PROC_GRAMMAR)
    assert here.state("one")["status"] == "running"
    assert here.pid("one") == pid


def test_hidepid(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """Root sees everything all the same; another user is told."""
    setup = "mount -t proc -o hidepid=2 proc /proc"
    where = place.where(setup)
    attempt(where, "create", "--bundle", sleeping(bundle).path, "one").ok()
    assert where.state("one")["status"] == "created"
    where("start", "one").ok()
    where.exec("one", "true").ok()
    where.delete("one", "--force").ok()
    made = rootless_bundle(tmp_path, bundle)
    runner = as_nobody(place, made, setup)
    refused(attempt(runner, "create", "--bundle", made.path, "two"), "hidepid=")
    assert runner.ids() == []


# --- full disks ---------------------------------------------------------------------------------------------------


def test_full_disk_refuses_new_containers(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    runner, made = place.here(small_disk / "state"), sleeping(bundle)
    runner.root.mkdir(mode=0o700)
    fill(small_disk)
    refuses_all(runner, made, "ENOSPC no space left on device", "--root is full")
    (small_disk / ".filler").unlink()
    attempt(runner, "create", "--bundle", made.path, "new").ok()
    runner.delete("new", "--force").ok()


def test_no_inodes_left(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    """Wherever they run out: for the directory, the record, the FIFOs."""
    made = sleeping(bundle)
    for inodes in (2, 3, 4, 5, 6):
        remount(small_disk, f"nr_inodes={inodes}")
        done = attempt(place.here(small_disk), "create", "--bundle", made.path, "new")
        if done.rc == 0:  # the root, the directory, two files, two FIFOs
            assert inodes == 6, inodes
            place.here(small_disk).delete("new", "--force").ok()
        else:
            refused(done, "ENOSPC")
        assert place.here(small_disk).ids() == []


def test_full_disk_leaves_old_containers_alone(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    runner, made = place.here(small_disk), sleeping(bundle)
    runner.create_started(made, id="one")
    runner.create(made, id="two")
    fill(small_disk)
    assert runner.state("one")["status"] == "running"
    runner("start", "two").ok()
    assert runner.exec("one", "echo", "hi").ok().out == "hi\n"
    for verb in ("pause", "resume", "ps"):
        runner(verb, "one").ok()
    listed = runner("list", "--quiet").ok()
    assert listed.out.split() == ["one", "two"]
    runner("kill", "one", "KILL").ok()
    runner.wait_status("one", "stopped")
    runner.delete("one").ok()
    runner.delete("two", "--force").ok()
    assert runner.ids() == []


def test_full_disk_stops_an_update_before_it_changes_anything(
    place: Place, bundle: BundleMaker, small_disk: Path
) -> None:
    runner = place.here(small_disk)
    runner.create_started(sleeping(bundle), id="one")
    limit = next(Path("/sys/fs/cgroup").glob("**/one/cgroup.max.descendants"))
    change = '{"unified": {"cgroup.max.descendants": "7"}}'
    before = limit.read_text()
    stored = (small_disk / "one" / "config.json").read_bytes()
    files = sorted(os.listdir(small_disk / "one"))
    fill(small_disk)
    refused(runner("update", "--resources", "-", "one", input=change), "no space left", "no limit has been changed")
    assert limit.read_text() == before
    assert (small_disk / "one" / "config.json").read_bytes() == stored
    assert sorted(os.listdir(small_disk / "one")) == files
    (small_disk / ".filler").unlink()
    runner("update", "--resources", "-", "one", input=change).ok()
    assert limit.read_text() == "7\n"
    runner.delete("one", "--force").ok()


def test_pid_file_on_a_full_disk(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    runner = place.here()
    fill(small_disk)
    file = small_disk / "pid"
    for verb in ("create", "run"):
        done = attempt(runner, verb, "--bundle", sleeping(bundle).path, "--pid-file", file, "new")
        refused(done, "ENOSPC", "--pid-file is full")
    runner.create_started(sleeping(bundle), id="one")
    refused(runner("exec", "--detach", "--pid-file", file, "one", "sleep", "1000"), "ENOSPC", "--pid-file is full")
    assert runner("ps", "one").ok().out.count("sleep") == 1
    assert os.listdir(small_disk) == [".filler"]


def test_log_on_a_full_disk(place: Place, bundle: BundleMaker, small_disk: Path) -> None:
    """The error is on stderr all the same, and what succeeds is no worse for it."""
    fill(small_disk)
    runner = place.here()
    refused(runner("--log", small_disk / "log", "state", "none"), "container does not exist")
    assert runner("--log", small_disk / "log", "run", "--bundle", bundle(["echo", "hi"]).path, "one").ok().out == "hi\n"


# --- limits of ours -----------------------------------------------------------------------------------------------


def test_few_open_files(place: Place, bundle: BundleMaker) -> None:
    """Wherever they run out it is said so, and nothing is taken for gone because a file can't be opened."""
    here, made = place.here(), bundle(["sleep", "1000"], process={"rlimits": None})
    here.create_started(made, id="one")
    succeeded = []
    for most in range(4, 28, 2):
        few = {"preexec_fn": limited(resource.RLIMIT_NOFILE, most)}
        done = attempt(here, "create", "--bundle", made.path, "new", **few)
        if done.rc == 0:
            succeeded.append(most)
            here.delete("new", "--force").ok()
        else:
            assert "EMFILE" in done.err or "too many open files" in done.err.lower(), done.describe()
            refused(done)
        for argv in (["state", "one"], ["exec", "one", "true"], ["delete", "one"]):
            done = attempt(here, *argv, **few)
            assert "not running" not in done.err and "not exist" not in done.err, done.describe()
    assert succeeded, "27 descriptors are not enough"
    assert succeeded == list(range(succeeded[0], 28, 2))
    assert here.state("one")["status"] == "running"


@pytest.mark.parametrize("most", [1, 1024, 8192])
def test_small_files_only(place: Place, bundle: BundleMaker, most: int) -> None:
    made = sleeping(bundle)
    done = place.here()("create", "--bundle", made.path, "new", preexec_fn=limited(resource.RLIMIT_FSIZE, most))
    refused(done, "EFBIG", "ulimit -f")
    assert place.here().ids() == []


def test_no_more_processes(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """RLIMIT_NPROC, for who is not root: stage 1 may be made and stage 2 not."""
    made = rootless_bundle(tmp_path, bundle)
    failures = 0
    for most in (0, 1, 2, 3):
        runner = as_nobody(place, made, wrap=["prlimit", f"--nproc={most}:{most}"])
        done = attempt(runner, "create", "--bundle", made.path, "new")
        if done.rc:
            failures += 1
            refused(done, "EAGAIN", "RLIMIT_NPROC")
        else:
            runner.delete("new", "--force")
        assert runner.ids() == [], most
    assert failures >= 1


def test_no_more_pids(place: Place, bundle: BundleMaker) -> None:
    """kernel.pid_max of a PID namespace that is full."""
    program = (
        "import os, sys, time\n"
        "open('/proc/sys/kernel/pid_max', 'w').write('301')\n"
        "try:\n"
        "    while os.fork(): pass\n"
        "    time.sleep(1000)\n"
        "except BlockingIOError: os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    runner = Runner(place.root, [*PID_NAMESPACE, sys.executable, "-c", program, *place.argv])
    if not per_namespace("/proc/sys/kernel/pid_max", "301"):
        pytest.skip("this kernel has one kernel.pid_max for all PID namespaces")
    refuses_all(runner, sleeping(bundle), "EAGAIN", "kernel.pid_max")


def per_namespace(sysctl: str, value: str) -> bool:
    """Whether a new PID namespace can have this sysctl for itself."""
    before = Path(sysctl).read_text()
    subprocess.run([*PID_NAMESPACE, "sh", "-c", f"echo {value} >{sysctl}"], check=False, stderr=subprocess.DEVNULL)
    changed = Path(sysctl).read_text()
    if changed != before:
        Path(sysctl).write_text(before)
    return changed == before


# --- memfds that may not be executed ------------------------------------------------------------------------------

LIFE = """
set -e
echo {value} >/proc/sys/vm/memfd_noexec
pyrun() {{ {command} "$@"; }}
pyrun run --bundle {true} first
pyrun create --bundle {sleep} --pid-file {tmp}/pid one </dev/null >/dev/null 2>&1
{python} -c 'import os, sys; print(os.readlink(f"/proc/{{sys.argv[1]}}/exe"),
    bool(os.statvfs(f"/proc/{{sys.argv[1]}}/exe").f_flag & os.ST_RDONLY))' $(cat {tmp}/pid)
pyrun start one
pyrun exec one echo hi
pyrun delete --force one
"""


@pytest.mark.parametrize(("value", "image"), [(1, "/memfd:pyrun-init (deleted) False"), (2, "/ True")])
def test_memfd_noexec(place: Place, bundle: BundleMaker, tmp_path: Path, value: int, image: str) -> None:
    """With 2 pyrun-init is the installed file, through a mount of its own that nobody can write to."""
    true, sleep = bundle().path, sleeping(bundle).path
    command = " ".join(place.here().command())
    script = LIFE.format(value=value, command=command, true=true, sleep=sleep, tmp=tmp_path, python=sys.executable)
    done = subprocess.run([*PID_NAMESPACE, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    exe, hi = done.stdout.splitlines()
    assert hi == "hi"
    assert exe == image


def test_memfd_noexec_and_a_package_that_may_not_run(place: Place, bundle: BundleMaker) -> None:
    """With the package on a mount with noexec there is no way left, and it is said so."""
    package = REPO / "pyrun"
    setup = f"mount --bind {package} {package}; mount -o remount,bind,noexec {package}"
    runner = Place(place.root, python_argv()).where(setup)
    refused(runner.run(bundle(), id="new"), "the C module can't be loaded", "noexec")


# --- who does not answer ------------------------------------------------------------------------------------------


def test_dead_notify_socket(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """The manager has gone: start does not wait for a readiness that nobody would hear of."""
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(dead))
    env = {**os.environ, "NOTIFY_SOCKET": str(dead)}
    runner = place.here()
    runner.create(sleeping(bundle), id="one", env=env)
    runner("start", "one", env=env, timeout=60).ok()
    assert runner.state("one")["status"] == "running"
    runner.run(bundle(), id="two", env=env, timeout=60).ok()


@pytest.fixture
def console(tmp_path: Path) -> Iterator[socket.socket]:
    """A console socket that listens, but accepts nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen(0)
        yield listener


def terminal(bundle: BundleMaker) -> Bundle:
    return bundle(["sleep", "1000"], process={"terminal": True})


def with_console(place: Place, bundle: BundleMaker, tmp_path: Path) -> Result:
    done = attempt(
        place.here(), "create", "--bundle", terminal(bundle).path, "--console-socket", tmp_path / "console", "new"
    )
    if done.rc == 0:
        place.here().delete("new", "--force").ok()
    assert place.here().ids() == []
    return done


def test_console_socket_is_dead(place: Place, bundle: BundleMaker, tmp_path: Path, console: socket.socket) -> None:
    console.close()
    refused(with_console(place, bundle, tmp_path), "ECONNREFUSED", "nobody listens")


def test_console_socket_closes_at_once(
    place: Place, bundle: BundleMaker, tmp_path: Path, console: socket.socket
) -> None:
    """It may still take the terminal in the moment before it closes: then there is a container."""
    pid = os.fork()
    while pid == 0:
        console.accept()[0].close()
    try:
        results = [with_console(place, bundle, tmp_path) for _ in range(5)]
        while not any(result.rc for result in results) and len(results) < 50:
            results.append(with_console(place, bundle, tmp_path))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    failed = [result for result in results if result.rc]
    assert failed
    for result in failed:  # it may also be hung up on when it has the terminal already
        hung_up = "status 129" in result.err
        refused(result, *(("hung up", "console socket") if hung_up else ("EPIPE", "gone away")))


def test_console_socket_never_accepts(
    place: Place, bundle: BundleMaker, tmp_path: Path, console: socket.socket
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):  # until the backlog is seen to be full: as many as it takes
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            try:
                one.connect(str(tmp_path / "console"))
            except BlockingIOError:
                break
        else:
            pytest.fail("somebody accepts")
        begin = time.monotonic()
        refused(with_console(place, bundle, tmp_path), "EAGAIN", "has not accepted for 10 s")
        assert 9 < time.monotonic() - begin < 30


# --- other verbs in the middle ----------------------------------------------------------------------------------------


def test_an_id_used_again_at_once(place: Place, bundle: BundleMaker) -> None:
    runner, made = place.here(), sleeping(bundle)
    for _ in range(5):
        runner.create_started(made, id="one")
        runner.delete("one", "--force").ok()


def test_deleted_while_its_create_stands_still(place: Place, bundle: BundleMaker, tmp_path: Path) -> None:
    """The other verbs say that it is being made; a delete by force takes it away; the create finds that out."""
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"touch {tmp_path}/begun; while ! [ -e {tmp_path}/go ]; do sleep 0.1; done"],
    }
    made, runner = sleeping(bundle, hooks={"createRuntime": [hook]}), place.here()
    with open(tmp_path / "errors", "wb") as errors:
        process = runner.popen("create", "--bundle", made.path, "new", stdin=-3, stdout=errors, stderr=errors)
        wait_for((tmp_path / "begun").exists, 30, "the hook")
        with stopped(process.pid):
            assert runner.state("new")["status"] == "creating"
            refused(runner("start", "new"), "still being created")
            refused(runner.exec("new", "true"), "still being created")
            refused(runner.delete("new"), "creating")
            runner.delete("new", "--force").ok()
            assert runner.ids() == []
            other = sleeping(bundle)
            runner.create_started(other, id="new")
            (tmp_path / "go").touch()
        assert process.wait(60) == 1
    text = (tmp_path / "errors").read_text()
    assert GRAMMAR.fullmatch(text), text
    assert runner.state("new")["status"] == "running"


# --- without root -------------------------------------------------------------------------------------------------


def rootless_bundle(tmp_path: Path, bundle: BundleMaker) -> Bundle:
    """For the user nobody, whose id is the container's root."""
    config = make_config(["sleep", "1000"], process={"rlimits": None})
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    made = make_bundle(tmp_path / "nobody" / "bundle", config, bundle().rootfs)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", tmp_path / "nobody"], check=True)
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(path, path.stat().st_mode | 0o011)
    return made


def as_nobody(place: Place, made: Bundle, setup: str = ":", wrap: list[str] | None = None) -> Runner:
    identity = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *(wrap or [])]
    user = Place(made.path.parent / "state", [*identity, *place.argv])
    return user.where(setup)
