"""Lists that are kept encoded are those that protobuf would have made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cri.encoded import LARGEST, Encoded, chunks
from pyrun.cri.runtime import containers, pods
from pyrun.cri.statuses import container_item, pod_item
from pyrun.pod.pod import Container, Pod
from pyrun.pod.records import CREATED, EXITED, NOTREADY, READY, RUNNING, ContainerRecord, PodRecord


def pod(number: int, state: str = READY, **labels: str) -> Pod:
    config = v1.PodSandboxConfig(
        metadata=v1.PodSandboxMetadata(name=f"pod{number}", uid=str(number), namespace="default"),
        labels=labels,
        annotations={"long": "x" * 200},
    )
    return Pod(PodRecord(f"{number:064x}", config.SerializeToString(), state=state, created=number), "/r", "/s")


def container(of: Pod, number: int, state: str = RUNNING) -> Container:
    config = v1.ContainerConfig(metadata=v1.ContainerMetadata(name=f"c{number}"), image=v1.ImageSpec(image="busybox"))
    return Container(ContainerRecord(f"{number:064x}", of.id, config.SerializeToString(), state=state), of)


def cri(*all: Pod) -> Any:
    below = {c.id: c for one in all for c in one.containers.values()}
    return SimpleNamespace(pods=SimpleNamespace(pods={one.id: one for one in all}, containers=below))


def listed(of: Any, **filter: Any) -> Any:
    request = v1.ListPodSandboxRequest(filter=v1.PodSandboxFilter(**filter))
    return v1.ListPodSandboxResponse.FromString(asyncio.run(pods.list_pod_sandbox(of, request)))


async def together(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([message async for message in stream])


def test_pods() -> None:
    all = [pod(1), pod(2, NOTREADY), pod(300, app="web")]
    node = cri(*all)
    assert listed(node) == v1.ListPodSandboxResponse(items=[pod_item(one) for one in all])
    assert [item.id for item in listed(node, label_selector={"app": "web"}).items] == [all[2].id]
    assert [item.id for item in listed(node, state={"state": v1.SANDBOX_NOTREADY}).items] == [all[1].id]
    assert [item.id for item in listed(node, id=all[2].id[:62]).items] == [all[2].id]
    assert listed(cri()) == v1.ListPodSandboxResponse()


def test_a_pod_that_changes_is_encoded_anew() -> None:
    one = pod(1)
    node = cri(one)
    assert listed(node).items[0].state == v1.SANDBOX_READY
    one.not_ready()
    assert listed(node).items[0].state == v1.SANDBOX_NOTREADY


@pytest.mark.parametrize("state", [CREATED, RUNNING, EXITED])
def test_containers(state: str) -> None:
    one = pod(1)
    for number in range(5):
        c = container(one, number, state)
        one.containers[c.id] = c
    node, request = cri(one), v1.ListContainersRequest()
    expected = v1.ListContainersResponse(containers=[container_item(c) for c in one.containers.values()])
    assert v1.ListContainersResponse.FromString(asyncio.run(containers.list_containers(node, request))) == expected
    stream = asyncio.run(together(containers.stream_containers(node, v1.StreamContainersRequest())))
    assert list(v1.StreamContainersResponse.FromString(stream).containers) == list(expected.containers)


def test_items_are_field_1_wherever_they_are_kept_encoded() -> None:
    for response in ("ListPodSandbox", "StreamPodSandboxes", "ListContainers", "StreamContainers"):
        (field,) = getattr(v1, f"{response}Response").DESCRIPTOR.fields
        assert field.number == 1


def test_an_item_is_kept_until_it_changes_and_no_longer_than_what_it_is_of() -> None:
    made = []

    def make(one: Pod) -> Any:
        made.append(one.id)
        return pod_item(one)

    encoded = Encoded(make, lambda one: one.state)
    one = pod(1)
    encoded.list([one])
    encoded.list([one])
    assert len(made) == 1
    one.not_ready()
    encoded.list([one])
    assert len(made) == 2
    del one
    assert not encoded._kept


def test_a_stream_has_many_items_in_a_message() -> None:
    items = [bytes(1000)] * 5000
    messages = list(chunks(items))
    assert b"".join(messages) == b"".join(items)
    assert 4 <= len(messages) <= 6
    assert max(map(len, messages)) < LARGEST + 1000
