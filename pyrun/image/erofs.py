"""Layers that are images of the EROFS file system: mounted from the file itself, and unmounted again.

Such a layer is a directory with two entries: `image`, the file, and `root`, on which it is mounted when somebody needs
it. No block device stands between (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE). All by mount's descriptors
(fsopen(2) and its kin, Linux 5.2), whose numbers are the same on every architecture. Nobody unmounts what a container
has: its overlay has the mount's file system for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

from pyrun.errors import FailedPrecondition, Unimplemented, reason

IMAGE, ROOT = "image", "root"
HINT = (
    "layers as EROFS images need Linux 6.12 or newer with CONFIG_EROFS_FS_BACKED_BY_FILE, and a store on a file"
    " system of a disk (ext4, xfs, btrfs; not tmpfs)"
)
DAMAGED = "its file was changed or damaged on the disk: remove the image and pull it again"
_SUPERBLOCK, _MAGIC = 1024, b"\xe2\xe1\xf5\xe0"  # EROFS_SUPER_OFFSET, EROFS_SUPER_MAGIC_V1
_CANNOT = (errno.ENOTBLK, errno.ENODEV, errno.ENOSYS)
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_FROM_EMPTY, _TO_EMPTY = 0x04, 0x40
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *values: int | bytes | None) -> int:
    # Each as long as a register is: of a variadic function's arguments ctypes would leave the upper half undefined.
    wide = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in values]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def usage(layer: int) -> tuple[int, int]:
    """(bytes, inodes) that a layer takes on the disk, as `du` counts them. layer: a descriptor; not mounted."""
    found = [os.fstat(layer), *(os.stat(name, dir_fd=layer, follow_symlinks=False) for name in (IMAGE, ROOT))]
    return sum(one.st_blocks * 512 for one in found), len(found)


def is_mounted(path: str) -> bool:
    """path: of the layer. Whether its root is another file system than itself."""
    try:
        return os.stat(f"{path}/{ROOT}").st_dev != os.stat(path).st_dev
    except OSError:
        return False


def mount(path: str) -> None:
    """Mounts the layer at `path` on its root, read-only, with no device and nothing set-id for who looks at it there.
    Unimplemented where the kernel can't; FailedPrecondition where the image is no more what was written."""
    try:
        layer = os.open(path, _DIRECTORY)
    except OSError as error:
        raise FailedPrecondition(f"{path}: {reason(error)}", hint="pull the image again") from None
    try:
        _mount(layer)
    except OSError as error:
        text = f"{path}/{IMAGE}: mount: {reason(error)}"
        # EINVAL is a file system's that can't be below one, and a superblock's that is none.
        if error.errno in _CANNOT or (error.errno == errno.EINVAL and _is_whole(layer)):
            raise Unimplemented(text, hint=HINT) from None
        raise FailedPrecondition(text, hint=DAMAGED) from None
    finally:
        os.close(layer)


def _is_whole(layer: int) -> bool:
    """Whether its file begins as the writer of layers leaves it, the superblock last."""
    try:
        fd = os.open(IMAGE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer)
        try:
            return os.pread(fd, len(_MAGIC), _SUPERBLOCK) == _MAGIC
        finally:
            os.close(fd)
    except OSError:
        return False


def _mount(layer: int) -> None:
    with contextlib.ExitStack() as held:

        def hold(fd: int) -> int:
            held.callback(os.close, fd)
            return fd

        image = hold(os.open(IMAGE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer))
        root = hold(os.open(ROOT, _DIRECTORY, dir_fd=layer))
        fs = hold(_call(_FSOPEN, b"erofs", _FSOPEN_CLOEXEC))
        _call(_FSCONFIG, fs, _SET_STRING, b"source", f"/proc/self/fd/{image}".encode(), 0)
        _call(_FSCONFIG, fs, _SET_FLAG, b"ro", None, 0)
        _call(_FSCONFIG, fs, _CREATE, None, None, 0)
        made = hold(_call(_FSMOUNT, fs, _FSMOUNT_CLOEXEC, _RDONLY | _NOSUID | _NODEV))
        _call(_MOVE_MOUNT, made, b"", root, b"", _FROM_EMPTY | _TO_EMPTY)


def unmount(path: str) -> None:
    """Takes the layer's mount away; no error where there is none. Who has something of it open keeps that."""
    if not is_mounted(path):
        return
    if _libc.umount2(f"{path}/{ROOT}".encode(), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise FailedPrecondition(f"{path}/{ROOT}: umount: {os.strerror(code).lower()}")


__all__ = ["HINT", "IMAGE", "ROOT", "is_mounted", "mount", "unmount", "usage"]
