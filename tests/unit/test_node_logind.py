"""The lock that holds up a machine's shutdown, against a logind of ours on a real D-Bus."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrun.node.agent import logind
from pyrun.node.agent.logind import Inhibitor
from tests.support.node.logind import PATIENCE_S, Logind, a_bus


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    monkeypatch.setattr(logind, "AGAIN_S", 0.01)
    with a_bus(tmp_path) as found:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", found)
        yield found


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not done():
            await asyncio.sleep(0.005)


def test_it_holds_tells_and_lets_go(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        told: list[bool] = []
        its, ours = Logind(address, 60), Inhibitor(30, told.append, said.append, str(tmp_path / "no" / "file"))
        ours.start()
        await until(its.is_held)
        assert dict(its.asked)["Inhibit"][0] == "shutdown" and dict(its.asked)["Inhibit"][3] == "delay"
        its.tell(begins=True)
        await until(lambda: told == [True])
        assert its.is_held()
        ours.release()
        await until(lambda: not its.is_held())
        its.tell(begins=False)
        await until(lambda: told == [True, False])
        await until(its.is_held)
        ours.close()
        assert not its.is_held() and not said and not ours.trouble and not (tmp_path / "no").exists()
        its.close()

    asyncio.run(main())


def test_a_logind_that_waits_too_little_is_told_to_wait_longer(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        drop_in = tmp_path / "logind.conf.d" / "99-pyrun.conf"
        its, ours = Logind(address, 5, drop_in), Inhibitor(30, print, said.append, str(drop_in))
        ours.start()
        await until(its.is_held)
        assert its.delay == 45 and "InhibitDelayMaxSec=45\n" in drop_in.read_text() and not said
        assert drop_in.stat().st_mode & 0o777 == 0o644
        ours.close()
        its.close()

    asyncio.run(main())


@pytest.mark.parametrize(("deaf", "why"), [(False, "waits 5 s and pods have 30 s"), (True, "can't be told to: no")])
def test_one_that_does_not_hear_is_told_of_and_held_nevertheless(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool, why: str
) -> None:
    monkeypatch.setattr(logind, "READ_S", 0.0)

    async def main() -> None:
        said: list[str] = []
        its, ours = Logind(address, 5, deaf=deaf), Inhibitor(30, print, said.append, str(tmp_path / "99-pyrun.conf"))
        ours.start()
        await until(its.is_held)
        await until(lambda: said)
        assert why in said[0] and ours.trouble == said[0]
        ours.close()
        its.close()

    asyncio.run(main())


def test_without_a_logind_it_is_said_once_and_tried_again(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        ours = Inhibitor(30, print, said.append, str(tmp_path / "f"))
        ours.start()
        await until(lambda: said)
        assert "org.freedesktop" in ours.trouble and "--shutdown-on-term" in ours.trouble
        its = Logind(address, 60)
        await until(its.is_held)
        await until(lambda: not ours.trouble)
        assert len(said) == 1
        ours.close()
        its.close()

    asyncio.run(main())


def test_without_a_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    async def main() -> None:
        said: list[str] = []
        ours = Inhibitor(30, print, said.append)
        ours.start()
        await until(lambda: said)
        assert "no D-Bus: " in said[0]
        ours.close()

    asyncio.run(main())
