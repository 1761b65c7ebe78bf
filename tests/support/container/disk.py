"""What is mounted, and changes to a mount that the kernel refuses while somebody still has a file open there.

A program that has been started, or has ended, closes what it had open a moment after others can see that: the last
reference to a file that was removed goes when the process comes back from the kernel. So these wait, for as long as a
slow machine may take; what is left open fails them all the same.
"""

from __future__ import annotations

import subprocess
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


def _until_not_busy(*command: str) -> None:
    def tried() -> bool:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == BUSY and "busy" in done.stderr:
            return False
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return True

    wait_for(tried, DEADLINE_S, f"{' '.join(command)} to be let")
