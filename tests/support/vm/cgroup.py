"""What tests of limits share: a cgroup to read, work for a container to do, and containers with the guest's own tools
for what busybox lacks.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.support.container.bundle import Bundle
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner

MIB = 1 << 20
ATTEMPTS = 5
BUSY = ["sh", "-c", "while :; do :; done"]
ALL_CAPABILITIES = """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN
    NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT
    SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"""


def all_capabilities() -> dict[str, list[str]]:
    """process.capabilities with everything in each set."""
    names = [f"CAP_{name}" for name in ALL_CAPABILITIES.split()]
    return {kind: list(names) for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}


def allocate(mib: int) -> list[str]:
    """A command that touches this much anonymous memory and ends."""
    return ["dd", "if=/dev/zero", "of=/dev/null", f"bs={mib}M", "count=1"]


def resources(**sections: object) -> dict[str, object]:
    """The `linux` of make_config with these limits: bundle(args, linux=resources(pids={"limit": 3}))."""
    return {"resources": sections}


class Cgroup:
    """The cgroup of a container that has been created."""

    def __init__(self, pyrun: Runner, id: str) -> None:
        rows = Path(f"/proc/{pyrun.pid(id)}/cgroup").read_text().splitlines()
        self.path = CGROUP_ROOT / next(row for row in rows if row.startswith("0::"))[3:].lstrip("/")

    def read(self, file: str) -> str:
        return (self.path / file).read_text().strip()

    def number(self, file: str) -> int:
        return int(self.read(file))

    def counter(self, file: str, key: str) -> int:
        """A value of a file of `KEY VALUE` lines, such as cpu.stat."""
        return int(dict(line.split() for line in self.read(file).splitlines())[key])

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.read("cgroup.procs").split()]

    def cpu_share(self, seconds: float, least: float = 0.0) -> float:
        """How many processors it uses, seen for this long; again, a few times, while that is less than `least`: where
        the host is busy the guest may stand still."""
        return cpu_shares([self], seconds, least)[0]


def cpu_shares(cgroups: list[Cgroup], seconds: float, least: float = 0.0) -> list[float]:
    """The same of several at once; `least` is for all together."""
    for _ in range(ATTEMPTS):
        # The clock is read outside of the counters: a machine that stands still in between makes no share larger.
        start, before = time.monotonic(), [cgroup.counter("cpu.stat", "usage_usec") for cgroup in cgroups]
        time.sleep(seconds)
        after, end = [cgroup.counter("cpu.stat", "usage_usec") for cgroup in cgroups], time.monotonic()
        shares = [(b - a) / 1e6 / (end - start) for a, b in zip(before, after, strict=True)]
        if sum(shares) >= least:
            break
    return shares


def next_event(process: subprocess.Popen[bytes], type: str) -> dict[str, object]:
    """The next event of this type that `pyrun events` prints."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, object] = json.loads(line)
        if event["type"] == type:
            return event
    raise AssertionError(f"events ended without one of type {type}")


def use_host_tools(bundle: Bundle) -> Bundle:
    """Gives a container the guest's own /usr, with Python in it, in place of busybox."""
    for name in ("bin", "sbin", "usr"):
        subprocess.run(["rm", "-rf", bundle.rootfs / name], check=True)
    (bundle.rootfs / "usr").mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (bundle.rootfs / name).symlink_to(f"usr/{name}")
    return bundle.add_mount("/usr", "/usr", "rbind", "ro")
