"""A pod's own cgroup, which the CRI leaves to who names it: its limits, and its end."""

from __future__ import annotations

import os

from ...errors import PyrunError, reason


def remove_cgroup(mount: str | None, parent: str) -> None:
    """And those above it that have nothing else. PyrunError where something is still in the pod's."""
    if mount is None or not parent:
        return
    parts = parent.strip("/").split("/")
    for depth in range(len(parts), 0, -1):
        path = "/".join([mount.rstrip("/"), *parts[:depth]])
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if depth == len(parts):
                raise PyrunError(f"{path}: {reason(error)}") from None
            return  # of other pods
