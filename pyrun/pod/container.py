"""What is done to one container: made out of an image, started, stopped, removed; and what its end means.

make() and unmake() block and run in a thread; the rest runs on the loop. A container's end is told by the supervisor;
what it says is in the record before it is forgotten there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import Any

from ..errors import FailedPrecondition, InvalidArgument, PyrunError
from ..image.reference import parse_reference
from ..runtime.prepare import Config, prepare
from ..runtime.runtime import Runtime
from ..runtime.store import boot_id
from .messages import ENDED
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
    forget_files,
    make_directory,
    write_record,
)
from .spec import (
    collect_node,
    log_path,
    look_up_user,
    make_sources,
    make_writable,
    open_log,
    plan_container,
    plan_root,
    relabel_sources,
    stop_signal,
)
from .spec.image_root import look_up
from .spec.layers import ImageMount
from .spec.resources import container_resources
from .state import NodeState
from .supervisor import CONSOLE, Known, drop, read_exits
from .undo import undoing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..image.store import Image

KILL = 9
KILLED_S = 30.0  # for what was killed to end
CANNOT_START = 128


def runtime_of(pods: NodeState) -> Runtime:
    return Runtime(pods.store.root, pods.facts, pods.warn)


# --- making -----------------------------------------------------------------------------------------------------------


def make(pods: NodeState, c: Container) -> None:
    """Up to `created`: its init waits. PyrunError; unmake() takes away what there is then."""
    pod, config = c.pod, c.config
    sandbox, supervisor = pod.sandbox, pod.supervisor
    if sandbox is None or supervisor is None:
        raise FailedPrecondition(f"pod {pod.id[:13]} has no supervisor", hint="it has been stopped")
    c.record.log_path = log_path(config, pod.config)
    reached("create:begin")
    make_directory(c.directory)
    _save(c)
    reached("create:record")
    image = pods.images.find(config.image.image)
    c.record.image_id, c.record.image_ref = image.id, _name_of(image, config.image)
    c.record.image_digest = next(iter(image.digests), "")
    lower = pods.images.hold(image.id, c.id)
    reached("create:image held")
    user = look_up_user(lower, config, image.config)
    make_sources(config)
    make_writable(c.directory, lower, sandbox)
    reached("create:directories")
    node = collect_node(pods.facts, config, pods.settings)
    doc = plan_container(
        config,
        pod.config,
        image.config,
        user,
        sandbox,
        node,
        id=c.id,
        target=_target(pods, c),
        images=_image_mounts(pods, c),
    )
    relabel_sources(config, doc)
    c.record.warnings = list(node.warnings)
    c.record.stop_signal = str(stop_signal(config, image.config))
    c.record.user = {"uid": user.uid, "gid": user.gid, "groups": list(user.groups)}
    words: dict[str, Any] = {"console": CONSOLE} if config.tty else {}
    prepared = prepare(
        pods.store,
        c.id,
        c.directory,
        Config(json.dumps(doc).encode()),
        facts=pods.facts,
        overlay=plan_root(config, image.config, lower, c.directory, sandbox),
        late=True,
        **words,
    )
    c.record.cgroup = prepared.request.cgroup or ""
    log = open_log(pod.config.log_directory, config.log_path) if c.record.log_path else -1
    reached("create:log opened")
    try:
        words = {"tty": config.tty, "stdin": config.stdin, "stdin_once": config.stdin_once}
        words |= {"log": log, "cancel": c.cancel}
        supervisor.create(c.id, prepared, warn=c.record.warnings.append, **words).close()
    finally:
        if log >= 0:
            os.close(log)
    reached("create:made")
    c.record.state = CREATED
    _save(c)
    reached("create:end")


def _name_of(image: Image, asked: Any) -> str:
    """The name that was asked for where the image still has it: a kubelet asks by the id and tells the name apart."""
    wanted = asked.user_specified_image or asked.image
    with contextlib.suppress(PyrunError):
        wanted = str(parse_reference(wanted))
    return wanted if wanted in (*image.tags, *image.digests) else image.name


def _target(pods: NodeState, c: Container) -> str | None:
    """The PID namespace of the container that namespace_options.target_id names."""
    options = c.config.linux.security_context.namespace_options
    if not options.target_id:
        return None
    target = pods.container(options.target_id)
    if target.pod is not c.pod:
        raise InvalidArgument(f"container {options.target_id} is of another pod", hint="a target is of the same pod")
    pid = pods.store.open(target.id).pid()
    if not pid:
        raise FailedPrecondition(f"container {options.target_id} does not run, so its processes can't be shared")
    return f"/proc/{pid}/ns/pid"


def _image_mounts(pods: NodeState, c: Container) -> dict[int, ImageMount]:
    """The images that are mounted in it, held for it."""
    found: dict[int, ImageMount] = {}
    c.record.mounts = [""] * len(c.config.mounts)
    for index, mount in enumerate(c.config.mounts):
        if not mount.image.image:
            continue
        image = pods.images.find(mount.image.image)
        c.record.mounts[index] = image.id
        layers = pods.images.hold(image.id, f"{c.id}/{index}")
        at = look_up(layers, mount.image_sub_path or "/")
        if at is None:
            raise InvalidArgument(f"mounts.{index}.image_sub_path: there is no {mount.image_sub_path} in the image")
        with at:
            found[index] = ImageMount(tuple(at.parts), f"{c.directory}/empty", is_file=at.name is not None)
    return found


def unmake(pods: NodeState, c: Container) -> None:
    """Takes away all that it has but its pod's. PyrunError when something stays; then all else has been tried."""
    with undoing() as undo:
        undo(lambda: runtime_of(pods).container(c.id).delete(force=True))
        reached("remove:state gone")
        if c.pod.supervisor is not None:
            with contextlib.suppress(PyrunError):
                drop(c.pod.supervisor, c.id)
        reached("remove:dropped")
        undo(forget_files, c.directory)
        reached("remove:files gone")
        _release_images(pods, [c.id, *(f"{c.id}/{index}" for index in range(len(c.config.mounts)))])
        reached("remove:end")


