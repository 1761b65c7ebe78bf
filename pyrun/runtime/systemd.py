"""--systemd-cgroup: asks systemd, over D-Bus, for the unit that is the container's cgroup.

The system's manager where we are root, else the user's. What can't be had is an error before anything is made: no
systemd, no bus.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..facts import Facts, read_text
from ..oci.model import Resources, Spec
from ..plan.cgroup.scopes import (
    IDLE,
    Unit,
    annotated_properties,
    annotation_at,
    limit_properties,
    no_limit,
    unit_of,
    unit_properties,
)
from .dbus import BUS as DAEMON
from .dbus import Bus, BusError, system_address, user_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..plan.cgroup.scopes import Properties
    from ..plan.exec import Target
    from ..plan.model.request import Request

TIMEOUT_S = 30.0
BOOTED = "/run/systemd/system"  # sd_booted(3)
BUS, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = BUS + ".Manager"
EXISTS, UNKNOWN = BUS + ".UnitExists", BUS + ".NoSuchUnit"
WRONG_TYPE = "Unexpected message contents"
JOBS = "is it busy, or does it wait for something? systemctl list-jobs tells"
OUTSIDE = (
    "outside of it the container's limits would not hold; try from a unit of the user's: systemd-run --user --scope"
)
HINT = (
    "leave --systemd-cgroup out (containerd: SystemdCgroup = false, pyrun cri: cgroup_driver = 'cgroupfs'), "
    "or run where systemd is process 1"
)


class Manager:
    """A connection to a service manager of systemd's. Close it."""

    def __init__(self, *, user: bool) -> None:
        """PyrunError where there is none to talk to."""
        if not user and not _is_there(BOOTED):
            raise PyrunError("--systemd-cgroup: systemd does not run on this machine", hint=HINT)
        try:
            self._bus = Bus(user_address() if user else system_address(), TIMEOUT_S)
        except (OSError, ValueError) as e:
            which = "user's" if user else "system's"
            raise PyrunError(
                f"--systemd-cgroup: no connection to the {which} D-Bus: {e or type(e).__name__}", hint=HINT
            )

    def close(self) -> None:
        self._bus.close()

    def call(self, method: str, signature: str = "", body: tuple[Any, ...] = (), to: str = MANAGER) -> tuple[Any, ...]:
        """A method of the manager's interface `to`, and the reply's body. BusError with an error's; PyrunError."""
        return self._reply(self._bus.send(BUS, PATH, to, method, signature, body))

    def cgroup(self) -> str:
        """The manager's own cgroup: "" for the system's, below user.slice for a user's."""
        ((_, value),) = self.call("Get", "ss", (MANAGER, "ControlGroup"), "org.freedesktop.DBus.Properties")
        return str(value).rstrip("/")

    def _reply(self, serial: int) -> tuple[Any, ...]:
        try:
            return self._bus.reply(serial)
        except OSError as e:
            raise PyrunError(f"--systemd-cgroup: systemd does not answer: {e or type(e).__name__}", hint=HINT)

    def start(self, unit: str, properties: Properties) -> None:
        """StartTransientUnit, and waits until its job is done. A failed unit of that name is reset first."""
        rule = f"type='signal',interface='{MANAGER}',member='JobRemoved',path='{PATH}'"
        first = self._bus.send(*DAEMON, "AddMatch", "s", (rule,)), self._bus.send(BUS, PATH, MANAGER, "Subscribe")
        (job,) = self._start(unit, properties)
        try:
            for serial in first:
                self._reply(serial)
            self._wait_for(unit, job)
        except PyrunError:
            self._bus.post(BUS, PATH, MANAGER, "StopUnit", "ss", (unit, "replace"))  # or it comes once we are gone
            raise

    def _wait_for(self, unit: str, job: object) -> None:
        try:
            for _, path, _, result in self._bus.signals("JobRemoved", TIMEOUT_S):
                if path == job and result != "done":
                    raise PyrunError(
                        f"--systemd-cgroup: systemd could not make {unit}: {result}", hint="see journalctl"
                    )
                if path == job:
                    return
        except OSError:
            raise PyrunError(f"--systemd-cgroup: systemd did not make {unit} in {TIMEOUT_S:.0f} s", hint=JOBS)

    def _start(self, unit: str, properties: Properties) -> tuple[Any, ...]:
        body: tuple[Any, ...] = (unit, "replace", properties, [])
        try:
            return self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except BusError as e:
            if e.name != EXISTS:
                raise
        self._reset(unit)
        return self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)

    def stop(self, unit: str) -> None:
        """StopUnit and ResetFailedUnit; a unit that is gone is what was wanted."""
        try:
            self.call("StopUnit", "ss", (unit, "replace"))
        except BusError as e:
            if e.name != UNKNOWN:
                raise
        self._reset(unit)

    def understood(self, properties: Properties) -> Properties:
        """Without those that this systemd is too old for: CPUWeight=idle is of 252."""
        if ("CPUWeight", ("t", IDLE)) not in properties:
            return properties
        ((_, version),) = self.call("Get", "ss", (MANAGER, "Version"), "org.freedesktop.DBus.Properties")
        number = "".join(c for c in str(version)[:4] if c.isdigit())  # 252.39-1~deb12u2
        return properties if int(number or 0) >= 252 else [p for p in properties if p[0] != "CPUWeight"]

    def _reset(self, unit: str) -> None:
        try:
            self.call("ResetFailedUnit", "s", (unit,))
        except BusError:
            return


