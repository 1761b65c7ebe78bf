"""`pyrun spec`: a config.json to start from. What it holds is what `runc spec` writes; --rootless makes it need no
root."""

from __future__ import annotations

import os
import shutil

from pyrun import SPEC_VERSION
from pyrun.cli.output import indented
from pyrun.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
QUIET = ["nosuid", "noexec", "nodev"]


def run(g: Globals, o: Options) -> int:
    path = os.path.join(o.bundle or ".", "config.json")
    config = default_config()
    if o.rootless:
        make_rootless(config, id_maps(os.geteuid(), "uid"), id_maps(os.getegid(), "gid"))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(indented(config, "\t") + "\n")
    except FileExistsError:
        raise PyrunError(f"file {path} exists: it is not overwritten", hint="remove it first, or name another --bundle")
    except OSError as error:
        raise PyrunError(
            f"write {path}: {(error.strerror or '').lower()}", hint="a bundle is a directory that is there"
        )
    return 0


def _mount(destination: str, type: str, source: str, *options: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": type,
        "source": source,
        **({"options": list(options)} if options else {}),
    }


def default_config() -> dict[str, Any]:
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrun",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
            ),
            _mount("/dev/shm", "tmpfs", "shm", *QUIET, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", *QUIET),
            _mount("/sys", "sysfs", "sysfs", *QUIET, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *QUIET, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [*(f"/proc/{name}" for name in MASKED), "/sys/firmware"],
            "readonlyPaths": READONLY,
        },
    }


def make_rootless(config: dict[str, Any], uids: list[dict[str, int]], gids: list[dict[str, int]]) -> None:
    """Changes a default config so that it runs without root, as `runc spec --rootless` does.

    A user namespace in place of the network's, whose sysfs could not be mounted without it: /sys is the host's,
    bound. No limits, and no owners among mount options, since their ids need not be mapped.
    """
    linux = config["linux"]
    kept = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    linux["namespaces"] = [*kept, {"type": "user"}]
    linux["uidMappings"] = uids
    linux["gidMappings"] = gids
    del linux["resources"]
    for mount in config["mounts"]:
        options = [option for option in mount.get("options", []) if not option.startswith(("uid=", "gid="))]
        if mount["destination"] == "/sys":
            mount.update(type="none", source="/sys")
            options = ["rbind", *options]
        if options:
            mount["options"] = options


def id_maps(own: int, kind: str, directory: str = "/etc") -> list[dict[str, int]]:
    """Id 0 as our own; behind it the first range of /etc/subuid or /etc/subgid, where newuidmap could map it."""
    maps = [{"containerID": 0, "hostID": own, "size": 1}]
    uid = os.geteuid()
    if uid == 0 or shutil.which(f"new{kind}map") is None:
        return maps
    try:
        with open(f"{directory}/sub{kind}", encoding="utf-8") as file:
            rows = [line.strip().split(":") for line in file]
    except (OSError, ValueError):
        return maps
    ranges = [
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[0] in _names(uid) and row[1].isdigit() and row[2].isdigit()
    ]
    return [*maps, *[{"containerID": 1, "hostID": first, "size": size} for first, size in ranges[:1] if size]]


def _names(uid: int) -> tuple[str, ...]:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)
