"""PURE: the course of a pod's certificate: asked for, given or refused, and asked for anew before it ends.

Source: kubernetes pkg/kubelet/podcertificate. ≠ a kubelet: a request that somebody has removed is asked for again soon,
and not after ten minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from ...kube.objects.certificates import PodCertificateRequestStatus
from ..downward import quoted
from ..volumes.contents import Credential
from ..volumes.trust import certificates, pem

GIVEN_UP_S = 600.0  # after which a request that the server does not show is no more, plus SPREAD_S
OVERDUE_S = 600.0  # after which a refresh is late
SPREAD_S = 300.0  # by chance, so that not all pods ask at once
NO_MORE = {"Denied": "was denied", "Failed": "failed"}
LATE, OVER = "CertificateOverdueForRefresh", "CertificateExpired"


@dataclass(frozen=True, slots=True)
class Given:
    """refresh, ends: seconds since 1970."""

    credential: Credential
    refresh: float
    ends: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that nobody has decided. key: whose it is. until: when it is given up."""

    name: str
    key: bytes
    until: float


class Told(NamedTuple):
    """An event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Course:
    """refused: why there will never be another. told: reasons of events of what is given."""

    given: Given | None = None
    asked: Asked | None = None
    refused: str = ""
    told: frozenset[str] = frozenset()


class Due(NamedTuple):
    """ask: for a certificate, now. at: when to look again."""

    course: Course
    told: tuple[Told, ...] = ()
    ask: bool = False
    at: float | None = None


def answered(course: Course, status: PodCertificateRequestStatus, spread: float) -> tuple[Course, Told | None]:
    """What the request that waits has come to; the same course while nobody has decided. spread: 0 to SPREAD_S."""
    asked = course.asked
    for one in (status.conditions or ()) if asked is not None else ():
        assert asked is not None
        why = f"reason={quoted(one.reason)} message={quoted(one.message)}"
        if one.type in NO_MORE:
            refused = f"PodCertificateRequest was permanently {one.type.lower()}: {why}"
            told = Told(one.type, f"PodCertificateRequest {asked.name} {NO_MORE[one.type]}, {why}")
            return replace(course, asked=None, refused=refused), told
        if one.type == "Issued":
            chain = b"".join(map(pem, certificates((status.certificateChain or "").encode())))
            refresh, ends = (_seconds(when) for when in (status.beginRefreshAt, status.notAfter))
            return Course(Given(Credential(asked.key, chain), refresh + spread, ends)), None
    return course, None


def _seconds(when: str | None) -> float:
    return datetime.fromisoformat(when).timestamp() if when else 0.0


def due(course: Course, now: float) -> Due:
    given, asked = course.given, course.asked
    if course.refused:
        return Due(course)
    if asked is not None and now >= asked.until:
        asked = None
    told: list[Told] = []
    later: list[float] = [] if asked is None else [asked.until]
    if given is not None:
        late, over = given.refresh + OVERDUE_S, given.ends
        for when, event in (
            (late, Told(LATE, "PodCertificate refresh overdue")),
            (over, Told(OVER, "PodCertificate expired")),
        ):
            if event.reason in course.told:
                continue
            if now < when:
                later.append(when)
            else:
                told.append(event)
        if now < given.refresh:
            later.append(given.refresh)
    ask = asked is None and (given is None or now >= given.refresh)
    after = replace(course, asked=asked, told=course.told | {one.reason for one in told})
    return Due(after, tuple(told), ask, min(later, default=None))


def why_none(course: Course, error: str) -> str:
    """error: of the last try to ask."""
    return course.refused or "credential bundle is not issued yet" + (f": {error}" if error else "")
