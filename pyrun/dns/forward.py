"""Asks other servers for what the table has not. Equal questions are asked once, whoever waits (CVE-2023-30464).

Servers are asked in order, those that failed lately last; one that is silent for a second gets another one beside it,
and whichever answers first is believed. After 4.8 s nobody has answered. The program in C keeps the answers, answers of
old, and those who wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from . import wire
from .answer import answer
from .loop import Loop, Timer
from .reply import NOTHING, Said, behind_alias, read_reply
from .responder import Question
from .servers import Address, Servers
from .table import Table
from .upstream import Upstream

SILENT_S, GIVE_UP_S, FAILED_TTL_S, PROBE_AGAIN_S = 1.0, 4.8, 5, 30.0
FAILURES_OF_LATE = 2

Done = Callable[[Question, Said | None], None]
"""With None when nobody has answered."""


class Forwarder:
    """done: what is called with each question's end. warn: of loops."""

    def __init__(self, loop: Loop, done: Done, warn: Callable[[str], None]) -> None:
        self.loop = loop
        self.done = done
        self.warn = warn
        self.table = Table()
        self.servers = Servers()
        self.lookups: dict[tuple[bytes, int, bool], _Lookup] = {}
        self._upstreams: dict[Address, Upstream] = {}
        self._probes: dict[bytes, _Probe] = {}

    def use(self, servers: Servers) -> None:
        """From now on these are asked, each after a look whether it leads back to us."""
        self.servers = servers
        wanted = set(servers.all())
        for address in set(self._upstreams) - wanted:
            self._upstreams.pop(address).close()
        for address in sorted(wanted - set(self._upstreams)):
            self._upstreams[address] = Upstream(self.loop, address)
            self._probe(self._upstreams[address])

    @property
    def upstreams(self) -> list[Upstream]:
        return list(self._upstreams.values())

    def ask(self, question: Question) -> None:
        if probe := self._probes.get(question.name):
            probe.came_back()
            self.done(question, Said(wire.REFUSED, NOTHING, 0))
            return
        key = (question.name, question.kind, question.alias)
        if found := self.lookups.get(key):
            found.questions.append(question)
            return
        self.lookups[key] = lookup = _Lookup(self, key, question)
        lookup.begin()

    def in_order(self, name: bytes) -> list[Upstream]:
        servers = [self._upstreams[address] for address in self.servers.of(name)]
        usable = [server for server in servers if not server.loops]
        return sorted(usable, key=lambda server: server.failures >= FAILURES_OF_LATE)

    def close(self) -> None:
        for server in self._upstreams.values():
            server.close()

    def _probe(self, server: Upstream) -> None:
        """Asks it for a name that nobody else asks for: when that question comes to us, it leads back to us."""
        if server.address not in self._upstreams or self._upstreams[server.address] is not server:
            return
        name = wire.join([os.urandom(8).hex().encode(), os.urandom(8).hex().encode()])
        server.loops = False
        probe = self._probes[name] = _Probe(self, server, name)
        forget = server.ask(probe)

        def end() -> None:
            forget()
            self._probes.pop(name, None)
            if server.loops:
                self._probe(server)

        self.loop.after(PROBE_AGAIN_S, end)


@dataclass(slots=True)
class _Probe:
    forwarder: Forwarder
    server: Upstream
    name: bytes
    kind: int = wire.HINFO

    def came_back(self) -> None:
        if not self.server.loops:
            self.server.loops = True
            self.forwarder.warn(f"{self.server} leads back to this server, so it is not asked")

    def took(self, server: Upstream, data: bytes) -> None:
        pass

    def failed(self, server: Upstream) -> None:
        pass


@dataclass(slots=True)
class _Lookup:
    """One name and type that is being asked for. name: the one that is asked for, behind aliases of ours."""

    forwarder: Forwarder
    key: tuple[bytes, int, bool]
    first: Question
    questions: list[Question] = field(default_factory=list)
    name: bytes = b""
    kind: int = 0
    left: list[Upstream] = field(default_factory=list)
    waiting: int = 0
    forgets: list[Callable[[], None]] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    refused: Said | None = None
    over: bool = False

    def begin(self) -> None:
        self.questions.append(self.first)
        self.name, self.kind = self.first.name, self.first.kind
        if self.first.alias:
            self.name = answer(self.forwarder.table, self.name, self.kind).forward or self.name
        self.left = self.forwarder.in_order(self.name)
        self.timers.append(self.forwarder.loop.after(GIVE_UP_S, lambda: self.end(None)))
        self.next()

    def next(self) -> None:
        if self.over:
            return
        if not self.left:
            if not self.waiting:
                self.end(self.refused)
            return
        self.waiting += 1
        server = self.left.pop(0)
        self.timers.append(self.forwarder.loop.after(SILENT_S, lambda: self.silent(server)))
        self.forgets.append(server.ask(self))

    def silent(self, server: Upstream) -> None:
        """It may still answer, and is believed then; meanwhile another one is asked, or the same again."""
        if self.over:
            return
        server.missed()
        if not self.left:
            self.left = [server]
        self.next()

    def took(self, server: Upstream, data: bytes) -> None:
        if self.over:
            return
        try:
            said = self.read(data)
        except wire.WireError:
            self.failed(server)
            return
        if said.rcode in (wire.NOERROR, wire.NXDOMAIN):
            self.end(said)
            return
        self.refused = said
        self.waiting -= 1
        self.next()

    def failed(self, server: Upstream) -> None:
        self.waiting -= 1
        self.next()

    def read(self, data: bytes) -> Said:
        if not self.first.alias:
            return read_reply(data, self.name)
        own = answer(self.forwarder.table, self.first.name, self.kind)
        return behind_alias(self.first.name, own.answers, self.name, data)

    def end(self, said: Said | None) -> None:
        if self.over:
            return
        self.over = True
        del self.forwarder.lookups[self.key]
        for timer in self.timers:
            timer.cancel()
        for forget in self.forgets:
            forget()
        for question in self.questions:
            self.forwarder.done(question, said)
