"""Which processes of a cgroup no signal ends, since they wait in the kernel for a disk or a file server, and where.

Of a call that has a descriptor the mount is known. Of any other, as of one by a path, it can't be asked without a wait
for the process' own memory: there its newest mounts of file servers are told, one of which it is likely to be.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

MOST, MOST_MOUNTS = 5, 3
# syscalls(2) whose first argument is a descriptor, and that may wait for a file: read, write, fstat, pread64, pwrite64,
# readv, writev, fsync, fdatasync, ftruncate, getdents64, fstatfs.
OF_DESCRIPTORS = {
    "x86_64": frozenset((0, 1, 5, 17, 18, 19, 20, 74, 75, 77, 217, 138)),
    "aarch64": frozenset((63, 64, 80, 67, 68, 65, 66, 82, 83, 46, 61, 44)),
}.get(platform.machine(), frozenset())
SERVERS = ("9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "virtiofs")


def collect_stuck(cgroup: str) -> list[str]:
    """Such as `cat (pid 12) in nfs_wait_client_init_complete, on /data (nfs4)`, MOST of them; those below are looked
    at, too."""
    found: list[str] = []
    for pid in _processes(cgroup):
        told = _told(pid)
        if told and len(found) < MOST:
            found.append(told)
    return found


def _processes(cgroup: str) -> Iterator[int]:
    for directory, _, _ in os.walk(cgroup):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                yield from (int(line) for line in file.read().split())
        except OSError:  # it is gone, or threaded
            continue


def _told(pid: int) -> str:
    """proc_pid_stat(5): the state follows the name, in which anything may stand."""
    name, _, rest = _read(pid, "stat").partition("(")[2].rpartition(") ")
    if not rest.startswith("D"):
        return ""
    where = _read(pid, "wchan").strip()
    return f"{name} (pid {pid})" + (f" in {where}" if where not in ("", "0") else "") + _mount(pid)


def _mount(pid: int) -> str:
    """proc_pid_mountinfo(5): id, parent, device, root, point, options, …, -, type."""
    of_servers, by_id = [], {}
    for line in _read(pid, "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        id, point, type = before.split(" ")[0], before.split(" ")[4], after.split(" ")[0]
        by_id[id] = f"{point} ({type})"
        if type.partition(".")[0] in SERVERS:
            of_servers.append(by_id[id])
    if (exact := by_id.get(_id_of_mount(pid))) is not None:
        return f", on {exact}"
    return f", has {' and '.join(of_servers[-MOST_MOUNTS:])} mounted" if of_servers else ""


def _id_of_mount(pid: int) -> str:
    """Of the descriptor that it waits for. proc_pid_syscall(5): the number, and arguments in hexadecimal."""
    words = _read(pid, "syscall").split()
    if len(words) < 2 or not words[0].isdigit() or int(words[0]) not in OF_DESCRIPTORS:
        return ""
    known = dict(line.split(":", 1) for line in _read(pid, f"fdinfo/{int(words[1], 16)}").splitlines() if ":" in line)
    return known.get("mnt_id", "").strip()


def _read(pid: int, name: str) -> str:
    """Empty where it is gone."""
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
