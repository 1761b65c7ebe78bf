"""Holds up the machine's shutdown until the pods have ended: a delay inhibitor of systemd-logind's.

One thread talks to logind over the system's D-Bus: it takes the lock, has logind wait long enough for it (a drop-in, as
a kubelet writes one), and follows PrepareForShutdown. The loop ends the pods. Where there is no logind, or it does not
wait that long, `trouble` says so, and it is tried again.

Source: kubernetes pkg/kubelet/nodeshutdown/systemd/inhibit_linux.go; org.freedesktop.login1(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ...ending import in_time
from ...errors import PyrunError, reason
from ...kube.certificates import write_private
from ...runtime.dbus import BUS, Bus, BusError, system_address

LOGIND, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = f"{LOGIND}.Manager"
SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
SIGNAL = "PrepareForShutdown"
RULE = f"type='signal',sender='{LOGIND}',path='{PATH}',interface='{MANAGER}',member='{SIGNAL}'"
DROP_IN = "/etc/systemd/logind.conf.d/99-pyrun.conf"
SPARE_S = 15.0  # beyond the pods' time: for what follows their kill, and for the API server to be told
TIMEOUT_S, READ_S = 10.0, 5.0
AGAIN_S = 30.0
HINT = "a node without logind has --shutdown-on-term"


class Inhibitor:
    """seconds: of the pods. told: on the loop, with whether the shutdown begins or was called off. drop_in: a file."""

    def __init__(
        self, seconds: float, told: Callable[[bool], None], warn: Callable[[str], None], drop_in: str = DROP_IN
    ) -> None:
        self._seconds, self._told, self._warn, self._drop_in = seconds, told, warn, drop_in
        self.trouble = ""
        self._lock = threading.Lock()
        self._held = -1  # while it is open, logind waits
        self._nth = 0  # how many it has been
        self._ending_nth = -1  # of which of them release() is
        self._begun = False
        self._bus: Bus | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logind", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def release(self) -> None:
        """The machine may go: for the shutdown that was told last, and for no later one."""
        self._let_go(self._ending_nth)

    def _let_go(self, nth: int | None = None) -> None:
        with self._lock:
            if nth not in (None, self._nth):
                return
            held, self._held = self._held, -1
        if held >= 0:
            os.close(held)

    def close(self) -> None:
        """And nothing is told any more."""
        self._ended.set()
        with self._lock:
            bus = self._bus
        if bus is not None:
            bus.hang_up()
        if self._thread.ident is not None:
            in_time(self._thread.join)
        self._let_go()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except BusError as error:
                self._say(f"{error.name}: {error}")
            except (OSError, ValueError) as error:
                self._say(f"no D-Bus: {reason(error) if isinstance(error, OSError) else error}")
            except PyrunError as error:
                self._say(str(error))
            self._ended.wait(AGAIN_S)

    def _say(self, why: str) -> None:
        if self._ended.is_set():
            return
        text = f"the machine's shutdown does not wait for pods: {why}; {HINT}"
        if text != self.trouble:
            self.trouble = text
            self._warn(text)

    def _follow(self) -> None:
        bus = Bus(system_address(), TIMEOUT_S, descriptors=True)
        try:
            with self._lock:
                self._bus = bus
            if self._ended.is_set():  # and close() has seen no bus to hang up
                return
            bus.call(*BUS, "AddMatch", "s", (RULE,))
            self._heard(bus, bool(self._get(bus, "PreparingForShutdown")))  # as nobody has listened until now
            short = self._wait_enough(bus)
            if not self._begun:
                self._hold(bus)
            self.trouble = ""
            if short:
                self._say(short)
            for (begins,) in bus.signals(SIGNAL, math.inf, LOGIND):
                self._heard(bus, bool(begins))
        finally:
            with self._lock:
                self._bus = None
            bus.close()

    def _heard(self, bus: Bus, begins: bool) -> None:
        if begins == self._begun:
            return
        self._begun = begins
        try:
            if not begins:
                self._hold(bus)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._tell, begins, self._nth)

    def _tell(self, begins: bool, nth: int) -> None:
        if begins:
            self._ending_nth = nth
        if not self._ended.is_set():
            self._told(begins)

    def _hold(self, bus: Bus) -> None:
        """Of one that is held already another one: without a moment in between."""
        words = ("shutdown", "pyrun", "pods end, and the API server is told of it", "delay")
        (at,) = bus.call(LOGIND, PATH, MANAGER, "Inhibit", "ssss", words)
        fds, bus.descriptors = bus.descriptors or [], []
        if at >= len(fds):
            raise ConnectionError("logind has sent no descriptor")
        with self._lock:
            before, self._held = self._held, fds.pop(at)
            self._nth += 1
        for fd in (*fds, before):
            if fd >= 0:
                os.close(fd)

    def _wait_enough(self, bus: Bus) -> str:
        """Has logind wait as long as pods may take. What is wrong where it does not."""
        if (found := self._waits(bus)) >= self._seconds:
            return ""
        made = f"# by pyrun node: its pods have {self._seconds:g} s\n[Login]\nInhibitDelayMaxSec={self._asked}\n"
        try:
            os.makedirs(os.path.dirname(self._drop_in), 0o755, exist_ok=True)
            write_private(self._drop_in, made.encode())
            os.chmod(self._drop_in, 0o644)
        except (OSError, PyrunError) as error:
            why = f"{self._drop_in}: {reason(error)}" if isinstance(error, OSError) else str(error)
            return f"logind waits {found:g} s and pods have {self._seconds:g} s, and it can't be told to: {why}"
        try:
            bus.call(*SYSTEMD, "KillUnit", "ssi", ("systemd-logind.service", "all", 1))  # SIGHUP: it reads it
        except BusError as error:
            return f"logind waits too little until it has read {self._drop_in}, and can't be told to: {error}"
        last = time.monotonic() + READ_S
        while (found := self._waits(bus)) < self._seconds:
            if time.monotonic() > last or self._ended.wait(0.1):
                return (
                    f"logind waits {found:g} s and pods have {self._seconds:g} s: "
                    f"InhibitDelayMaxSec of another file counts before {self._drop_in}"
                )
        return ""

    @property
    def _asked(self) -> int:
        return math.ceil(self._seconds + SPARE_S)

    def _waits(self, bus: Bus) -> float:
        """Seconds, that logind waits at most."""
        return float(self._get(bus, "InhibitDelayMaxUSec")) / 1e6

    def _get(self, bus: Bus, name: str) -> Any:
        (value,) = bus.call(LOGIND, PATH, "org.freedesktop.DBus.Properties", "Get", "ss", (MANAGER, name))
        return value[1]
