"""The kubelet's API ends while a log that somebody reads lies on a disk that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyrun import ending
from pyrun.kubelet import answers
from pyrun.kubelet.answers import Answers
from pyrun.web.ask import Questions


def test_it_ends_while_a_log_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, never = threading.Event(), threading.Event()

    def hang(*_given: Any) -> None:
        begun.set()
        never.wait()

    for module in (ending, answers):
        monkeypatch.setattr(module, "END_S", 0.1)
    monkeypatch.setattr(answers, "write_logs", hang)
    monkeypatch.setattr(answers, "find_log", lambda *_given, **_named: (None, SimpleNamespace(id="c")))
    monkeypatch.setattr(answers, "of_question", lambda _question: None)
    agent = SimpleNamespace(name="n1", host=SimpleNamespace(cri=SimpleNamespace(pods=None)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def main() -> None:
        made = Answers(cast(Any, agent), ours, cast(Any, None), {})
        made.start()
        with Questions(theirs).send("logs", query={}):
            while not begun.is_set():
                await asyncio.sleep(0.001)
            await made.stop()

    try:
        with ours, theirs:
            asyncio.run(main())
    finally:
        never.set()
