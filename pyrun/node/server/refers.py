"""What pods of the API server refer to: ConfigMaps and Secrets, each with a watch of its own, tokens, trust bundles
(bundles.py), certificates (pod_certificates.py), and Services.

A node may see those objects alone that its own pods name (the Node authorizer), so that there is a watch for each, for
as long as a pod here names it. A token is asked for when a pod needs it, and again at 80 % of its time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from ...errors import PyrunError, Unavailable
from ...kube.client import Client, path
from ...kube.defaults import TOKEN_SECONDS
from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.pods import Pod
from ...kube.objects.services import Service
from ...kube.watch import Watch
from ..agent.record import Record
from ..volumes import Objects, wanted
from .bundles import Bundles, bundles_of
from .pod_certificates import PodCertificates
from .service_variables import service_variables

KINDS: dict[str, tuple[str, type[ConfigMap] | type[Secret]]] = {
    "ConfigMap": ("configmaps", ConfigMap),
    "Secret": ("secrets", Secret),
}
KNOWN_S = 10.0  # how long who needs an object waits for its first answer
FRESH, AGAIN_S = 0.8, 30.0  # of a token's time; after a refresh that has failed
Key = tuple[str, str, str]  # kind, namespace, name
TokenKey = tuple[str, int]  # audience, seconds
Call = Callable[..., Awaitable[Any]]


def refers_to(pod: Pod) -> set[Key]:
    """PURE: by its volumes, variables and credentials for images."""
    assert pod.spec is not None and pod.metadata is not None
    found = set(wanted(pod))
    spec = pod.spec
    found |= {("Secret", one.name or "") for one in spec.imagePullSecrets or ()}
    for c in [*(spec.initContainers or ()), *spec.containers, *(spec.ephemeralContainers or ())]:
        for source in c.envFrom or ():
            if source.configMapRef is not None:
                found.add(("ConfigMap", source.configMapRef.name or ""))
            if source.secretRef is not None:
                found.add(("Secret", source.secretRef.name or ""))
        for variable in c.env or ():
            given = variable.valueFrom
            if given is not None and given.configMapKeyRef is not None:
                found.add(("ConfigMap", given.configMapKeyRef.name or ""))
            if given is not None and given.secretKeyRef is not None:
                found.add(("Secret", given.secretKeyRef.name or ""))
    return {(kind, pod.metadata.namespace or "default", name) for kind, name in found}


def tokens_of(pod: Pod) -> set[TokenKey]:
    """PURE: that its volumes show."""
    sources = [
        source
        for volume in (pod.spec and pod.spec.volumes) or ()
        if volume.projected is not None
        for source in volume.projected.sources or ()
    ]
    tokens = [source.serviceAccountToken for source in sources if source.serviceAccountToken is not None]
    return {(token.audience or "", token.expirationSeconds or TOKEN_SECONDS) for token in tokens}


@dataclass(slots=True)
class _Watched:
    """value: None where there is none. known: set with the first answer. pods: uids of those that name it."""

    watch: Watch
    value: Any = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    pods: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Token:
    text: str
    expires: float
    timer: asyncio.TimerHandle


class Refers:
    """call: runs a function in a thread. changed: told which object is another, for pods of these uids. refreshed:
    told of a pod whose token is another, or what its bundles say."""

    def __init__(
        self,
        client: Client,
        call: Call,
        changed: Callable[[Key, set[str]], None],
        refreshed: Callable[[str], None],
        told: Callable[[str], None],
        certificates: PodCertificates,
    ) -> None:
        self._client, self._call, self._changed, self._refreshed, self._told = client, call, changed, refreshed, told
        self._bundles, self._certificates = Bundles(client, refreshed), certificates
        self.allocatable: dict[str, int] = {}
        self._watched: dict[Key, _Watched] = {}
        self._tokens: dict[str, dict[TokenKey, _Token]] = {}
        self._services: dict[tuple[str, str], Service] = {}
        self._services_known = asyncio.Event()
        self._services_watch = self._watch_services()

    def start(self) -> None:
        self._services_watch.start()

    def acquire(self, record: Record) -> None:
        """Follows what the pod names, and asks for its certificates."""
        self._follow(record)
        self._certificates.acquire(record)

    def _follow(self, record: Record) -> None:
        named = refers_to(record.pod)
        for key in named:
            one = self._watched.get(key)
            if one is None:
                one = self._watched[key] = _Watched(self._watch(key))
                one.watch.start()
            one.pods.add(record.uid)
        self._let_go(record.uid, named)
        self._bundles.acquire(record.uid, record.pod)

    def release(self, uid: str) -> None:
        """The pod is gone."""
        self._let_go(uid, set())
        self._bundles.release(uid)
        self._certificates.release(uid)
        for token in self._tokens.pop(uid, {}).values():
            token.timer.cancel()

    def _let_go(self, uid: str, kept: set[Key]) -> None:
        for key, one in list(self._watched.items()):
            if key not in kept and uid in one.pods:
                one.pods.discard(uid)
                if not one.pods:
                    del self._watched[key]
                    asyncio.get_running_loop().run_in_executor(None, one.watch.stop)

    def stop(self) -> None:
        """Blocks until no watch goes on."""
        for tokens in self._tokens.values():
            for token in tokens.values():
                token.timer.cancel()
        for watch in (self._services_watch, *(one.watch for one in self._watched.values())):
            watch.stop()
        self._bundles.stop()
        self._certificates.stop()

    async def objects(self, record: Record) -> Objects:
        """All that the pod refers to, as far as it exists. Unavailable while the server has not told; PyrunError of a
        token."""
        self._follow(record)
        config_maps: dict[tuple[str, str], ConfigMap] = {}
        secrets: dict[tuple[str, str], Secret] = {}
        last = time.monotonic() + KNOWN_S
        for key in sorted(refers_to(record.pod)):
            one = self._watched[key]
            await _until(one.known, last, f'{key[0].lower()} "{key[1]}/{key[2]}" is not known yet', one.watch)
            if isinstance(one.value, ConfigMap):
                config_maps[key[1:]] = one.value
            elif isinstance(one.value, Secret):
                secrets[key[1:]] = one.value
        await _until(self._services_known, last, "Services are not known yet", self._services_watch)
        tokens = {key: await self._token(record, key) for key in sorted(tokens_of(record.pod))}
        if bundles_of(record.pod):
            watch = self._bundles.watch
            assert watch is not None
            await _until(self._bundles.known, last, "ClusterTrustBundles are not known yet", watch)
        links = record.desired().spec.enableServiceLinks is not False
        variables = service_variables(self._services, record.key[0], links=links)
        certificates = self._certificates.shown(record.uid)
        trust = self._bundles.trust
        return Objects(config_maps, secrets, self.allocatable, tokens, variables, trust, certificates)

    # --- objects ---

    def _watch(self, key: Key) -> Watch:
        kind, namespace, name = key
        plural, type = KINDS[kind]
        loop = asyncio.get_running_loop()

        def slim(one: dict[str, Any]) -> Any:
            return msgspec.convert(one, type)

        def replaced(found: list[Any]) -> None:
            loop.call_soon_threadsafe(self._set, key, found[0] if found else None)

        def changed(event: str, one: Any) -> None:
            loop.call_soon_threadsafe(self._set, key, None if event == "DELETED" else one)

        # Failures are told with the pod that waits for it; that of an object whose pods are gone is none.
        where, selector = path("v1", plural, namespace), f"metadata.name={name}"
        return Watch(self._client, where, replaced, changed, slim=slim, fieldSelector=selector)

    def _set(self, key: Key, value: Any) -> None:
        one = self._watched.get(key)
        if one is None:
            return
        before, one.value = one.value, value
        first = not one.known.is_set()
        one.known.set()
        if first or _words(before) != _words(value):
            self._changed(key, set(one.pods))

    # --- Services ---

    def _watch_services(self) -> Watch:
        """All that have an address of the cluster."""
        loop = asyncio.get_running_loop()

        def slim(one: dict[str, Any]) -> Service:
            one["metadata"] = {key: one["metadata"][key] for key in ("name", "namespace")}
            return msgspec.convert(one, Service)

        def replaced(found: list[Service]) -> None:
            loop.call_soon_threadsafe(self._set_services, found)

        def changed(event: str, one: Service) -> None:
            loop.call_soon_threadsafe(self._set_service, event, one)

        where = path("v1", "services")
        return Watch(
            self._client, where, replaced, changed, slim=slim, told=self._told, fieldSelector="spec.clusterIP!=None"
        )

    def _set_services(self, found: list[Service]) -> None:
        self._services = {_name(one): one for one in found}
        self._services_known.set()

    def _set_service(self, event: str, one: Service) -> None:
        if event == "DELETED":
            self._services.pop(_name(one), None)
        else:
            self._services[_name(one)] = one

    # --- tokens ---

    async def _token(self, record: Record, key: TokenKey) -> str:
        tokens = self._tokens.setdefault(record.uid, {})
        kept = tokens.get(key)
        if kept is not None and kept.expires > time.time():
            return kept.text
        return await self._ask(record, key)

    async def _ask(self, record: Record, key: TokenKey) -> str:
        audience, seconds = key
        namespace, name = record.key
        spec = record.desired().spec
        wanted = {"expirationSeconds": seconds, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name}}
        wanted["boundObjectRef"]["uid"] = record.uid  # type: ignore[index]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {**wanted, **({"audiences": [audience]} if audience else {})},
        }
        where = path("v1", "serviceaccounts", namespace, spec.serviceAccountName or "default", "token")
        asked = time.time()
        status = (await self._call(self._client.create, where, request))["status"]
        expires = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        lasts = max(expires - asked, 0.0) * FRESH * random.uniform(0.95, 1.0)
        self._keep(record, key, str(status["token"]), expires, lasts)
        return str(status["token"])

    def _keep(self, record: Record, key: TokenKey, text: str, expires: float, lasts: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(lasts, lambda: loop.create_task(self._refresh(record, key)))
        old = self._tokens.setdefault(record.uid, {}).get(key)
        if old is not None:
            old.timer.cancel()
        self._tokens[record.uid][key] = _Token(text, expires, timer)

    async def _refresh(self, record: Record, key: TokenKey) -> None:
        kept = self._tokens.get(record.uid, {}).get(key)
        if kept is None:
            return
        try:
            await self._ask(record, key)
        except PyrunError as error:
            self._told(f"pod {'/'.join(record.key)}: its token can't be had anew: {error}")
            self._keep(record, key, kept.text, kept.expires, AGAIN_S)
        else:
            self._refreshed(record.uid)


async def _until(known: asyncio.Event, last: float, what: str, watch: Watch) -> None:
    """last: until when, by the monotonic clock. Unavailable."""
    try:
        await asyncio.wait_for(known.wait(), max(0.0, last - time.monotonic()))
    except TimeoutError:
        raise Unavailable(f"{what}: {watch.error or 'the API server has not answered'}") from None


def _name(one: Service) -> tuple[str, str]:
    assert one.metadata is not None
    return one.metadata.namespace or "", one.metadata.name or ""


def _words(value: Any) -> Any:
    """Of an object, what pods see."""
    if isinstance(value, ConfigMap):
        return value.data, value.binaryData
    return (value.data,) if isinstance(value, Secret) else None
