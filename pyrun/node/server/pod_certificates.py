"""Certificates for pods of the API server: a PodCertificateRequest for each such source of a volume, and who signs it.

Keys are made here and leave the agent for the pod's volume alone; nothing is kept over the agent's end, after which
each is asked for anew (as by a kubelet). All requests of this node are one watch, from the first pod that wants one.

https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#pod-certificate-requests
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ...errors import PyrunError, Unavailable
from ...kube.certificates import new_key_and_proof
from ...kube.client import Client, path
from ...kube.objects.certificates import PodCertificateRequestStatus
from ...kube.objects.pods import Pod
from ...kube.objects.volumes import PodCertificateProjection
from ...kube.watch import Watch
from ..agent.record import Record
from ..volumes.contents import Credential, Source
from .certificate_course import GIVEN_UP_S, SPREAD_S, Asked, Course, Told, answered, due, why_none

V1, PLURAL = "certificates.k8s.io/v1", "podcertificaterequests"
AGAIN_S = (0.2, 30.0)  # before the next try, the first and the longest
LOOK_S = 600.0  # the clock may be set, or the machine may have slept
Name = tuple[str, str]  # (namespace, name) of a request


def certificates_of(pod: Pod) -> Iterator[tuple[Source, PodCertificateProjection]]:
    """PURE: that its volumes show."""
    for volume in (pod.spec and pod.spec.volumes) or ():
        for index, source in enumerate((volume.projected and volume.projected.sources) or ()):
            if source.podCertificate is not None:
                yield (volume.name, index), source.podCertificate


@dataclass(slots=True)
class _One:
    """error: of the last try to ask. delay: before the next one."""

    record: Record
    source: PodCertificateProjection
    course: Course = field(default_factory=Course)
    asking: bool = False
    error: str = ""
    delay: float = AGAIN_S[0]
    timer: asyncio.TimerHandle | None = None


class PodCertificates:
    """call: runs a function in a thread. node_uid: of the Node, empty before it is known. refreshed: told of a pod (its
    uid) that has another certificate, or will never have one. event: of such a pod."""

    def __init__(
        self,
        client: Client,
        call: Callable[..., Awaitable[Any]],
        node: str,
        node_uid: Callable[[], str],
        refreshed: Callable[[str], None],
        event: Callable[[str, Told], None],
    ) -> None:
        self._client, self._call, self._node, self._node_uid = client, call, node, node_uid
        self._refreshed, self._event = refreshed, event
        self._all: dict[str, dict[Source, _One]] = {}  # by the pod's uid
        self._waiting: dict[Name, _One] = {}
        self._seen: dict[Name, PodCertificateRequestStatus] = {}
        self._watch: Watch | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def acquire(self, record: Record) -> None:
        """Asks for what the pod wants and nobody has asked for."""
        for at, source in certificates_of(record.pod):
            if self._watch is None:
                self._watch = self._follow()
                self._watch.start()
            of_pod = self._all.setdefault(record.uid, {})
            if at not in of_pod:
                of_pod[at] = _One(record, source)
                self._step(of_pod[at])

    def release(self, uid: str) -> None:
        """The pod is gone, and its keys are forgotten."""
        gone = self._all.pop(uid, {}).values()
        for one in gone:
            if one.timer is not None:
                one.timer.cancel()
        self._waiting = {name: one for name, one in self._waiting.items() if one.record.uid != uid}

    def stop(self) -> None:
        """After close(). Blocks until the watch goes on no more."""
        if self._watch is not None:
            self._watch.stop()

    def close(self) -> None:
        """In the loop: nothing is asked for any more."""
        for task in self._tasks:
            task.cancel()
        for one in [one for of_pod in self._all.values() for one in of_pod.values()]:
            if one.timer is not None:
                one.timer.cancel()

    def shown(self, uid: str) -> Mapping[Source, Credential | str]:
        found: dict[Source, Credential | str] = {}
        for at, one in self._all.get(uid, {}).items():
            given = one.course.given
            error = one.error or (self._watch and self._watch.error) or ""
            found[at] = why_none(one.course, error) if given is None or one.course.refused else given.credential
        return found

    # --- requests ---

    def _step(self, one: _One) -> None:
        """Does what is due, and looks again when the next thing is."""
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        now = time.time()
        one.course, told, ask, at = due(one.course, now)
        for event in told:
            self._event(one.record.uid, event)
        if ask and not one.asking:
            one.asking = True
            task = asyncio.get_running_loop().create_task(self._ask(one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif at is not None:
            self._later(one, min(max(at - now, 0.0), LOOK_S))

    def _later(self, one: _One, seconds: float) -> None:
        if one.timer is not None:
            one.timer.cancel()
        one.timer = asyncio.get_running_loop().call_later(seconds, self._step, one)

    def _again(self, one: _One) -> None:
        self._later(one, one.delay * random.uniform(0.5, 1.5))
        one.delay = min(one.delay * 2, AGAIN_S[1])

    def _is_wanted(self, one: _One) -> bool:
        return any(one is other for other in self._all.get(one.record.uid, {}).values())

    async def _ask(self, one: _One) -> None:
        try:
            asked = await self._request(one)
        except (PyrunError, ValueError) as error:
            one.error = f"no PodCertificateRequest can be made: {error}"
            asked = None
        finally:
            one.asking = False
        if not self._is_wanted(one):
            return
        if asked is None:
            self._again(one)
            return
        one.error = ""
        one.course = replace(one.course, asked=asked)
        name = one.record.key[0], asked.name
        self._waiting[name] = one
        self._look(name)
        self._step(one)

    async def _request(self, one: _One) -> Asked:
        """PyrunError; ValueError of a kind of key that is not known."""
        namespace, pod = one.record.key
        account = one.record.desired().spec.serviceAccountName or "default"
        if not (node_uid := self._node_uid()):
            raise Unavailable("the Node is not known yet")
        there = await self._call(self._client.get, path("v1", "serviceaccounts", namespace, account))
        key, proof = await asyncio.to_thread(new_key_and_proof, one.source.keyType)
        spec = {
            "signerName": one.source.signerName,
            "podName": pod,
            "podUID": one.record.uid,
            "serviceAccountName": account,
            "serviceAccountUID": there["metadata"]["uid"],
            "nodeName": self._node,
            "nodeUID": node_uid,
            "stubPKCS10Request": base64.b64encode(proof).decode(),
        }
        if one.source.maxExpirationSeconds is not None:
            spec["maxExpirationSeconds"] = one.source.maxExpirationSeconds
        if one.source.userAnnotations:
            spec["unverifiedUserAnnotations"] = one.source.userAnnotations
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": one.record.uid}
        meta = {"namespace": namespace, "generateName": "req-", "ownerReferences": [owner]}
        request = {"apiVersion": V1, "kind": "PodCertificateRequest", "metadata": meta, "spec": spec}
        made = await self._call(self._client.create, path(V1, PLURAL, namespace), request)
        return Asked(made["metadata"]["name"], key, time.time() + GIVEN_UP_S + random.uniform(0, SPREAD_S))

    def _who_waits(self, name: Name) -> _One | None:
        """For this request: one that was given up, and has another by now, would take that certificate for its own."""
        one = self._waiting.get(name)
        asked = one.course.asked if one is not None else None
        if asked is None or asked.name != name[1]:
            self._waiting.pop(name, None)
            return None
        return one

    def _look(self, name: Name) -> None:
        """Whether a request of ours has been decided."""
        one, status = self._who_waits(name), self._seen.get(name)
        if one is None or status is None:
            return
        course, told = answered(one.course, status, random.uniform(0, SPREAD_S))
        if course is one.course:
            return
        del self._waiting[name]
        one.course, one.delay = course, AGAIN_S[0]
        if told is not None:
            self._event(one.record.uid, told)
        self._refreshed(one.record.uid)
        self._step(one)

    # --- what the server says of them ---

    def _follow(self) -> Watch:
        loop = asyncio.get_running_loop()

        def slim(value: dict[str, Any]) -> tuple[Name, PodCertificateRequestStatus]:
            meta = value["metadata"]
            status = msgspec.convert(value.get("status") or {}, PodCertificateRequestStatus)
            return (meta["namespace"], meta["name"]), status

        def replaced(found: list[tuple[Name, PodCertificateRequestStatus]]) -> None:
            loop.call_soon_threadsafe(self._replaced, dict(found))

        def changed(event: str, found: tuple[Name, PodCertificateRequestStatus]) -> None:
            loop.call_soon_threadsafe(self._removed if event == "DELETED" else self._changed, *found)

        # Failures are told with the pod that waits for it.
        selector = f"spec.nodeName={self._node}"
        return Watch(self._client, path(V1, PLURAL), replaced, changed, slim=slim, fieldSelector=selector)

    def _replaced(self, found: dict[Name, PodCertificateRequestStatus]) -> None:
        """One that was seen and is not there was removed; one that never was may be younger than the list."""
        for name in [name for name in self._seen if name not in found]:
            self._removed(name, self._seen[name])
        for name, status in found.items():
            self._changed(name, status)

    def _changed(self, name: Name, status: PodCertificateRequestStatus) -> None:
        self._seen[name] = status
        self._look(name)

    def _removed(self, name: Name, status: PodCertificateRequestStatus) -> None:
        """By somebody, or because nobody has decided in time. It may have been decided in that moment."""
        self._changed(name, status)
        del self._seen[name]
        if (one := self._who_waits(name)) is not None:
            del self._waiting[name]
            one.course = replace(one.course, asked=None)
            one.error = f"PodCertificateRequest {'/'.join(name)} was removed"
            self._again(one)
