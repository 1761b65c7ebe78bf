"""`pyrun exec`: one more program in a container; exits as it does, or with 255 when it can't be run."""

from __future__ import annotations

from pyrun.cli.foreground import Joint
from pyrun.cli.interrupts import Interrupts
from pyrun.errors import PyrunError, UsageError
from pyrun.oci.load import load_process, read_file
from pyrun.oci.model import Process, Spec
from pyrun.plan.process.exec_process import lend, process_of_words
from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    if not o.command and not o.process:
        raise UsageError("COMMAND is missing: pyrun exec [OPTIONS] ID COMMAND...", hint="or give --process FILE")
    container = Runtime(g.root, warn=g.warn, rootless=g.rootless).container(o.id)
    spec = container.spec()
    process = process_of(spec, o)
    words: dict[str, Any] = {"spec": spec, **words_of(o)}
    if o.detach:
        interrupts = Interrupts()
        try:
            container.exec(process, begin=interrupts.hold, cancel=interrupts.cancel, **words)
        finally:
            interrupts.close()
        return 0
    joint = Joint()
    if process.terminal:
        words["console"], words["plain_output"] = joint.socket()
        process = joint.sized(process)
    try:
        made = container.exec(process, begin=joint.hold_signals, cancel=joint.cancel, **words)
        joint.leave_to_launcher(g, o.id, made.pid, made.pidfd, delete=False)
        return joint.foreground(made.pid, made.pidfd).wait()
    finally:
        joint.close()


def process_of(spec: Spec, o: Options) -> Process:
    """What is to run in a container made from spec. PyrunError where the options don't fit it."""
    if spec.process is None:
        raise PyrunError("the container has no process whose place the command could take")
    process = _process(spec.process, o)
    _check_terminal(process, o)
    return process


def words_of(o: Options) -> dict[str, Any]:
    """The options as prepare_exec() takes them."""
    return {
        "ignore_paused": o.ignore_paused,
        "preserve_fds": o.preserve_fds,
        "pid_file": o.pid_file,
        "console_socket": o.console_socket,
        "pidfd_socket": o.pidfd_socket,
        "subcgroup": _subcgroup(o.cgroup),
    }


def _process(own: Process, o: Options) -> Process:
    if not o.process:
        return process_of_words(own, o)
    return lend(own, load_process(read_file(o.process), file=o.process))


def _check_terminal(process: Process, o: Options) -> None:
    if o.detach and process.terminal and not o.console_socket:
        raise PyrunError(
            "cannot allocate tty if pyrun will detach without setting console socket",
            hint="give --console-socket, or leave out --detach or --tty",
        )
    if o.console_socket and not (o.detach and process.terminal):
        raise PyrunError(
            "cannot use console socket if pyrun will not detach or allocate tty",
            hint="--console-socket needs --detach and --tty",
        )


def _subcgroup(given: tuple[str, ...]) -> str | None:
    """The one --cgroup. runc's `controller:path` is of cgroup v1."""
    if not given:
        return None
    if len(given) > 1 or ":" in given[0]:
        raise PyrunError(
            f"--cgroup {given[-1]}: cgroup v2 has one hierarchy",
            hint="name one cgroup below the container's, without a controller in front",
        )
    if ".." in given[0].split("/"):
        raise PyrunError(f"--cgroup {given[0]}: not below the container's cgroup", hint="a path without ..")
    return given[0]
