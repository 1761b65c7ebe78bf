"""AppArmor's RuntimeDefault: the text of the profile, and its way into the kernel, for which apparmor_parser compiles
it.

It denies what the hidden paths and the capabilities deny already, once more and for every program in the container: to
write to the kernel's own files, to mount, and to reach a process of another profile. The default for a node with
AppArmor whose administrator has loaded no profile of this name.
"""

from __future__ import annotations

import shutil
import subprocess

from ...errors import PyrunError

NAME = "pyrun-default"
PATIENCE_S = 30
PROFILE = f"""
profile {NAME} flags=(attach_disconnected, mediate_deleted) {{
  file,
  network,
  capability,
  umount,
  unix,
  mqueue,
  userns,

  signal (receive) peer=unconfined,
  signal (send, receive) peer={NAME},
  ptrace (read, trace, readby, tracedby) peer={NAME},

  deny mount,
  deny remount,
  deny pivot_root,

  # The kernel's memory, its keys to everything, and its switches.
  deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwklx,
  deny /proc/{{acpi,bus,driver,fs,irq,scsi,tty}}/** wklx,
  deny /proc/sys/{{abi,debug,dev,fs,user,vm}}/** wklx,
  # Of kernel.* only what is of an IPC namespace: msg*, sem, shm*.
  deny /proc/sys/kernel/[^ms]** wklx,
  deny /proc/sys/kernel/m[^s]** wklx,
  deny /proc/sys/kernel/s[^eh]** wklx,

  deny /sys/{{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}}/** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/{{debug,security,tracing}}/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}}
"""


def load_default() -> bool:
    """Loads it; False where there is no apparmor_parser. PyrunError when that fails."""
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin:/usr/local/sbin")
    if parser is None:
        return False
    for text in (PROFILE, _for_older(PROFILE)):
        argv = [parser, "--replace", "--skip-cache"]
        try:
            done = subprocess.run(argv, input=text, text=True, capture_output=True, timeout=PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PyrunError(f"AppArmor profile {NAME}: {error}") from None
        if done.returncode == 0:
            return True
    raise PyrunError(f"AppArmor profile {NAME}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def _for_older(text: str) -> str:
    """Without the classes of rules that came with AppArmor 4."""
    return "\n".join(line for line in text.splitlines() if line.strip() not in ("mqueue,", "userns,"))