class Scope:
    """The unit of a container that is being created; it answers the plan's Yield."""

    def __init__(self, spec: Spec, facts: Facts, container: str) -> None:
        self.unit: Unit = unit_of(spec, facts, container)
        self.container = container
        self.resources: Resources | None = spec.linux.resources if spec.linux else None
        self.user = facts.rootless
        self.started = False

    def on_yield(self, _code: int, pid: int) -> None:
        """Makes the unit around stage 1. PyrunError."""
        properties = unit_properties(self.unit, description(self.container), pid) + limit_properties(self.resources)
        try:
            make = lambda m: m.start(self.unit.name, m.understood(properties))  # noqa: E731
            with_manager(self.user, make, f"make {self.unit.name}")
        except PyrunError as e:
            # systemd names the property that it does not know, and none where a value has the wrong type.
            asked = [name for name, _ in self.unit.properties]
            blamed = [name for name in asked if name in e.text] or (asked if WRONG_TYPE in e.text else [])
            e.pointer = annotation_at(blamed[0]) if len(blamed) == 1 else None
            if WRONG_TYPE in e.text and blamed:
                e.hint = f"a value has not the type that systemd wants: of {', '.join(blamed)}"
            raise
        self.started = True

    def undo(self) -> None:
        """When a later step failed: the unit that was made goes."""
        if self.started:
            with_manager(self.user, lambda m: m.stop(self.unit.name), f"stop {self.unit.name}")


class Attach:
    """Answers the Yield of an exec whose process we may not move into the container's unit ourselves: the user's
    manager does, or has the system's do it."""

    def __init__(self, spec: Spec, target: Target, request: Request) -> None:
        self.spec = spec
        self.cgroup = target.cgroup or ""
        below = (target.init_cgroup or self.cgroup)[len(self.cgroup) :]
        self.below = below if request.subcgroup is None else "/" + request.subcgroup.strip("/")

    def on_yield(self, _code: int, pid: int) -> None:
        """PyrunError where the container's limits would not hold, or what annotations ask of the unit, such as
        IPAddressDeny; without any the process runs where we are."""
        unit = self.cgroup.rpartition("/")[2]
        body = (unit, self.below.rstrip("/"), [pid])
        try:
            with_manager(
                is_of_user(self.cgroup),
                lambda m: m.call("AttachProcessesToUnit", "ssau", body),
                f"move a process into {unit}",
            )
        except PyrunError as e:
            from ..plan.exec import has_limits

            if has_limits(self.spec) or annotated_properties(self.spec.annotations):
                e.hint = OUTSIDE
                raise


