"""A daemon's loop ends in bounded time, whatever hangs in its threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun import ending
from pyrun.ending import apart, beside, cancel, in_time, run

PATIENCE_S = 60.0
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set when the test is over; threads are given little time meanwhile."""
    monkeypatch.setattr(ending, "END_S", 0.1)
    event = threading.Event()
    yield event
    event.set()


def hang(never: threading.Event) -> bool:
    """In a module of pyrun."""
    return in_time(never.wait, PATIENCE_S)


async def began(what: asyncio.Future[bool]) -> None:
    """That its thread has."""
    while not any(thread.name.startswith("pyrun_") for thread in threading.enumerate()):
        await asyncio.sleep(0.001)
    assert not what.done()


def test_what_returns_is_waited_for() -> None:
    said: list[str] = []
    done = threading.Event()

    def slow() -> None:
        time.sleep(0.2)
        done.set()

    async def main() -> int:
        asyncio.get_running_loop().run_in_executor(None, slow)
        return 7

    assert (run(main(), said.append), done.is_set(), said) == (7, True, [])


def test_what_hangs_is_named_and_left(never: threading.Event) -> None:
    said: list[str] = []

    async def main() -> None:
        await began(asyncio.get_running_loop().run_in_executor(None, hang, never))
        raise LookupError

    with pytest.raises(LookupError):
        run(main(), said.append)
    assert len(said) == 1 and "pyrun.ending:" in said[0] and "in_time(), 1 times" in said[0]


def test_a_task_that_cleans_up_in_a_thread_is_left(never: threading.Event) -> None:
    """Nor is there a thread for what it would try after that."""
    seen: list[str] = []

    async def cleans() -> None:
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            try:
                await asyncio.to_thread(hang, never)
            finally:
                try:
                    await asyncio.to_thread(seen.append, "it ran")
                except RuntimeError:
                    seen.append("no thread")

    async def main() -> None:
        seen.append(type(asyncio.create_task(cleans())).__name__)
        await asyncio.sleep(0.01)

    run(main(), print)
    assert seen == ["Task", "no thread"]


def test_an_end_needs_no_thread_of_the_pool(never: threading.Event) -> None:
    async def main() -> int:
        await began(asyncio.get_running_loop().run_in_executor(None, hang, never))
        return await apart(lambda: 7)

    assert run(main(), print, 1) == 7


def test_what_hangs_beside_takes_no_thread_of_the_pool_and_is_named(never: threading.Event) -> None:
    said: list[str] = []

    async def main() -> int:
        hanging = [asyncio.create_task(beside(hang, never)) for _ in range(3)]
        while sum(thread.name == "pyrun_beside" for thread in threading.enumerate()) < 3:
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in hanging)
        return await asyncio.to_thread(lambda: 7)

    assert run(main(), said.append, 1) == 7
    assert len(said) == 1 and "in_time(), 3 times" in said[0]


def test_what_is_done_beside_returns_raises_and_is_waited_for() -> None:
    seen: list[str] = []
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.2)
        seen.append("all of it")

    async def main() -> int:
        with pytest.raises(LookupError):
            await beside({}.__getitem__, 1)
        task = asyncio.create_task(beside(slow))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        return await beside(int, "7")

    assert run(main(), seen.append) == 7 and seen == ["all of it"]


def test_cancelled_tasks_are_waited_for_so_long(never: threading.Event) -> None:
    ended: list[int] = []

    async def quick() -> None:
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            ended.append(1)
            raise LookupError  # which nobody is told of

    async def main() -> None:
        hangs = asyncio.create_task(asyncio.wait_for(asyncio.shield(asyncio.to_thread(hang, never)), PATIENCE_S))
        tasks = [asyncio.create_task(quick()), None, hangs]
        await asyncio.sleep(0.01)
        await cancel(tasks)

    run(main(), print)
    assert ended == [1]


def test_the_program_that_pip_makes_ends() -> None:
    entry = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]["pyrun"]
    module, _, name = entry.partition(":")
    script = "import sys, threading; threading.Thread(target=threading.Event().wait).start(); "
    script += f"sys.argv = ['pyrun', '--version']; from {module} import {name}; sys.exit({name}())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "pyrun")
