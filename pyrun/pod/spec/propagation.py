"""Mount propagation: whether the source is such a mount that it can do what is asked (mount_namespaces(7))."""

from __future__ import annotations

from .draft import refuse

PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL = range(3)  # MountPropagation


def check_source(place: str, propagation: int, source: str, mountinfo: str) -> None:
    """source: with its symlinks resolved. From a private mount nothing comes and to it nothing goes: that would go
    wrong without a word."""
    if propagation == PRIVATE or not mountinfo:
        return
    point, fields = mount_of(source, mountinfo)
    shared = any(field.startswith("shared:") for field in fields)
    slave = any(field.startswith("master:") for field in fields)
    hint = f"mount --make-rshared {point}"
    if propagation == BIDIRECTIONAL and not shared:
        refuse(place, f"{source} lies on {point}, which is no shared mount", hint=hint)
    if propagation == HOST_TO_CONTAINER and not (shared or slave):
        refuse(place, f"{source} lies on {point}, which is no shared or slave mount", hint=hint)


def mount_of(path: str, mountinfo: str) -> tuple[str, list[str]]:
    """The mount point that a path lies on, and the optional fields of its mount (proc_pid_mountinfo(5))."""
    best, fields = "/", list[str]()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        if not right or len(words) < 6:
            continue
        point = unescape(words[4])
        covers = point == "/" or path == point or path.startswith(point + "/")
        if covers and len(point) >= len(best):  # the last of two on one place is on top
            best, fields = point, words[6:]
    return best, fields


def unescape(text: str) -> str:
    """A path of mountinfo: \\040 is a blank."""
    if "\\" not in text:
        return text
    parts = text.split("\\")
    return parts[0] + "".join([chr(int(p[:3], 8)) + p[3:] if p[:3].isdigit() else "\\" + p for p in parts[1:]])
