"""update: other limits for a container that runs, and the stored config.json with them.

What is given is merged with what is in force, as members of a section depend on each other. The limits are set by a
plan whose undo lane puts the old ones back, so a failed update changes nothing. The stored config is replaced by
rename: whoever reads it, for exec or the next update, finds the old or the new one whole. It is written before any
limit is set, so that a full disk changes nothing either. Of two updates the second waits for the first: else one would
lose what it merged.
"""

from __future__ import annotations

import fcntl
import json
import posix
import time

from ..errors import ConfigError, PyrunError, reason
from ..executor import StepFailed, run_plan
from ..facts import collect_facts, is_there, read_text
from ..oci.load import load_resources, read_file
from ..plan.cgroup.resources import check_memory_usage, merge_resources, plan_resources
from ..plan.update import files_of, plan_update
from .live_cgroup import open_cgroup
from .record import SYSTEMD
from .store import STOPPED, Container, Held, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..facts import Facts
    from ..plan.cgroup.resources import ResourcePlan


LOCK_S = 30.0


def update(
    store: Store,
    container: str,
    change: bytes,
    warn: Callable[[str], None],
    *,
    file: str = "resources.json",
    rdt: dict[str, str] | None = None,
) -> None:
    """change: the JSON of a linux.resources object; file: its name in errors. rdt: l3CacheSchema and memBwSchema, those
    that are to change. PyrunError with nothing changed."""
    load_resources(change, file=file)
    with store.hold(container) as held:
        c = store.open(container, held)
        _lock(c)
        if c.status() == STOPPED:
            raise PyrunError("container not running", hint="the limits of a stopped container limit nothing")
        _update(c, change, warn, file, rdt)


def _lock(c: Container) -> None:
    """Locks its directory, for as long as that is held. PyrunError after LOCK_S."""
    last = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(c.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > last:
                raise PyrunError(f"another update of {c.id} has not ended in {LOCK_S:.0f} s") from None
            time.sleep(0.01)


def _update(c: Container, change: bytes, warn: Callable[[str], None], file: str, rdt: dict[str, str] | None) -> None:
    path = c.path("config.json")
    config = json.loads(read_file(path), object_hook=_given)
    linux = config.setdefault("linux", {})
    before = json.dumps(linux.get("resources") or {}).encode()
    applied, in_force = merge_resources(linux.get("resources") or {}, json.loads(change, object_hook=_given))
    schemata = _schemata(c, linux.get("intelRdt"), rdt) if rdt else []
    linux["resources"] = in_force
    if rdt:
        linux["intelRdt"] |= rdt
    try:
        _write(path + ".new", config)  # first, for the disk may be full
    except OSError as e:
        hint = "no limit has been changed; is the disk of --root full?"
        raise PyrunError(f"{c.directory}/config.json.new: {reason(e)}", hint=hint) from None
    try:
        _apply(c, json.dumps(applied).encode(), before, warn, file, schemata)
    except BaseException:
        if is_there(path + ".new"):  # not where the container was deleted meanwhile
            posix.unlink(path + ".new")
        raise
    posix.rename(path + ".new", path)


def _given(members: dict[str, Any]) -> dict[str, Any]:
    """An object without those that are null: they count as absent, and override nothing."""
    return {name: value for name, value in members.items() if value is not None}


def _schemata(c: Container, stored: dict[str, Any] | None, rdt: dict[str, str]) -> list[tuple[str, str, str]]:
    """(schemata file, new line, the line of the same resource now)."""
    from ..facts_rare import resctrl_mount

    mount = resctrl_mount()
    if mount is None:
        raise PyrunError("no resctrl file system is mounted", hint="mount -t resctrl resctrl /sys/fs/resctrl")
    if stored is None:
        raise PyrunError("updating a non-existent Intel RDT configuration is not supported", pointer="/linux/intelRdt")
    path = f"{mount}/{(stored.get('closID') or c.id).strip('/')}".rstrip("/") + "/schemata"
    now = {line.strip().partition(":")[0]: line.strip() for line in read_text(path).splitlines()}
    return [(path, line, now.get(line.partition(":")[0], "")) for line in rdt.values()]


def _apply(
    c: Container,
    applied: bytes,
    before: bytes,
    warn: Callable[[str], None],
    file: str,
    schemata: list[tuple[str, str, str]],
) -> None:
    facts = collect_facts()
    limits = plan_resources(load_resources(applied, file=file), controllers=facts.controllers, base="", file=file)
    if not limits.writes and not schemata:
        return
    with Held(open_cgroup(c) if limits.writes else -1) as cgroup:
        if limits.writes and (facts.cgroup_mount is None or not _has_events(cgroup)):
            raise PyrunError("the container has no cgroup of its own, so it can't be limited")
        _limit(c, facts, cgroup, limits, warn, file, applied, before, schemata)


def _limit(
    c: Container,
    facts: Facts,
    cgroup: int,
    limits: ResourcePlan,
    warn: Callable[[str], None],
    file: str,
    applied: bytes,
    before: bytes,
    schemata: list[tuple[str, str, str]],
) -> None:
    """cgroup: its descriptor, for its name may be another's by now."""
    files = f"/proc/self/fd/{cgroup}"
    _check_memory(files, limits)
    now = {name: text for name in files_of(limits.writes) if (text := read_text(f"{files}/{name}", 1 << 16))}
    plan = plan_update(
        limits.writes,
        limits.controllers,
        mount=(facts.cgroup_mount or "").rstrip("/"),
        cgroup=posix.readlink(files) if cgroup >= 0 else "",
        now=now,
        schemata=schemata,
        rootless=facts.rootless,
    )
    if c.record.flags & SYSTEMD:
        from .systemd import set_limits

        set_limits(c.record.text("cgroup"), load_resources(applied, file=file))
    try:
        run_plan(plan, held=(cgroup,)).close()
    except StepFailed as e:
        from ..plan.words.step_errors import explain_failure

        if c.record.flags & SYSTEMD:
            from .systemd import reset_limits

            reset_limits(c.record.text("cgroup"), load_resources(applied, file=file), load_resources(before), warn)
        error = explain_failure(e, c.id)
        if error.pointer is not None:  # a place in what was given, not in config.json
            raise ConfigError([(error.pointer, error.text)], file=file, hint=error.hint)
        raise error


def _has_events(cgroup: int) -> bool:
    """Whether it is one, and not the root."""
    return cgroup >= 0 and bool(read_text(f"/proc/self/fd/{cgroup}/cgroup.events"))


def _check_memory(cgroup: str, limits: ResourcePlan) -> None:
    usage = read_text(cgroup + "/memory.current").strip()
    if limits.check_memory and usage.isdigit():
        check_memory_usage(limits.check_memory, int(usage))


def _write(path: str, config: dict[str, Any]) -> None:
    data = json.dumps(config, ensure_ascii=False, indent=1).encode("utf-8", "surrogateescape")
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[posix.write(fd, data) :]
        posix.fsync(fd)
    except BaseException:
        posix.unlink(path)
        raise
    finally:
        posix.close(fd)
