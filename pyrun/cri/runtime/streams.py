"""Exec, Attach and PortForward: a URL of the streaming server, for something that runs now. What has changed when the
client comes with the URL, he is told on his error stream."""

from __future__ import annotations

from typing import Any

from ... import cri_api as v1
from ...errors import FailedPrecondition
from ...http.remotecommand import Wanted
from ...pod.container import check_runs
from ..cri import Cri


def _wanted(request: Any) -> Wanted:
    return Wanted(request.stdin, request.stdout, request.stderr, request.tty)


async def exec(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    check_runs(c)
    return v1.ExecResponse(url=cri.streams.exec(c.id, tuple(request.cmd), _wanted(request)))


async def attach(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    check_runs(c)
    return v1.AttachResponse(url=cri.streams.attach(c.id, _wanted(request)))


async def port_forward(cri: Cri, request: Any) -> Any:
    pod = cri.pods.pod(request.pod_sandbox_id)
    if not pod.ready:
        raise FailedPrecondition(f"pod {pod.id[:13]} is not ready")
    return v1.PortForwardResponse(url=cri.streams.port_forward(pod.id))
