"""The built-in network: a lease, a link by a plan, and for ports of the host some elements in nftables.

add() is a lease first and the link second, remove() the other way round, so that no address is given to two links. The
kernel takes tens of milliseconds to take a link away (it waits for all processors), and nobody needs to wait for that:
a lease is marked as leaving, and a thread takes the link away and then gives the lease back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import threading
import time
from zlib import crc32

from ...errors import FailedPrecondition, InvalidArgument, PyrunError, reason
from ...executor import StepFailed, run_plan
from ...plan.pod_network import Attachment, End, plan_attach, plan_detach
from .firewall import PREFIX, change_table, check_ports, has_table, plan_elements, plan_table
from .hold import Hold, hold_namespace
from .leases import Lease, Leases, parse_ranges
from .model import EGRESS, INGRESS, IPS, NetResult, PodNet
from .node import FORWARDING, forwards, has_ipv4_address, has_ipv6, start_forwarding, uplink_mtu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ...plan.model.plan import Plan

RANGES = ("10.86.0.0/16", "fd86:7079:7275:6e::/64")
INTERFACE, POD_INDEX = "eth0", 64  # past those that the kernel makes by itself in each namespace
FIRST_INDEX = 0x100000  # of the links' ends on the node: far from those that the kernel gives out
LOOK_AGAIN_S = 30.0
SETTLE_S = 30.0
TABLE = "pyrun"


def link_name(pod: str) -> str:
    """The name of the link's end on the node: 15 bytes at the most, and a pod's id is random."""
    return PREFIX + pod[:11]


class Builtin:
    """Thread-safe. root: where leases lie. ranges: of addresses, as text. warn: told what changes on the node."""

    def __init__(
        self,
        root: str,
        warn: Callable[[str], None],
        *,
        ranges: tuple[str, ...] = (),
        mtu: int = 0,
        table: str = TABLE,
        forwarding: bool = True,
    ) -> None:
        self._warn = warn
        self._table = table
        self._mtu = mtu
        self._may_forward = forwarding
        given = ranges or RANGES[: 2 if has_ipv6() else 1]
        self.leases = Leases(f"{root}/leases", parse_ranges(given))
        self._base = FIRST_INDEX + crc32(root.encode()) % 64 * 0x10000
        self._lock = threading.Lock()  # of the table and the thread
        self._jobs: queue.Queue[str] = queue.Queue()
        self._worker: threading.Thread | None = None
        self._looked = self._numbered_at = -LOOK_AGAIN_S
        self._numbered = False
        self._fault: PyrunError | None = None
        self._hold: Hold | None = None
        for lease in self.leases.all():
            if lease.leaving:
                self._take_away(lease.pod)

    # --- state ---

    def ready(self) -> tuple[bool, str, str]:
        """Whether pods can have a network, and why not: (ready, reason, message)."""
        try:
            self._set_up()
        except PyrunError as e:
            return False, "NetworkNotReady", " ".join(e.lines())
        return True, "", ""

    def _set_up(self, *, again: bool = False) -> None:
        """Forwarding and the table, looked at no oftener than each LOOK_AGAIN_S, and made where they are missing."""
        with self._lock:
            now = time.monotonic()
            if not again and self._fault is None and now - self._looked < LOOK_AGAIN_S:
                return
            try:
                self._hold = self._hold or hold_namespace()
                for network in self.leases.ranges:
                    self._forward(network.version)
                if again or self._looked < 0 or not has_table(self._table):
                    if self._looked >= 0 and not again:
                        self._warn(f"the nftables table inet {self._table} was gone: made anew")
                    self._fill_table()
                self._fault, self._looked = None, now
            except PyrunError as e:
                self._fault = e
                raise

    def _forward(self, version: int) -> None:
        if self._may_forward:
            start_forwarding(version, self._warn)
        elif not forwards(version):
            raise FailedPrecondition(
                f"the node does not forward IPv{version}, and pyrun is not to turn it on",
                hint=f"sysctl -w {FORWARDING[version][len('/proc/sys/') :].replace('/', '.')}=1",
            )

    def _fill_table(self) -> None:
        leases = self.leases.all()
        ranges = {str(network): network for network in self.leases.ranges}
        change_table(plan_table(self._table, ranges.values(), leases))

    def set_ranges(self, texts: tuple[str, ...]) -> None:
        """Other ranges, for pods to come; those that are there keep their addresses. InvalidArgument."""
        ranges = parse_ranges(texts)
        if [str(r) for r in ranges] != [str(r) for r in self.leases.ranges]:
            self.leases.ranges = ranges
            self._set_up(again=True)

    # --- pods ---

    def add(self, pod: PodNet) -> NetResult:
        """Links a pod to the node. PyrunError with nothing left of it."""
        for key, what in ((INGRESS, "limits no bandwidth"), (EGRESS, "limits no bandwidth"), (IPS, "chooses itself")):
            if key in pod.annotations:
                hint = "leave it out, or use CNI with a plug-in that takes it"
                raise InvalidArgument(f"annotation {key}: the built-in network {what}", hint=hint)
        ports = _ports(pod)
        self._set_up()
        known = self.leases.find(pod.id)
        with self._lock:  # two that want the same port of the host
            check_ports(pod.id, ports, self.leases.all())
            lease = self.leases.take(pod.id, ports)
        try:
            if known is not None:  # half made by a daemon that was killed
                self._run(plan_detach(link_name(pod.id)), pod.id)
            self._run(plan_attach(self._attachment(pod, lease)), pod.id)
            if ports:
                self._add_ports(lease)
        except BaseException:
            self.remove(pod.id)
            raise
        return NetResult(lease.ips, INTERFACE)

    def _add_ports(self, lease: Lease) -> None:
        text = plan_elements(self._table, "add", lease)
        try:
            change_table(text)
        except PyrunError:
            if has_table(self._table):
                raise
            self._set_up(again=True)  # which has this lease's elements too

    def _attachment(self, pod: PodNet, lease: Lease) -> Attachment:
        number = lease.number.to_bytes(4, "big")
        local = any(not at or at == "0.0.0.0" or at.startswith("127.") for _, at, _, _ in lease.ports)
        return Attachment(
            pod.netns,
            End(link_name(pod.id), self._base + lease.number, b"\x0e\x79" + number),
            End(INTERFACE, POD_INDEX, b"\x0a\x79" + number),
            tuple(ipaddress.ip_address(ip).packed for ip in lease.ips),
            mtu=self._mtu or uplink_mtu(),
            numbered=self._needs_number(),
            localnet=local,
        )

    def _needs_number(self) -> bool:
        now = time.monotonic()
        if now - self._numbered_at >= LOOK_AGAIN_S:
            self._numbered, self._numbered_at = not has_ipv4_address(), now
        return self._numbered

    def remove(self, pod: str) -> None:
        """Unlinks a pod, whether whole, half made or gone. The address is given to nobody before its link is away."""
        lease = self.leases.leave(pod)
        if lease is None:
            self._run(plan_detach(link_name(pod)), pod)
            return
        if lease.ports:
            self._remove_ports(lease)
        self._take_away(pod)

    def _remove_ports(self, lease: Lease) -> None:
        text = plan_elements(self._table, "delete", lease)
        try:
            change_table(text)
        except PyrunError:  # they are not all there: the table as a whole, without them
            with contextlib.suppress(PyrunError), self._lock:
                self._fill_table()

    def check(self, pod: str) -> None:
        """FailedPrecondition where a pod's link or lease is gone."""
        lease = self.leases.find(pod)
        if lease is None or lease.leaving:
            raise FailedPrecondition(f"pod {pod[:13]} has no address of the built-in network")
        try:
            import socket

            socket.if_nametoindex(link_name(pod))
        except OSError:
            raise FailedPrecondition(f"the link {link_name(pod)} of pod {pod[:13]} is gone") from None

    def gc(self, live: Iterable[str]) -> None:
        """Removes what belongs to no pod of these."""
        keep = set(live)
        for lease in self.leases.all():
            if lease.pod not in keep:
                self.remove(lease.pod)

    # --- links that go ---

    def _take_away(self, pod: str) -> None:
        with self._lock:
            self._jobs.put(pod)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="links", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        while True:
            pod = self._jobs.get()
            try:
                self._run(plan_detach(link_name(pod)), pod)
                self.leases.free(pod)
            except PyrunError as e:  # the lease stays, and the next start tries again
                self._warn(" ".join(e.lines()))
            finally:
                self._jobs.task_done()

    def settle(self, patience_s: float = SETTLE_S) -> bool:
        """Waits until every link that is to go is gone; False when that takes longer."""
        deadline = time.monotonic() + patience_s
        while self._jobs.unfinished_tasks:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _run(self, plan: Plan, pod: str) -> None:
        try:
            run_plan(plan).close()
        except StepFailed as e:
            from ...plan.words.step_errors import explain_failure

            error = explain_failure(e)
            raise PyrunError(f"network of pod {pod[:13]}: {error.text}", hint=error.hint) from None
        except OSError as e:
            raise PyrunError(f"network of pod {pod[:13]}: {reason(e)}") from None


def _ports(pod: PodNet) -> list[list[Any]]:
    found: list[list[Any]] = []
    for mapping in pod.port_mappings:
        at = mapping.host_ip
        try:
            at = str(ipaddress.ip_address(at)) if at else ""
        except ValueError:
            raise InvalidArgument(f"port_mappings: {at!r} is no address of the host") from None
        if at in ("0.0.0.0", "::"):
            at = at if at == "::" else "0.0.0.0"
        found.append([mapping.protocol, at, mapping.host_port, mapping.container_port])
    return found
