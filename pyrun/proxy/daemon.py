"""`pyrun proxy run`: sources → follower → planner → carrier, one thread; HTTP and each source have one of their own.

Until every source has told of itself nothing is changed, so what an earlier daemon left stays in force meanwhile. A
signal ends it and takes all away. A kill leaves everything in force for the next start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import __version__
from ..errors import PyrunError
from ..kube.addresses import address_text, port_text
from ..kube.client import Client
from ..kube.feed.directory import Directory
from ..kube.feed.selectors import Selectors
from ..kube.feed.server import NOT_OURS, Server, node, services, slices
from ..kube.feed.store import Packed, Store
from ..kube.kubeconfig import Cluster
from ..listen import notify, only_one, private_directory
from .carriers import PLANE, InKernel, UserSpace
from .encode import set_number
from .event_writer import EventWriter
from .events import notices
from .follow import Follower
from .frontends import LOOPBACKS
from .health import Health, Web
from .hostports import bound_ports, clashes, ephemeral_overlap
from .messages import EndpointCounters, FrontendCounters, Settings, State
from .metrics import Metrics
from .model import Node, Options
from .rules import PROTOCOLS, SCTP, TCP, Change, Frontend, Key, Refusal, Rules
from .sctp import fits_sockets, probe, why_not
from .standing import Standing, listing, service_row, without_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kube.feed.store import Key as ObjectKey
    from .carriers import Carrier

KINDS = frozenset({"Service", "EndpointSlice", "Pod", "Node"})
USERSPACE, NFTABLES = MODES = ("userspace", "nftables")
TICK_S = 5.0  # health check ports that were taken, NodePorts that a program had: looked at again
AGAIN_S = (0.5, 10.0)  # after a change that could not be carried out
ON_LOOPBACK = "the kernel carries nothing from loopback to a pod, as route_localnet stays off; userspace does"
FAULTS_MOST = 10_000  # that a status names
WAITS_S = 30.0  # for a source, before that is said, and again each time
LACKS_S = 60.0  # before it is asked again what the kernel lacks
BOUND_S = 60.0  # what the data plane has no room for is said so often
SOCKET = "proxy.sock"


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What the command line says. directories, cluster, cri: the sources, one or more; pods: one of this node's pods,
    in place of cri. healthz, metrics: HOST:PORT. fill: completes objects of directories."""

    node: Node
    options: Options
    state: str
    mode: str = USERSPACE
    directories: tuple[str, ...] = ()
    cluster: Cluster | None = None
    cri: str | None = None
    pods: Callable[[Store], Any] | None = None
    fill: Callable[[dict[str, Any]], None] = lambda value: None
    healthz: str | None = ":10256"
    metrics: str | None = "127.0.0.1:10249"
    settings: Settings = dataclasses.field(default_factory=Settings)
    force_node_ports: bool = False


def serve(given: Given, told: Callable[[str], None]) -> int:
    """Until a signal ends it. PyrunError when it can't start."""
    if os.geteuid() != 0:
        raise PyrunError("pyrun proxy needs root", hint="sudo pyrun proxy run, or a systemd unit")
    os.umask(0o077)
    with _signals() as ended:
        serve_until(ended, given, told, _stopping)
    return 0


def _stopping() -> bool:
    notify("STOPPING=1")
    return True


def serve_until(
    ended: int,
    given: Given,
    told: Callable[[str], None],
    remove: Callable[[], bool],
    up: Callable[[], None] = lambda: None,
) -> None:
    """Until the descriptor is readable. remove: asked then, whether what is in force ends with us. up: called when all
    that a start takes is there."""
    private_directory(given.state)
    with only_one(given.state, "pyrun proxy"):
        daemon = Daemon(given, told)
        try:
            daemon.start()
            up()
            daemon.run(ended)
        except BaseException:
            daemon.stop(remove=False)
            raise
        daemon.stop(remove=remove())


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable with the signal that ends us."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield read
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


