"""What the proxy tells of Services by Events: which, how many, and how often. Against an API server it is in
tests/cluster."""

from __future__ import annotations

import datetime
import threading
from typing import Any, cast

from pyrun.kube.addresses import parse_address
from pyrun.kube.client import Client
from pyrun.kube.manifest import load
from pyrun.proxy import events
from pyrun.proxy.event_writer import EventWriter
from pyrun.proxy.events import Notice, Schedule, event_object, notices
from pyrun.proxy.follow import Follower
from pyrun.proxy.model import Fault, Node, Options
from pyrun.proxy.rules import Refusal

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
WEB = ("Service", "default", "web")


def refusal(number: int, name: str = "web", reason: str = "ForbiddenEndpoint") -> Refusal:
    place = f"EndpointSlice default/{name} /endpoints/{number}"
    return Refusal(f"127.0.0.{number}", "loopback", place, reason, ("default", name))


def test_one_for_each_thing_that_is_refused() -> None:
    some = [refusal(1), refusal(2), refusal(3, "api")]
    found = notices(some, {WEB: [Fault("Service default/web", "/spec/ports/0/port", "no number")]}, "n1")
    assert [(one.about[2], one.reason) for one in found] == [
        ("web", "ForbiddenEndpoint"),
        ("web", "ForbiddenEndpoint"),
        ("web", "InvalidField"),
        ("api", "ForbiddenEndpoint"),
    ]
    assert found[0].note == "127.0.0.1: loopback (EndpointSlice default/web /endpoints/1)"
    assert found[2].note == "/spec/ports/0/port: no number; it is left out"


def test_one_object_has_some_and_all_have_a_bound() -> None:
    """Whoever writes slices chooses how much there is to tell."""
    found = notices([refusal(number) for number in range(100)], {}, "n1")
    assert len(found) == events.MOST_OF_ONE
    assert found[-1].note.endswith("; and 92 more: pyrun proxy status names them")
    many = [refusal(1, f"s{number}") for number in range(3000)]
    broken = {("Service", "default", f"b{number}"): [Fault("", "/spec", "no object")] for number in range(3000)}
    assert len(notices(many, broken, "n1")) == len(notices((), broken, "n1")) == events.MOST


def test_nodes_that_refuse_the_same_write_the_same_event() -> None:
    one, other = (notices([refusal(1)], {}, node) for node in ("n1", "n2"))
    assert one == other
    names = {event_object(one[0], "u1", node, NOW)["metadata"]["name"] for node in ("n1", "n2")}
    assert len(names) == 1
    assert event_object(one[0], "u2", "n1", NOW)["metadata"]["name"] not in names  # another Service of that name
    of_a_node = [notices([refusal(1, reason="NodePortInUse")], {}, node)[0] for node in ("n1", "n2")]
    assert [found.note.partition(": ")[0] for found in of_a_node] == ["node n1", "node n2"]


def test_an_event_is_within_what_a_server_takes() -> None:
    slice_ = ("EndpointSlice", "default", "a" * 199 + ".b" * 27)
    made = event_object(Notice(slice_, "InvalidField", "x" * 5000), "u", "n" * 253, NOW)
    assert made["eventTime"] == "2026-01-02T03:04:05.000006Z"
    assert len(made["note"]) == 1024 and len(made["reportingInstance"]) == 128
    stem, dot, digest = made["metadata"]["name"].partition(".")
    assert (stem, dot) == ("a" * 199, ".") and len(digest) == 16  # no label is empty
    assert made["regarding"]["apiVersion"] == "discovery.k8s.io/v1"


def test_a_note_is_bounded_in_bytes() -> None:
    """As the API server counts: what is wrong in an object may be written in any script."""
    note = event_object(Notice(WEB, "InvalidField", "x" + "\u00e9" * 1000), "u", "n1", NOW)["note"]
    assert note == "x" + "\u00e9" * 511


