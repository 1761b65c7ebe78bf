"""The notes that where_child.py takes: times in ns, and how long the C module took."""

from __future__ import annotations

import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Notes:
    """begun: the first line of Python ran; imported: what the verb needs is there. The C module is loaded now, for it
    counts as imported, and what takes these notes counts nowhere."""

    def __init__(self, begun: int, imported: int) -> None:
        self.begun = begun
        self.in_c = 0
        executor: Any = sys.modules.get("pyrun.executor")
        start = time.monotonic_ns()
        if executor:
            ffi, lib = executor.native()
            timed = _Lib(lib, self._timed(lib.px_run, "in_c"))
            executor.native = lambda faults=False: (ffi, timed)
        self.imported = imported + time.monotonic_ns() - start
        self.begun_main = time.monotonic_ns()

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            start = time.monotonic_ns()
            try:
                return function(*args)
            finally:
                setattr(self, name, getattr(self, name) + time.monotonic_ns() - start)

        return wrapper

    def write(self, path: str) -> None:
        """begun, imports, work in Python, kernel, done."""
        done = time.monotonic_ns()
        with open(path, "w") as file:
            file.write(
                f"{self.begun} {self.imported - self.begun} {done - self.begun_main - self.in_c} {self.in_c} {done}"
            )

    def write_before_launcher(self, path: str) -> None:
        """Also where this process becomes the launcher."""
        plain = posix.execve

        def execve(*args: Any) -> None:
            self.write(path)
            plain(*args)

        posix.execve = execve  # type: ignore[assignment]


class _Lib:
    """The C module with another px_run."""

    def __init__(self, lib: Any, px_run: Callable[..., Any]) -> None:
        self._lib = lib
        self.px_run = px_run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)
