"""What `bootstrap` does where apt or pip fail, and what it takes away again. apt-get and pip are stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pyrun.cli.planner import NAME

REPO = Path(__file__).resolve().parents[2]
BOOTSTRAP = REPO / "bootstrap"
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
SOMEBODY = 61234


class Clone:
    """A copy of what bootstrap needs, with stand-ins for programs that are found first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.programs = path.parent / "programs"
        self.programs.mkdir()
        path.mkdir()
        shutil.copy(BOOTSTRAP, path)
        (path / ".cache" / "stamps").mkdir(parents=True)

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def call(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a script after bootstrap's functions, as its verbs run."""
        text = BOOTSTRAP.read_text()
        functions = text[: text.index("\nverb=${1:-help}")].replace('cd -- "$(dirname -- "$0")"', "")
        env = {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        argv = ["sh", "-c", f"{functions}\nverb=test\nPOLICY={self.path.parent}/policy-rc.d\n{script}"]
        return subprocess.run(argv, cwd=self.path, env=env, capture_output=True, text=True, timeout=60, check=False)

    def apt(self, script: str) -> None:
        """apt-get in words of a shell; $call is how often it was called."""
        self.program("apt-get", f'echo "$@" >>{self.path}/calls; call=$(wc -l <{self.path}/calls)\n{script}')
        self.program("dpkg-query", "exit 1")
        self.program("sleep", "")

    def calls(self) -> list[str]:
        return (self.path / "calls").read_text().splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_apts_lock_is_waited_for(clone: Clone) -> None:
    clone.apt(f'[ $call -gt 3 ] || {{ echo "{LOCKED}"; exit 100; }}')
    done = clone.call("apt_get update && echo updated")
    assert done.stdout == "updated\n"
    assert done.stderr.count("waiting for apt") == 1
    assert "held by process 7 (apt-get)" in done.stderr
    assert clone.calls() == ["-q update"] * 4


def test_the_wait_for_apts_lock_ends(clone: Clone) -> None:
    clone.apt(f'echo "{LOCKED}"; exit 100')
    done = clone.call("LOCK_PATIENCE_S=0; apt_get update || echo no")
    assert done.stdout == "no\n"
    assert "gave up waiting" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    ("said", "asked_again"),
    [
        (LOCKED, True),
        ("E: Failed to fetch http://mirror/x.deb  Temporary failure resolving", True),
        ("E: Unable to locate package nosuch", False),
    ],
)
def test_only_what_apt_refuses_is_remembered(clone: Clone, said: str, asked_again: bool) -> None:
    clone.apt(f'case $* in *install*) echo "{said}"; exit 100 ;; esac')
    script = "LOCK_PATIENCE_S=0; want_packages 'no-such-program:nosuch'; want_packages 'no-such-program:nosuch'"
    done = clone.call(script)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot install nosuch") == (2 if asked_again else 1)
    assert said.removeprefix("E: Could not get lock ") in done.stderr


@pytest.mark.root
def test_what_was_installed_is_told_by_clean(clone: Clone) -> None:
    clone.apt("")
    for name in ("pyrun", "cffi_build", "tests", ".venv", "pyrun/bin", "pyrun/__pycache__"):
        (clone.path / name).mkdir()
    (clone.path / "pyrun" / "main.py").write_text("")
    done = clone.call("need_packages 'no-such-program:one two'; run_clean")
    assert done.returncode == 0, done.stderr
    assert re.search(r"sudo apt-get autoremove --purge one two *$", done.stderr)
    left = sorted(str(path.relative_to(clone.path)) for path in clone.path.rglob("*"))
    assert left == ["bootstrap", "calls", "cffi_build", "pyrun", "pyrun/main.py", "tests"]


def test_missing_packages_without_root_are_a_command_to_type(clone: Clone) -> None:
    clone.apt("")
    clone.program("id", "echo 1000")
    done = clone.call("need_packages 'no-such-program:one two'")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("sudo apt-get install --no-install-recommends one two")


def test_a_failure_of_pip_ends_with_a_line_of_ours(clone: Clone) -> None:
    clone.program("python", "echo 'ERROR: No matching distribution' >&2; exit 1")
    done = clone.call(f"VENV={clone.programs}/python; pip install wheel; echo not reached")
    assert done.returncode == 1
    assert done.stdout == ""
    first, *others = done.stderr.splitlines()
    assert first == "ERROR: No matching distribution"
    assert [line.partition(":")[0] for line in others] == ["bootstrap", "bootstrap"]
    assert "--preserve-env=" in others[-1]


@pytest.mark.root
def test_what_root_makes_in_somebodys_clone_is_theirs(clone: Clone) -> None:
    """But for root file systems, whose owners are seen in containers, and for what was somebody else's."""
    theirs = [".cache/stamps/natives", ".venv/bin/python", "pyrun/bin/pyrun", "pyrun/main.py", "cffi_build/x.pyc"]
    roots = [".cache/rootfs/busybox-1/etc/passwd", ".cache/vm/guest/image"]
    for name in (*theirs, *roots):
        (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.path / name).write_text("")
    os.chown(clone.path / "pyrun" / "bin" / "pyrun", 7, 7)
    os.chown(clone.path, SOMEBODY, SOMEBODY)
    done = clone.call("VENV=true; give_back")
    assert done.returncode == 0, done.stderr
    owners = {name: (clone.path / name).stat().st_uid for name in (*theirs, *roots, ".cache/rootfs", ".cache")}
    assert owners == dict.fromkeys((*theirs, ".cache/rootfs", ".cache"), SOMEBODY) | dict.fromkeys(roots, 0) | {
        "pyrun/bin/pyrun": 7
    }


def test_systemd_gets_a_socket_for_the_planner_and_loses_it_again(clone: Clone) -> None:
    """It listens where the launcher asks."""
    clone.program("systemctl", f'echo "$@" >>{clone.path}/calls')
    script = "prefix=/usr/local; UNITS=$PWD/units; SYSTEMD_RUNS=$PWD"
    done = clone.call(f"{script}; install_planner")
    assert (done.returncode, done.stderr) == (0, "")
    socket = (clone.path / "units" / "pyrun-planner.socket").read_text()
    assert f"\nListenSequentialPacket=/run/pyrun/{NAME}\nSocketMode=0600\n" in socket
    service = (clone.path / "units" / "pyrun-planner.service").read_text()
    assert service.endswith("\n[Service]\nExecStart=/usr/local/bin/pyrun planner\n")
    done = clone.call(f"{script}; uninstall_planner; uninstall_planner")
    assert (done.returncode, done.stderr) == (0, "")
    assert list((clone.path / "units").iterdir()) == []
    units = "pyrun-planner.socket pyrun-planner.service"
    enabled, disabled = "enable -q --now pyrun-planner.socket", f"disable -q --now {units}"
    assert clone.calls() == ["daemon-reload", enabled, disabled, "daemon-reload"]


def test_elsewhere_than_in_systemds_path_there_is_none(clone: Clone) -> None:
    clone.program("systemctl", "echo called")
    done = clone.call("prefix=/opt/x; UNITS=$PWD/units; SYSTEMD_RUNS=$PWD; install_planner; uninstall_planner")
    assert (done.returncode, done.stdout) == (0, "")
    assert not (clone.path / "units").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["demo", "now"], "'demo' takes no arguments, but there is 'now'"),
        (["build", "rootfs"], "'build' takes no arguments, but there is 'rootfs'"),
        (["clean", "all"], "'clean' takes no arguments, but there is 'all'"),
        (["install", "--prefix"], "--prefix needs an absolute path, not ''"),
        (["install", "--prefix", "here"], "--prefix needs an absolute path, not 'here'"),
        (["install", "--prefix=/x", "more"], "'install' takes no arguments, but there is 'more'"),
        (["uninstall", "--prefix", "/x", "more"], "'uninstall' takes no arguments, but there is 'more'"),
        (["install", "--prefx=/x"], "unknown option '--prefx=/x': --prefix DIR"),
        (["instal"], "unknown verb 'instal': demo, test, install, uninstall, build, clean or help"),
    ],
)
def test_a_wrong_command_line_is_refused_and_changes_nothing(clone: Clone, argv: list[str], said: str) -> None:
    before = sorted(clone.path.rglob("*"))
    done = subprocess.run([clone.path / "bootstrap", *argv], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"bootstrap: {said}\n")
    assert sorted(clone.path.rglob("*")) == before
