"""The reader: the process with the privileges. It answers the web process' few questions; what more can be asked by
who is logged in is in acts.py.

A question is a datagram of JSON on the control socket, with a descriptor: a stream socket on which the answer comes as
lines of JSON, `{"value": …}` or `{"error": …, "kind": …}`. Who has lost interest closes it. Each has its thread.

    {"ask": "watch"}                        the state, again and again (state.py)
    {"ask": "logs", "of": […], "words": [], "stream": "", "lines": N, "since": "", "until": "", "entries": false,
     "previous": false}                     lines, once (lines.py)
    {"ask": "follow", …}                    {"lines": [], "skipped": BYTES}: the last ones first, then what is written
    {"ask": "search", …}                    as logs, with patterns for names or regular expressions (grep.py)
    {"ask": "history", "of": […], "seconds": N, "step": N}      what a pod or the node used (metrics/history.py)
    {"ask": "sparks", "uids": […], "seconds": N, "step": N}     the same of several pods, less of each
    {"ask": "metrics"}, {"ask": "metric", "name": …, "match": […], "seconds": N, "step": N}     any metric that is kept
    {"ask": "login", "token": …}            {"cookie", "key", "name", "role"}, or null
    {"ask": "who", "with": SECRETS}         {"name", "role"}, or null; {"ask": "logout", "cookie": …}
    {"ask": ACT, "with": SECRETS, …}        what acts.py has; {"ask": "may", "act": ACT, …} only looks whether he may

`of` is namespace, pod, uid and container, exactly.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from ..errors import InvalidArgument, PyrunError, ResourceExhausted
from ..logs.files import EVERYTHING, Ends
from ..logs.tree import Logs
from ..metrics.history import collect_history, collect_metric, collect_names, collect_sparks
from ..web.ask import take_question
from . import grep
from .acts import Acts
from .lines import MOST_LINES, SEARCH_S, Asked, follow, parse_asked, search
from .observe import Observer
from .state import plan_state

MOST_ANSWERS = 64
MOST_SEARCHES = 4
PERIOD_S = 2.0
# Who does not take an answer for so long has no thread any more.
STALLED_S = 60.0

Question = dict[str, Any]
Put = Callable[[Any], None]


class Reader:
    """cri: the socket's path. logs: where the logs of pods are. store: that of what they used. name: the node's."""

    def __init__(self, cri: str, logs: Logs, store: str, name: str, acts: Acts) -> None:
        self._acts = acts
        self._observer = Observer(cri, logs)
        self._logs = logs
        self._store = store
        self._name = name
        self._answers = threading.Semaphore(MOST_ANSWERS)
        self._searches = threading.Semaphore(MOST_SEARCHES)
        self._observing = threading.Lock()

    def serve(self, control: socket.socket, ended: int) -> bool:
        """Until `ended` is readable (true), or the other side is gone."""
        while True:
            ready = select.select([ended, control.fileno()], [], [])[0]
            if ended in ready or not self._take(control):
                return ended in ready

    def _take(self, control: socket.socket) -> bool:
        message, streams = take_question(control)
        if not message:
            return False
        if len(streams) == 1 and self._answers.acquire(blocking=False):
            threading.Thread(target=self._answer, args=(message, streams[0]), daemon=True).start()
        else:
            for stream in streams:
                stream.close()
        return True

    def _answer(self, message: bytes, stream: socket.socket) -> None:
        def put(value: Any) -> None:
            stream.sendall(json.dumps(value).encode() + b"\n")

        try:
            stream.settimeout(STALLED_S)
            try:
                self._dispatch(json.loads(message), stream, put)
            except PyrunError as error:
                put({"error": "; ".join(error.lines()), "kind": type(error).__name__})
            except (KeyError, TypeError, ValueError) as error:
                put({"error": f"not a question: {error}", "kind": "InvalidArgument"})
            except OSError:
                raise
            except Exception as error:
                put({"error": f"internal error: {type(error).__name__}", "kind": "PyrunError"})
                raise  # to the log
        except OSError:
            pass  # nobody listens any more
        finally:
            stream.close()
            self._answers.release()

    def _dispatch(self, question: Question, stream: socket.socket, put: Put) -> None:
        match question["ask"]:
            case "watch":
                self._watch(stream, put)
            case "logs":
                put({"value": self._search(question)})
            case "follow":
                self._follow(question, stream, put)
            case "history":
                namespace, pod, uid = (str(word) for word in question["of"])
                seconds, step = int(question["seconds"]), int(question["step"])
                put({"value": collect_history(self._store, (namespace, pod, uid), seconds, step)})
            case "sparks":
                uids, seconds, step = question["uids"], int(question["seconds"]), int(question["step"])
                put({"value": collect_sparks(self._store, [str(one) for one in uids], seconds, step)})
            case "metrics":
                put({"value": collect_names(self._store)})
            case "metric":
                namespace, pod, container = (str(word) for word in question["match"])
                seconds, step = int(question["seconds"]), int(question["step"])
                match = (namespace, pod, container)
                put({"value": collect_metric(self._store, str(question["name"]), match, seconds, step)})
            case "search":
                put({"value": self._grep(question)})
            case "login":
                put({"value": self._acts.login(question)})
            case "logout":
                self._acts.logout(question)
                put({"value": None})
            case "who":
                put({"value": self._acts.who(question)})
            case "may" if self._acts.knows(question["act"]):
                self._acts.check(question["act"], question)
                put({"value": None})
            case act if self._acts.knows(act):
                put({"value": self._acts.act(act, question)})
            case other:
                raise InvalidArgument(f"{other!r} is no question")

    def _watch(self, stream: socket.socket, put: Put) -> None:
        while True:
            with self._observing:
                state = plan_state(self._name, self._observer.observe())
            put({"value": state})
            if _is_closed(stream, PERIOD_S):
                return

    def _grep(self, question: Question) -> list[Any]:
        namespace, pod, uid, container = (str(word) for word in question["of"])
        words = tuple(str(word) for word in question["words"])
        if not 0 < int(question["lines"]) <= MOST_LINES:
            raise InvalidArgument(f"{question['lines']} lines: 1 to {MOST_LINES} can be had")
        asked = grep.Asked(
            namespace,
            pod,
            uid,
            container,
            words,
            bool(question["regex"]),
            str(question["stream"]),
            int(question["lines"]),
            int(question["since"]),
            bool(question["previous"]),
            bool(question.get("entries")),
        )
        if not self._searches.acquire(timeout=SEARCH_S):
            raise ResourceExhausted("others search already", hint="try again")
        try:
            return grep.search(self._logs, asked, SEARCH_S)
        finally:
            self._searches.release()

    def _search(self, question: Question) -> list[Any]:
        return self._look(parse_asked(question, fewest=1))

    def _look(self, asked: Asked, ends: Ends | None = EVERYTHING) -> list[Any]:
        if not self._searches.acquire(timeout=SEARCH_S):
            raise ResourceExhausted("others search already", hint="try again")
        try:
            return search(self._logs, asked, ends)
        finally:
            self._searches.release()

    def _follow(self, question: Question, stream: socket.socket, put: Put) -> None:
        asked = parse_asked(question, fewest=0)
        follow(self._logs, asked, lambda one: put({"value": one}), lambda wait: _is_closed(stream, wait), self._look)


def _is_closed(stream: socket.socket, wait: float) -> bool:
    """Whether the other side has closed it, within so many seconds. It sends nothing."""
    return bool(select.select([stream], [], [], wait)[0])
