"""What carries the rules out: the data plane and what leads connections to it, or the kernel; as one thing.

A stop takes all of it away. A kill leaves it: routes, the program at sk_lookup (which the data plane keeps with its
maps), nf_tables' elements and the data plane itself go on, and the next start takes them over.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time

from ..errors import PyrunError, Unavailable, reason
from ..kube.addresses import prefix_text
from ..listen import private_directory
from . import client
from .bridges import bridged, seeing_the_node
from .client import DataPlane, Gone
from .encode import encode_rules
from .messages import Counters, Settings, State
from .nft.kernel import KernelRules
from .ready import Ready
from .routes import Routes, addresses_to_catch, holds
from .rules import FORWARD, SCTP, TCP, Change, Frontend, Key, Prefix, Rules
from .sctp import fits_sockets, probe
from .sklookup import SkLookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Carrier(Protocol):
        def apply(self, rules: Rules, change: Change | None) -> None:
            """Makes these the rules. change: against those applied last; None: all anew. PyrunError."""
            ...

        def wakes(self) -> list[int]:
            """Descriptors that are readable when look() has something to do."""
            ...

        def look(self) -> None: ...

        def due(self) -> float:
            """When look() has something to do without a descriptor, by time.monotonic(); 0.0 for never."""
            ...

        def renew(self) -> None:
            """Uses the programs that are installed now, where they are others than those that run."""
            ...

        def moved(self) -> bool:
            """Whether the node's links are others than before, so that all has to be applied anew. Soon."""
            ...

        def beside(self) -> str:
            """What is otherwise than the rules say, for this node's links; ""."""
            ...

        def counters(self) -> Counters | None: ...

        def state(self) -> State | None:
            """Soon, or PyrunError."""
            ...

        def own_ports(self) -> set[int]:
            """TCP ports of ours on which something listens, which is no host's."""
            ...

        def lacks(self) -> str:
            """Why the kernel can't carry a Service by itself; "": it can."""
            ...

        def close(self, *, remove: bool) -> None: ...


Stat = tuple[int, int, int, int] | None  # of a file, which is another when it has been replaced
PLANE = "dataplane"  # its directory in the state directory
BACKLOG = 4096
MODULES = "modprobe it, where need be from the distribution's package of further modules"
AGAIN_S = (0.5, 10.0)  # before a data plane is started, where it dies again and again or could not be started
AT_ONCE, STEADY_S = 5, 60.0  # so many deaths in that time are made good at once


class InKernel:
    """Everything by nf_tables. What the node itself sends to a service needs a route before it is translated."""

    def __init__(self, node: Iterable[bytes]) -> None:
        self._node = tuple(node)
        self._kernel = KernelRules(everything=True)
        if lacks := self._kernel.lacks(self._node):
            raise Unavailable(lacks, hint=f"{MODULES}, or --proxy-mode userspace, which needs reject and numgen alone")
        self._routes = Routes(self._node, transparent=False)

    def apply(self, rules: Rules, change: Change | None) -> None:
        self._kernel.apply(rules, change)
        if change is None or _is_beyond_ranges(rules, change, self._node):
            self._routes.apply(addresses_to_catch(rules, self._node))

    def wakes(self) -> list[int]:
        return []

    def look(self) -> None:
        pass

    def due(self) -> float:
        return 0.0

    def renew(self) -> None:
        pass

    def moved(self) -> bool:
        return False

    def beside(self) -> str:
        return ""

    def counters(self) -> Counters | None:
        return None

    def state(self) -> State | None:
        return None

    def own_ports(self) -> set[int]:
        return set()

    def lacks(self) -> str:
        return ""  # or it would not be here

    def close(self, *, remove: bool) -> None:
        try:
            self._routes.close(remove=remove)
        finally:
            self._kernel.close(remove=remove)


