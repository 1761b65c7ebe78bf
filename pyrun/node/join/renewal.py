"""A certificate that is kept: asked for where there is none, and again long before it ends, by a thread of its own.

It is renewed after 70 to 90 % of its life, as a kubelet's is, by chance so that not all nodes ask in one hour. What
there is stays in use until the next one is there; who denies a request is asked again later.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from ...errors import Aborted, PyrunError
from ...kube.certificates import Pair, Subject, read_pair, write_private
from ...kube.client import Client
from ...kube.signing import Refused, SigningRequest
from .join import waiting
from .pending import Pending

RENEW = (0.7, 0.9)  # of its life
LOOK_S = 600.0  # the clock may be set, or the machine may have slept
AGAIN_S = (5.0, 600.0)  # before the next try, the first and the longest
AFTER_NO_S = 600.0


class Renewal:
    """path: of the certificate with its key; the request that waits lies beside it. told: a line for the log. renewed:
    called in the thread with each new one."""

    def __init__(
        self,
        client: Client,
        signer: str,
        path: str,
        subject: Subject,
        told: Callable[[str], None],
        renewed: Callable[[Pair], None] = lambda pair: None,
    ) -> None:
        self._client, self._signer, self._path, self._subject = client, signer, path, subject
        self._told, self._renewed = told, renewed
        self._at = random.uniform(*RENEW)
        self.error: str | None = None  # why there is no new one, where one is due
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._request: SigningRequest | None = None
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        self._stop.set()
        with self._lock:
            if self._request is not None:
                self._request.cancel()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        delay, fresh = AGAIN_S[0], False  # fresh: the certificate is one that has just come
        while not self._stop.is_set():
            try:
                due = due_in(read_pair(self._path), self._subject, time.time(), self._at)
                if due > 0:
                    delay, fresh = AGAIN_S[0], False
                    self._stop.wait(min(due, LOOK_S))
                elif fresh:  # another one at once would be no better
                    fresh = False
                    raise PyrunError("the new one is not good yet, or no more: is this node's clock right?")
                else:
                    self._renew()
                    fresh = True
            except Aborted:
                return
            except Exception as error:  # whatever it is, the thread goes on
                text = error.text if isinstance(error, PyrunError) else f"{type(error).__name__}: {error}"
                if self.error != text:
                    self._told(f"{self._path} can't be renewed: {text}")
                self.error = text
                self._stop.wait(AFTER_NO_S if isinstance(error, Refused) else delay * random.uniform(0.5, 1.5))
                delay = min(delay * 2, AGAIN_S[1])

    def _renew(self) -> None:
        pending = Pending(f"{self._path}.next", self._subject)
        request = SigningRequest(self._client, self._signer, pending.request, lambda line: None)
        with self._lock:
            if self._stop.is_set():
                return
            self._request = request
        try:
            pair = pending.pair(request.certificate(None, self._waits))
            write_private(self._path, pair.certificate + pair.key)
        except Refused:
            pending.forget()  # the next try asks for another
            raise
        finally:
            with self._lock:
                self._request = None
        pending.forget()
        self._at, self.error = random.uniform(*RENEW), None
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(pair.ends))
        self._told(f"{self._path} is a new certificate, good until {ends}")
        self._renewed(pair)

    def _waits(self, name: str) -> None:
        self.error = waiting(name)
        self._told(self.error)


def due_in(found: Pair | None, subject: Subject, now: float, at: float) -> float:
    """PURE: in how many seconds a new one is to be asked for; at: after which part of a life. A certificate for others,
    or one that is not good yet (the clock was wrong, then or now), is no certificate."""
    if found is None or found.subject != subject or found.begins > now:
        return 0.0
    return found.begins + (found.ends - found.begins) * at - now
