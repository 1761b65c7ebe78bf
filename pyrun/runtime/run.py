"""run: create and start in one plan; in the foreground also wait, and then delete.

Nothing parks: the init execs at once, and the plan ends when the kernel has closed its sync socket. So `run` needs
neither FIFO nor a second process. In the foreground its exit code is the program's. What fails after the start takes
the container with it.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..executor import Outcome
from ..oci.model import Spec
from ..plan.process.exec_process import with_size
from .create import Prepared, hold_interrupts, prepare, run_prepared
from .foreground import SIGTTIN, SIGTTOU, Foreground, Signals
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from .console import Terminal
    from .create import Traced

SIGPIPE = 13
# With a terminal these are about ours, and not the program's: we stop in the background; a lost reader is no signal.
OF_OUR_TERMINAL = frozenset((SIGPIPE, SIGTTIN, SIGTTOU))


def run(
    store: Store,
    container: str,
    bundle: str,
    *,
    detach: bool = False,
    keep: bool = False,
    subreaper: bool = True,
    console_socket: str | None = None,
    warn: Callable[[str], None] | None = None,
    traced: Traced | None = None,
    **words: object,
) -> int:
    """pyrun run. Returns the program's exit code, 0 with detach. traced: see run_prepared()."""
    if detach:
        prepared = prepare(store, container, bundle, park=False, console_socket=console_socket, **words)  # type: ignore[arg-type]
        hold_interrupts()
        outcome = run_prepared(store, prepared, traced=traced, warn=warn)
        if prepared.request.notify:
            from .notify import socket_of, wait_until_ready

            wait_until_ready(socket_of(outcome), outcome.pid)
        outcome.close()
        return 0
    if console_socket:
        raise PyrunError(
            "cannot use console socket if pyrun will not detach",
            hint="--console-socket needs --detach; in the foreground the terminal is the caller's",
        )
    return _foreground(store, container, bundle, keep, words, subreaper, warn, traced)


def _foreground(
    store: Store,
    container: str,
    bundle: str,
    keep: bool,
    words: dict[str, object],
    subreaper: bool,
    warn: Callable[[str], None] | None,
    traced: Traced | None,
) -> int:
    joint = Joint()
    prepared = prepare(store, container, bundle, park=False, subreaper=subreaper, foreground=joint, **words)  # type: ignore[arg-type]
    signals = Signals(OF_OUR_TERMINAL if joint.wanted else frozenset())
    terminal = None
    try:
        outcome = run_prepared(store, prepared, traced=traced, warn=warn)
        try:
            terminal = joint.open()
            signals.listen()
            program = Foreground(outcome.pid, outcome.pidfd(), signals, terminal)
            if prepared.request.notify:
                _listen(program, outcome)
            return program.wait()
        finally:
            if terminal is not None:
                terminal.close()
            if not keep:
                _delete(store, prepared, outcome, warn)
            outcome.close()
    finally:
        joint.close()
        signals.close()


def _listen(program: Foreground, outcome: Outcome) -> None:
    """What the program says of its readiness is handed on while we wait for it. The service is then we."""
    from .notify import hand_on, socket_of

    fd, pid = socket_of(outcome), posix.getpid()
    program.add_listener(fd, lambda: not hand_on(fd, pid))


class Joint:
    """What joins a foreground command to the terminal that its child makes: a pair of sockets, if one is wanted."""

    __slots__ = ("_ours", "_theirs", "wanted")

    def __init__(self) -> None:
        self.wanted = False
        self._ours: socket | None = None
        self._theirs: socket | None = None

    def socket(self) -> tuple[int, bool]:
        """For Request: console and plain_output."""
        from .console import is_plain, make_socket

        self.wanted = True
        self._ours, self._theirs = make_socket()
        return self._theirs.fileno(), is_plain()

    def size(self, spec: Spec) -> Spec:
        """The spec whose terminal has the caller's size from the first moment."""
        from .console import caller_size

        size = caller_size()
        if size is None or spec.process is None:
            return spec
        return spec.replace(process=with_size(spec.process, *size))

    def open(self) -> Terminal | None:
        """The relay, begun; None without a terminal."""
        if self._ours is None:
            return None
        from .console import Terminal, receive_master

        terminal = Terminal(receive_master(self._ours))
        self.close()
        terminal.begin()
        return terminal

    def close(self) -> None:
        for end in (self._ours, self._theirs):
            if end is not None:
                end.close()
        self._ours = self._theirs = None


def _delete(store: Store, prepared: Prepared, outcome: Outcome, warn: Callable[[str], None] | None) -> None:
    """Kills what is left and removes the container, if it is still ours and not another that has its name now."""
    from .delete import destroy, remove

    try:
        c = store.open(prepared.request.id)
    except PyrunError:
        return
    if c.record.pid != outcome.pid:
        return
    if c.alive():
        destroy(c, warn)
    else:
        remove(prepared.spec, prepared.request, warn)
