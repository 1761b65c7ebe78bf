"""The guest from the command line: `make vm`, `make vm-shell` and the like.

python -m tests.support.vm run 'COMMAND'   boots the guest with pyrun in it, runs COMMAND, ends with its exit code
python -m tests.support.vm shell           the same, with a shell on the serial console instead; exit ends it
python -m tests.support.vm image           only makes the guest, and prints where it is
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support.vm import machine as vm_machine
from tests.support.vm.job import LOGS, job_disk
from tests.support.vm.machine import GuestDied

SILENCE_S = float(os.environ.get("PYRUN_VM_TIMEOUT", "3600"))


def run(command: str) -> int:
    """Runs a shell command in the guest as root, its output on ours; its exit code."""
    LOGS.mkdir(parents=True, exist_ok=True)
    console = LOGS / "console.log"
    with job_disk(f"#!/bin/sh\nexec 2>&1\n{command}\n") as disk:
        with vm_machine.boot(vm_machine.make_guest(), disk, console) as machine:
            try:
                for event in machine.events(SILENCE_S):
                    if event["event"] == "booted":
                        shown = threading.Thread(target=show, args=(machine, len(machine.console_text())))
                        shown.start()
            except GuestDied as death:
                print(f"vm: {death}", file=sys.stderr)
                return 125
            shown.join()
            return machine.rc or 0


def show(machine: vm_machine.Machine, start: int) -> None:
    """Prints the console from there on as it grows, until the guest has ended."""
    while True:
        over = machine.process.poll() is not None
        text = machine.console_text()
        end = text.rfind("\n") + 1
        for line in text[start:end].splitlines():
            clean = vm_machine.ESCAPES.sub("", line)
            if clean and not clean.startswith("Rebooting.") and "reboot: Restarting system" not in clean:
                print(clean, flush=True)
        start = max(start, end)
        if over:
            return
        time.sleep(0.2)


def shell() -> int:
    """A root shell on the guest's console, which is this terminal. Ctrl-A X ends QEMU itself."""
    size = os.get_terminal_size() if sys.stdin.isatty() else os.terminal_size((120, 40))
    append = f"pyrun.columns={size.columns} pyrun.lines={size.lines}"
    with job_disk("#!/bin/sh\n") as disk, tempfile.TemporaryDirectory() as name:
        scratch = vm_machine.make_scratch(Path(name) / "scratch")
        argv = vm_machine.qemu_argv(vm_machine.make_guest(), disk, scratch, "shell", append)
        return subprocess.run([*argv, "-serial", "mon:stdio", "-serial", "null"]).returncode


def main(argv: list[str]) -> int:
    problem = vm_machine.why_not()
    if problem:
        print(f"vm: {problem}", file=sys.stderr)
        return 125
    match argv:
        case ["run", command]:
            return run(command)
        case ["shell"]:
            return shell()
        case ["image"]:
            print(vm_machine.make_guest())
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
