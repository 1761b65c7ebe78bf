"""ExecSync: a command's exit code and what it wrote, as probes want them."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import cri_api as v1
from ...pod.execs import run_to_its_end
from ...rpc.server import MOST_BYTES
from ..cri import Cri

OTHER_FIELDS = 64


async def exec_sync(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    argv = tuple(request.cmd)
    code, out, err = await asyncio.to_thread(run_to_its_end, cri.pods, c, argv, max(0, request.timeout))
    out, err = fit(out, err, MOST_BYTES - OTHER_FIELDS)
    return v1.ExecSyncResponse(stdout=out, stderr=err, exit_code=code)


def fit(out: bytes, err: bytes, room: int) -> tuple[bytes, bytes]:
    """The beginnings of both that a client takes in one message: half of it for each, and what the other leaves."""
    kept = err[: max(room // 2, room - len(out))]
    return out[: room - len(kept)], kept
