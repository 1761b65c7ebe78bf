"""The life of a container that has been made: started, stopped, removed; and what its end means.

All of it runs on the loop. A container's end is told by the supervisor; what it says is in the record before it is
forgotten there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Any

from ..errors import FailedPrecondition, PyrunError
from ..runtime.store import boot_id
from .ends import read_exits
from .making import let_go
from .messages import ENDED, Known
from .pod import Container
from .points import reached
from .records import (
    COMPLETED,
    CREATED,
    ERROR,
    EXITED,
    LOST,
    OOM_KILLED,
    REMOVING,
    RUNNING,
    START_ERROR,
    STARTING,
    UNKNOWN,
    ContainerRecord,
    remove_directory,
)
from .spec import collect_node, open_log
from .spec.resources import container_resources
from .state import NodeState
from .stuck import collect_stuck
from .supervisor import drop

KILLED_S = 30.0  # for what was killed to end
CANNOT_START = 128


async def start(pods: NodeState, c: Container) -> None:
    """Lets its program go. No error for one that this has done already, as a client may not have heard of it."""
    async with c.lock:
        if c.record.state == RUNNING:
            return
        if c.record.state != CREATED:
            raise FailedPrecondition(
                f"container {c.id[:13]} is {c.record.state}, not created", hint="a container is started once"
            )
        if not c.pod.ready:
            raise FailedPrecondition(f"pod {c.pod.id[:13]} is not ready", hint="it has been stopped")
        c.record.state, c.record.started, c.letting_go = STARTING, time.time_ns(), True
        try:
            error = await asyncio.to_thread(_release, pods, c)
        except PyrunError:  # the disk is full: nothing has begun
            if c.record.state == STARTING:
                c.record.state, c.record.started = CREATED, 0
            raise
        else:
            if error is not None:
                c.record.reason, c.record.message = START_ERROR, "\n".join(error.lines())
        finally:
            c.letting_go = False
            if c.end is not None:
                ended(pods, c, c.end)
        if error is not None:
            await _did_not_start(pods, c)
            raise error
        reached("start:released")
        if c.record.state == STARTING:  # and not ended meanwhile
            c.record.state = RUNNING
            pods.changed(c, "started")
            pods.go_on(_note_running(pods, c))


def _release(pods: NodeState, c: Container) -> PyrunError | None:
    """Its init goes on to the program: why it can't. PyrunError where that could not be written down before."""
    c.save()
    reached("start:record")
    try:
        pods.handler(c.pod).start(c)
    except PyrunError as error:
        return error
    return None


async def _note_running(pods: NodeState, c: Container) -> None:
    """Nobody waits for this: of one that is `starting` a daemon asks the runtime when it starts."""
    async with c.lock:
        if c.record.state == RUNNING:
            await asyncio.to_thread(pods.save_if_possible, c)


