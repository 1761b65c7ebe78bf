"""The dashboard's pages and web process' code, over what a reader would tell of a node with many pods that change every
second: made here, as so many pods would take a test too long."""

from __future__ import annotations

import asyncio
import json
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyrun.dashboard.lines import follow, parse_asked, search
from pyrun.dashboard.start import load_pages
from pyrun.dashboard.web import Web
from pyrun.http.server import Server
from pyrun.logs.tree import Logs
from pyrun.web.ask import Questions, take_question
from tests.support.serving import Serving, end_threads, shut_down

PATIENCE_S = 60.0
WHO = {"name": "root", "role": "admin"}
# As a proxy tells (dashboard/services.py): of a Service with two pods, of which one is not ready.
STATUS = {"faults": [], "refused": [], "waits_for": [], "frontends": 1, "endpoints": 1, "mode": "userspace"}
COUNTED = {"name": "shop/web:http ClusterIP", "address": "10.96.0.9", "port": 80, "active": 1, "accepted": 7}
COUNTED |= {"failed": 0, "refused": 0, "bytes_in": 5000, "bytes_out": 9000}
SERVICES: dict[str, Any] = {"status": STATUS, "counters": {"frontends": [COUNTED]}}
ENDPOINT = {"port": "http/tcp", "endpoint": "10.1.0.0:8080", "pod": "shop/web-0000", "ready": True, "local": True}
ENDPOINT |= {"gets": "cluster", "why": ""}
NOT_READY = ENDPOINT | {
    "endpoint": "10.1.0.7:8080",
    "pod": "shop/<b>gone",
    "ready": False,
    "gets": "",
    "why": "not ready",
}
SERVICE: dict[str, Any] = {
    "service": "shop/web",
    "type": "ClusterIP",
    "addresses": ["10.96.0.9"],
    "selector": {"app": "web"},
}
SERVICE |= {"skipped": "", "count": 2, "endpoints": [ENDPOINT, NOT_READY]}


def select_closed(stream: socket.socket, wait: float) -> bool:
    return bool(select.select([stream], [], [], wait)[0])


def state(pods: int, dice: random.Random) -> dict[str, Any]:
    now = time.time_ns()
    node = {"name": "n1", "error": "", "runtime": "pyrun", "version": "1", "conditions": [], "started": now, "cpus": 2}
    node |= {"cpu": 1, "memory": 1, "available": 1 << 33, "total": 1 << 34, "disk": None, "agent": None}
    found: dict[str, Any] = {"node": node}
    for number in range(pods):
        one = {
            "id": f"p{number:04}",
            "namespace": "shop",
            "name": f"web-{number:04}",
            "uid": f"u{number}",
            "attempt": 0,
        }
        one |= {
            "attempt": 0,
            "ready": True,
            "created": now - 10**13,
            "ips": [f"10.1.{number >> 8}.{number & 255}"],
            "kube": None,
        }
        one |= {"labels": {"app": "web"}, "annotations": {}, "processes": 3, "received": 1, "sent": 1}
        one |= {"cpu": dice.randrange(10**9), "memory": dice.randrange(10**9)}
        app = {"id": f"c{number}", "name": "app", "attempt": 0, "state": "running", "image": "web:1", "created": 1}
        app |= {"started": 1, "finished": 0, "exit": None, "reason": "", "message": "", "last": "", "earlier": []}
        one["containers"] = [app | {"cpu": one["cpu"], "memory": one["memory"], "limit": None, "written": None}]
        found[f"pod/p{number:04}"] = one
    return found


def sparks(uids: list[str], dice: random.Random) -> dict[str, Any]:
    """As a store has them (metrics/history.py)."""
    until = int(time.time())
    times = range(until - 3600, until, 120)
    pods = {
        uid: {field: [[at, dice.random() * scale] for at in times] for field, scale in (("cpu", 1), ("memory", 1e9))}
        for uid in uids
    }
    return {"since": until - 3600, "until": until, "pods": pods}


def answer(question: bytes, stream: socket.socket, pods: int, logs: Logs) -> None:
    asked = json.loads(question)
    ask, dice = asked["ask"], random.Random(1)

    def put(value: Any) -> None:
        stream.sendall(json.dumps({"value": value}).encode() + b"\n")

    with stream:
        try:
            if ask == "logs":
                return put(search(logs, parse_asked(asked, fewest=1)))
            if ask == "follow":
                wanted = parse_asked(asked, fewest=0)
                return follow(logs, wanted, put, lambda wait: select_closed(stream, wait), partial(search, logs))
            if ask == "watch":
                while True:
                    stream.sendall(json.dumps({"value": state(pods, dice)}).encode() + b"\n")
                    time.sleep(1)
            if ask == "sparks":
                return put(sparks(asked["uids"], dice))
            told = {
                "login": WHO | {"cookie": "c", "key": "k"},
                "who": WHO,
                "services": SERVICES,
                "service": SERVICE,
            }.get(ask)
            value = {"value": told} if told else {"error": "nothing is kept", "kind": "NotFound"}
            stream.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            pass


@contextmanager
def many_pods(pods: int, logs: str = "") -> Iterator[str]:
    """The URL. Any token is right. logs: the directory of pods' logs, which are read as the reader does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place: list[Any] = []
    there = threading.Event()
    ended: list[Any] = []
    serving = Serving()

    def read() -> None:
        while True:
            question, streams = take_question(theirs)
            if not question:
                return
            serving.run(answer, question, streams[0], pods, Logs(logs))

    async def run() -> None:
        done = asyncio.Event()
        ended.extend((asyncio.get_running_loop(), done))
        web = Web(Questions(ours), load_pages(), frozenset(["127.0.0.1"]), secure=False)
        server = Server(web.handle)
        place.extend(await server.listen("127.0.0.1", 0))
        there.set()
        await done.wait()
        await server.stop()
        await web.stop()

    serving.run(read)
    web = serving.run(lambda: asyncio.run(run()))
    try:
        assert there.wait(PATIENCE_S)
        yield f"http://{place[0]}:{place[1]}/"
    finally:
        ended[0].call_soon_threadsafe(ended[1].set)
        end_threads(web)
        shut_down(ours)
        serving.end()
        ours.close()
        theirs.close()
