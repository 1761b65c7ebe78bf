"""`pyrun run`: create and start in one; in the foreground its exit status is the program's, 128+n for signal n.

Nothing parks: the init execs at once. What fails after the start takes the container with it.
"""

from __future__ import annotations

import posix

from pyrun.cli.commands.create import config_of, request_words, runtime_of
from pyrun.cli.foreground import Joint
from pyrun.cli.interrupts import Interrupts
from pyrun.errors import PyrunError
from pyrun.plan.process.hooks import hooks_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.cli.waiting import Foreground
    from pyrun.plan.model.plan import Plan
    from pyrun.runtime.runtime import Container


def run(g: Globals, o: Options) -> int:
    if o.console_socket and not o.detach:
        raise PyrunError(
            "cannot use console socket if pyrun will not detach",
            hint="--console-socket needs --detach; in the foreground the terminal is the caller's",
        )
    return _detached(g, o) if o.detach else _foreground(g, o)


def _detached(g: Globals, o: Options) -> int:
    words, interrupts = request_words(g, o), Interrupts()
    words |= {"begin": interrupts.hold, "cancel": interrupts.cancel, "console_socket": o.console_socket}
    try:
        made = runtime_of(g).run(config_of(g, o), traced=print_trace if o.trace else None, **words)
    finally:
        interrupts.close()
    if made.notify >= 0:
        from pyrun.runtime.notify import wait_until_ready

        wait_until_ready(made.notify, made.pid, posix.environ[b"NOTIFY_SOCKET"])
    return 0


def _foreground(g: Globals, o: Options) -> int:
    words, config = request_words(g, o), config_of(g, o)
    joint = Joint()
    if config.spec.process is not None and config.spec.process.terminal:
        words["console"], words["plain_output"] = joint.socket()
        config.spec = config.spec.replace(process=joint.sized(config.spec.process))
    words |= {"subreaper": not o.no_subreaper, "traced": print_trace if o.trace else None}
    made: Container | None = None
    try:
        made = runtime_of(g).run(config, begin=joint.hold_signals, cancel=joint.cancel, **words)
        if made.notify < 0 and not g.systemd_cgroup and not hooks_of(config.spec, "poststop"):
            joint.leave_to_launcher(g, o.id, made.pid, made.pidfd(), delete=not o.keep)
        program = joint.foreground(made.pid, made.pidfd())
        if made.notify >= 0:
            _listen(program, made.notify)
        return program.wait()
    finally:
        joint.restore_terminal()
        if made is not None and not o.keep:
            made.end()
        joint.close()


def _listen(program: Foreground, fd: int) -> None:
    """What the program says of its readiness is handed on while we wait for it. The service is then we."""
    from pyrun.runtime.notify import hand_on

    pid, manager = posix.getpid(), posix.environ[b"NOTIFY_SOCKET"]
    program.add_listener(fd, lambda: not hand_on(fd, pid, manager))


def print_trace(plan: Plan, took: list[int], failed: int | None) -> None:
    """On stderr, since stdout is the program's. Before the program says anything, or with what went wrong behind it."""
    from pyrun.cli.output import terminal_style, write
    from pyrun.plan.words.explain import format_trace

    width, color = terminal_style(2)
    write("\n".join(format_trace(plan, took, failed=failed, width=width, color=color)) + "\n", 2, styled=color)