class Daemon:
    def __init__(self, given: Given, told: Callable[[str], None]) -> None:
        self.given = given
        self.told = told
        self.store = Store()
        self.follower = Follower(given.node, given.options, knows_pods=bool(given.cri or given.pods))
        self.selectors = Selectors(self.store, given.node.name)
        self.metrics = Metrics()
        self.health = Health()
        pages = {"/status": self.status, "/counters": self.counters, "/list": self.listing}
        self.web = Web(self.health, self.metrics, pages, self._render, self.explained)
        self.standing = Standing()
        self.carrier: Carrier | None = None
        self.sources: list[Any] = []
        self.events: EventWriter | None = None  # where there is an API server
        self._blocked: dict[Key, Refusal] = {}  # frontends whose port a program of the node has
        self._socketless: dict[Key, Refusal] = {}  # frontends whose socket the data plane can't have
        self._planned = Rules()  # those last carried out, with the frontends that are not served
        self._not_served: dict[Key, Refusal] = {}  # of these
        self._sctp = probe()
        self._unserved: dict[Key, Refusal] = {}  # frontends of SCTP that this kernel can't serve
        self._lacks: str | None = None  # what the kernel lacks to carry anything; None: it has not been asked
        self._ask_at = 0.0  # the next time
        self._seen: set[Key] = set()  # frontends that have been looked at for that
        self._all_anew = True  # the carrier has to be told everything
        self._waiting: list[Change] = []
        self._again = 0.0  # when to try again what failed
        self._delay = AGAIN_S[0]
        self._say_at = time.monotonic() + WAITS_S  # that a source has not told of itself yet
        self._refused = 0  # connections by the data plane, of which that has been said
        self._bound_at = 0.0  # when it may be said again
        self._check_faults: list[Refusal] = []
        self._refused_told: set[Refusal] = set()
        self._beside: tuple[object, object] = ((), ())  # refusals and health checks of the rules last carried out
        self._faults_told: set[str] = set()

    # --- begin and end ---

    def start(self) -> None:
        given = self.given
        self.web.start(given.healthz, given.metrics, os.path.join(given.state, SOCKET))
        for path in given.directories:
            wanted = KINDS - {"Pod"} if given.pods else KINDS
            self.sources.append(Directory(path, self.store, wanted, self.told, given.fill))
        if given.pods is not None:
            self.sources.append(given.pods(self.store))
        if given.cluster is not None:
            kinds = (services(NOT_OURS), slices(NOT_OURS), node(given.node.name))
            self.sources.append(Server(Client(given.cluster), self.store, kinds, self.told, packed=True))
            self.events = EventWriter(Client(given.cluster), given.node.name, self._uid_of, self.told)
            self.events.start()
        if given.cri is not None:
            from ..kube.feed.pods import Pods

            ips = tuple(address_text(address) for address in given.node.addresses)
            self.sources.append(Pods(given.cri, self.store, given.node.name, ips, self.told))
        for source in self.sources:
            source.start()

    def stop(self, *, remove: bool) -> None:
        """remove: what is in force ends with us."""
        for source in reversed(self.sources):
            source.stop()
        if self.events is not None:
            self.events.stop()
        self.web.stop()
        try:
            if self.carrier is not None:
                self.carrier.close(remove=remove)
        finally:
            self.store.close()

    # --- the loop ---

    def run(self, ended: int) -> None:
        next_tick = time.monotonic() + TICK_S
        while True:
            wakes = self.carrier.wakes() if self.carrier is not None else []
            due = self.carrier.due() if self.carrier is not None else 0.0
            until = min(one for one in (next_tick, self._again, due) if one)
            patience = max(0.0, until - time.monotonic())
            ready = _readable([ended, self.store.fileno(), *wakes], patience)
            if ended in ready:
                return
            now = time.monotonic()
            if any(wake in ready for wake in wakes) or 0.0 < due <= now:
                self._look()
            if now >= next_tick:
                next_tick = now + TICK_S
                self._tick()
            self._take()
            if self.store.is_whole() and (self._waiting or self._all_anew) and now >= self._again:
                self._carry_out()

    def _look(self) -> None:
        assert self.carrier is not None
        try:
            self.carrier.look()
            self.standing.set_hurdle("data plane", "", time.time())
        except PyrunError as error:  # it can't be started: the carrier says when to try again
            self.told(error.text)
            self.standing.set_hurdle("data plane", f"nobody is served, as it can't be started: {error}", time.time())

    def _take(self) -> None:
        changes = self.store.changes()
        if not changes:
            return
        given = self.given
        if given.cluster is None or given.directories or given.cri is not None:  # a server has a controller for that
            new = changes
            while self.selectors.update(new):  # a Service without its slices would refuse whom it serves
                new = self.store.changes()
                changes |= new
        made = self.follower.update(changes)
        self.metrics.last_queued = time.time()
        self.metrics.service_changes = self.follower.services
        self.metrics.endpoint_changes = self.follower.slices
        self.health.deleting = self.follower.node.deleting
        planned = self.follower.planner.rules()
        if not made and (planned.refused, planned.health) != self._beside:
            made = [Change()]  # of what is carried nothing changes, and of what is told something does
        self._waiting += made
        if made and not self.health.queued:
            self.health.queued = time.monotonic()
        for key in changes:
            for fault in self.follower.faults.get(key, ()):
                self._tell_once(str(fault))
        self._tell_events()

    def _tell_once(self, line: str) -> None:
        if line not in self._faults_told:
            if len(self._faults_told) > 10_000:
                self._faults_told.clear()
            self._faults_told.add(line)
            self.told(line)

    def _carry_out(self) -> None:
        begun = time.monotonic()
        planned = self.follower.planner.rules()
        try:
            if self.carrier is None:
                self.carrier = self._make_carrier()  # before a look at ports, as it knows which are its own
            rules, change = self._next(planned)
            self.carrier.apply(rules, change)
        except PyrunError as error:
            self.metrics.failures += 1
            self.told(f"the rules are not in force: {error}")
            self.standing.set_hurdle("rules", f"they are not in force: {error}", time.time())
            self._all_anew = True
            self._again = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, AGAIN_S[1])
            if self.carrier is None and not self.health.applied:
                raise  # at the start: whoever started us shall know
            return
        first = not self.health.applied
        self.standing.set_hurdle("rules", "", time.time())
        self._planned = planned
        self._waiting, self._all_anew, self._again, self._delay = [], False, 0.0, AGAIN_S[0]
        self.health.rules, self.health.applied, self.health.queued = rules, time.time(), 0.0
        self.metrics.last_sync = self.health.applied
        self.metrics.sync.observe(time.monotonic() - begun)
        for when in self.follower.triggered:
            self.metrics.programming.observe(max(0.0, self.health.applied - when))
        self._check_faults = self.web.set_checks(rules.health)
        self._tell_refused()
        if first:
            self.carrier.renew()
            self._warn_of_ports(rules)
            notify(f"READY=1\nSTATUS=pyrun {__version__} serves {len(rules.frontends)} addresses and ports")

    def _make_carrier(self) -> Carrier:
        addresses = self.follower.node.addresses
        if not addresses:
            raise PyrunError(f"the node {self.given.node.name} has no address", hint="--node-ip ADDRESS")
        if self.given.mode == NFTABLES:
            return InKernel(addresses)
        directory = os.path.join(self.given.state, PLANE)
        made = UserSpace(directory, addresses, self.told, self.given.settings)
        if made.taken_over:
            self._seen |= {one.key for one in self.follower.planner.rules().frontends if one.protocol != TCP}
        return made

    def _next(self, rules: Rules) -> tuple[Rules, Change | None]:
        """What to carry out: the rules without the ports that a program of the node has, and what that changes."""
        self._beside = rules.refused, rules.health
        change = self._waiting[0] if len(self._waiting) == 1 and not self._all_anew else None
        before = self._blocked.keys() | self._unserved.keys()
        self._block(rules, change)
        self._unserved = self._find_unserved(rules)
        blocked = self._blocked | self._unserved
        if blocked.keys() != before:
            change = None
        if blocked:
            kept = tuple([one for one in rules.frontends if one.key not in blocked])
            rules = dataclasses.replace(rules, frontends=kept, refused=(*rules.refused, *blocked.values()))
            if change is not None:
                put = tuple([one for one in change.frontends_put if one.key not in blocked])
                gone = tuple([key for key in change.frontends_gone if key not in blocked])
                change = dataclasses.replace(change, frontends_put=put, frontends_gone=gone)
        return rules, change

    def _block(self, rules: Rules, change: Change | None) -> None:
        """Looks at frontends on the node's addresses that are new, and at those that were blocked before."""
        own = {*self.follower.node.addresses, *LOOPBACKS}
        if change is None:
            here = [one for one in rules.frontends if one.address in own]
            self._seen &= {one.key for one in here}
        else:
            self._seen -= set(change.frontends_gone)
            here = [one for one in change.frontends_put if one.address in own]
            if self._blocked:
                here += [one for one in rules.frontends if one.key in self._blocked]
        fresh = [one for one in here if one.key not in self._seen or one.key in self._blocked]
        self._blocked = self._clashes(fresh) if fresh else {}
        self._seen |= {one.key for one in here}

    def _clashes(self, frontends: Sequence[Frontend]) -> dict[Key, Refusal]:
        in_kernel = [one for one in frontends if one.address in LOOPBACKS and self._is_in_kernel(one)]
        found = {one.key: _not_on_loopback(one) for one in in_kernel}
        if self.given.force_node_ports:
            return found
        mine = self.carrier.own_ports() if self.carrier is not None else set()
        bound = {one for one in bound_ports() if not (one[0] == TCP and one[2] in mine)}
        return clashes(frontends, (*self.follower.node.addresses, *LOOPBACKS), bound) | found

    def _is_in_kernel(self, frontend: Frontend) -> bool:
        return frontend.protocol != SCTP and (self.given.mode == NFTABLES or frontend.kernel)

    def _find_unserved(self, rules: Rules) -> dict[Key, Refusal]:
        found = {}
        for one in [one for one in rules.frontends if one.kernel or one.protocol == SCTP]:
            userspace, reason = self.given.mode == USERSPACE, "SCTPNotServed"
            why = why_not(one, self._sctp, userspace=userspace) if one.protocol == SCTP else ""
            if not why and userspace and not (one.protocol == SCTP and self._sctp.sockets and fits_sockets(one)):
                why, reason = self._kernel_lacks(), "KernelModeNotServed"
            if why:
                where = f"{port_text(one.address, one.port)}/{PROTOCOLS[one.protocol]}"
                found[one.key] = Refusal(where, f"not served: {why}", one.origin, reason, one.owner)
        return found

    def _kernel_lacks(self) -> str:
        """Why a Service can't be the kernel's beside a data plane. Asked now and then as long as there is something,
        as that takes transactions, and each loads what modules there are."""
        now = time.monotonic()
        if self._lacks != "" and self.carrier is not None and now >= self._ask_at:
            self._lacks, self._ask_at = self.carrier.lacks(), now + LACKS_S
        return self._lacks or ""

    def _tick(self) -> None:
        """What may have become possible since; and what is still waited for."""
        now = time.monotonic()
        if now >= self._say_at and not self.store.is_whole():
            self._say_at = now + WAITS_S
            missing = ", ".join(self.store.waits_for())
            self.told(f"no rule is changed until this is heard of, for without it some would be missing: {missing}")
        if self.carrier is not None and self.health.applied:
            self.carrier.renew()
            self._look_at_sockets(now)
            if self.carrier.moved():
                self._all_anew = True
        if self._check_faults:
            self._check_faults = self.web.set_checks(self.health.rules.health)
            self._tell_refused()
        if (sctp := probe()) != self._sctp:
            self._sctp, self._all_anew = sctp, True
        if self._lacks and not self._kernel_lacks():
            self._all_anew = True
        if self._blocked:
            here = [one for one in self.follower.planner.rules().frontends if one.key in self._blocked]
            if self._clashes(here).keys() != self._blocked.keys():
                self._all_anew = True

    # --- what is told ---

    def _refusals(self) -> list[Refusal]:
        """All that stand now."""
        return [*self.health.rules.refused, *self._check_faults, *self._socketless.values()]

    def _tell_refused(self) -> None:
        """Each once, as long as it stands."""
        refused = self._refusals()
        for one in refused:
            if one not in self._refused_told:
                self.told(_line(one))
        self._refused_told = set(refused)
        unserved = self._blocked | self._unserved | self._socketless
        self.standing.set([*unserved.values(), *self._check_faults], time.time())
        self._not_served = unserved
        self._tell_events()

    def _tell_events(self) -> None:
        if self.events is not None:
            self.events.set(notices(self._refusals(), self.follower.faults, self.given.node.name))

    def _look_at_sockets(self, now: float) -> None:
        """What the data plane has no socket for, and what it has no room for."""
        state = self._state()
        if state is None:
            return
        self._tell_bound(state, now)
        counters = None
        if state.is_waiting:
            try:
                counters = self.carrier.counters() if self.carrier is not None else None
            except PyrunError:  # it has died, or does not answer
                return
        found = without_socket(counters, self.health.rules.frontends)
        if found != self._socketless:
            self._socketless = found
            self._tell_refused()

    def _tell_bound(self, state: State, now: float) -> None:
        if now < self._bound_at:
            return
        if line := bound_line(state, self._refused):
            self._bound_at = now + BOUND_S
            self.told(line)
        self._refused = state.refused_by_limit

    def _state(self) -> State | None:
        """The data plane's; None where there is none, or it does not answer."""
        carrier = self.carrier
        with contextlib.suppress(PyrunError):
            return carrier.state() if carrier is not None else None
        return None

    def _warn_of_ports(self, rules: Rules) -> None:
        own = set(self.follower.node.addresses)
        line = ephemeral_overlap(one.port for one in rules.frontends if one.address in own)
        if line:
            self.told(line)

    def _uid_of(self, key: ObjectKey) -> str:
        """Of an object that the API server has; "" of one of files, and of one that is gone."""
        held = self.store.get(key)
        return str(held.value["metadata"].get("uid") or "") if isinstance(held, Packed) else ""

    def status(self) -> dict[str, Any]:
        rules = self.health.rules
        sources = [one.error() if isinstance(one, Server) else getattr(one, "error", None) for one in self.sources]
        return {
            "version": __version__,
            "mode": self.given.mode,
            "node": self.given.node.name,
            "addresses": [address_text(address) for address in self.follower.node.addresses],
            "healthy": self.health.is_alive() and not self.health.deleting,
            "waits_for": self.store.waits_for(),
            "applied": self.health.applied,
            "frontends": len(rules.frontends),
            "endpoints": sum(one.count for one in rules.sets),
            "faults": self._fault_lines() + [line for line in sources if line],
            "bound": bound_line(state) if (state := self._state()) is not None else "",
            "refused": [_line(one) for one in self._refusals()],
            "standing": self.standing.refused(),
            "hurdles": self.standing.hurdles(),
            "beside": self.carrier.beside() if self.carrier is not None else "",
        }

    def listing(self) -> dict[str, Any]:
        """What `proxy list` and `explain` print of a daemon that runs."""
        return listing(self._planned, self._not_served, self._refusals(), self.standing)

    def explained(self, namespace: str, name: str) -> dict[str, Any] | None:
        """One Service as its objects have it: its selector, and each endpoint with what it gets; None of none."""
        found = self.follower.planner.explain((namespace, name))
        return service_row(*found) if found is not None else None

    def _fault_lines(self) -> list[str]:
        """Each once, as many as a status can name."""
        found: list[Any] = self.store.faults()
        found += [fault for some in list(self.follower.faults.values()) for fault in some]
        lines = sorted({str(fault) for fault in found[:FAULTS_MOST]})
        more = len(found) - FAULTS_MOST
        return [*lines, f"and {more} more, which the log names"] if more > 0 else lines

    def counters(self) -> dict[str, Any]:
        carrier = self.carrier
        found = carrier.counters() if carrier is not None else None
        if found is None:
            return {"mode": self.given.mode, "frontends": [], "endpoints": []}
        names = {one.key: one.name for one in self.health.rules.frontends}
        sets = {set_number(one.key): one.key for one in self.health.rules.sets}
        return {
            "mode": self.given.mode,
            "frontends": (_frontend_row(one, names) for one in found.frontends),
            "endpoints": (_endpoint_row(one, sets.get(one.set, "")) for one in found.endpoints),
        }

    def _render(self) -> str:
        carrier, counters = self.carrier, None
        with contextlib.suppress(PyrunError):
            counters = carrier.counters() if carrier is not None else None
        rules = dataclasses.replace(self.health.rules, refused=tuple(self._refusals()))
        return self.metrics.render(rules, counters, self._state())


