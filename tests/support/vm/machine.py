"""A machine with a kernel of its own: QEMU boots the guest that vagrant/guest/ describes, and runs one job in it.

The guest talks on its second serial port, one JSON object a line, which is QEMU's stdout here; its console goes to a
file. QEMU emulates the processor, because a /dev/kvm may be there and not work: PYRUN_VM_ACCEL=kvm asks for it. What
ends a guest before its job is done is told as what it is: a panic, a lock-up, a hang, a full disk.
"""

from __future__ import annotations

import json
import os
import platform
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.container.runner import REPO
from tests.support.vm.job import one_at_a_time, run_maker

CPUS = 2
MEMORY_MIB = 2048
SCRATCH_MIB = 512
BOOT_TIMEOUT_S = 240.0
CMDLINE = (
    "root=PARTUUID=75727970-01 rw console=ttyS0,115200 quiet loglevel=4 panic=-1 oops=panic sysrq_always_enabled "
    "mitigations=off random.trust_cpu=on tsc=reliable no_timer_check net.ifnames=0 apparmor=1 security=apparmor "
    "systemd.unit=pyrun-job.target systemd.show_status=no systemd.unified_cgroup_hierarchy=1 "
    # What costs an emulated processor much: `rep stos` for clearing pages (X86_FEATURE_REP_GOOD, by its number), which
    # it does step by step; clearing what is allocated once more; and waiting for an RCU grace period's ticks.
    "clearcpuid=112 init_on_alloc=0 rcupdate.rcu_expedited=1"
)
# What takes time as the guest boots and nothing here needs. The first compiles profiles for ten seconds; a test loads
# those that it looks at.
NOT_STARTED = (
    "apparmor.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
)
# All that QEMU knows but for what makes emulation slow: wide vectors (checksums and copies take twice as long), saving
# them, a fifth level of page tables, what the kernel does at each access to user memory, and copies by `rep movsb`.
EMULATED = "max,-avx,-avx2,-la57,-pku,-smap,-smep,-erms,-xsave,-xsaveopt"
FULL_MIB = 16
CONSOLE_LINES = 40
STACK_LINES = 400
STUCK_S = 100  # a kernel that says this of one of its processors does not come back
LOOK_S = 1.0  # at the console, while the guest says nothing
STACKS_S = 30.0  # for the kernel to write all stacks, which it does when the console is quiet for QUIET_S
QUIET_S = 2.0
ENGINES = ("containerd", "podman", "docker.io")
STUCK = re.compile(r"watchdog: BUG: soft lockup - (CPU#\d+ stuck for (\d+)s! \[.*\])")
STALLED = re.compile(r"^.*(?:BUG: soft lockup - CPU#|rcu: INFO: rcu_\w+ .*stall).*$", re.M)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-B0-2]|\r")


class GuestDied(Exception):
    """The guest ended before its job did. The text says how, and shows the end of its console."""


class LockedUp(GuestDied):
    """Its kernel said that a processor was stuck: the emulator's fault or the kernel's own, whatever ran there."""


