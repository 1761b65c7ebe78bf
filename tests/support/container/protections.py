"""What protects the host from a container, as the kernel shows it: for comparing two that should be equally safe.

`collect_protections(pid)` gives lines; one that is missing or other than before is a protection that went. The program
of such a container is `SESSION`, which says in /out/report which session keyring it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.container.runner import wait_for

KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]
ADD_KEY = {"x86_64": 248, "aarch64": 217}[platform.machine()]
GET_KEYRING_ID, JOIN_SESSION_KEYRING, SETPERM = 0, 1, 5
SESSION_KEYRING = -3
SESSION = [
    "/usr/bin/python3",
    "-I",
    "-S",
    "-c",
    f"import ctypes, os, time; k = ctypes.CDLL(None).syscall({KEYCTL}, {GET_KEYRING_ID}, {SESSION_KEYRING}, 0)\n"
    "print(k, file=open('/out/new', 'w')); os.rename('/out/new', '/out/report'); time.sleep(1000)",
]
_STATUS = "Uid Gid Groups NoNewPrivs Seccomp Seccomp_filters CapInh CapPrm CapEff CapBnd CapAmb".split()


def keys(call: int, *args: int | bytes) -> int:
    """add_key(2) or keyctl(2); OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(call, *args))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextlib.contextmanager
def full_key_quota(uid: int) -> Iterator[None]:
    """Within it that user has as many keys as he may: the session keyring of a process holds them."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(uid, uid, uid)
        keys(KEYCTL, JOIN_SESSION_KEYRING, 0)
        refused = 0
        for i in range(1 << 30):  # on and on: keys of processes that have ended go only by and by
            try:
                keys(ADD_KEY, b"user", b"%d" % i, b"x", 1, SESSION_KEYRING)
                refused = 0
            except OSError:
                refused += 1
                time.sleep(0.001)
            if refused == 300:
                os.write(tell, b"full")
    try:
        assert os.read(ready, 4) == b"full"
        yield
    finally:
        os.close(ready)
        os.close(tell)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wait_for(lambda: _has_room_for_keys(uid), 30, "the kernel to collect the keys")


def _has_room_for_keys(uid: int) -> bool:
    """By /proc/key-users (proc_key-users(5)): UID: usage keys/instantiated keys/most bytes/most."""
    for line in Path("/proc/key-users").read_text().splitlines():
        user, _, counts = line.partition(":")
        if int(user) == uid:
            used, most = map(int, counts.split()[2].split("/"))
            return used < most // 2
    return True


def collect_protections(pid: int) -> set[str]:
    """Of the process in the host's /proc: ids, capabilities, no_new_privs, seccomp, whether others of its user may
    trace it, which namespaces it shares with us, its descriptors, its cgroup, its mounts with their flags."""
    proc = Path(f"/proc/{pid}")
    out = {line for line in (proc / "status").read_text().splitlines() if line.split(":")[0] in _STATUS}
    for kind in sorted(os.listdir(proc / "ns")):
        shared = os.readlink(proc / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")
        out.add(f"{kind} namespace is {'ours' if shared else 'its own'}")
    out |= {f"descriptor {os.readlink(fd)}" for fd in (proc / "fd").iterdir() if int(fd.name) > 2}
    out.add(f"/proc is owned by {(proc / 'mem').stat().st_uid}")  # root's, not the process's, where it is not dumpable
    rows = (proc / "mountinfo").read_text().splitlines()
    out.add(f"cgroup {(proc / 'cgroup').read_text()}")
    count = Counter(map(_mount, rows))
    return out | {f"mount {line} ({i + 1})" for line, n in count.items() for i in range(n)}


def _mount(line: str) -> str:
    """A line of mountinfo (proc_pid_mountinfo(5)) without what differs between two mounts of the same kind."""
    left, _, right = line.partition(" - ")
    _, _, _, root, point, flags, *peers = left.split()
    kind = right.split()[0]
    propagation = sorted(peer.partition(":")[0] for peer in peers)
    here = root if kind != "cgroup2" else "of the hierarchy" if root == "/" else "its own"
    return f"{kind} {here} on {point} {flags} {' '.join(propagation)}"
