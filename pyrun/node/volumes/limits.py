"""sizeLimit of an emptyDir on disk: nobody keeps a container from writing more, and who has is evicted for it.

Source: kubernetes pkg/kubelet/eviction/eviction_manager.go, emptyDirLimitEviction; that looks each 10 s too. A tmpfs
has its limit from the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ...kube.objects.pods import Pod
from ...kube.quantity import whole
from ...pod.stats.written import walk
from .plan import MEMORY

EVERY_S = 10.0
REST = 20  # times as long as the walk took: a large tree costs no more than a small one


def disk_limits(pod: Pod) -> dict[str, int]:
    """Bytes, by volume. PURE."""
    found = {}
    for volume in (pod.spec and pod.spec.volumes) or ():
        empty = volume.emptyDir
        if empty is not None and empty.medium != MEMORY and empty.sizeLimit is not None:
            if (limit := whole(empty.sizeLimit)) > 0:
                found[volume.name] = limit
    return found


def over_limit(directory: str, pod: Pod, limits: Mapping[str, int]) -> tuple[str, float]:
    """(why the pod is to be evicted, or nothing; in how many seconds to look again). directory: of the pod's emptyDirs.

    It may take a minute. A tree that is beyond the walk's bounds has an unknown size, for which nobody is evicted."""
    begun = time.monotonic()
    why = ""
    for name, limit in limits.items():
        found = walk(f"{directory}/{name}")
        if found is not None and found.bytes > limit and not why:
            why = f'Usage of EmptyDir volume "{name}" exceeds the limit "{_given(pod, name)}".'
    return why, max(EVERY_S, REST * (time.monotonic() - begun))


def _given(pod: Pod, name: str) -> object:
    """As the pod says it."""
    for volume in (pod.spec and pod.spec.volumes) or ():
        if volume.name == name and volume.emptyDir is not None:
            return volume.emptyDir.sizeLimit
    return ""
