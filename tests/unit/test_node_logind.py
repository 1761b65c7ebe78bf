"""The lock that holds up a machine's shutdown, against a logind of ours on a real D-Bus."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.node.agent import logind
from pyrun.node.agent.logind import Inhibitor
from pyrun.node.agent.serve import Shutdowns
from pyrun.node.shutdown import Shutdown
from pyrun.runtime import dbus
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


def test_a_stranger_on_the_bus_ends_no_pods_and_leaves_no_descriptors(address: str, tmp_path: Path) -> None:
    """Anybody on the system's bus may send a signal to anybody, whatever is listened for."""
    from jeepney import DBusAddress, HeaderFields, new_signal
    from jeepney.io.blocking import open_dbus_connection

    async def main() -> None:
        told: list[bool] = []
        its, ours = Logind(address, 60), Inhibitor(30, told.append, pytest.fail, str(tmp_path / "f"))
        ours.start()
        await until(its.is_held)
        read, write = os.pipe()
        with open_dbus_connection(address, enable_fds=True) as stranger:
            for member, kinds, body in ((logind.SIGNAL, "b", (True,)), ("Other", "h", (write,))):
                signal = new_signal(DBusAddress(logind.PATH, interface=logind.MANAGER), member, kinds, body)
                signal.header.fields[HeaderFields.destination] = its.client
                stranger.send(signal)
        os.close(write)
        poll = select.poll()
        poll.register(read, 0)
        await until(lambda: poll.poll(0))
        its.tell(begins=False)
        its.tell(begins=True)
        await until(lambda: told)
        ours.release()
        await until(lambda: not its.is_held())
        assert told == [True], "logind's alone"
        ours.close()
        its.close()
        os.close(read)

    asyncio.run(main())


def test_a_shutdown_that_is_called_off_while_pods_end(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one waits, too."""
    ends, said, over = asyncio.Event(), list[str](), list[str]()

    async def shut_down() -> None:
        said.append("ends")
        try:
            await ends.wait()
        finally:
            over.append("over")

    async def main() -> None:
        settings = SimpleNamespace(shutdown=Shutdown(30.0))
        agent: Any = SimpleNamespace(settings=settings, shut_down=shut_down, called_off=lambda: said.append("off"))
        its, held = Logind(address, 60), Shutdowns(agent, None, pytest.fail)
        held.inhibitor.start()
        await until(its.is_held)
        its.tell(begins=True)
        await until(lambda: said == ["ends"])
        its.tell(begins=False)
        await until(lambda: said == ["ends", "off"])
        ends.set()
        await until(lambda: over)
        await asyncio.sleep(0)
        assert its.is_held()
        ends.clear()
        its.tell(begins=True)
        await until(lambda: said == ["ends", "off", "ends"])
        assert its.is_held()
        ends.set()
        await until(lambda: not its.is_held())
        await held.close()
        its.close()

    asyncio.run(main())


def test_a_logind_that_takes_no_more_locks_calls_off_nevertheless(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        told: list[bool] = []
        its, ours = Logind(address, 60), Inhibitor(30, told.append, said.append, str(tmp_path / "f"))
        ours.start()
        await until(its.is_held)
        its.tell(begins=True)
        await until(lambda: told == [True])
        its.mean = True
        its.tell(begins=False)
        await until(lambda: told == [True, False])
        await until(lambda: said)
        its.mean = False
        await until(lambda: not ours.trouble)
        ours.close()
        its.close()

    asyncio.run(main())


def test_a_shutdown_that_nobody_has_heard_of_is_told_when_there_is_a_bus(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        told: list[bool] = []
        its, ours = Logind(address, 60), Inhibitor(30, told.append, lambda text: None, str(tmp_path / "f"))
        its.preparing = True
        ours.start()
        await until(lambda: told == [True])
        its.preparing = False
        await until(lambda: ours._bus)
        if ours._bus is not None:
            ours._bus.hang_up()
        await until(lambda: told == [True, False])
        await until(its.is_held)
        ours.close()
        its.close()

    asyncio.run(main())


def test_it_listens_for_longer_than_the_kernel_waits(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "LONGEST_S", 0.001)
    late: list[str] = []
    read = dbus.Bus._read

    def counted(bus: dbus.Bus) -> bytes:
        try:
            return read(bus)
        except TimeoutError:
            late.append("late")
            raise

    monkeypatch.setattr(dbus.Bus, "_read", counted)

    async def main() -> None:
        told: list[bool] = []
        its, ours = Logind(address, 60), Inhibitor(30, told.append, pytest.fail, str(tmp_path / "f"))
        ours.start()
        await until(its.is_held)
        await until(lambda: len(late) > 20)
        its.tell(begins=True)
        await until(lambda: told == [True])
        ours.close()
        its.close()

    asyncio.run(main())


def test_an_end_while_it_connects(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, go = threading.Event(), threading.Event()

    class Slow(dbus.Bus):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            made.set()
            go.wait(PATIENCE_S)

    def in_time(join: Callable[[float], None]) -> None:
        go.set()
        join(PATIENCE_S)

    monkeypatch.setattr(logind, "Bus", Slow)
    monkeypatch.setattr(logind, "in_time", in_time)

    async def main() -> None:
        its, ours = Logind(address, 60), Inhibitor(30, print, pytest.fail)
        ours.start()
        await until(made.is_set)
        ours.close()
        assert not ours._thread.is_alive()
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


def test_where_nothing_can_be_written_it_is_held_nevertheless(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        (tmp_path / "file").write_text("")
        its, ours = Logind(address, 5), Inhibitor(30, print, said.append, str(tmp_path / "file" / "99-pyrun.conf"))
        ours.start()
        await until(its.is_held)
        await until(lambda: said)
        assert "waits 5 s and pods have 30 s" in said[0] and f"{tmp_path}/file" in said[0]
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
