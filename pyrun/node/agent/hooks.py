"""postStart and preStop."""

from __future__ import annotations

import asyncio

from ...cri.cri import Cri
from ...errors import PyrunError
from ...kube.objects.containers import LifecycleHandler
from ...pod.execs import run_to_its_end

MOST_OUTPUT = 1024


async def run_hook(cri: Cri, id: str, handler: LifecycleHandler, patience: float | None) -> str:
    """ "" where it did its work, or what went wrong. patience: seconds; None for ever, as a postStart has it."""
    if handler.sleep is not None:
        seconds = float(handler.sleep.seconds)
        await asyncio.sleep(seconds if patience is None else min(seconds, patience))
        return ""
    assert handler.exec is not None
    argv = tuple(handler.exec.command or ())
    try:
        c = cri.pods.container(id)
        code, out, err = await asyncio.to_thread(run_to_its_end, cri.pods, c, argv, patience or 0)
    except PyrunError as error:
        return str(error)
    if code == 0:
        return ""
    return f"{' '.join(argv)} exited with {code}: {(err or out)[:MOST_OUTPUT].decode(errors='replace').strip()}"
