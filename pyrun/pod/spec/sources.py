"""What CreateContainer makes on the host before the plan runs: sources of binds that are missing, and the directory
that the container writes to."""

from __future__ import annotations

import errno
import os

from ...errors import FailedPrecondition, InvalidArgument, reason
from .layers import UPPER, WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def make_sources(config: Any) -> None:
    """Makes each host_path that is not there as a directory, as docker did and peers do. It may wait for a file server:
    call it where that stops nothing else."""
    for index, mount in enumerate(config.mounts):
        if mount.image.image or not mount.host_path.startswith("/"):
            continue  # plan_container() has the words for it
        try:
            os.stat(mount.host_path)
        except FileNotFoundError:
            _make(f"mounts.{index}.host_path", mount.host_path)
        except OSError as error:
            raise InvalidArgument(f"mounts.{index}.host_path: {mount.host_path}: {reason(error)}") from None


def _make(place: str, path: str) -> None:
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(f"{place}: {path} is not there and can't be made: {reason(error)}") from None


def relabel_sources(config: Any, doc: dict[str, Any]) -> None:
    """Gives the sources of mounts with selinux_relabel the label of the container's files, all that lies below them
    too. Nothing on a node without SELinux. A file system without labels is left as it is."""
    label = doc["linux"].get("mountLabel")
    for mount in config.mounts if label else ():
        if mount.selinux_relabel and not mount.image.image:
            for path in (mount.host_path, *_below(mount.host_path)):
                try:
                    os.setxattr(path, "security.selinux", label.encode(), follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EROFS, errno.ENOENT):
                        raise FailedPrecondition(f"relabel {path}: {reason(error)}") from None


def _below(path: str) -> Iterator[str]:
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            yield f"{directory}/{name}"


def make_writable(directory: str, lower: tuple[str, ...], sandbox: Any) -> None:
    """Makes upper, work, rootfs (on which the root is mounted) and empty in `directory`, which is the container's.

    The root's own owner and mode are upper's: they are those of the topmost layer's, as the pod's user namespace
    has them."""
    above = os.stat(lower[0])
    uid, gid = (
        _on_host(number, maps)
        for number, maps in ((above.st_uid, sandbox.uid_mappings), (above.st_gid, sandbox.gid_mappings))
    )
    for name in (UPPER, WORK, "rootfs", "empty"):
        os.mkdir(f"{directory}/{name}", 0o755)
    os.chown(f"{directory}/{UPPER}", uid, gid)
    os.chmod(f"{directory}/{UPPER}", above.st_mode & 0o7777)


def _on_host(number: int, maps: Any) -> int:
    """Where a user namespace has no such id, the root is its root's: nobody could write to it otherwise."""
    if not maps:
        return number
    for wanted in (number, 0):
        for m in maps:
            if m.container_id <= wanted < m.container_id + m.size:
                return int(m.host_id + wanted - m.container_id)
    return number
