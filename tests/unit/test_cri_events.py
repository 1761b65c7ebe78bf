"""Events of the CRI: in order, with the status as of then, and no reader in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cri.events import MOST_READERS, MOST_WAITING, Events
from pyrun.errors import ResourceExhausted
from pyrun.pod.pod import Container, Pod
from pyrun.pod.records import EXITED, READY, RUNNING, ContainerRecord, PodRecord


def made() -> tuple[Pod, Container]:
    config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="web", uid="u", namespace="n"))
    pod = Pod(PodRecord("a" * 64, config.SerializeToString(), state=READY), "/r", "/s")
    record = ContainerRecord("c" * 64, pod.id, v1.ContainerConfig().SerializeToString(), state=RUNNING)
    pod.containers[record.id] = Container(record, pod)
    return pod, pod.containers[record.id]


async def take(reader: AsyncIterator[bytes], count: int) -> list[Any]:
    return [v1.ContainerEventResponse.FromString(await asyncio.wait_for(anext(reader), 60)) for _ in range(count)]


async def begun(events: Events) -> AsyncIterator[bytes]:
    """A reader that hears of all from now on."""
    reader = events.read()
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    pod, _ = made()
    events.tell(pod, "created")
    await first
    return reader


def test_they_come_in_order_with_the_status_as_of_then() -> None:
    async def run() -> None:
        events = Events()
        reader = await begun(events)
        pod, container = made()
        events.tell(container, "started")
        container.record.state, container.record.exit_code = EXITED, 7
        events.tell(container, "stopped")
        pod.not_ready()
        events.tell(pod, "stopped")
        started, stopped, pod_stopped = await take(reader, 3)
        assert started.container_event_type == v1.CONTAINER_STARTED_EVENT
        assert started.container_id == container.id
        assert started.containers_statuses[0].state == v1.CONTAINER_RUNNING
        assert started.pod_sandbox_status.state == v1.SANDBOX_READY
        assert stopped.containers_statuses[0].state == v1.CONTAINER_EXITED
        assert stopped.containers_statuses[0].exit_code == 7
        assert pod_stopped.container_id == pod.id
        assert pod_stopped.pod_sandbox_status.state == v1.SANDBOX_NOTREADY
        assert started.created_at <= stopped.created_at <= pod_stopped.created_at

    asyncio.run(run())


def test_a_slow_reader_is_cut_off_and_harms_no_other() -> None:
    async def run() -> None:
        events = Events()
        slow, quick = await begun(events), await begun(events)
        await take(slow, 1)  # of quick's beginning
        pod, _ = made()
        for _ in range(MOST_WAITING + 5):
            events.tell(pod, "started")
            await take(quick, 1)
        await take(slow, MOST_WAITING)
        with pytest.raises(ResourceExhausted, match="not read"):
            await take(slow, 1)
        events.tell(pod, "stopped")
        (last,) = await take(quick, 1)
        assert last.container_event_type == v1.CONTAINER_STOPPED_EVENT

    asyncio.run(run())


def test_readers_have_a_bound_and_make_room_when_they_go() -> None:
    async def run() -> None:
        events = Events()
        readers: list[Any] = [await begun(events) for _ in range(MOST_READERS)]
        with pytest.raises(ResourceExhausted, match="clients read"):
            await anext(events.read())
        await readers.pop().aclose()
        await begun(events)

    asyncio.run(run())
