"""What `pyrun --version` prints: lines that engines read by their first word, as runc's."""

from __future__ import annotations

import os

from pyrun import SPEC_VERSION, __version__

UNKNOWN = "unknown"
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def version_text() -> str:
    lines = [f"pyrun version {__version__}", f"commit: {commit()}", f"spec: {SPEC_VERSION}"]
    libseccomp = libseccomp_version()
    if libseccomp:
        lines.append(f"libseccomp: {libseccomp}")
    return "\n".join(lines) + "\n"


def libseccomp_version() -> str | None:
    """As X.Y.Z; None where pyrun was built without it."""
    try:
        from pyrun.plan.process.seccomp import libseccomp_version
    except ImportError:
        return None
    return libseccomp_version()


def commit() -> str:
    """The commit that this is: the file `commit` that setup.py puts into a package, or what a working tree has checked
    out, read without running git."""
    built = _read(PACKAGE, "commit")
    if built:
        return built
    git = os.path.join(os.path.dirname(PACKAGE), ".git")
    head = _read(git, "HEAD") or UNKNOWN
    if not head.startswith("ref: "):
        return head
    ref = head[5:]
    packed = [line.split()[0] for line in (_read(git, "packed-refs") or "").splitlines() if line.endswith(" " + ref)]
    return _read(git, ref) or (packed[0] if packed else UNKNOWN)


def _read(*path: str) -> str | None:
    try:
        with open(os.path.join(*path), encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None