def unit_cgroup(spec: Spec, facts: Facts, container: str, *, imagine: bool = False) -> str:
    """The absolute path that the container's cgroup will have. PyrunError where it can't be made at all; imagine: no
    manager is asked."""
    unit = unit_of(spec, facts, container)
    if facts.cgroup_mount is None:
        raise PyrunError("--systemd-cgroup: no cgroup2 hierarchy is mounted")
    above: str = "" if imagine else with_manager(facts.rootless, lambda m: m.cgroup(), "find its cgroup")
    return facts.cgroup_mount.rstrip("/") + above + unit.cgroup


def start_scope(slice: str, name: str, what: str, pid: int) -> None:
    """A scope without limits around a process that the caller holds, in a slice that systemd makes if need be. what:
    for people. PyrunError."""
    properties = unit_properties(Unit(slice, name, []), what, pid)
    with_manager(False, lambda m: m.start(name, properties), f"make {name}")


def stop_units(names: Sequence[str]) -> None:
    """Stops units of the system's manager, and what is in a slice with it; one that is gone is what was wanted."""

    def stop(manager: Manager) -> None:
        for name in names:
            manager.stop(name)

    with_manager(False, stop, f"stop {' and '.join(names)}")


def runs_the_node() -> bool:
    """Whether systemd is process 1 and sees the cgroups that we see, in one hierarchy of version 2."""
    if not _is_there(BOOTED) or read_text("/proc/1/comm", 64).strip() != "systemd":
        return False
    try:
        ours, its = (posix.stat(f"/proc/{who}/ns/cgroup") for who in ("self", "1"))
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (its.st_dev, its.st_ino)


def stop_unit(cgroup: str) -> None:
    """delete: stops the unit whose cgroup this is."""
    unit = cgroup.rpartition("/")[2]
    with_manager(is_of_user(cgroup), lambda m: m.stop(unit), f"stop {unit}")


def description(container: str) -> str:
    """By which people, and delete, know whose a unit is."""
    return f"pyrun container {container}"


def stop_left_unit(cgroup: str, container: str) -> None:
    """delete: the unit of this cgroup, in which nothing is, if it is the one that a create was killed for while systemd
    made it. What has ended the kernel moves into no cgroup, without a word, and then systemd waits for ever for its
    end."""
    name = cgroup.rpartition("/")[2]

    def stop(manager: Manager) -> None:
        (((_, what, *_), *_),) = manager.call("ListUnitsByNames", "as", ([name],))
        if what == description(container):
            manager.stop(name)

    with_manager(is_of_user(cgroup), stop, f"stop {name}")


def is_of_user(cgroup: str) -> bool:
    """Whether a user's manager made it: those live in user@UID.service."""
    return "/user@" in cgroup


def set_limits(cgroup: str, resources: Resources) -> None:
    """update: the unit's properties, until the next boot."""
    _set_properties(cgroup, limit_properties(resources))


def reset_limits(cgroup: str, resources: Resources, before: Resources, warn: Callable[[str], None]) -> None:
    """After an update that failed: what set_limits() changed, as it was. That systemd refuses it is only a warning, for
    why the update failed matters more."""
    old = dict(limit_properties(before))
    try:
        _set_properties(cgroup, [(name, old.get(name) or no_limit(name)) for name, _ in limit_properties(resources)])
    except PyrunError as e:
        warn("\n".join(e.lines()))


def _set_properties(cgroup: str, properties: Properties) -> None:
    unit = cgroup.rpartition("/")[2]

    def change(manager: Manager) -> None:
        manager.call("SetUnitProperties", "sba(sv)", (unit, True, manager.understood(properties)))
        manager.cgroup()  # what systemd writes to the cgroup is written before it answers again, and so before we write

    if properties:
        with_manager(is_of_user(cgroup), change, f"set the limits of {unit}")


def with_manager(user: bool, action: Any, what: str) -> Any:
    """action(manager), with what systemd says of it as a PyrunError."""
    manager = Manager(user=user)
    try:
        return action(manager)
    except BusError as e:
        raise PyrunError(f"--systemd-cgroup: systemd would not {what}: {e} ({e.name})")
    finally:
        manager.close()


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
