"""Version, Status, RuntimeConfig, UpdateRuntimeConfig: what this runtime is and whether it is ready."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ... import __version__
from ... import cri_api as v1
from ...pod.handler import Features
from ...pod.sandbox.cgroups import SYSTEMD
from ..cri import Cri


async def version(cri: Cri, request: Any) -> Any:
    return v1.VersionResponse(
        version="0.1.0", runtime_name="pyrun", runtime_version=__version__, runtime_api_version="v1"
    )


async def status(cri: Cri, request: Any) -> Any:
    ready, reason, message = await asyncio.to_thread(cri.network.ready)
    response = v1.StatusResponse(
        status=v1.RuntimeStatus(
            conditions=[
                v1.RuntimeCondition(type="RuntimeReady", status=True, message="; ".join(notes(cri))),
                v1.RuntimeCondition(type="NetworkReady", status=ready, reason=reason, message=message),
            ]
        ),
        runtime_handlers=[_handler(name, has) for name, has in cri.pods.handler_features().items()],
        features=v1.RuntimeFeatures(
            supplemental_groups_policy=True, mount_options=True, user_namespaces_host_network=True
        ),
    )
    if request.verbose:
        response.info["config"] = json.dumps(await asyncio.to_thread(_verbose, cri))
        response.info["durations"] = json.dumps(cri.durations.value() | cri.pods.own.step_times.value())
    return response


def notes(cri: Cri) -> list[str]:
    """What a person should know of it now."""
    trouble = cri.images.trouble
    return [*cri.notes, trouble] if trouble else cri.notes


def _handler(name: str, has: Features) -> Any:
    features = v1.RuntimeHandlerFeatures(
        recursive_read_only_mounts=has.recursive_read_only, user_namespaces=has.user_namespaces
    )
    return v1.RuntimeHandler(name=name, features=features)


def _verbose(cri: Cri) -> dict[str, Any]:
    return {
        "root": cri.root,
        "state": cri.state,
        "network": cri.network.kind(),
        "cgroup driver": cri.pods.settings.cgroup_driver,
        "controllers": sorted(cri.facts.controllers),
        "pods": len(cri.pods.pods),
        "containers": len(cri.pods.containers),
        "handlers": {name: f"{peer.program}: {peer.features.version}" for name, peer in cri.pods.peers.items()},
        "notes": notes(cri),
    }


async def runtime_config(cri: Cri, request: Any) -> Any:
    """By what a kubelet decides how it names cgroup_parent."""
    driver = v1.SYSTEMD if cri.pods.settings.cgroup_driver == SYSTEMD else v1.CGROUPFS
    return v1.RuntimeConfigResponse(linux=v1.LinuxRuntimeConfiguration(cgroup_driver=driver))


async def update_runtime_config(cri: Cri, request: Any) -> Any:
    cidrs = request.runtime_config.network_config.pod_cidr
    await asyncio.to_thread(cri.network.set_pod_cidr, [cidrs] if cidrs else [])
    return v1.UpdateRuntimeConfigResponse()
