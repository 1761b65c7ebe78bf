"""$NOTIFY_SOCKET (sd_notify(3)) for the container: a socket of ours in a directory of its state, bound into it.

The container never gets the service manager's own socket: a MAINPID= of its making would be believed. As runc has it,
the directory is there from create on, the socket from start on, and what comes in is read by runtime/notify.py.
"""

from __future__ import annotations

from ...oci.model import Mount, Spec
from ..model.plan import Builder
from ..model.request import Request
from ..model.steps import O_PATH_DIRECTORY, PARENT, UNDO, Bind, Mkdirat, Openat2, Step, Unlinkat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY, NAME, SLOT = "notify", "notify.sock", "notify-socket"
INSIDE = "/run/notify"
AT_REMOVEDIR = 0x200
ENOENT = 2


def with_notify(spec: Spec, state_dir: str) -> Spec:
    """The spec whose program finds the socket."""
    if spec.process is None:
        return spec
    options = ("bind", "nosuid", "noexec", "nodev", "ro")
    mount = Mount(destination=INSIDE, type="bind", source=f"{state_dir}/{DIRECTORY}", options=options)
    process = spec.process.replace(env=(*spec.process.env, f"NOTIFY_SOCKET={INSIDE}/{NAME}"))
    return spec.replace(mounts=(*spec.mounts, mount), process=process)


def plan_notify_directory(b: Builder, req: Request, state: int, ours: Step) -> None:
    """Parent: the directory in state, which is open, and ours if that step was; with the socket where nothing parks,
    for it must be there before the program is."""
    b.add(PARENT, Mkdirat(dir=state, path=DIRECTORY, mode=0o755, why="for $NOTIFY_SOCKET"))
    b.add(UNDO, *notify_removal(state, guard=ours))
    if not req.park:
        plan_notify_socket(b, state)


def plan_notify_socket(b: Builder, state: int) -> None:
    """Parent: the socket, in the slot named SLOT."""
    directory, socket = b.slot("notify-directory"), b.slot(SLOT)
    b.add(
        PARENT,
        Openat2(dir=state, path=DIRECTORY, flags=O_PATH_DIRECTORY, out=directory),
        Bind(dir=directory, name=NAME, mode=0o777, out=socket, why="what the program says of itself comes here"),
    )


def notify_removal(state: int, **words: Any) -> list[Step]:
    gone = ((ENOENT, None),)
    return [
        Unlinkat(dir=state, path=f"{DIRECTORY}/{NAME}", on=gone, **words),
        Unlinkat(dir=state, path=DIRECTORY, flags=AT_REMOVEDIR, on=gone, **words),
    ]
