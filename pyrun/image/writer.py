"""What pulls have brought gets to the disk behind their answers: by one thread, which tries again what has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pyrun.image.contents import Contents

PAUSES_S = 1.0, 60.0  # after a failure, the first and the longest; each is twice the one before it
SLOW_S = 300.0  # a disk may take a minute for what lies in its caches
SAY_S = 1.0  # who waits no longer for an end is told nothing
END_S = 12.0  # pyrun-layer is given 10 s to die


class Writer:
    """warn: told what goes wrong, once, and when it is right again. trouble: what is wrong now, "" for nothing."""

    def __init__(self, contents: Contents, warn: Callable[[str], None]) -> None:
        self._contents, self._warn = contents, warn
        self._layers = f"{contents.root}/layers"
        self._changed = threading.Condition()
        self._asked = self._tried = self._done = 0
        self._began = 0.0
        self._leaving = False
        self._thread: threading.Thread | None = None
        self.trouble = ""

    def start(self) -> None:
        """From now on, and first what others have left. Nothing has to be started later, when that might fail."""
        self._thread = threading.Thread(target=self._work, name="write out", daemon=True)
        self._thread.start()
        self.ask()

    def ask(self) -> None:
        """There is something to be written out. Answers at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Waits until all that was asked for is written, or was tried."""
        with self._changed:
            asked = self._asked
            self._changed.wait_for(lambda: self._tried >= asked)

    def finish(self, patience_s: float | None) -> bool:
        """Waits until the disk has all, so long (None: for ever), but not for one that refuses it; then it ends.
        Returns whether it has ended: where a disk hangs nothing can end who waits for it."""
        if self._thread is None:
            return True
        with self._changed:
            if patience_s is not None and not self._changed.wait_for(self._is_tried, min(SAY_S, patience_s)):
                self._warn(
                    f"{self._layers}: the disk gets what came last, for which {patience_s:g} s are waited at most"
                )
            self._changed.wait_for(self._is_tried, patience_s)
            if self._done < self._asked:
                self._warn(
                    f"{self._layers}: the disk has not got what came last; the next start writes it out, but a stop of"
                    " the machine takes these images away"
                )
            self._leaving = True
            self._changed.notify_all()
        self._thread.join(END_S)
        return not self._thread.is_alive()

    def _is_tried(self) -> bool:
        return self._tried >= self._asked

    def _work(self) -> None:
        pause = 0.0
        while (asked := self._next(pause)) is not None:
            good = self._try()
            with self._changed:
                self._tried = asked
                if good:
                    self._done = asked
                self._changed.notify_all()
            first, longest = PAUSES_S
            pause = 0.0 if good else min(longest, max(first, 2 * pause))

    def _next(self, pause: float) -> int | None:
        """When there is something to be done: how much was asked for. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._asked != self._tried, pause or None)
            return None if self._leaving else self._asked

    def _try(self) -> bool:
        self._began = time.monotonic()
        try:
            self._contents.write_out(self._gives_up)
            self._contents.database.write_out()  # the images' rows
        except Exception as error:  # whatever it was: a thread that ends writes nothing out any more
            self._tell(f"{self._layers} can't be written out, which is tried again: {error}")
            return False
        if self.trouble:
            self.trouble = ""
            self._warn(f"{self._layers} is written out again")
        return True

    def _gives_up(self) -> bool:
        if time.monotonic() > self._began + SLOW_S:
            self._tell(f"{self._layers}: the disk has not taken what came last for more than {SLOW_S:g} s")
        return self._leaving

    def _tell(self, text: str) -> None:
        if text != self.trouble and not self._leaving:
            self.trouble = text
            self._warn(text)