def _frontend_row(one: FrontendCounters, names: Mapping[Key, str]) -> dict[str, Any]:
    row: dict[str, Any] = {slot: getattr(one, slot) for slot in one.__slots__}
    name = names.get((one.protocol, one.address, one.port), "")
    return row | {"address": address_text(one.address), "name": name}


def _endpoint_row(one: EndpointCounters, key: str) -> dict[str, Any]:
    """key: its set's; "" where that is gone."""
    row: dict[str, Any] = {slot: getattr(one, slot) for slot in one.__slots__ if slot != "set"}
    return row | {"address": address_text(one.address), "set": key}


def bound_line(state: State, before: int = 0) -> str:
    """What the data plane had no room for; "" for nothing. before: so many refusals have been told of."""
    more = state.refused_by_limit
    more -= before if before <= more else 0  # it counts anew after its start
    if state.is_short:
        way = f"LimitNOFILE, or `prlimit --pid {state.pid} --nofile`"
        is_open = f"{state.connections} connections are open"
        return f"the data plane is out of descriptors or memory: {is_open}, and others wait or are reset ({way})"
    if more:
        is_open = f"{state.connections} of {state.limit} are open"
        return f"the data plane has reset {more} connections for a bound: {is_open} (LimitNOFILE)"
    return ""


def _line(one: Refusal) -> str:
    return f"{one.origin}: {one.subject}: {one.why}"


def _not_on_loopback(one: Frontend) -> Refusal:
    return Refusal(f"port {one.port} on loopback", ON_LOOPBACK, one.origin, "NodePortNotOnLoopback", one.owner)


def _readable(fds: list[int], seconds: float) -> set[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(seconds * 1000)}


def say(line: str) -> None:
    """To the journal, or whoever reads standard error."""
    print(f"pyrun proxy: {line}", file=sys.stderr, flush=True)
