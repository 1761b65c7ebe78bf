"""`pyrun addons`: metrics, collect and dashboard, each in a process of its own that is forked from one which has all
their modules: they share its memory as long as nobody writes to it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass

from pyrun.cli.commands.cri import missing_package
from pyrun.cli.parse import Call, parse
from pyrun.errors import InvalidArgument, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

DEFAULT = ("metrics --store /var/lib/pyrun-metrics", "collect", "dashboard")
LOADED = {
    "metrics": ("pyrun.cli.commands.metrics", "pyrun.metrics.exporter", "pyrun.metrics.store"),
    "collect": ("pyrun.cli.commands.collect", "pyrun.logs.collector", "pyrun.logs.ship.record"),
    "dashboard": ("pyrun.cli.commands.dashboard", "pyrun.dashboard.start"),
}
AGAIN_S, LONGEST_AGAIN_S = 0.5, 30.0
STOP_S = 10.0
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
ENDS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class _Addon:
    """pid: 0 where none runs; the next one is begun at `due`, by the monotonic clock. again: later each time where it
    does not last."""

    argv: list[str]
    pid: int = 0
    begun: float = 0.0
    due: float = 0.0
    again: float = AGAIN_S

    def begin(self) -> None:
        parent = os.getpid()
        self.begun = time.monotonic()
        try:
            self.pid = os.fork()
        except OSError as error:
            self._later(f"can't be started: {reason(error)}")
        else:
            if not self.pid:
                _be(self.argv, parent)

    def ended(self, code: int) -> None:
        self.pid = 0
        if time.monotonic() - self.begun > LONGEST_AGAIN_S:
            self.again = AGAIN_S
        self._later(f"ended with {code}")

    def _later(self, told: str) -> None:
        sys.stderr.write(f"pyrun: addons: {self.argv[0]} {told}; it is started again in {self.again:g} s\n")
        self.due = time.monotonic() + self.again
        self.again = min(self.again * 2, LONGEST_AGAIN_S)


def run(g: Globals, o: Options) -> int:
    addons = [_Addon(_checked(command)) for command in o.command or DEFAULT]
    if len({addon.argv[0] for addon in addons}) < len(addons):
        raise InvalidArgument("the same command twice", hint="each may be named once")
    try:
        from pyrun.web.sharing import prepare_fork

        for addon in addons:
            for module in LOADED[addon.argv[0]]:
                __import__(module)
    except ModuleNotFoundError as error:
        raise missing_package(error)
    prepare_fork()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # one that is ignored would not be told
    try:
        _keep(addons)
    finally:
        _end(addons)
    return 0


def _checked(command: str) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise InvalidArgument(f"{command!r}: {error}") from None
    if not argv or argv[0] not in LOADED:
        raise InvalidArgument(
            f"{command!r} is none of {', '.join(LOADED)}",
            hint="its options belong to its word: 'collect --keep 24h'",
        )
    parse(argv, Call())
    return argv


def _keep(addons: Sequence[_Addon]) -> None:
    """Until a signal ends it."""
    while True:
        now = time.monotonic()
        for addon in addons:
            if not addon.pid and addon.due <= now:
                addon.begin()
        waits = [addon.due - time.monotonic() for addon in addons if not addon.pid]
        told = signal.sigtimedwait(SIGNALS, max(0.0, min(waits, default=3600.0)))
        if told is not None and told.si_signo in ENDS:
            return
        _reap(addons)


def _reap(addons: Sequence[_Addon]) -> None:
    for addon in addons:
        if addon.pid:
            pid, status = os.waitpid(addon.pid, os.WNOHANG)
            if pid:
                addon.ended(os.waitstatus_to_exitcode(status))


def _end(addons: Sequence[_Addon]) -> None:
    running = [addon.pid for addon in addons if addon.pid]
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    last = time.monotonic() + STOP_S
    while running:
        left = last - time.monotonic()
        if left <= 0:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait((signal.SIGCHLD,), max(0.1, left))
        running = [pid for pid in running if not os.waitpid(pid, os.WNOHANG)[0]]


def _be(argv: list[str], parent: int) -> NoReturn:
    from pyrun.cli.main import end, main
    from pyrun.web.process import end_with

    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        end_with(parent)
        code = end(main(argv))
    finally:
        os._exit(code)