def why_not() -> str:
    """Why no guest can be booted on this machine; empty when one can."""
    if platform.machine() != "x86_64":
        return f"the guest is made for x86_64, and this is {platform.machine()}"
    if os.geteuid() != 0:
        return "making the guest needs root"
    missing = [name for name in ("qemu-system-x86_64", "mke2fs", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian's qemu-system-x86, e2fsprogs, mmdebstrap)"
    return ""


def make_guest() -> Path:
    """The directory with the guest's root and kernel, made now if need be."""
    with one_at_a_time():
        return Path(run_maker(REPO / "vagrant" / "make-guest").strip())


def list_engines(guest: Path) -> dict[str, str]:
    """The engines in the guest, and which versions."""
    packages = dict(line.split("\t") for line in (guest / "packages").read_text().splitlines())
    return {name: packages[name] for name in ENGINES if name in packages}


def acceleration() -> list[str]:
    """QEMU's options for the processor."""
    chosen = os.environ.get("PYRUN_VM_ACCEL", "tcg")
    if chosen == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    if chosen == "tcg":
        return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", EMULATED]
    raise ValueError(f"PYRUN_VM_ACCEL={chosen}: tcg or kvm")


def disk(number: int, path: Path, *, kept: bool = False) -> list[str]:
    """QEMU's options for a disk: the namespace `number` of the one controller. Writes to it are lost, or kept."""
    how = "cache=writeback" if kept else "snapshot=on,cache=unsafe"
    return [
        "-drive",
        f"file={path},if=none,id=d{number},format=raw,{how},discard=unmap",
        "-device",
        f"nvme-ns,drive=d{number},nsid={number}",
    ]


def memory_mib(wanted: int = MEMORY_MIB) -> int:
    """The guest's memory: PYRUN_VM_MEMORY, or what is wanted."""
    return int(os.environ.get("PYRUN_VM_MEMORY", wanted))


def cpu_count(wanted: int = CPUS) -> int:
    """The guest's processors: PYRUN_VM_CPUS, or as many as are wanted."""
    return int(os.environ.get("PYRUN_VM_CPUS", wanted))


def qemu_argv(
    guest: Path, job: Path, scratch: Path, kind: str, append: str = "", memory: int = MEMORY_MIB, cpus: int = CPUS
) -> list[str]:
    """The command line, but for where the serial ports go. `kind` is what the guest does: run or shell."""
    masked = " ".join(f"systemd.mask={unit}" for unit in NOT_STARTED)
    words = f"{CMDLINE} {masked} pyrun.job={kind} {append}".strip()
    return [
        *("qemu-system-x86_64", "-machine", "q35,hpet=off,graphics=off", *acceleration()),
        *("-smp", str(cpu_count(cpus)), "-m", str(memory_mib(memory)), "-nodefaults", "-no-reboot", "-display", "none"),
        *("-kernel", str(guest / "vmlinuz"), "-append", words),
        *("-device", "nvme,serial=pyrun", *disk(1, guest / "root.disk"), *disk(2, job), *disk(3, scratch)),
        *("-device", "virtio-rng-pci"),
    ]


def tail(text: str, lines: int = CONSOLE_LINES) -> str:
    """The last lines of a console, without a terminal's escapes and empty lines."""
    return "\n".join([line for line in ESCAPES.sub("", text).splitlines() if line.strip()][-lines:])


def head(text: str) -> str:
    """The first lines that are not empty: enough for the stacks of what is blocked and of what runs."""
    return "\n".join([line for line in text.splitlines() if line.strip()][:STACK_LINES])


def find_stuck(console: str, least: int = 0) -> str:
    """What the kernel said of a processor that was stuck for this many seconds; empty where it said nothing."""
    return next((said[1] for said in STUCK.finditer(console) if int(said[2]) >= least), "")


def diagnose(console: str, rc: int | None, hung_s: float = 0.0, errors: str = "") -> str:
    """What ended the guest, in a line, and the part of its console that shows it. rc is QEMU's, None while it runs."""
    clean = ESCAPES.sub("", console)
    panic = re.search(r"^.*Kernel panic - not syncing: (.*)$", clean, re.M)
    if panic:
        start = clean.rfind("------------[ cut here ]", 0, panic.start())
        bug = max(clean.rfind(word, 0, panic.start()) for word in ("BUG: ", "Oops: ", "general protection fault"))
        first = min((at for at in (start, bug) if at >= 0), default=panic.start())
        return f"the guest's kernel panicked: {panic[1]}\n{tail(clean[first:], 60)}"
    if rc is not None and rc != 0:
        return f"QEMU ended with status {rc}: {errors.strip()}\n{tail(clean)}"
    full = re.search(r"^.*(No space left on device|ENOSPC).*$", clean, re.M)
    if full:
        return f"the guest's disk is full: {full[0].strip()}\n{tail(clean)}"
    stuck, stalled = find_stuck(clean), STALLED.search(clean)
    if hung_s and stuck and stalled:
        return f"the guest's kernel locked up: {stuck}\n{head(clean[stalled.start() :])}"
    if hung_s:
        return f"the guest hangs: it said nothing for {hung_s:.0f} s\n{head(clean)}"
    return f"the guest ended without a word\n{tail(clean)}"


class Machine:
    """A running guest. `events` gives what it says until it is done; `rc` is then its job's exit code."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, console: Path) -> None:
        self.process = process
        self.console = console
        self.rc: int | None = None
        self._heard = 0  # bytes that its console had said at the last event
        self._directory = directory
        self._started = time.monotonic()

    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._started

    def events(self, silence: float) -> Iterator[dict[str, Any]]:
        """What the guest says. Raises GuestDied when it ends early, or says nothing for `silence` seconds; LockedUp
        when its kernel says that a processor is stuck.
        """
        assert self.process.stdout is not None
        fd, pending, allowed, last = self.process.stdout.fileno(), b"", max(BOOT_TIMEOUT_S, silence), time.monotonic()
        while True:
            if not select.select([fd], [], [], LOOK_S)[0]:
                self._look(time.monotonic() - last, allowed)
                continue
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            last = time.monotonic()
            *lines, pending = (pending + chunk).split(b"\n")
            for line in filter(None, lines):
                allowed = silence
                self._heard = self.console.stat().st_size
                event = parse_event(line)
                if event["event"] == "exit":
                    self.rc = int(event["rc"])
                yield event
        if self.rc is None:
            raise GuestDied(self._explain_end())

    def console_text(self, start: int = 0) -> str:
        """What it has said, from this byte."""
        return self.console.read_bytes()[start:].decode(errors="replace")

    def _look(self, silent: float, allowed: float) -> None:
        """Raises where the guest is beyond help. What its console said before its last event, it has got over."""
        ended = silent >= allowed
        stuck = find_stuck(self.console_text(self._heard), 0 if ended else STUCK_S)
        if stuck or ended:
            explained = self._explain_hang(min(silent, allowed))
            raise LockedUp(explained) if stuck else GuestDied(explained)

    def _explain_end(self) -> str:
        rc = self.process.wait(20)
        errors = (self._directory / "qemu.err").read_text(errors="replace")
        free = shutil.disk_usage(self._directory).free >> 20
        text = diagnose(self.console_text(), rc, errors=errors)
        if free < FULL_MIB:
            return f"this machine's disk is full ({free} MiB free in {tempfile.gettempdir()})\n{text}"
        return text

    def _explain_hang(self, seconds: float) -> str:
        """Asks the kernel what is blocked and what runs (sysrq w and l, by a break on the console), and to show all
        that it says (9).
        """
        said = ""
        try:
            for key in b"9wl":
                self._send_sysrq(bytes([key]))
                self._wait_for_quiet()
        except OSError as error:
            said = f"\n(the console takes no sysrq: {error})"
        return diagnose(self.console_text(self._heard), None, seconds) + said

    def _wait_for_quiet(self) -> None:
        """Until the kernel has written what it was asked for."""
        size, now = -1, time.monotonic()
        end, changed = now + STACKS_S, now
        while now < min(end, changed + QUIET_S):
            if (new := self.console.stat().st_size) != size:
                size, changed = new, now
            time.sleep(0.1)
            now = time.monotonic()

    def _send_sysrq(self, key: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as qmp, socket.socket(socket.AF_UNIX) as console:
            qmp.settimeout(5)
            console.connect(str(self._directory / "console"))
            qmp.connect(str(self._directory / "qmp"))
            send_break = {"execute": "chardev-send-break", "arguments": {"id": "con"}}
            for command in ({"execute": "qmp_capabilities"}, send_break):
                qmp.recv(65536)
                qmp.sendall(json.dumps(command).encode())
            qmp.recv(65536)
            console.sendall(key)


def parse_event(line: bytes) -> dict[str, Any]:
    """One line of the guest's; what is no event becomes one that quotes it."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": "noise", "text": line.decode(errors="replace")}


def make_scratch(path: Path) -> Path:
    """An empty disk for tests that need one."""
    with path.open("wb") as file:
        file.truncate(SCRATCH_MIB << 20)
    return path


@contextmanager
def boot(
    guest: Path,
    job: Path,
    console: Path,
    append: str = "",
    keep: Path | None = None,
    memory: int = MEMORY_MIB,
    cpus: int = CPUS,
) -> Iterator[Machine]:
    """Boots the guest with a job disk, and with /dev/kept on `keep`, which outlives it. It is gone at the end, and
    dies with this process. `memory` is in MiB; PYRUN_VM_MEMORY and PYRUN_VM_CPUS override it and `cpus`.
    """
    with tempfile.TemporaryDirectory(prefix="pyrun-vm-") as name:
        directory = Path(name)
        argv = [
            *("setpriv", "--pdeathsig", "KILL"),
            *qemu_argv(guest, job, make_scratch(directory / "scratch"), "run", append, memory, cpus),
            *(disk(4, keep, kept=True) if keep else ()),
            *("-chardev", f"socket,id=con,path={name}/console,server=on,wait=off,logfile={console},logappend=off"),
            *("-chardev", "stdio,id=events,signal=off", "-serial", "chardev:con", "-serial", "chardev:events"),
            *("-qmp", f"unix:{name}/qmp,server=on,wait=off"),
        ]
        console.write_bytes(b"")
        with (directory / "qemu.err").open("wb") as errors:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield Machine(process, directory, console)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
