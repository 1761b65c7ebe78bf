"""A search by regular expressions, or over all pods: in a process of its own, since an expression can take for ever
while it holds the interpreter, and as 10,000 lines of a megabyte may be found. It is `pyrun logs`, with limits on its
processor time and its memory, and is ended when its time is up."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument, NotFound, ResourceExhausted
from ..logs.tree import Logs
from .clean import clean

LIMIT_S = 12
MOST_BYTES = 16 << 20
MOST_MEMORY = 256 << 20  # of addresses
LONGEST_SAID = 4096
_WHERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_RUN = (
    f"import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, ({LIMIT_S}, {LIMIT_S}));"
    f"resource.setrlimit(resource.RLIMIT_AS, ({MOST_MEMORY}, {MOST_MEMORY}));"
    "from pyrun.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """namespace, pod, container: patterns, "" for any. uid: "" for any. lines: the last ones of each container, and of
    all together. since: seconds back, 0 for all. entries: lines that belong together are one."""

    namespace: str
    pod: str
    uid: str
    container: str
    words: tuple[str, ...]
    regex: bool
    stream: str
    lines: int
    since: int
    previous: bool
    entries: bool


def search(logs: Logs, asked: Asked, patience_s: float) -> list[dict[str, Any]]:
    """The newest lines, by time. InvalidArgument, NotFound as the command says, ResourceExhausted when it took too
    long."""
    process = subprocess.Popen(
        [sys.executable, "-s", "-P", "-c", _RUN, *_argv(logs, asked)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONPATH": _WHERE},
        cwd="/",
    )
    try:
        out, said = _collect(process, time.monotonic() + patience_s)
        code = process.wait(patience_s)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if code not in (0, 1) or (said and (code or not out)):  # a part of what there is would be taken for all of it
        text = clean(said.decode("utf-8", "replace").strip().removeprefix("pyrun: logs: ").replace("\n", ";"), 1000)
        if code < 0:
            raise ResourceExhausted(f"the search took more than {LIMIT_S} s", hint="pyrun logs has all the time")
        if text.startswith("out of memory"):
            raise ResourceExhausted("too much was found", hint="fewer lines, or other words")
        raise (InvalidArgument if "regular expression" in text else NotFound)(text or f"pyrun logs ended with {code}")
    found = [json.loads(line) for line in out.splitlines() if line]
    if asked.uid:
        found = [one for one in found if one["uid"] == asked.uid]
    found.sort(key=lambda one: one["time"])
    return [{**one, "line": "\n".join(map(clean, one["line"].split("\n")))} for one in found[-asked.lines :]]


def _argv(logs: Logs, asked: Asked) -> list[str]:
    argv = [
        "logs",
        *([] if asked.entries else ["--no-join"]),
        "--format",
        "json",
        "--dir",
        logs.root,
        *(["--store", logs.store] if logs.store else []),
        "--tail",
        str(asked.lines),
    ]
    for option, value in (("namespace", asked.namespace), ("pod", asked.pod), ("container", asked.container)):
        argv += [f"--{option}={value}"] if value else []
    argv += [f"--stream={asked.stream}"] if asked.stream else []
    argv += [f"--since={asked.since}s"] if asked.since else []
    argv += ["--regex"] if asked.regex else []
    argv += ["--previous"] if asked.previous else []
    return [*argv, "--", *asked.words]


def _collect(process: subprocess.Popen[bytes], last: float) -> tuple[bytes, bytes]:
    """What it wrote. Raises ResourceExhausted."""
    assert process.stdout is not None and process.stderr is not None
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with contextlib.closing(selectors.DefaultSelector()) as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, last - time.monotonic()))
            if not ready:
                raise ResourceExhausted("the search took too long", hint="pyrun logs has all the time")
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                kept[key.fileobj] += data  # type: ignore[index]
            if len(kept[process.stdout]) > MOST_BYTES:
                raise ResourceExhausted("too much was found", hint="fewer lines, or other words")
    return bytes(kept[process.stdout]), bytes(kept[process.stderr][:LONGEST_SAID])
