"""--root: where the state of containers lies, given or by default."""

from __future__ import annotations

import posix

from pyrun.errors import PyrunError


def checked_root(path: str) -> str:
    """The path, absolute and without dots. Raises PyrunError for / itself, which `delete` must never take as its
    own."""
    kept: list[str] = []
    for part in (path if path.startswith("/") else f"{posix.getcwd()}/{path}").split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    if not kept or not path:
        raise PyrunError(f'--root "{path}" must not be /', hint="name a directory of its own, such as /run/pyrun")
    return "/" + "/".join(kept)


def default_root() -> str:
    """/run/pyrun; for who is not the host's root, $XDG_RUNTIME_DIR/pyrun, where there is one."""
    directory = posix.environ.get(b"XDG_RUNTIME_DIR")
    if not directory or (posix.geteuid() == 0 and not _is_mapped_root()):
        return "/run/pyrun"
    return directory.decode("utf-8", "surrogateescape") + "/pyrun"


def _is_mapped_root() -> bool:
    """Root in a user namespace, and not by a login as root there."""
    with open("/proc/self/uid_map", "rb", buffering=0) as file:
        mapped = file.read(4096).split() != [b"0", b"0", b"4294967295"]
    return mapped and posix.environ.get(b"USER") != b"root"
