"""Logs that have grown are set aside and the oldest removed, as a kubelet does with what its runtime writes.

A log is renamed before its container is told to open another: what it writes in between is in the renamed one, so no
line is lost. Names are the kubelet's, as readers of /var/log/pods know them. Source: kubernetes pkg/kubelet/logs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from ...errors import PyrunError
from ...pod import container as life
from ...pod.pod import Container
from ...pod.pods import Pods
from ...pod.records import RUNNING
from .sandbox_config import FILE, SOURCE

PERIOD_S = 10.0


async def rotate_for_ever(pods: Pods, most_bytes: int, most_files: int, warn: Callable[[str], None]) -> None:
    """Of the agent's own containers. most_files: with the one that is written to, of each attempt."""
    while True:
        for c in list(pods.containers.values()):
            if c.record.state == RUNNING and c.pod.config.annotations.get(SOURCE) == FILE and c.record.log_path:
                try:
                    await _rotate(pods, c, most_bytes, most_files)
                except (PyrunError, OSError) as error:
                    warn(f"the log of container {c.id[:13]} can't be rotated: {error}")
        await asyncio.sleep(PERIOD_S)


async def _rotate(pods: Pods, c: Container, most_bytes: int, most_files: int) -> None:
    path = c.record.log_path
    try:
        if os.lstat(path).st_size <= most_bytes:
            return
    except FileNotFoundError:  # an agent before us was killed in the middle
        await life.reopen_log(pods, c)
        return
    aside = f"{path}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    if os.path.lexists(aside):
        return  # twice within a second: the next look does it
    os.rename(path, aside)
    try:
        await life.reopen_log(pods, c)
    except PyrunError:
        if not os.path.lexists(path):
            os.rename(aside, path)
        raise
    await asyncio.to_thread(remove_oldest, path, most_files - 1)


def remove_oldest(path: str, kept: int) -> None:
    """Of those that were set aside; stamps sort by time."""
    directory, name = os.path.split(path)
    found = sorted(one for one in os.listdir(directory) if one.startswith(f"{name}."))
    for one in found[: max(0, len(found) - kept)]:
        os.unlink(os.path.join(directory, one))
