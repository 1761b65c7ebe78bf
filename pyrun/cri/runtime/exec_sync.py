"""ExecSync: a command's exit code and what it wrote, as probes want them."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import cri_api as v1
from ...pod.execs import run_to_its_end
from ..cri import Cri


async def exec_sync(cri: Cri, request: Any) -> Any:
    c = cri.pods.container(request.container_id)
    argv = tuple(request.cmd)
    code, out, err = await asyncio.to_thread(run_to_its_end, cri.pods, c, argv, max(0, request.timeout))
    return v1.ExecSyncResponse(stdout=out, stderr=err, exit_code=code)
