"""What the proxy tells the owners of Services by Events of the API server: what is refused, and what is wrong. PURE.

An Event's name is a digest of what it says, so all the nodes that refuse the same make one Event and not one each, and
a daemon that is started again adds none. What holds for one node alone names the node. kube-proxy tells of nothing but
health check ports that it can't have, whose reason is used here too.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import datetime
from hashlib import blake2b
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..kube.feed.store import Key
    from .model import Fault
    from .rules import Refusal

VERSION = "events.k8s.io/v1"
CONTROLLER = "pyrun-proxy"
NOTE_MOST, INSTANCE_MOST, NAME_MOST = 1024, 128, 200  # bytes; more than the first two is refused
MOST_OF_ONE = 8  # of one object at a time: the last of them says how many more there are
MOST = 1000  # at a time
EACH_S, BURST = 2.0, 50  # all that are sent: so many at once, then one in so many seconds
EACH_OF_ONE_S, BURST_OF_ONE = 30.0, 10  # of one object
AGAIN_S = 3600.0  # what stands still is told again, as the API server keeps Events for an hour
BUCKETS_MOST = 4096
VERSIONS = {"Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
_OF_THIS_NODE = frozenset(
    {"NodePortInUse", "AddressInUse", "FailedToStartServiceHealthcheck", "SCTPNotServed", "NodePortNotOnLoopback"}
)


class Notice(NamedTuple):
    """One thing to be told of one object. about: kind, namespace and name."""

    about: Key
    reason: str
    note: str


def notices(refused: Iterable[Refusal], faults: Mapping[Key, Iterable[Fault]], node: str) -> list[Notice]:
    """What to tell, MOST at a time and MOST_OF_ONE of an object. faults: by the object that has them."""
    found: dict[Key, list[Notice]] = {}
    more: dict[Key, int] = {}
    room = MOST

    def add(about: Key, reason: str, note: str) -> None:
        nonlocal room
        mine = found.get(about, [])
        if len(mine) < MOST_OF_ONE and room > 0:
            room -= 1
            found.setdefault(about, mine).append(Notice(about, reason, note))
        elif mine:
            more[about] = more.get(about, 0) + 1

    for one in refused:
        where = f"node {node}: " if one.reason in _OF_THIS_NODE else ""
        add(("Service", *one.owner), one.reason, f"{where}{one.subject}: {one.why} ({one.origin})")
    for key, some in faults.items():
        if room <= 0:
            break
        for fault in some:
            add(key, "InvalidField", f"{fault.pointer or '/'}: {fault.text}; it is left out")
    for about, count in more.items():
        last = found[about][-1]
        found[about][-1] = last._replace(note=f"{last.note}; and {count} more: pyrun proxy status names them")
    return [one for mine in found.values() for one in mine]


def event_object(one: Notice, uid: str, node: str, now: datetime.datetime) -> dict[str, Any]:
    """now: in UTC."""
    kind, namespace, name = one.about
    digest = blake2b("\0".join((uid, one.reason, one.note)).encode(), digest_size=8).hexdigest()
    return {
        "apiVersion": VERSION,
        "kind": "Event",
        "metadata": {"name": f"{name[:NAME_MOST].rstrip('.-')}.{digest}", "namespace": namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": f"{CONTROLLER}-{node}"[:INSTANCE_MOST],
        "action": "Refuse",
        "reason": one.reason,
        "regarding": {"apiVersion": VERSIONS[kind], "kind": kind, "namespace": namespace, "name": name, "uid": uid},
        "note": one.note.encode()[:NOTE_MOST].decode(errors="ignore"),
        "type": "Warning",
    }


class _Bucket:
    """Tokens that are used up and come again, one in each_s seconds."""

    __slots__ = ("at", "left")

    def __init__(self, burst: int, now: float) -> None:
        self.left, self.at = float(burst), now

    def wait(self, burst: int, each_s: float, now: float) -> float:
        """Seconds until there is one; 0.0: now."""
        self.left, self.at = min(burst, self.left + (now - self.at) / each_s), now
        return 0.0 if self.left >= 1 else (1 - self.left) * each_s


class Schedule:
    """Which notice is sent when. Seconds are those of any clock that only goes forward."""

    def __init__(self) -> None:
        self._due: dict[Notice, float] = {}
        self._all: _Bucket | None = None
        self._of: dict[Key, _Bucket] = {}

    def set(self, some: Iterable[Notice], now: float) -> None:
        """These stand now, and no others."""
        self._due = {one: self._due.get(one, now) for one in some}

    def next(self, now: float) -> Notice | float:
        """What to send now, which is counted as sent; or the seconds in which there may be something."""
        if not self._due:
            return AGAIN_S
        if self._all is None:
            self._all = _Bucket(BURST, now)
        wait = self._all.wait(BURST, EACH_S, now)
        if wait > 0:
            return wait
        least = AGAIN_S
        for one, due in self._due.items():
            wait = due - now
            if wait <= 0:
                mine = self._bucket(one.about, now)
                wait = mine.wait(BURST_OF_ONE, EACH_OF_ONE_S, now)
                if wait <= 0:
                    mine.left -= 1
                    self._all.left -= 1
                    self._due[one] = now + AGAIN_S
                    return one
            least = min(least, wait)
        return least

    def again(self, one: Notice, when: float) -> None:
        """It was not taken: at that time."""
        if one in self._due:
            self._due[one] = when

    def _bucket(self, about: Key, now: float) -> _Bucket:
        found = self._of.get(about)
        if found is None:
            if len(self._of) >= BUCKETS_MOST:
                self._of.pop(next(iter(self._of)))
            found = self._of[about] = _Bucket(BURST_OF_ONE, now)
        return found
