"""What starting a container costs it: memory.peak of its cgroup, and the least limit under which it starts.

    .venv/bin/python -m tests.bench.memory --guest [--rounds N] [--starts N] [--only peak|least] [pyrun crun runc]

For pyrun, crun and runc by turns, on a kernel with the memory controller. The program is busybox's `true`, in a
`minimal` bundle (a PID and a mount namespace, and /proc) and in a `full` one (what docker writes: six namespaces, its
mounts, masked paths, devices and a seccomp filter). memory.peak is in whole pages, and the kernel charges up to 64 of
them ahead on each processor (MEMCG_CHARGE_BATCH), so 256 KiB are the floor. A limit counts when `starts` containers of
`starts` exit with 0, with neither swap nor pinning.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.peer import spawn, wait_gone
from tests.support.container.bundle import Bundle, make_bundle, make_config
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import REPO, Runner

ID = "bench-memory"
PARENT = "pyrun-bench-memory"
NAMES = ("pyrun", "crun", "runc")
KINDS = ("minimal", "full")
LIMITS_KIB = (*(mib << 10 for mib in (16, 12, 8, 6, 5, 4, 3, 2, 1)), *range(960, 576, -64), *range(576, 64, -32))
MINIMAL: dict[str, Any] = {
    "hostname": None,
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "maskedPaths": None, "readonlyPaths": None},
}
DEVICES = [{"allow": False, "access": "rwm"}] + [
    {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1))
]
# As many rules as an engine's profile has, by names of calls that every architecture knows.
ALLOWED = """accept access bind brk capget capset chdir chmod chown close connect dup dup2 dup3 epoll_create1 epoll_ctl
    epoll_wait execve execveat exit exit_group faccessat faccessat2 fchdir fchmod fchown fcntl fdatasync flock fork
    fstat fstatfs fsync ftruncate futex getcwd getdents64 getegid geteuid getgid getgroups getpgid getpgrp getpid
    getppid getrandom getresgid getresuid getrlimit getsid getsockname getsockopt gettid gettimeofday getuid ioctl kill
    lchown link listen lseek lstat madvise mkdir mmap mprotect mremap munmap nanosleep newfstatat open openat openat2
    pipe pipe2 poll ppoll prctl pread64 preadv prlimit64 pwrite64 read readlink readlinkat readv recvfrom recvmsg
    rename renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend sched_yield
    select sendfile sendmsg sendto setgid setgroups setpgid setresgid setresuid setrlimit setsid setsockopt setuid
    set_robust_list set_tid_address shutdown sigaltstack socket socketpair stat statfs statx symlink sync sysinfo tgkill
    time times truncate umask uname unlink unlinkat utimensat vfork wait4 waitid write writev clone clone3
    arch_prctl""".split()


def full() -> dict[str, Any]:
    """Overrides of make_config that make it what docker writes."""
    syscalls = [{"names": ALLOWED, "action": "SCMP_ACT_ALLOW"}]
    seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": syscalls}
    config = make_config()
    binds = [
        {"destination": f"/etc/{name}", "type": "bind", "source": f"/etc/{name}", "options": ["rbind", "rprivate"]}
        for name in ("hostname", "hosts", "resolv.conf")
        if os.path.exists(f"/etc/{name}")
    ]
    return {"mounts": config["mounts"] + binds, "linux": {"seccomp": seccomp, "resources": {"devices": DEVICES}}}


class Peer:
    """One runtime and its two bundles. runner: its command line, with a state directory of its own."""

    def __init__(self, name: str, argv: list[str], work: Path, rootfs: Path) -> None:
        self.name = name
        self.runner = Runner(work / name / "state", argv)
        self.cgroup = CGROUP_ROOT / PARENT / name
        self.bundles = {kind: self._bundle(kind, work / name / kind, rootfs) for kind in KINDS}
        self.peaks: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def _bundle(self, kind: str, path: Path, rootfs: Path) -> Bundle:
        config = make_config(**(full() if kind == "full" else MINIMAL))
        config["linux"]["cgroupsPath"] = f"/{PARENT}/{self.name}"
        return make_bundle(path, config, rootfs)

    def peak(self, kind: str) -> int:
        """KiB of memory.peak after the program's end. RuntimeError when a command fails."""
        pid_file = self.bundles[kind].path / "pid"
        self.call("create", "--bundle", str(self.bundles[kind].path), "--pid-file", str(pid_file), ID)
        process = os.pidfd_open(int(pid_file.read_text()))
        self.call("start", ID)
        wait_gone(process)
        peak = int((self.cgroup / "memory.peak").read_text()) // 1024
        self.call("delete", ID)
        return peak

    def call(self, *args: str) -> None:
        """Runs the command, whose output a container may keep open. RuntimeError when it fails."""
        spawn(self.runner.command(*args), self.bundles[KINDS[0]].path / "stderr")

    def starts(self, kind: str, limit_kib: int, times: int) -> int:
        """How many of so many containers ran to their end under the limit; it stops at the first that did not."""
        memory = {"limit": limit_kib * 1024, "swap": limit_kib * 1024}
        bundle = self.bundles[kind].update(linux={"resources": {"memory": memory}})
        for done in range(times):
            if self.runner("run", "--bundle", str(bundle.path), ID).rc:
                self.runner("delete", "--force", ID)
                return done
        return times

    def least(self, kind: str, times: int) -> tuple[int, str]:
        """KiB of the least of LIMITS_KIB under which all of them start, by halving, and how many did one lower."""
        fits, fails, below = 0, len(LIMITS_KIB), ""
        while fails - fits > 1:
            middle = (fits + fails) // 2
            done = self.starts(kind, LIMITS_KIB[middle], times)
            if done == times:
                fits = middle
            else:
                fails, below = middle, f"under {LIMITS_KIB[middle]} KiB {done} did before one failed"
        return LIMITS_KIB[fits], below