class UserSpace:
    """The data plane; in the kernel what is asked for there, SCTP that sockets can't carry (sctp.py), and silence."""

    def __init__(self, directory: str, node: Iterable[bytes], told: Callable[[str], None], settings: Settings) -> None:
        self._directory = directory
        self._told = told
        self._settings = settings
        self._node = tuple(node)
        self._lock = threading.Lock()  # of the data plane's connection: counters are read by another thread
        self._rules = Rules()
        self._ready = Ready()  # the data plane's part of them, for the next one
        self._deaths: list[float] = []  # those of the last STEADY_S, and the seconds before the next start
        self._delay, self._due = 0.0, 0.0
        self._sctp = False  # whether the kernel has sockets of it
        self._mine: set[Key] = set()  # the frontends that the data plane has
        self._bridged: tuple[Prefix, ...] = ()  # where clients are whose address is not kept
        self._looked_at: Stat = None  # the program, when renew() looked at it
        private_directory(directory)
        self._kernel = KernelRules(everything=False)
        if lacks := self._kernel.lacks(self._node, walls=True):
            raise Unavailable(lacks, hint=MODULES)
        self._routes = Routes(self._node)
        self._lookup = SkLookup()
        self._plane, self._listener = self._find() or self._start(None)
        self.taken_over = self._plane.generation > 0
        self._lookup.set_listener(0, self._listener.fileno())
        self._plane.keep(self._lookup.descriptors())  # so a kill of ours changes nothing
        self.moved()

    def _find(self) -> tuple[DataPlane, socket.socket] | None:
        """The data plane of an earlier daemon, if it runs."""
        try:
            plane = DataPlane.connect(self._directory)
        except Gone:
            return None
        first, *others = plane.listeners()
        for one in others:
            one.close()
        plane.set(self._settings)
        return plane, first

    def _start(self, listener: socket.socket | None) -> tuple[DataPlane, socket.socket]:
        listener = listener or _listener()
        return DataPlane.start(self._directory, [listener], self._settings, ready=self._ready), listener

    def apply(self, rules: Rules, change: Change | None) -> None:
        if change is None:
            self._sctp = probe().sockets
        rules = dataclasses.replace(rules, frontends=self._suited(rules.frontends))
        self._rules = rules
        if change is None:
            self._apply_all(rules)
            return
        change = dataclasses.replace(change, frontends_put=self._suited(change.frontends_put))
        self._kernel.apply(rules, change)
        if _is_beyond_ranges(rules, change, self._node):
            self._routes.apply(addresses_to_catch(rules, self._node))
        ours = _ours(change, self._mine)
        caught = [one.key for one in ours.frontends_put if _is_caught(one)]
        self._mine |= {one.key for one in ours.frontends_put}
        self._mine -= set(ours.frontends_gone)
        uncaught = {one.key for one in ours.frontends_put} - set(caught)
        self._lookup.update((), [key for key in (*ours.frontends_gone, *uncaught) if key[0] == TCP])
        self._tell(ours)
        self._lookup.update(caught)

    def _suited(self, frontends: tuple[Frontend, ...]) -> tuple[Frontend, ...]:
        """As this node's kernel and links let the data plane carry them."""
        return seeing_the_node(self._with_sctp(frontends), self._bridged)

    def _with_sctp(self, frontends: tuple[Frontend, ...]) -> tuple[Frontend, ...]:
        """The same; those of SCTP that no socket carries are the kernel's."""
        if not any(one.protocol == SCTP and not one.kernel for one in frontends):
            return frontends
        return tuple(
            [
                dataclasses.replace(one, kernel=True)
                if one.protocol == SCTP and not (self._sctp and fits_sockets(one))
                else one
                for one in frontends
            ]
        )

    def _apply_all(self, rules: Rules) -> None:
        self._kernel.apply(rules, None)
        self._routes.apply(addresses_to_catch(rules, self._node))
        mine = [one for one in rules.frontends if not one.kernel]
        self._mine = {one.key for one in mine}
        self._tell(None)
        self._lookup.apply(one.key for one in mine if _is_caught(one))

    def _own_rules(self) -> Rules:
        """The data plane's part of the rules."""
        mine = tuple([one for one in self._rules.frontends if not one.kernel])
        return dataclasses.replace(self._rules, frontends=mine)

    def _tell(self, change: Change | None) -> None:
        with self._lock:
            try:
                if change is not None:
                    self._ready.note(change)
                    try:
                        self._plane.change(change)
                        if self._ready.is_long:
                            self._ready.begin(encode_rules(self._own_rules(), self._plane.generation))
                        return
                    except Gone:
                        raise
                    except PyrunError as error:
                        self._told(f"{error.text}; it is told everything anew")
                self._ready.begin(encode_rules(self._own_rules(), self._plane.generation + 1))
                self._plane.take_whole(self._ready.whole)
            except Gone:  # look() starts another, which is told everything
                pass

    def wakes(self) -> list[int]:
        return [self._plane.fileno()] if not self._due else []

    def due(self) -> float:
        return self._due

    def look(self) -> None:
        """The data plane has died: its connections are gone, those that came meanwhile wait in the queue. One that dies
        again and again is started after a pause."""
        with self._lock:
            now = time.monotonic()
            if not self._due:
                pause = self._note_death(now)
                after = f" in {pause:g} s" if pause else ""
                self._told(f"the data plane, process {self._plane.pid}, has died; another is started{after}")
                self._due = now + pause
            if now >= self._due:
                self._due = now + AGAIN_S[1]  # where it can't be started
                self._plane, _ = self._start(self._listener)
                self._due = 0.0
                self._plane.keep(self._lookup.descriptors())

    def renew(self) -> None:
        """Another data plane in this one's place, where its program has been replaced: nobody notices. One that can't
        do it is not tried again."""
        stat = _stat(client.BINARY)
        if self._due or stat == self._looked_at:
            return
        self._looked_at = stat
        with self._lock:
            runs, there = self._plane.program(), client.installed()
            if not runs or not there or runs == there:
                return
            before = self._plane.pid
            try:
                self._plane = self._plane.upgrade(self._own_rules(), self._settings)
            except PyrunError as error:
                self._told(f"the data plane that is installed now can't take over, so the one before goes on: {error}")
                return
            self._told(f"the data plane was replaced: process {self._plane.pid} took over from {before}")

    def moved(self) -> bool:
        before = self._bridged
        try:
            self._bridged = bridged(self._node)
        except OSError as error:
            self._told(f"whether pods are on a bridge can't be seen: {reason(error)}")
        if self._bridged != before and (line := self.beside()):
            self._told(line)
        return self._bridged != before

    def beside(self) -> str:
        where = ", ".join(map(prefix_text, self._bridged))
        return where and f"clients in {where} are on a bridge of this node, so endpoints see the node's address"

    def _note_death(self, now: float) -> float:
        """The seconds to wait before the next one."""
        self._plane.reap()
        self._plane.close()
        self._deaths = [*(one for one in self._deaths if one > now - STEADY_S), now]
        self._delay = min(max(2 * self._delay, AGAIN_S[0]), AGAIN_S[1]) if len(self._deaths) > AT_ONCE else 0.0
        return self._delay

    def counters(self) -> Counters | None:
        with self._lock:
            return self._plane.counters()

    def state(self) -> State | None:
        with self._lock:
            return self._plane.glance()

    def own_ports(self) -> set[int]:
        return {self._listener.getsockname()[1]}

    def lacks(self) -> str:
        lacks = self._kernel.lacks(self._node)
        return lacks and f"{lacks}; {MODULES}"

    def close(self, *, remove: bool) -> None:
        """Everything is tried, whatever fails before."""
        failed: list[PyrunError] = []
        steps: list[Callable[[], None]] = [
            lambda: self._lookup.close(detach=remove),
            self._plane.end if remove else self._plane.close,
            self._listener.close,
            self._ready.close,
            lambda: self._routes.close(remove=remove),
            lambda: self._kernel.close(remove=remove),
        ]
        for step in steps:
            try:
                step()
            except PyrunError as error:
                failed.append(error)
        if remove:
            try:
                os.unlink(f"{self._directory}/sock")
            except FileNotFoundError:
                pass
        if failed:
            raise failed[0]


