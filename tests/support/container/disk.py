"""What is mounted, and changes to a mount that the kernel refuses while somebody still has a file open there.

A program that has been started, or has ended, closes what it had open a moment after others can see that: the last
reference to a file that was removed goes when the process comes back from the kernel. So these wait, for as long as a
slow machine may take; what is left open fails them all the same.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.container.runner import wait_for

DEADLINE_S = 60.0
BUSY = 32  # mount(8) and umount(8): the call failed


def remount(path: Path, options: str) -> None:
    """Changes the options of the file system that is mounted there."""
    _until_not_busy("mount", "-o", f"remount,{options}", str(path))


def unmount(path: Path, *options: str) -> None:
    _until_not_busy("umount", *options, str(path))


def mounts_below(directory: Path) -> list[str]:
    """Where something is mounted below a directory, in the order in which it was."""
    found = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [path for path in found if path.startswith(f"{directory}/")]


def unmount_below(directory: Path) -> None:
    """All of it, the last first."""
    for path in reversed(mounts_below(directory)):
        subprocess.run(["umount", "-l", path], check=False)


@contextlib.contextmanager
def dead_fuse(at: Path) -> Iterator[None]:
    """Makes it a directory with a FUSE file system whose server says nothing: who asks it for anything hangs. At the
    end the server dies."""
    at.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "none", at], pass_fds=(server,), check=True)
    try:
        yield
    finally:
        os.close(server)
        subprocess.run(["umount", "-l", at], check=True)


def _until_not_busy(*command: str) -> None:
    def tried() -> bool:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == BUSY and "busy" in done.stderr:
            return False
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return True

    wait_for(tried, DEADLINE_S, f"{' '.join(command)} to be let")
