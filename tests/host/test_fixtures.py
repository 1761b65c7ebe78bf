"""The tests' own tools: the cgroup view, the leak check, the bundles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker, make_config, merge
from tests.support.container.leaks import CGROUP_ROOT, collect_traces, find_leaks
from tests.support.container.runner import REPO, wait_for
from tests.support.machines_network import machines_network
from tests.support.pods.nets import own_network

VIEW = REPO / "tests" / "view"


def test_view_hands_on_exit_code_and_stdin() -> None:
    done = subprocess.run([VIEW, "sh", "-c", "cat; exit 7"], input=b"hello", stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (7, b"hello")


def test_view_is_pure_cgroup2_with_its_own_root() -> None:
    script = "echo $PYRUN_VIEW; grep ^0: /proc/self/cgroup; stat -fc %T /sys/fs/cgroup; ls -d /sys/fs/cgroup/*/"
    out = subprocess.run([VIEW, "sh", "-c", script], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert out.split() == ["1", "0::/init", "cgroup2fs", "/sys/fs/cgroup/init/"]


def test_view_removes_its_cgroup_and_what_runs_in_it_on_a_signal(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = 'mkdir /sys/fs/cgroup/left; sleep 1000 & echo $! >"$0.new"; mv "$0.new" "$0"; exec sleep 1000'
    view = subprocess.Popen([VIEW, "sh", "-c", script, pid_file], start_new_session=True)
    wait_for(pid_file.exists, 10, "the view's command")
    cgroup = CGROUP_ROOT / f"pyrun-view.{view.pid}"
    assert (cgroup / "left").is_dir()
    view.send_signal(signal.SIGTERM)
    assert view.wait(60) == 128 + signal.SIGTERM
    assert not cgroup.exists()
    left = Path("/proc", pid_file.read_text().strip())
    wait_for(lambda: not left.exists(), 30, "the background process to go")


def test_leak_check_sees_a_process_and_a_cgroup() -> None:
    before = collect_traces()
    left = CGROUP_ROOT / "leaked"
    left.mkdir()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        leaks = find_leaks(before, grace=0.1)
    finally:
        process.communicate(b"\n")
        left.rmdir()
    assert [leak.split()[0] for leak in leaks] == ["cgroup", "process"]
    assert str(process.pid) in leaks[1]


def test_leak_check_sees_a_child_that_nobody_waits_for() -> None:
    before = collect_traces()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        wait_for(lambda: find_leaks(before, grace=0) == [f"zombie {pid} true"], 30, "its end")
    finally:
        os.waitpid(pid, 0)
    assert not find_leaks(before, grace=0)


def test_leak_check_sees_a_mount(tmp_path: Path) -> None:
    before = collect_traces()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        leaks = find_leaks(before, grace=0)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert len(leaks) == 1 and str(tmp_path) in leaks[0]


def test_leak_check_sees_another_owner_of_what_all_share() -> None:
    before, zero = collect_traces(), os.stat("/dev/zero")
    os.chown("/dev/zero", 100000, zero.st_gid)
    try:
        leaks = find_leaks(before, grace=0)
    finally:
        os.chown("/dev/zero", zero.st_uid, zero.st_gid)
    assert [leak.split()[:3] for leak in leaks] == [["owner", "/dev/zero", f"100000:{zero.st_gid}"]]


def test_leak_check_waits_for_a_dying_process() -> None:
    before = collect_traces()
    start = time.monotonic()
    subprocess.run(["sh", "-c", "sleep 0.3 &"], check=True)
    assert find_leaks(before) == []
    assert time.monotonic() - start > 0.3


def test_merge_replaces_removes_and_keeps_its_arguments() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merge(base, {"a": {"b": None, "c": [2]}, "e": {"f": 1}}) == {"a": {"c": [2]}, "d": 2, "e": {"f": 1}}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}


def test_make_config_does_not_share_its_parts() -> None:
    make_config()["mounts"].clear()
    assert make_config()["mounts"]


@pytest.mark.parametrize("args, rc", [(["true"], 0), (["sh", "-c", "exit 7"], 7)])
def test_peer_runs_the_default_bundle(bundle: BundleMaker, tmp_path: Path, args: list[str], rc: int) -> None:
    """runc accepts what the fixtures make, so a failure elsewhere is the runtime's."""
    made = bundle(args)
    argv = ["runc", "--root", str(tmp_path / "runc"), "run", "--bundle", str(made.path), f"peer-{os.getpid()}"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("runc is not installed")
    assert done.returncode == rc, done.stderr


def test_the_machines_network_is_had_from_within_a_tests_own() -> None:
    """By what is started there, and the test is back in its own afterwards."""

    def network() -> str:
        said = subprocess.run(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE, check=True, text=True)
        return said.stdout.strip()

    machines = network()
    with own_network():
        own = network()
        with machines_network():
            assert network() == machines
        assert network() == own != machines
    with machines_network():
        assert network() == machines
