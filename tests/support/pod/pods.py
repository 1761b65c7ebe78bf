"""A pod for tests: a directory with a real supervisor, and containers that it makes."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrun.oci.model import Process
from pyrun.pod.calls import Gone
from pyrun.pod.carried import Exec, Made
from pyrun.pod.messages import Known
from pyrun.pod.supervisor import CONSOLE, Supervisor
from pyrun.runtime.delete import delete
from pyrun.runtime.exec import prepare_exec
from pyrun.runtime.prepare import Config, prepare
from pyrun.runtime.start import start
from pyrun.runtime.store import Store
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import wait_for

ENTRY = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) ([^\n]*)\n")


def fail(text: str) -> None:
    raise AssertionError(text)


def supervisor_pid(directory: Path) -> int:
    """Of the pyrun-pod whose descriptor 3 is this directory."""
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdigit()
                and Path(f"/proc/{name}/comm").read_text() == "pyrun-pod\n"
                and os.readlink(f"/proc/{name}/fd/3") == str(directory)
            ):
                return int(name)
        except OSError:
            continue
    raise AssertionError(f"no supervisor of {directory}")


def entries(log: Path) -> list[tuple[str, str, bytes]]:
    """(stream, tag, text) of each entry; it fails where the log holds anything else."""
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        match = ENTRY.match(data, at)
        assert match, data[at : at + 200]
        found.append((match[2].decode(), match[3].decode(), match[4]))
        at = match.end()
    return found


def text_of(log: Path, stream: str = "stdout") -> bytes:
    """What was written to the stream, byte for byte."""
    return b"".join(text + b"\n" * (tag == "F") for name, tag, text in entries(log) if name == stream)


class Pod:
    """directory/pod has the supervisor's socket, directory/state the containers."""

    def __init__(self, directory: Path, bundles: BundleMaker) -> None:
        self.bundles = bundles
        self.directory = directory / "pod"
        self.directory.mkdir(exist_ok=True)
        self.logs = directory
        self.store = Store(str(directory / "state"))
        self.made: dict[str, Made] = {}
        self.supervisor = Supervisor.launch(str(self.directory), "pod")

    @property
    def pid(self) -> int:
        return supervisor_pid(self.directory)

    def log(self, ctr: str) -> Path:
        return self.logs / f"{ctr}.log"

    def create(
        self, ctr: str, args: Sequence[str], *, tty: bool = False, bundle: Bundle | None = None, **words: Any
    ) -> Made:
        b = bundle or self.bundles(list(args), process={"terminal": tty})
        config = Config((b.path / "config.json").read_bytes())
        prepared = prepare(self.store, ctr, str(b.path), config, console=CONSOLE if tty else None)
        log = os.open(self.log(ctr), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            made = self.supervisor.create(
                ctr, prepared, **{"log": log, "tty": tty, "warn": fail, "timeout": 20, **words}
            )
        finally:
            os.close(log)
        self.made[ctr] = made
        return made

    def start(self, ctr: str) -> None:
        start(self.store, ctr, fail)

    def run(self, ctr: str, args: Sequence[str], **words: Any) -> Made:
        made = self.create(ctr, args, **words)
        self.start(ctr)
        return made

    def sh(self, ctr: str, script: str, **words: Any) -> Made:
        return self.run(ctr, ["sh", "-c", script], **words)

    def exec(self, ctr: str, args: Sequence[str], stdio: tuple[int, int, int] | None, **words: Any) -> Exec:
        from pyrun.oci.load import load_file

        c = self.store.open(ctr)
        spec = load_file(c.path("config.json"))
        assert spec.process is not None
        process: Process = spec.process.replace(args=tuple(args), terminal=stdio is None)
        planned = prepare_exec(c, spec, process, console=CONSOLE if stdio is None else None)
        return self.supervisor.exec(ctr, planned, stdio, **words)

    def ended(self, ctr: str, timeout: float = 60) -> Known:
        """Waits for the event of its end."""
        last = time.monotonic() + timeout
        while (left := last - time.monotonic()) > 0:
            if select.select([self.supervisor], [], [], left)[0]:
                event = self.supervisor.read_event()
                if event is not None and event.ctr == ctr:
                    return event
        raise AssertionError(f"{ctr} has not ended")

    def known(self, ctr: str) -> Known | None:
        return next((k for k in self.supervisor.hello() if k.ctr == ctr), None)

    def remove(self, ctr: str) -> None:
        delete(self.store, ctr, fail, force=True)
        if self.known(ctr):
            wait_for(lambda: (k := self.known(ctr)) is None or k.state == 3, 10, f"the end of {ctr}")
            self.supervisor.drop(ctr)
        if ctr in self.made:
            self.made.pop(ctr).close()

    def close(self) -> None:
        for ctr in self.store.ids():
            delete(self.store, ctr, lambda text: None, force=True)
        for made in self.made.values():
            made.close()
        try:
            for known in self.supervisor.hello():
                if known.state == 2:
                    os.kill(known.pid, 9)
            wait_for(lambda: all(k.state == 3 for k in self.supervisor.hello()), 10, "all ends")
            self.supervisor.end()
        except Gone:  # told to end by a test
            pass
        finally:
            self.supervisor.close()
