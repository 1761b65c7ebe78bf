"""Makes a sandbox and ends it: the plan of plan/sandbox.py carried out, and what is read on the way.

Nothing is kept in memory that a restart would need: sandbox.json in the pod's directory says what was made, and lies
there before the rest. A reboot takes that directory, on a tmpfs, with all that it speaks of.
"""

from __future__ import annotations

import contextlib
import json
import os

from ...errors import NotFound, PyrunError, reason
from ...executor import StepFailed, run_plan
from ...facts import Facts, read_text
from ...oci.model import IdMapping
from ...plan.sandbox import FILES, PINS, RECORD, SHM, plan_end, plan_late_sysctls, plan_sandbox
from ...runtime.systemd import start_scope, stop_units
from .cgroups import CGROUPFS
from .config import asks_for_dns, is_of_an_interface, plan_request, resolv_conf_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...plan.model.plan import Plan

    Dns = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # servers, searches, options

STATE_BYTES = 1 << 20
HOST_SHM = "/dev/shm"


class Sandbox:
    """What a pod has. Paths are the host's; None: the node's own.

    id, directory. net, ipc, uts, user: the pinned namespaces. hostname; resolv_conf, hostname_file, hosts: files to be
    bound into containers; shm: the directory. cgroup: the absolute path of the supervisor's, None without a cgroup2;
    cgroup_parent: below the mount, where containers' cgroups go; slice: the unit that this is, "" where it is none;
    scope: the supervisor's unit. uid_mappings, gid_mappings: of the user namespace."""

    __slots__ = (
        "cgroup",
        "cgroup_parent",
        "cgroups",
        "directory",
        "gid_mappings",
        "hostname",
        "hostname_file",
        "hosts",
        "id",
        "ipc",
        "late_sysctls",
        "net",
        "pid",
        "resolv_conf",
        "scope",
        "shm",
        "slice",
        "uid_mappings",
        "user",
        "uts",
    )

    def __init__(self, directory: str, record: dict[str, Any], mount: str) -> None:
        kinds = record["namespaces"]
        self.id: str = record["id"]
        self.directory = directory
        self.net, self.ipc, self.uts, self.user = (
            f"{directory}/{PINS}/{kind}" if kind in kinds else None for kind in ("net", "ipc", "uts", "user")
        )
        self.pid: str | None = None
        self.late_sysctls: dict[str, str] = {}  # for complete_sandbox()
        self.hostname: str = record["hostname"]
        self.resolv_conf, self.hostname_file, self.hosts = (f"{directory}/{name}" for name in FILES)
        self.shm = f"{directory}/{SHM}" if self.ipc else HOST_SHM
        self.cgroup: str | None = record["cgroup"]
        self.cgroups: tuple[str, ...] = tuple(record["cgroups"])
        self.slice: str = record.get("slice", "")
        self.scope: str = record.get("scope", "")
        parent = (self.cgroup or "").rpartition("/")[0]
        self.cgroup_parent = parent[len(mount.rstrip("/")) :] if parent else ""
        self.uid_mappings, self.gid_mappings = (
            tuple(IdMapping(container_id=c, host_id=h, size=n) for c, h, n in side) for side in record["maps"]
        )


def prepare_state(root: str) -> None:
    """Once, when the daemon starts: STATE/pods becomes a private mount of its own, so that what is mounted below goes
    to no other mount namespace. PyrunError."""
    from ...plan.sandbox import plan_private_mount

    os.makedirs(root, 0o700, exist_ok=True)
    os.chmod(root, 0o700)
    if not os.path.ismount(root) and not _is_mount(root):
        _run(plan_private_mount(root), "the pods' state")


def _is_mount(path: str) -> bool:
    """A bind of a directory on itself has its device and inode: only mountinfo tells."""
    text = read_text("/proc/self/mountinfo", 8 << 20)
    return any(line.split(" ")[4] == path.replace(" ", "\\040") for line in text.splitlines())


def make_sandbox(
    directory: str,
    pod: str,
    config: Any,
    facts: Facts,
    *,
    unprivileged: bool = True,
    driver: str = CGROUPFS,
    fault: dict[str, int] | None = None,
) -> Sandbox:
    """Makes the sandbox of a pod in `directory`. InvalidArgument before anything is made, else PyrunError with nothing
    left; who was killed in the middle calls end_sandbox()."""
    words: dict[str, Any] = {"files": _host_files(), "unprivileged": unprivileged, "driver": driver}
    request = plan_request(pod, directory, config, facts, **words)
    late = {key: value for key, value in request.sysctls.items() if is_of_an_interface(key)}
    request.sysctls = {key: value for key, value in request.sysctls.items() if key not in late}
    _run(plan_sandbox(request, facts), f"pod {pod[:13]}", fault)
    sandbox = Sandbox(directory, json.loads(request.record), facts.cgroup_mount or "")
    sandbox.late_sysctls = late
    return sandbox