def measure_peaks(peers: list[Peer], rounds: int) -> None:
    """`rounds` that count after one that does not, the runtimes' order turning by one each time."""
    for number in range(-1, rounds):
        turn = number % len(peers)
        for peer in [*peers[turn:], *peers[:turn]]:
            for kind in KINDS:
                peak = peer.peak(kind)
                if number >= 0:
                    peer.peaks[kind].append(peak)


def report_peaks(peers: list[Peer]) -> Iterable[str]:
    """A table in Markdown: medians and ranges of memory.peak, and pyrun's share of each peer's."""
    medians = {peer.name: {kind: statistics.median(peer.peaks[kind]) for kind in KINDS} for peer in peers}
    others = [peer.name for peer in peers if peer.name != "pyrun" and "pyrun" in medians]
    head = [f"{peer.name} KiB (from, to)" for peer in peers] + [f"pyrun / {name}" for name in others]
    yield f"| memory.peak | {' | '.join(head)} |"
    yield "|---" * (len(head) + 1) + "|"
    for kind in KINDS:
        cells = [f"{medians[p.name][kind]:.0f} ({min(p.peaks[kind])}, {max(p.peaks[kind])})" for p in peers]
        cells += [f"{medians['pyrun'][kind] / medians[name][kind]:.2f}" for name in others]
        yield f"| {kind} | {' | '.join(cells)} |"


def report_least(peers: list[Peer], times: int) -> Iterable[str]:
    for kind in KINDS:
        for peer in peers:
            least, below = peer.least(kind, times)
            yield f"least limit for {times} starts, {kind}: {peer.name} {least} KiB; {below}"


def find_peers(work: Path, names: Sequence[str]) -> list[Peer]:
    """Those of the names that are installed; pyrun from the tree where it is not."""
    made = subprocess.run([REPO / "bundles" / "make-rootfs", "busybox"], check=True, stdout=subprocess.PIPE, text=True)
    rootfs = Path(made.stdout.strip())
    tree = {"pyrun": str(REPO / "pyrun" / "bin" / "pyrun")}
    found = {name: shutil.which(name) or tree.get(name) for name in names}
    return [Peer(name, [path], work, rootfs) for name, path in found.items() if path]


def in_guest(words: list[str]) -> int:
    """The same in a guest, its output on ours."""
    from tests.support.vm import __main__ as vm

    command = shlex.join(["python3", "-m", "tests.bench.memory", *words])
    return vm.run(f"cd /job/src && PYTHONPATH=/job/site {command}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--only", choices=("peak", "least"))
    parser.add_argument("--guest", action="store_true", help="boot a guest, and measure in it")
    parser.add_argument("runtime", nargs="*", default=list(NAMES))
    options = parser.parse_args()
    if options.guest:
        return in_guest([word for word in sys.argv[1:] if word != "--guest"])
    parent = CGROUP_ROOT / PARENT
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        peers = find_peers(Path(name), options.runtime)
        try:
            if options.only != "least":
                measure_peaks(peers, options.rounds)
                print("\n".join(report_peaks(peers)), flush=True)
            if options.only != "peak":
                for row in report_least(peers, options.starts):
                    print(row, flush=True)
        finally:
            for peer in peers:
                peer.runner("delete", "--force", ID)
            parent.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
