"""A logind of the tests' own, on a D-Bus of their own: it keeps who holds up its shutdown."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrun.node.agent import logind
from tests.support.container.runner import wait_for
from tests.support.serving import shut_down

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>"""
PATIENCE_S = 60.0


@contextlib.contextmanager
def a_bus(at: Path) -> Iterator[str]:
    """Its address."""
    socket = Path(f"/tmp/pyrun-logind-{os.getpid()}")  # a socket's path is short
    (at / "bus.conf").write_text(CONFIG.format(socket=socket))
    words = ["dbus-daemon", f"--config-file={at}/bus.conf", "--nofork", "--print-address"]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
    finally:
        daemon.kill()
        daemon.communicate()
        socket.unlink(missing_ok=True)


class Logind:
    """delay: seconds, that it waits; drop_in: read when it is told to. deaf: it can't be told. asked: methods, in their
    order. preparing: what it says of a shutdown that is under way. mean: it takes no more locks. client: who has asked
    last."""

    def __init__(self, address: str, delay: float, drop_in: Path | None = None, *, deaf: bool = False) -> None:
        from jeepney import message_bus
        from jeepney.io.blocking import open_dbus_connection

        self.delay, self.drop_in, self.deaf = delay, drop_in, deaf
        self.asked: list[tuple[str, Any]] = []
        self.preparing = self.mean = False
        self.client = ""
        self.locks: list[int] = []  # our ends
        self._bus = open_dbus_connection(address, enable_fds=True)
        for name in (logind.LOGIND, logind.SYSTEMD[0]):
            self._bus.send_and_get_reply(message_bus.RequestName(name))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        from jeepney import HeaderFields, MessageType, new_error, new_method_return

        while True:
            try:
                message = self._bus.receive()
            except (ConnectionResetError, OSError, ValueError):  # the test is over
                return
            if message.header.message_type != MessageType.method_call:
                continue
            member = message.header.fields[HeaderFields.member]
            self.asked.append((member, message.body))
            self.client = message.header.fields[HeaderFields.sender]
            if member == "Get":
                value = ("b", self.preparing) if "Preparing" in message.body[1] else ("t", int(self.delay * 1e6))
                self._bus.send(new_method_return(message, "v", (value,)))
            elif (member == "KillUnit" and self.deaf) or (member == "Inhibit" and self.mean):
                self._bus.send(new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "s", ("no",)))
            elif member == "Inhibit":
                ours, theirs = os.pipe()
                self.locks.append(ours)
                self._bus.send(new_method_return(message, "h", (theirs,)))
                os.close(theirs)
            else:
                if member == "KillUnit" and self.drop_in is not None:
                    words = dict(line.split("=") for line in self.drop_in.read_text().splitlines() if "=" in line)
                    self.delay = float(words["InhibitDelayMaxSec"])
                self._bus.send(new_method_return(message))

    def tell(self, *, begins: bool) -> None:
        from jeepney import DBusAddress, new_signal

        self.preparing = begins
        self._bus.send(new_signal(DBusAddress(logind.PATH, interface=logind.MANAGER), logind.SIGNAL, "b", (begins,)))

    def is_held(self) -> bool:
        """By anybody."""
        ready = dict(_poll(self.locks))
        return any(not ready.get(fd, 0) & select.POLLHUP for fd in self.locks)

    def wait_held(self, held: bool = True) -> None:
        wait_for(lambda: self.is_held() == held, PATIENCE_S, "the lock")

    def close(self) -> None:
        shut_down(self._bus.sock)
        self._thread.join(PATIENCE_S)
        self._bus.close()
        for fd in self.locks:
            os.close(fd)


def _poll(fds: list[int]) -> list[tuple[int, int]]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, 0)
    return poll.poll(0)