def complete_sandbox(sandbox: Sandbox, config: Any, dns: Dns, facts: Facts) -> None:
    """What waits for the pod's network: sysctls of its interface, and resolv.conf where the request has no dns_config
    and the network has. PyrunError; an end undoes it with the rest."""
    if any(dns) and not asks_for_dns(config):
        text = resolv_conf_of(*dns, where="the CNI network's dns")
        new = f"{sandbox.directory}/.resolv.conf"
        try:
            with open(new, "w", opener=lambda path, flags: os.open(path, flags | os.O_CLOEXEC, 0o644)) as file:
                file.write(text)
            os.rename(new, sandbox.resolv_conf)
        except OSError as e:
            raise PyrunError(f"{sandbox.resolv_conf}: {reason(e)}") from None
    if sandbox.late_sysctls and sandbox.net:
        _run(plan_late_sysctls(sandbox.net, sandbox.late_sysctls, facts), f"pod {sandbox.id[:13]}")


def load_sandbox(directory: str, facts: Facts) -> Sandbox:
    """That of a pod that an earlier daemon made. NotFound where there is none, or only the half of one."""
    text = read_text(f"{directory}/{RECORD}", STATE_BYTES)
    try:
        sandbox = Sandbox(directory, json.loads(text), facts.cgroup_mount or "")
    except (ValueError, KeyError, TypeError):
        raise NotFound(f"there is no sandbox in {directory}") from None
    missing = [path for path in (sandbox.net, sandbox.ipc, sandbox.uts, sandbox.user) if path and not _is_pin(path)]
    if missing:
        raise NotFound(f"the namespaces of pod {sandbox.id[:13]} are gone", hint="it has to be made anew")
    return sandbox


def _is_pin(path: str) -> bool:
    """Whether a namespace is mounted there: a pin whose mount is gone is an empty file."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except OSError:
        return False


def make_scope(sandbox: Sandbox, pid: int) -> None:
    """With the driver systemd: the unit of the pod's supervisor, around its process. PyrunError."""
    start_scope(sandbox.slice, sandbox.scope, f"pyrun pod {sandbox.id}", pid)


def end_sandbox(directory: str, record: bytes | None = None) -> None:
    """Ends the sandbox, whole, half made or gone; what runs in the pod's own cgroups is killed. record: where the
    caller kept that of SandboxRequest. PyrunError when something of it stays."""
    text = record or read_text(f"{directory}/{RECORD}", STATE_BYTES).encode()
    cgroups: list[str] = []
    units: list[str] = []
    with contextlib.suppress(ValueError, KeyError, TypeError):  # killed before the record: then nothing else was made
        found = json.loads(text)
        cgroups, units = [str(path) for path in found["cgroups"]], [str(name) for name in found.get("units", ())]
    if units:
        stop_units(units)  # first: once the record is gone nobody would know of a slice
    _run(plan_end(directory, cgroups), f"end of the sandbox in {directory}")
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _run(plan: Plan, what: str, fault: dict[str, int] | None = None) -> None:
    try:
        run_plan(plan, fault=fault).close()
    except StepFailed as e:
        raise explain(e, what) from None
    except OSError as e:
        raise PyrunError(f"{what}: {reason(e)}") from None


def explain(failure: StepFailed, what: str) -> PyrunError:
    """The words for a step that failed; its place is one of the request, not of a config.json."""
    from ...plan.words.step_errors import explain_failure

    error = explain_failure(failure)
    place = f" (from {error.pointer.strip('/').replace('/', '.')})" if error.pointer else ""
    return PyrunError(f"{what}: {error.text}{place}", hint=error.hint)


def _host_files() -> dict[str, str]:
    return {name: read_text(f"/etc/{name}", 256 << 10) for name in FILES}


__all__ = [
    "Sandbox",
    "complete_sandbox",
    "end_sandbox",
    "load_sandbox",
    "make_sandbox",
    "make_scope",
    "prepare_state",
]
