"""One line a layer: on a terminal each moves where it stands, elsewhere each is told once, when it is done."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

from pyrun.cli.commands.image_ls import size_text
from pyrun.cli.output import terminal_style, write
from pyrun.errors import printable
from pyrun.image.fetch import Progress

EACH_S = 0.1
BAR = 24


class LayerLines:
    """Lines on a descriptor. tell() may be called by any thread. Use it as a context."""

    def __init__(self, fd: int, *, silent: bool = False) -> None:
        self._fd = fd
        self._silent = silent
        self._moving = not silent and os.isatty(fd) and os.environ.get("TERM") != "dumb"
        self._width, _ = terminal_style(fd)
        self._layers: dict[str, Progress] = {}
        self._lines = 0
        self._drawn = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> LayerLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._moving and self._layers:
                self._draw()
            self._silent = True

    def tell(self, progress: Progress) -> None:
        with self._lock:
            before = self._layers.get(progress.digest)
            self._layers[progress.digest] = progress
            ended = progress.state in ("done", "there") and (before is None or before.state != progress.state)
            if self._silent:
                return
            if not self._moving:
                if ended:
                    self._say(line(progress, 0) + "\n")
            elif ended or time.monotonic() - self._drawn > EACH_S:
                self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        up = f"\x1b[{self._lines}A" if self._lines else ""
        shown = [f"\x1b[2K{line(one, BAR)[: self._width - 1]}\n" for one in self._layers.values()]
        self._lines = len(shown)
        self._say(up + "".join(shown))

    def _say(self, text: str) -> None:
        try:
            write(text, self._fd, styled=True)
        except OSError:  # nobody looks any more; the pull goes on
            self._silent = True


def line(progress: Progress, bar: int) -> str:
    """`1a2b3c4d5e6f  [#####.....]  12 MB of 30 MB`."""
    name = printable(progress.digest.removeprefix("sha256:")[:12])
    total = size_text(progress.total)
    if progress.state != "pulling":
        return f"{name}  {progress.state}  {total}"
    full = bar * progress.done // progress.total if progress.total else bar
    return f"{name}  [{'#' * full}{'.' * (bar - full)}]  {size_text(progress.done)} of {total}"
