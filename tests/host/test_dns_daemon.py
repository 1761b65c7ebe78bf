"""`pyrun dns run` as processes: each half killed, and each replaced by a newer one, under load."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import until
from tests.support.dns import shown
from tests.support.dns_daemon import DnsDaemon, Load, is_there

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: ADDRESS, ports: [{port: 80}]}
"""
NAME = "web.default.svc.cluster.local"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DnsDaemon]:
    tmp_path.chmod(0o755)
    made = DnsDaemon(tmp_path, "--resolv-conf", "/dev/null")
    made.write(WEB.replace("ADDRESS", "10.96.0.5"))
    try:
        yield made
    finally:
        made.stop()


def test_the_daemon_is_killed_under_load(daemon: DnsDaemon) -> None:
    """The program answers on, by what it had; the next daemon takes it up with what has changed meanwhile."""
    daemon.start()
    pid = daemon.program()
    load = Load(daemon.port, NAME)
    load.more(50)
    daemon.kill()
    load.more(50)
    daemon.write(WEB.replace("ADDRESS", "10.96.1.1"))
    load.more(50)
    daemon.start()
    until(lambda: shown(daemon.ask(NAME))[1] == [f"{NAME}. 5 A 10.96.1.1"], daemon.said)
    load.end()
    assert not load.bad and daemon.program() == pid


def test_either_half_is_upgraded_under_load(daemon: DnsDaemon, tmp_path: Path) -> None:
    """Python first and then, with a newer program in its place, both: no query is lost, and the old program ends."""
    program = daemon.install(tmp_path / "installed")
    daemon.start()
    first = daemon.program()
    load = Load(daemon.port, NAME)
    load.more(50)
    daemon.leave()
    load.more(50)
    daemon.start()
    assert daemon.program() == first and f"process {first}, and is kept" in daemon.said()
    new = program.with_suffix(".new")
    new.write_bytes(program.read_bytes() + b"1")
    new.chmod(0o755)
    new.rename(program)
    daemon.leave()
    load.more(50)
    daemon.start()
    load.more(100)
    assert f"has taken over from {first}" in daemon.said() and daemon.program() != first
    until(lambda: not is_there(first), lambda: "the old program does not end")
    load.end()
    assert not load.bad


def test_the_program_is_killed_under_load(daemon: DnsDaemon) -> None:
    """What waits in its sockets is answered by the next one. Lost is what it had read and not answered: a question
    that its asker asks again, as all do, and connections that it had taken."""
    daemon.start()
    load = Load(daemon.port, NAME, retry_s=5.0)
    for _ in range(2):
        load.more(50)
        pid = daemon.program()
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: daemon.program() not in (0, pid), daemon.said)  # type: ignore[misc]
    load.more(50)
    load.end()
    assert load.again <= 2 and len(load.bad) <= 2, (load.again, load.bad)
    until(lambda: daemon.said().count("goes on") == 2, daemon.said)
