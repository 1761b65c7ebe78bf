"""What a daemon makes of what an earlier one has left, before it answers anybody.

A pod goes on when its record says `ready` and its supervisor answers; what is still `making` was never promised to
anybody and goes, and so does what nobody has a record of: sandboxes, states of containers, leases, holds of images. A
pod whose supervisor or boot is gone is told of as not ready, with its containers as ended. Pods are read by threads,
all at once; what takes long to end is ended while we serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import PyrunError
from ..runtime.store import boot_id
from . import container as containers
from .making import unmake
from .messages import ENDED, LIVE, Known
from .messages import MAKING as BEING_MADE
from .pod import Container, Pod
from .pods import Pods
from .records import (
    CREATED,
    EXITED,
    MAKING,
    NOTREADY,
    READY,
    REMOVING,
    RUNNING,
    STARTING,
    ContainerRecord,
    PodRecord,
    is_id,
    names_in,
    read_record,
    remove_directory,
)
from .sandbox import end_sandbox, load_sandbox, prepare_state
from .supervisor import PIDS, Supervisor

MAKER_S = 30.0  # for a maker that was at work for the daemon that is gone: it notices, and undoes
SERVE_S = 3.0  # after which what is being ended is left to tasks


async def recover(pods: Pods) -> None:
    """Fills pods with what there is."""
    await asyncio.to_thread(_prepare, pods)
    names = await asyncio.to_thread(names_in, f"{pods.root}/pods")
    work: list[Coroutine[Any, Any, None]] = []
    for pod, found, known in await asyncio.gather(*(asyncio.to_thread(_read_pod, pods, name) for name in names)):
        if pod is None:
            continue
        pods.keep_pod(pod)
        for container in found:
            pod.containers[container.id] = pods.containers[container.id] = container
        work += _take_up(pods, pod, known)
    await asyncio.to_thread(_sweep, pods)
    if work:
        await asyncio.wait([asyncio.ensure_future(one) for one in work], timeout=SERVE_S)


def _prepare(pods: Pods) -> None:
    os.makedirs(f"{pods.root}/pods", 0o700, exist_ok=True)
    os.makedirs(f"{pods.state}/containers", 0o700, exist_ok=True)
    prepare_state(f"{pods.state}/pods")


def _read_pod(pods: Pods, name: str) -> tuple[Pod | None, list[Container], dict[str, Known]]:
    """The pod, its containers, and what its supervisor knows; None: it is no more."""
    record = read_record(PodRecord, f"{pods.root}/pods/{name}/pod.json") or PodRecord(name, b"", state=REMOVING)
    pod = Pod(record, pods.root, pods.state)
    known = _connect(pods, pod)
    going = record.state in (MAKING, REMOVING)
    found = []
    for below in names_in(pod.directory):
        c_record = read_record(ContainerRecord, f"{pod.directory}/{below}/container.json")
        container = Container(c_record or ContainerRecord(below, name, b""), pod)
        if going or c_record is None or c_record.state in (MAKING, REMOVING):
            _try(pods, f"container {below[:13]}", unmake, pods, container)
        else:
            found.append(container)
            _look(pods, container, known.get(below))
    if going:
        _try(pods, f"pod {name[:13]}", pods._unmake, pod)
        return None, [], {}
    return pod, found, known


def _try(pods: Pods, what: str, work: Callable[..., object], *operands: object) -> None:
    try:
        work(*operands)
    except PyrunError as error:
        pods.warn(f"{what} was half made or half removed, and something of it stays: {error}")


def _connect(pods: Pods, pod: Pod) -> dict[str, Known]:
    """Its sandbox and its supervisor, where they are."""
    if pod.record.state == READY:  # of another they may have been given back
        pod.ips = [str(ip) for ip in pod.record.network.get("ips", [])]
    if pod.record.released or (pod.record.boot_id and pod.record.boot_id != boot_id()):
        return {}
    with contextlib.suppress(PyrunError):
        pod.sandbox = load_sandbox(pod.run_directory, pods.facts)
    try:
        supervisor = Supervisor.connect(pod.run_directory)
        known = _settled(supervisor)
    except PyrunError as error:
        if pod.record.state in (READY, NOTREADY):
            pods.warn(f"pod {pod.id[:13]} did not outlive the daemon: {error}")
        return {}
    pod.supervisor = supervisor
    holder = known.get(PIDS)
    if pod.sandbox is not None and holder is not None and holder.state == LIVE:
        pod.sandbox.pid = f"/proc/{holder.pid}/ns/pid"
    return known


def _settled(supervisor: Supervisor) -> dict[str, Known]:
    """What it knows, when no maker is at work any more."""
    last = time.monotonic() + MAKER_S
    while True:
        known = {one.ctr: one for one in supervisor.hello()}
        if time.monotonic() > last or all(one.state != BEING_MADE for one in known.values()):
            return known
        time.sleep(0.005)


def _look(pods: Pods, container: Container, known: Known | None) -> None:
    """Whether one that was being started had been."""
    if container.record.state != STARTING or known is None or known.state != LIVE:
        return
    try:
        started = pods.handler(container.pod).is_started(container)
    except PyrunError:
        return
    if not started:
        container.record.state, container.record.started = CREATED, 0
    else:
        container.record.state = RUNNING
    pods.save_if_possible(container)


def _take_up(pods: Pods, pod: Pod, known: dict[str, Known]) -> list[Coroutine[Any, Any, None]]:
    """What is left to be done, as awaitables."""
    work = [containers.settle(pods, c) for c in pod.containers.values() if _is_dirty(c, known)]
    if pod.record.released:
        return work
    if pod.supervisor is None or pod.sandbox is None:
        pod.not_ready()
        return [*work, pods.stop(pod.id)]
    pods._watch(pod)
    for container in pod.containers.values():
        told = known.get(container.id)
        if container.alive and told is None:
            work.append(containers.lost(pods, container))
        elif container.alive and told is not None and told.state == ENDED:
            containers.ended(pods, container, told)
    if pod.record.state == NOTREADY:  # a stop was cut short
        work.append(pods.stop(pod.id))
    return work


def _is_dirty(container: Container, known: dict[str, Known]) -> bool:
    return container.record.state == EXITED and (not container.record.cleaned or container.id in known)


def _sweep(pods: Pods) -> None:
    """What belongs to nobody."""
    live = {pod.id for pod in pods.pods.values() if not pod.record.released}
    for handler in pods.handlers():
        for id in handler.ids():
            if id not in pods.containers:
                _try(pods, f"container {id}", handler.delete_id, id)
    for name in names_in(f"{pods.state}/pods"):
        if name not in live:
            _try(pods, f"pod {name[:13]}", _sweep_sandbox, f"{pods.state}/pods/{name}")
    for owner in pods.images.holders():
        id = owner.partition("/")[0]
        if is_id(id) and id not in pods.containers:
            pods.images.release(owner)
    _try(pods, "the network", pods.network.gc, live)


def _sweep_sandbox(directory: str) -> None:
    end_sandbox(directory)
    remove_directory(directory)