async def _did_not_start(pods: NodeState, c: Container) -> None:
    if c.record.state != EXITED:
        with contextlib.suppress(PyrunError):
            await asyncio.to_thread(pods.handler(c.pod).kill, c, "KILL", everyone=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(c.ended.wait(), KILLED_S)
    c.record.exit_code = CANNOT_START
    await asyncio.to_thread(pods.save_if_possible, c)


def ended(pods: NodeState, c: Container, known: Known) -> None:
    """Its program has ended, as the supervisor tells. Whether that was the program, or why it could not be started, is
    known when its start is over."""
    if known.state != ENDED or c.record.state in (EXITED, REMOVING):
        return
    if c.letting_go:
        c.end = known
        return
    record = c.record
    if record.state == STARTING and record.reason != START_ERROR:
        record.state = RUNNING
        pods.changed(c, "started")
    _note_end(record, known)
    pods.go_on(_tell_end(pods, c))


def _note_end(record: ContainerRecord, known: Known) -> None:
    never_ran = record.state == CREATED
    record.state = EXITED
    record.finished = known.ended_ns
    record.exit_code = CANNOT_START if record.reason == START_ERROR else known.exit_code
    record.reason = record.reason or (
        OOM_KILLED if known.oom_kills else COMPLETED if record.exit_code == 0 and not never_ran else ERROR
    )
    if known.lost_bytes:
        record.message = f"{known.lost_bytes} bytes of its log could not be written"


async def _tell_end(pods: NodeState, c: Container) -> None:
    await settle(pods, c)
    pods.changed(c, "stopped")


async def settle(pods: NodeState, c: Container) -> None:
    """What an ended one has left: its cgroup and the runtime's record go at once."""
    await asyncio.to_thread(_clean, pods, c)
    c.ended.set()


def _clean(pods: NodeState, c: Container) -> None:
    """The record first: what the supervisor knows is forgotten when it is on the disk."""
    reached("end:told")
    saved = pods.save_if_possible(c)
    reached("end:record")
    try:
        pods.handler(c.pod).delete(c)
        reached("end:state gone")
        if saved and c.pod.supervisor is not None:
            drop(c.pod.supervisor, c.id)
        reached("end:dropped")
    except (PyrunError, OSError) as error:
        pods.warn(f"container {c.id[:13]} has ended, and something of it stays: {error}")
        return
    c.record.cleaned = saved
    pods.save_if_possible(c)


async def settled(c: Container) -> None:
    """Where it has ended by itself a moment ago: when that has been told, and what it has left is gone."""
    if c.record.state == EXITED:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(c.ended.wait(), KILLED_S)


async def lost(pods: NodeState, c: Container) -> None:
    """Nobody is there to tell how it ended: its supervisor was killed, or the node was switched off. What still runs of
    it is killed."""
    known = (await asyncio.to_thread(read_exits, c.pod.run_directory)).get(c.id)
    if c.record.state == EXITED:
        return
    if known is not None and c.pod.record.boot_id == boot_id():
        _note_end(c.record, known)
    else:
        c.record.state, c.record.reason = EXITED, LOST
        c.record.exit_code, c.record.finished = 255, time.time_ns()
        c.record.message = "nobody was there to hear how it ended: its pod's supervisor was gone, or the node was off"
    await _tell_end(pods, c)


async def stop(pods: NodeState, c: Container, grace_s: float) -> None:
    """Its stop signal; KILL when grace_s are over. A second stop with less patience shortens the first's. PyrunError
    where it does not end even then."""
    if not c.alive:
        return
    if c.record.state == UNKNOWN:
        await lost(pods, c)
        return
    reached("stop:begin")
    loop = asyncio.get_running_loop()
    if c.record.state == CREATED:
        grace_s = 0  # nothing in it could heed a signal
    kill_at = loop.time() + grace_s
    if c.kill_at is None or kill_at < c.kill_at:
        c.kill_at = kill_at
        c.stop_changed.set()
    handler = pods.handler(c.pod)
    if grace_s > 0 and not c.told:
        c.told = True
        with contextlib.suppress(PyrunError):
            await asyncio.to_thread(handler.kill, c, c.record.stop_signal or "TERM")
        reached("stop:signalled")
    while not c.ended.is_set() and c.kill_at > loop.time():
        c.stop_changed.clear()
        waits = [asyncio.ensure_future(c.ended.wait()), asyncio.ensure_future(c.stop_changed.wait())]
        await asyncio.wait(waits, timeout=c.kill_at - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    if c.ended.is_set():
        return
    with contextlib.suppress(PyrunError):
        await asyncio.to_thread(handler.kill, c, "KILL", everyone=True)
    reached("stop:killed")
    try:
        await asyncio.wait_for(c.ended.wait(), KILLED_S)
    except TimeoutError:
        stuck = await asyncio.to_thread(collect_stuck, c.record.cgroup) if c.record.cgroup else []
        told = f": {', '.join(stuck)} can't be killed" if stuck else ""
        raise PyrunError(
            f"container {c.id[:13]} was killed and has not ended in {KILLED_S:.0f} s{told}",
            hint="a process that waits for a disk or a file server can't be killed: look at /proc/PID/stack",
        ) from None


async def remove(pods: NodeState, c: Container) -> None:
    """Kills it if it runs, and removes all that is left of it."""
    await pods.joined.run(("remove", c.id), lambda: _remove(pods, c))


async def _remove(pods: NodeState, c: Container) -> None:
    await stop(pods, c, 0)
    await settled(c)
    async with c.lock:
        if c.id not in pods.containers:
            return
        c.removing, c.record.state = True, REMOVING
        await asyncio.to_thread(let_go, pods, c)
        pods.forget(c)
    pods.changed(c, "deleted")
    clearing = pods.go_on(_clear(pods, c))
    c.pod.clearing.add(clearing)
    clearing.add_done_callback(c.pod.clearing.discard)


async def _clear(pods: NodeState, c: Container) -> None:
    """What it has written. What can't be removed now goes with the pod, or when a daemon starts."""
    try:
        await asyncio.to_thread(remove_directory, c.directory)
    except PyrunError as error:
        pods.warn(f"container {c.id[:13]} is removed, and something of what it wrote stays: {error}")


# --- while it runs ----------------------------------------------------------------------------------------------------


def pid_of(pods: NodeState, c: Container) -> int:
    """Of its init; 0: it has none."""
    return pods.handler(c.pod).pid(c)


def check_runs(c: Container) -> None:
    """FailedPrecondition."""
    if c.record.state != RUNNING:
        raise FailedPrecondition(f"container {c.id[:13]} does not run: it is {c.record.state}")


async def reopen_log(pods: NodeState, c: Container) -> None:
    """What it writes from now on goes to a new file of the log's name."""
    check_runs(c)
    if c.record.log_path:
        await asyncio.to_thread(_reopen_log, c)


def _reopen_log(c: Container) -> None:
    supervisor = c.pod.supervisor
    if supervisor is None:
        raise FailedPrecondition(f"the pod of container {c.id[:13]} has no supervisor")
    log = open_log(c.pod.config.log_directory, c.config.log_path)
    try:
        supervisor.log(c.id, log)
    finally:
        os.close(log)


async def update(pods: NodeState, c: Container, resources: Any) -> None:
    """Other limits, all of them or none. What is 0 or empty stays as it is."""
    if not c.alive:
        raise FailedPrecondition(f"container {c.id[:13]} is {c.record.state}")
    async with c.lock:
        await asyncio.to_thread(_update, pods, c, resources)


def _update(pods: NodeState, c: Container, resources: Any) -> None:
    node = collect_node(pods.facts, c.config, pods.settings)
    made = container_resources(resources, node)
    if made:
        pods.handler(c.pod).update(c, made)
    now = c.config.linux.resources
    for field, value in resources.ListFields():
        if field.name == "unified":
            now.unified.update(value)
        elif field.name == "hugepage_limits":
            del now.hugepage_limits[:]
            now.hugepage_limits.extend(value)
        else:
            setattr(now, field.name, value)
    c.record.config = c.config.SerializeToString(deterministic=True)
    c.record.warnings += [text for text in node.warnings if text not in c.record.warnings]
    c.save()
