"""What a root file system out of layers is made of: an overlay that the plan itself mounts, in place of a directory
that is there."""

from __future__ import annotations


class Overlay:
    """lower: the layers' directories, topmost first. upper, work: where the container writes; both None: nowhere.
    They lie in one directory. idmap: lower layers' owners are those of the container's user namespace (upper's can't
    be mapped, as the kernel writes there with the host's ids: whoever makes it gives it to the container's root).
    volumes: paths in the root that are made where they are missing, and stay writable where the root does not.
    volatile: what is written need not outlive a crash of the host (overlayfs.rst, "Volatile mount"), so the end of
    the container does not wait for the disk.

    All are absolute; root.path is then an empty directory, on which the root is mounted in the container's own mount
    namespace and nowhere else."""

    __slots__ = ("idmap", "lower", "maps", "upper", "volatile", "volumes", "work")

    def __init__(
        self,
        lower: tuple[str, ...],
        upper: str | None = None,
        work: str | None = None,
        *,
        idmap: bool = False,
        volumes: tuple[str, ...] = (),
        volatile: bool = True,
    ) -> None:
        self.lower = lower
        self.upper = upper
        self.work = work
        self.idmap = idmap
        self.maps: tuple[str, str] | None = None  # the planner's: which mappings a mount has
        self.volumes = volumes
        self.volatile = volatile and upper is not None