def drain(schedule: Schedule, now: float) -> tuple[list[Notice], float]:
    """What is sent at a moment, and the seconds until there may be more."""
    sent = []
    while isinstance(found := schedule.next(now), Notice):
        sent.append(found)
    return sent, found


def test_what_stands_is_told_once_an_hour() -> None:
    schedule = Schedule()
    one = Notice(WEB, "ForbiddenEndpoint", "a")
    schedule.set([one], 0.0)
    assert drain(schedule, 0.0) == ([one], 3600.0)
    schedule.set([one], 10.0)
    assert drain(schedule, 10.0)[0] == []
    assert drain(schedule, 3600.0)[0] == [one]
    schedule.set([], 3700.0)
    assert drain(schedule, 9000.0)[0] == []
    schedule.again(one, 9000.0)  # it is no more, so nothing is tried again
    assert drain(schedule, 9001.0)[0] == []


def test_what_was_not_taken_comes_again() -> None:
    schedule = Schedule()
    one = Notice(WEB, "ForbiddenEndpoint", "a")
    schedule.set([one], 0.0)
    assert drain(schedule, 0.0)[0] == [one]
    schedule.again(one, 30.0)
    assert drain(schedule, 29.0) == ([], 1.0)
    assert drain(schedule, 30.0)[0] == [one]


def test_who_edits_all_day_is_told_now_and_then_and_keeps_nobody_waiting() -> None:
    schedule = Schedule()
    sent = 0
    other = Notice(("Service", "default", "api"), "ForbiddenEndpoint", "a")
    for second in range(600):
        schedule.set([Notice(WEB, "ForbiddenEndpoint", str(second))], float(second))
        sent += len(drain(schedule, float(second))[0])
    assert events.BURST_OF_ONE <= sent <= events.BURST_OF_ONE + 600 / events.EACH_OF_ONE_S + 1
    schedule.set([Notice(WEB, "ForbiddenEndpoint", "last"), other], 600.0)
    assert other in drain(schedule, 600.0)[0]


def test_a_thousand_at_once_are_spread() -> None:
    schedule = Schedule()
    schedule.set([Notice(("Service", "default", f"s{n}"), "ForbiddenEndpoint", "a") for n in range(1000)], 0.0)
    sent, wait = drain(schedule, 0.0)
    assert len(sent) == events.BURST and wait == events.EACH_S
    assert len(drain(schedule, events.EACH_S)[0]) == 1


def test_a_bug_over_one_object_keeps_no_other_from_being_told_of() -> None:
    said: list[str] = []
    done, made = threading.Event(), list[Any]()

    class Server:
        def create(self, place: str, value: Any) -> None:
            if value["regarding"]["name"] == "bad":
                raise TypeError("no such thing")
            made.append(value["regarding"]["name"])
            done.set()

        def close(self) -> None:
            pass

    writer = EventWriter(cast(Client, Server()), "n1", lambda key: {"bad": "u1", "web": "u2"}[key[2]], said.append)
    writer.start()
    try:
        writer.set([Notice(("Service", "default", name), "Reason", "x") for name in ("bad", "worse", "web")])
        assert done.wait(60) and made == ["web"]
    finally:
        writer.stop()
    assert [text.split(" is not")[0] for text in said] == [
        "an Event of Service default bad",
        "an Event of Service default worse",
    ]
    assert "TypeError: no such thing" in said[0] and "KeyError" in said[1]


def test_the_owner_of_each_refusal_is_the_service() -> None:
    text = """
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, externalIPs: [8.8.8.8], ports: [{port: 80}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [169.254.169.254]}]
"""
    follower = Follower(Node("n1", (parse_address("10.0.0.1"),)), Options())
    held = {(d.value["kind"], "shop", d.value["metadata"]["name"]): d for d in load(text.encode(), "x.yaml")}
    follower.update(held)
    found = {(one.reason, one.owner) for one in follower.planner.rules().refused}
    assert found == {("ForbiddenExternalIP", ("shop", "web")), ("ForbiddenEndpoint", ("shop", "web"))}