def _stat(path: str) -> Stat:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _listener() -> socket.socket:
    """Connections come to it by sk_lookup. It has an address of its own too, on loopback, where it refuses."""
    try:
        made = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    except OSError:  # a node without IPv6
        made = socket.create_server(("0.0.0.0", 0), backlog=BACKLOG)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what is accepted
    return made


def _is_beyond_ranges(rules: Rules, change: Change, node: tuple[bytes, ...]) -> bool:
    """Whether it is about an address that needs, or needed, a route of its own. The ranges themselves do not change
    but with the node, and then all is applied anew."""
    touched = [one.address for one in change.frontends_put] + [address for _, address, _ in change.frontends_gone]
    return any(
        address not in node and not any(holds(prefix, address) for prefix in rules.ranges) for address in touched
    )


def _is_caught(frontend: Frontend) -> bool:
    """By sk_lookup: TCP of which somebody is forwarded. The rest is refused by having no socket, or dropped by nft."""
    return frontend.protocol == TCP and any(choice.action == FORWARD for choice in frontend.choices)


def _ours(change: Change, held: set[Key]) -> Change:
    """The data plane's part; what goes over to the kernel goes from it."""
    over = [one.key for one in change.frontends_put if one.kernel and one.key in held]
    return dataclasses.replace(
        change,
        frontends_put=tuple([one for one in change.frontends_put if not one.kernel]),
        frontends_gone=(*[key for key in change.frontends_gone if key in held], *over),
    )
