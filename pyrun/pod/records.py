"""What the daemon knows of pods and containers, on disk: ROOT/pods/POD/pod.json and ROOT/pods/POD/CTR/container.json.

A record is written before anything that it stands for is made (state `making`), and removed after all of that is gone;
so whatever lies below a pod without a record is debris, and whatever is still `making` after a restart was never
promised to anybody. The request is kept as the bytes in which it came. A file is replaced whole, by rename.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ..errors import PyrunError, reason
from .trees import remove_tree

MAKING, READY, NOTREADY, REMOVING = "making", "ready", "notready", "removing"
CREATED, STARTING, RUNNING, EXITED, UNKNOWN = "created", "starting", "running", "exited", "unknown"
POD_STATES = (MAKING, READY, NOTREADY, REMOVING)
CONTAINER_STATES = (MAKING, CREATED, STARTING, RUNNING, EXITED, UNKNOWN, REMOVING)
COMPLETED, ERROR, OOM_KILLED, START_ERROR, LOST = "Completed", "Error", "OOMKilled", "StartError", "Unknown"
# By a record's path: two threads that write one must not take each other's file, nor leave the older state.
_LOCKS = tuple(threading.Lock() for _ in range(64))
LARGEST = 32 << 20  # a request has 16 MiB at most
FORMAT = 1
FULL = "is the disk of --root full, or read-only?"


@dataclass(slots=True)
class PodRecord:
    """A pod sandbox. config: the bytes of its PodSandboxConfig. handler: the runtime handler's name, runtime: its
    program, "" for pyrun itself. sandbox, network: what those parts need to undo what
    they made, in their words. released: nothing of it is left but this record. Times in ns since 1970."""

    id: str
    config: bytes
    handler: str = ""
    runtime: str = ""
    state: str = MAKING
    created: int = 0
    boot_id: str = ""
    released: bool = False
    sandbox: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    overhead: bytes = b""
    resources: bytes = b""


@dataclass(slots=True)
class ContainerRecord:
    """A container. config: the bytes of its ContainerConfig, resources as they are now. image_id: what is held for it;
    image_ref: the name it is known by; image_digest: REPO@DIGEST, where it has one. user: uid, gid and groups in
    effect. status: exit code. Times in ns since 1970, 0: not yet. mounts: the image of each mount, "" for what is
    none."""

    id: str
    pod: str
    config: bytes
    state: str = MAKING
    created: int = 0
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image_id: str = ""
    image_ref: str = ""
    image_digest: str = ""
    log_path: str = ""
    stop_signal: str = ""
    cgroup: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    cleaned: bool = False  # nothing of its process is left: no cgroup, no state of the runtime's


Record = TypeVar("Record", PodRecord, ContainerRecord)


def encode_record(record: PodRecord | ContainerRecord) -> bytes:
    made: dict[str, Any] = {"format": FORMAT}
    for item in fields(record):
        value = getattr(record, item.name)
        made[item.name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return json.dumps(made, separators=(",", ":")).encode()


def decode_record(kind: type[Record], data: bytes) -> Record:
    """ValueError where it is not a whole record of ours."""
    made = json.loads(data)
    if not isinstance(made, dict) or made.pop("format", None) != FORMAT:
        raise ValueError("not a record of this version")
    values = {}
    for item in fields(kind):
        if item.name not in made:
            continue  # of an older pyrun
        value = made[item.name]
        wanted = str(item.type).partition("[")[0]
        if wanted == "bytes":
            value = base64.b64decode(value, validate=True)
        if type(value).__name__ != wanted:
            raise ValueError(f"{item.name} is not of type {wanted}")
        values[item.name] = value
    try:
        record = kind(**values)
    except TypeError as e:
        raise ValueError(str(e)) from None
    if record.state not in (POD_STATES if kind is PodRecord else CONTAINER_STATES):
        raise ValueError(f"there is no state {record.state!r}")
    return record


def write_record(path: str, record: PodRecord | ContainerRecord) -> None:
    """PyrunError with the file as it was; a half-written one has another name. It need not outlive a power cut, which
    ends all that it speaks of, so nothing waits for the disk."""
    with _LOCKS[hash(path) % len(_LOCKS)]:
        _write_record(path, record)


def _write_record(path: str, record: PodRecord | ContainerRecord) -> None:
    new = path + ".new"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(encode_record(record))
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise PyrunError(f"{path}: {reason(e)}", hint=FULL) from None


def make_directory(path: str) -> None:
    """One that is not there."""
    try:
        os.mkdir(path, 0o700)
    except OSError as e:
        raise PyrunError(f"{path}: {reason(e)}", hint=FULL) from None


def forget_files(directory: str) -> None:
    """A pod's or container's directory. The record goes first: what has none is debris."""
    forget_record(directory)
    remove_directory(directory)


def forget_record(directory: str) -> None:
    for name in ("pod.json", "container.json"):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
        except OSError as e:
            raise PyrunError(f"{directory}/{name}: {reason(e)}") from None


def remove_directory(directory: str) -> None:
    """With all that is in it; no error where it is not there."""
    try:
        remove_tree(directory)
    except OSError as e:
        hint = "is something mounted in it, or a file immutable (lsattr)?"
        raise PyrunError(f"{directory}: {reason(e)}", hint=hint) from None


def read_record(kind: type[Record], path: str) -> Record | None:
    """None where there is none, or none that was written whole."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise PyrunError(f"{path}: {reason(e)}", hint="the record of a pod must be a file that root may read") from None
    with os.fdopen(fd, "rb") as file:
        data = file.read(LARGEST + 1)
    try:
        return decode_record(kind, data)
    except ValueError:  # json's error is one, too
        return None


def names_in(directory: str) -> list[str]:
    """Of the directories in it that have an id's name, sorted."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if is_id(entry.name) and entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(found)


def new_id() -> str:
    """64 hex digits, as every runtime has them."""
    return os.urandom(32).hex()


def is_id(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")
