"""pyrun in a chroot whose root is a mount point, as in a minimal system made for a build or a test.

pivot_root(2) there changes the chroot's root and leaves the host's tree above it: exec's setns(2), and a chroot(2) in
the container, would come out there.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Result, Runner

pytestmark = pytest.mark.root

CHROOT = 'mount --rbind / /mnt && cd / && exec chroot /mnt "$@"'
MARK = "this-is-the-container"


def in_chroot(*command: str) -> Result:
    argv = ["unshare", "-m", "sh", "-c", CHROOT, "sh", *command]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    return Result(tuple(argv), done.returncode, done.stdout, done.stderr)


def run_in_chroot(pyrun: Runner, bundle: Bundle, log: Path) -> str:
    """A running container, made in a chroot; its id. What a container leaves running would hold our pipes open."""
    (bundle.rootfs / MARK).touch()
    id = pyrun.new_id()
    argv = pyrun.command("run", "--detach", "--bundle", bundle.path, id)
    done = in_chroot("sh", "-c", f'exec "$@" >{log} 2>&1', "sh", *argv)
    assert done.rc == 0, log.read_text()
    return id


def test_exec_lands_in_the_container(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    id = run_in_chroot(pyrun, bundle(["sleep", "1000"]), tmp_path / "log")
    assert MARK in in_chroot(*pyrun.command("exec", id, "ls", "/")).ok().out
    assert MARK in pyrun.exec(id, "ls", "/").ok().out


def test_nothing_of_the_host_is_above_the_container(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    id = run_in_chroot(pyrun, bundle(["sleep", "1000"]), tmp_path / "log")
    # nsenter chooses no root, so it comes out at the namespace's own.
    enter = ["nsenter", f"--mount=/proc/{pyrun.pid(id)}/ns/mnt", "/bin/ls", "/"]
    assert MARK in subprocess.run(enter, capture_output=True, text=True, check=False).stdout


def test_no_user_namespace_in_a_chroot_is_told_so(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made = bundle(["true"], linux={"uidMappings": ids, "gidMappings": ids}).add_namespace("user")
    done = in_chroot(*pyrun.command("run", "--bundle", made.path, pyrun.new_id()))
    done.fails(1, "pyrun runs in a chroot, where the kernel makes no user namespaces")
