"""/metrics, /health and /ready over HTTP, and what our own commands ask over a unix socket, in a thread of its own:
what is told there is asked of the daemon's thread, so that an answer shows that this goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ..errors import PyrunError
from ..http.server import Exchange, Server
from ..proxy.metrics import KIND
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

Words = dict[str, list[str]]
Page = Callable[[Words], str]
CONNECTIONS = 32  # at a time
HEAD_S = 5.0
DO_S = 20.0


class Exporter:
    """served: listeners, ours from now on, with the pages of each by their paths; a page gets the words behind `?`, is
    called in the thread of the loop, and its PyrunError is 503."""

    def __init__(self, loop: Loop, served: Sequence[tuple[socket.socket, Mapping[str, Page]]]) -> None:
        self._loop = loop
        self._asked: deque[tuple[Callable[[], str], Future[str]]] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.read(self._event, self._answer)
        self._own = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._own.run_forever, name="metrics", daemon=True)
        self._thread.start()
        self._servers = [Server(self._serving(pages), most=CONNECTIONS, head=HEAD_S) for _, pages in served]
        for server, (listener, _) in zip(self._servers, served, strict=True):
            self._do(server.listen_on(listener))

    def _do(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self._own).result(DO_S)  # type: ignore[arg-type]

    def _serving(self, pages: Mapping[str, Page]) -> Callable[[Exchange], Awaitable[None]]:
        async def serve(exchange: Exchange) -> None:
            if page := pages.get(exchange.path):
                await self._serve(exchange, page)

        return serve

    async def _serve(self, exchange: Exchange, page: Page) -> None:
        asked: Future[str] = Future()
        query = exchange.query
        self._asked.append((lambda: page(query), asked))
        os.eventfd_write(self._event, 1)
        try:
            text = await asyncio.wait_for(asyncio.wrap_future(asked), DO_S)
        except (PyrunError, TimeoutError) as error:
            await exchange.respond(503, f"{error or 'the daemon does not answer'}\n")
            return
        await exchange.respond(200, text, KIND)

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while self._asked:
            page, asked = self._asked.popleft()
            if not asked.set_running_or_notify_cancel():
                continue
            try:
                asked.set_result(page())
            except PyrunError as error:
                asked.set_exception(error)
            except Exception as error:  # a bug of a page is no reason to answer no client any more
                asked.set_exception(PyrunError(f"internal error: {type(error).__name__}: {error}"))

    def close(self) -> None:
        for server in self._servers:
            self._do(server.stop())
        self._own.call_soon_threadsafe(self._own.stop)
        self._thread.join(DO_S)
        self._own.close()
        self._loop.forget(self._event)
        os.close(self._event)
