"""The cluster's ClusterTrustBundles: one watch of all of them, from the first pod that shows one on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec

from ...kube.client import Client, path
from ...kube.objects.certificates import ClusterTrustBundle
from ...kube.objects.pods import Pod
from ...kube.objects.volumes import ClusterTrustBundleProjection
from ...kube.watch import Watch
from ..volumes.trust import Trust, refers

BUNDLES = path("certificates.k8s.io/v1", "clustertrustbundles")


def bundles_of(pod: Pod) -> list[ClusterTrustBundleProjection]:
    """PURE: that its volumes show."""
    projected = [volume.projected for volume in (pod.spec and pod.spec.volumes) or () if volume.projected is not None]
    sources = [source.clusterTrustBundle for one in projected for source in one.sources or ()]
    return [source for source in sources if source is not None]


class Bundles:
    """changed: told of each pod (its uid) whose volumes may show something else now."""

    def __init__(self, client: Client, changed: Callable[[str], None]) -> None:
        self._client, self._changed = client, changed
        self.known = asyncio.Event()
        self.watch: Watch | None = None
        self._order = os.urandom(32)
        self._all: dict[str, ClusterTrustBundle] = {}
        self._shown: dict[str, list[ClusterTrustBundleProjection]] = {}  # by uid

    @property
    def trust(self) -> Trust:
        return Trust(self._all, self._order)

    def acquire(self, uid: str, pod: Pod) -> None:
        if shown := bundles_of(pod):
            self._shown[uid] = shown
            if self.watch is None:
                self.watch = self._follow()
                self.watch.start()

    def release(self, uid: str) -> None:
        self._shown.pop(uid, None)

    def stop(self) -> None:
        """Blocks until the watch goes on no more."""
        if self.watch is not None:
            self.watch.stop()

    def _follow(self) -> Watch:
        loop = asyncio.get_running_loop()

        def slim(one: dict[str, Any]) -> ClusterTrustBundle:
            meta = one["metadata"]
            kept = {"name": meta["name"], "labels": meta.get("labels")}
            return msgspec.convert({"metadata": kept, "spec": one["spec"]}, ClusterTrustBundle)

        def replaced(found: list[ClusterTrustBundle]) -> None:
            loop.call_soon_threadsafe(self._set_all, found)

        def changed(event: str, one: ClusterTrustBundle) -> None:
            loop.call_soon_threadsafe(self._set, one, event != "DELETED")

        # Failures are told with the pod that waits for a bundle.
        return Watch(self._client, BUNDLES, replaced, changed, slim=slim)

    def _set_all(self, found: list[ClusterTrustBundle]) -> None:
        before, self._all = self._all, {_name(one): one for one in found}
        first = not self.known.is_set()
        self.known.set()
        names = [name for name in {*before, *self._all} if before.get(name) != self._all.get(name)]
        versions = [(name, one[name]) for name in names for one in (before, self._all) if name in one]
        self._tell(set(self._shown) if first else self._who_show(versions))

    def _set(self, one: ClusterTrustBundle, there: bool) -> None:
        name = _name(one)
        before = self._all.get(name)
        kept = {other: bundle for other, bundle in self._all.items() if other != name}
        self._all = {**kept, name: one} if there else kept
        if before != one or not there:
            self._tell(self._who_show([(name, bundle) for bundle in (before, one) if bundle is not None]))

    def _who_show(self, versions: list[tuple[str, ClusterTrustBundle]]) -> set[str]:
        """The pods of which a source means one of these."""
        return {
            uid
            for uid, shown in self._shown.items()
            if any(refers(source, name, one) for source in shown for name, one in versions)
        }

    def _tell(self, uids: set[str]) -> None:
        for uid in uids:
            self._changed(uid)


def _name(one: ClusterTrustBundle) -> str:
    assert one.metadata is not None
    return one.metadata.name or ""