def _release_images(pods: NodeState, owners: list[str]) -> None:
    """Last, and no reason to fail: a disk that is full takes no note of it. Then the next removal does it, or start."""
    for owner in (*pods.unreleased, *owners):
        try:
            pods.images.release(owner)
            pods.unreleased.discard(owner)
        except PyrunError as error:
            pods.unreleased.add(owner)
            pods.warn(f"the images of container {owner[:13]} stay held for now: {error}")


def _save(c: Container) -> None:
    write_record(f"{c.directory}/container.json", c.record)


def save_if_possible(pods: NodeState, c: Container) -> bool:
    """For what has happened already, and what makes room on a disk that is full."""
    try:
        _save(c)
        return True
    except PyrunError as error:
        pods.warn(f"container {c.id[:13]}: {error}")
        return False


# --- life -------------------------------------------------------------------------------------------------------------


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
        c.record.state, c.record.started = STARTING, time.time_ns()
        try:
            await asyncio.to_thread(_save, c)
        except PyrunError:
            if c.record.state == STARTING:
                c.record.state, c.record.started = CREATED, 0
            raise
        reached("start:record")
        try:
            await asyncio.to_thread(runtime_of(pods).container(c.id).start)
        except PyrunError as error:
            await _did_not_start(pods, c, error)
            raise
        reached("start:released")
        if c.record.state == STARTING:  # and not ended meanwhile
            c.record.state = RUNNING
            pods.changed(c, "started")
            await asyncio.to_thread(save_if_possible, pods, c)
        reached("start:end")


async def _did_not_start(pods: NodeState, c: Container, error: PyrunError) -> None:
    c.record.message = "\n".join(error.lines())
    c.record.reason = START_ERROR
    if c.record.state != EXITED:
        with contextlib.suppress(PyrunError):
            await asyncio.to_thread(runtime_of(pods).container(c.id).kill, "KILL", everyone=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(c.ended.wait(), KILLED_S)
    c.record.exit_code = CANNOT_START
    await asyncio.to_thread(save_if_possible, pods, c)


def ended(pods: NodeState, c: Container, known: Known) -> None:
    """Its program has ended, as the supervisor tells."""
    if known.state != ENDED or c.record.state in (EXITED, REMOVING):
        return
    record = c.record
    if record.state == STARTING:
        pods.changed(c, "started")
    _note_end(record, known)
    asyncio.get_running_loop().create_task(_tell_end(pods, c))


def _note_end(record: ContainerRecord, known: Known) -> None:
    never_ran = record.state == CREATED
    record.state = EXITED
    record.finished = known.ended_ns
    record.exit_code = known.exit_code
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
    saved = save_if_possible(pods, c)
    reached("end:record")
    try:
        runtime_of(pods).container(c.id).delete(force=True)
        reached("end:state gone")
        if saved and c.pod.supervisor is not None:
            drop(c.pod.supervisor, c.id)
        reached("end:dropped")
    except (PyrunError, OSError) as error:
        pods.warn(f"container {c.id[:13]} has ended, and something of it stays: {error}")
        return
    c.record.cleaned = True
    save_if_possible(pods, c)


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
    runtime = runtime_of(pods).container(c.id)
    if grace_s > 0 and not c.told:
        c.told = True
        with contextlib.suppress(PyrunError):
            await asyncio.to_thread(runtime.kill, c.record.stop_signal or "TERM")
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
        await asyncio.to_thread(runtime.kill, "KILL", everyone=True)
    reached("stop:killed")
    try:
        await asyncio.wait_for(c.ended.wait(), KILLED_S)
    except TimeoutError:
        raise PyrunError(
            f"container {c.id[:13]} was killed and has not ended in {KILLED_S:.0f} s",
            hint="a process that waits for a disk or a file server can't be killed: look at /proc/PID/stack",
        ) from None


async def remove(pods: NodeState, c: Container) -> None:
    """Kills it if it runs, and removes all that is left of it."""
    await pods.joined.run(("remove", c.id), lambda: _remove(pods, c))


async def _remove(pods: NodeState, c: Container) -> None:
    await stop(pods, c, 0)
    async with c.lock:
        if c.id not in pods.containers:
            return
        c.removing, c.record.state = True, REMOVING
        await asyncio.to_thread(save_if_possible, pods, c)
        reached("remove:record")
        await asyncio.to_thread(unmake, pods, c)
        pods.forget(c)
    pods.changed(c, "deleted")


# --- while it runs ----------------------------------------------------------------------------------------------------


def pid_of(pods: NodeState, c: Container) -> int:
    """Of its init; 0: it has none."""
    try:
        return pods.store.open(c.id).pid()
    except PyrunError:
        return 0


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
        runtime_of(pods).container(c.id).update(json.dumps(made).encode(), file="resources")
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
    _save(c)
