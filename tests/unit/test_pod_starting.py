"""A container that ends while it is being started: what is shown of it at each moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cri.statuses import container_status
from pyrun.errors import PyrunError
from pyrun.pod import container as life
from pyrun.pod.messages import ENDED, Known
from pyrun.pod.pod import Container, Pod
from pyrun.pod.records import CREATED, READY, ContainerRecord, PodRecord

SAYS = "execve /nothing: ENOENT"


class Handler:
    """Its program ends, and we have heard of that, before the start is over. error: what that says then."""

    def __init__(self, error: PyrunError | None) -> None:
        self.error, self.loop = error, asyncio.get_running_loop()
        self.hear: Any = None

    def start(self, c: Container) -> None:
        asyncio.run_coroutine_threadsafe(self.hear(), self.loop).result()
        if self.error is not None:
            raise self.error

    def delete(self, c: Container) -> None:
        pass


class State:
    """What the life of a container needs of NodeState. shown: each status that somebody who looks could have seen."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.shown: list[tuple[Any, int, str]] = []
        self.told: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def handler(self, pod: Pod) -> Handler:
        return self._handler

    async def look(self, c: Container) -> None:
        status = container_status(c)
        self.shown.append((status.state, status.exit_code, status.reason))

    def changed(self, c: Container, how: str) -> None:
        self.told.append(how)

    def go_on(self, work: Any) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def save_if_possible(self, c: Container) -> bool:
        asyncio.run_coroutine_threadsafe(self.look(c), self._handler.loop).result()
        return True


@pytest.mark.parametrize("error", [None, PyrunError(SAYS)], ids=["a quick program", "no program"])
def test_one_that_has_ended_is_shown_with_why_from_the_first(error: PyrunError | None, tmp_path: Path) -> None:
    async def main() -> None:
        record = PodRecord("p", v1.PodSandboxConfig().SerializeToString(), state=READY)
        pod = Pod(record, str(tmp_path), str(tmp_path))
        c = Container(ContainerRecord("c", "p", v1.ContainerConfig().SerializeToString(), state=CREATED), pod)
        Path(c.directory).mkdir(parents=True)
        handler = Handler(error)
        pods: Any = State(handler)

        async def hear() -> None:
            life.ended(pods, c, Known("c", ENDED, 7, 1, 1 << 8, 5, 0))
            await pods.look(c)

        handler.hear = hear
        if error is None:
            await life.start(pods, c)
        else:
            with pytest.raises(PyrunError, match=SAYS):
                await life.start(pods, c)
        await asyncio.gather(*pods.tasks)
        await pods.look(c)
        wanted = (1, "Error") if error is None else (128, "StartError")
        assert {found[1:] for found in pods.shown if found[0] == v1.CONTAINER_EXITED} == {wanted}
        assert {found[1:] for found in pods.shown if found[0] != v1.CONTAINER_EXITED} <= {(0, "")}
        told = ["started", "stopped"] if error is None else ["stopped"]
        assert pods.told == told and c.ended.is_set()
        assert (SAYS in c.record.message) is (error is not None)

    asyncio.run(main())
