"""How a daemon ends: in bounded time, whatever hangs.

Nobody can end a call that waits in the kernel, for a dead NFS or FUSE or for a disk that takes no more. asyncio.run()
joins such a thread for ever, and so does the end of the interpreter. Here each is given its time, then the log says
where it hangs, and it is left to `_exit`, by which our programs end; what it did is, for the next start, as after a
kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from .errors import PyrunError

Result = TypeVar("Result")

END_S = 10.0  # for tasks that were cancelled, and for threads, after what main() itself has given them
MOST_PLACES = 5
NAME = "pyrun"  # of threads

_own: set[threading.Thread] = set()  # that beside() has begun


def run(main: Coroutine[Any, Any, Result], warn: Callable[[str], None], threads: int | None = None) -> Result:
    """asyncio.run(), but for threads that hang: warn is told of them. threads: how many there are for what blocks;
    None: as many as asyncio would have."""
    pool = ThreadPoolExecutor(threads, NAME)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_default_executor(pool)
        try:
            return runner.run(main)
        finally:
            runner.run(_cancel_others())
            if not in_time(lambda: _finish(pool)):
                warn(f"does not wait any longer for what hangs in {', '.join(_places())}")
            spent = ThreadPoolExecutor(1)
            spent.shutdown()
            loop.set_default_executor(spent)  # nothing begins any more, and closing the loop joins nothing


def _finish(pool: ThreadPoolExecutor) -> None:
    pool.shutdown(cancel_futures=True)
    for thread in list(_own):
        thread.join()


async def _cancel_others() -> None:
    await cancel(asyncio.all_tasks() - {asyncio.current_task()})


async def cancel(tasks: Collection[asyncio.Task[Any] | None]) -> None:
    """Cancels them, and waits until they have ended, but not for one that hangs."""
    some = [task for task in tasks if task is not None]
    for task in some:
        task.cancel()
    if some:
        done, _ = await asyncio.wait(some, timeout=END_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # it was told of, or it does not matter any more


async def apart(function: Callable[[], Result]) -> Result:
    """What it returns, in a thread of its own: at an end those of the pool may all hang."""
    return await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1, "end"), function)


async def beside(function: Callable[..., Result], *given: Any) -> Result:
    """What it returns, in a thread of its own: for what looks at files of others, where any call may hang for ever, as
    with NFS. However many do, the pool's threads are there for all else. Callers have no more than one at a time for
    each container and pod."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def work() -> None:
        try:
            told = partial(_settle, done, function(*given), None)
        except BaseException as error:
            told = partial(_settle, done, None, error)
        finally:
            _own.discard(threading.current_thread())
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(told)

    thread = threading.Thread(target=work, name=f"{NAME}_beside", daemon=True)
    _own.add(thread)
    try:
        thread.start()
    except RuntimeError as error:
        _own.discard(thread)
        raise PyrunError(f"no thread: {error}", hint="a limit on processes (pids.max, TasksMax) is reached") from None
    return await done


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():  # nobody waits any more
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


def in_time(function: Callable[[], object], patience_s: float | None = None) -> bool:
    """Calls it in a thread of its own. Whether it has returned within that time."""
    thread = threading.Thread(target=function, name="end", daemon=True)
    thread.start()
    thread.join(END_S if patience_s is None else patience_s)
    return not thread.is_alive()


def _places() -> list[str]:
    """Where in our modules the pool's threads are, and how many there."""
    frames, found = sys._current_frames(), Counter[str]()
    for thread in threading.enumerate():
        if not thread.name.startswith(f"{NAME}_"):
            continue
        frame, place = frames.get(thread.ident or 0), "a call"
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.startswith("pyrun."):
                place = f"{module}:{frame.f_lineno} {frame.f_code.co_name}()"
                break
            frame = frame.f_back
        found[place] += 1
    return [f"{place}, {count} times" for place, count in found.most_common(MOST_PLACES)]
