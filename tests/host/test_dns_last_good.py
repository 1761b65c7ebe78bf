"""What the daemon of the cluster's DNS goes on with where a table is no good, or another daemon
wants its directory."""

from __future__ import annotations

import os

import pytest

import pyrun.dns.daemon
from pyrun.dns.daemon import Daemon, Settings
from pyrun.dns.encode import encode_table
from pyrun.dns.responder import Ended, Responder
from pyrun.dns.servers import Servers
from pyrun.errors import PyrunError
from pyrun.kube.feed.store import Store
from tests.support.dns import service
from tests.support.dns_program import LOOPBACK
from tests.support.dns_served import serving, tell_cluster, wait_until

SVC = "default.svc.cluster.local."


def test_a_table_that_the_program_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good one goes on, that is told, and the next change is served."""
    with serving(Servers({})) as served:
        monkeypatch.setattr(pyrun.dns.daemon, "encode_table", lambda *of: encode_table(*of)[:-1])
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it is told", lambda: any("the table of these objects is not used" in line for line in served.said))
        assert served.udp(f"web.{SVC}")[1] and served.udp(f"new.{SVC}")[0] == "NXDOMAIN"
        monkeypatch.setattr(pyrun.dns.daemon, "encode_table", encode_table)
        tell_cluster(served.store, service("newer", clusterIP="10.96.9.8"))
        wait_until("a good one is taken", lambda: bool(served.udp(f"newer.{SVC}")[1]))


def test_a_program_that_every_new_table_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started anew with the last good table as often as it takes to be sure, and goes on with that."""
    put = Responder.put_table
    with serving(Servers({})) as served:
        good = served.daemon.table_bytes

        def kills(self: Responder, data: bytes) -> int:
            if data != good:
                raise Ended("as if it had ended")
            return put(self, data)

        monkeypatch.setattr(pyrun.dns.daemon, "RESTART_S", 0.01)
        monkeypatch.setattr(Responder, "put_table", kills)
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it is told", lambda: any("the table of these objects is not used" in line for line in served.said))
        assert served.udp(f"web.{SVC}")[1]


def test_a_second_daemon_of_the_same_directory_is_refused() -> None:
    """They would take the program from each other; the first one goes on."""
    with serving(Servers({})) as served:
        state = served.daemon.settings.state
        for _ in range(2):
            with pytest.raises(PyrunError, match=f"another pyrun dns, process {os.getpid()}, uses {state}"):
                Daemon(Settings(state, (("127.0.0.1", served.port),), LOOPBACK), Store(), print)
        tell_cluster(served.store, service("new", clusterIP="10.96.9.9"))
        wait_until("it follows objects", lambda: bool(served.udp(f"new.{SVC}")[1]))
        assert not any("has ended" in line for line in served.said)
