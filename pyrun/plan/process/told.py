"""What others are told of a process that is about to exec: a seccomp agent by its listener, the engine by pidfd and pid
file."""

from __future__ import annotations

from ...oci.model import Spec
from ..model.plan import Builder
from ..model.request import Request
from ..model.steps import PARENT, PID_MARK, UNDO, Close, Connect, PidfdGetfd, PidFile, SendFd, Unlinkat
from .hooks import quote, state_json
from .seccomp import SeccompProgram


def plan_agent(
    b: Builder, spec: Spec, req: Request, seccomp: SeccompProgram | None, status: str, init: str = PID_MARK
) -> None:
    """The listener goes to the agent, with the container process state of config-linux.md. status: the container's.
    init: its pid, where the process is another."""
    if seccomp is None or not seccomp.listener_path:
        return
    at = "/linux/seccomp/listenerPath"
    metadata = f',"metadata":{quote(seccomp.listener_metadata)}' if seccomp.listener_metadata else ""
    state = state_json(spec, req.id, req.bundle, status, init)
    head = f'{{"ociVersion":{quote(spec.oci_version)},"fds":["seccompFd"],"pid":{PID_MARK}'
    data = f'{head}{metadata},"state":{state}}}'
    listener, agent = b.slot("seccomp-listener"), b.slot("seccomp-agent")
    b.add(
        PARENT,
        PidfdGetfd(out=listener, at=at),
        Connect(path=seccomp.listener_path, out=agent, at=at),
        SendFd(socket=agent, fd=listener, data=data, at=at, why="the agent answers for the process"),
        Close(fd=listener, why="with one of ours open, the agent's end would leave the process waiting for it"),
        Close(fd=agent),
    )


def plan_engine(b: Builder, req: Request, pidfd: int, socket: int, word: str) -> None:
    """socket: connected to --pidfd-socket, if there is one. word: goes with the pidfd."""
    if req.pidfd_socket:
        b.add(PARENT, SendFd(socket=socket, fd=pidfd, data=word, why="--pidfd-socket"))
    if req.pid_file:
        head, slash, tail = req.pid_file.rpartition("/")
        step = PidFile(tmp=f"{head}{slash}.{tail}.new", path=req.pid_file, why="for the engine")
        b.add(PARENT, step)
        b.add(UNDO, Unlinkat(path=req.pid_file, guard=step))
