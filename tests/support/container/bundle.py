"""Bundles for tests: a config.json much as `runc spec` writes it, with overrides, and a root file system of its own.

A test says only what it is about. Overrides are merged deeply into the default: a dict into a dict, anything else
replaces, and None removes the key.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]

DEFAULT_CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["true"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "pyrun",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": [
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}


def merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """base with overrides merged in deeply; neither argument is changed. None removes a key."""
    merged = copy.deepcopy(base)
    for key, value in overrides.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def make_config(args: Sequence[str] = ("true",), **overrides: Any) -> dict[str, Any]:
    """The default config.json with these process args and overrides: make_config(["id"], process={"cwd": "/tmp"})."""
    return merge(merge(DEFAULT_CONFIG, {"process": {"args": list(args)}}), overrides)


class Bundle:
    """A bundle's directory: `config` is the parsed config.json (call `save` after changing it), `rootfs` its root."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    def save(self) -> Bundle:
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))
        return self

    def update(self, **overrides: Any) -> Bundle:
        """Merges overrides into config.json and saves it."""
        self.config = merge(self.config, overrides)
        return self.save()

    def add_mount(self, destination: str, source: str, *options: str, type: str = "bind", **more: Any) -> Bundle:
        """Appends a mount and saves."""
        mount = {"destination": destination, "source": source, "type": type, "options": list(options), **more}
        self.config.setdefault("mounts", []).append(mount)
        return self.save()

    def add_namespace(self, type: str, path: str | None = None) -> Bundle:
        """Adds a namespace, or replaces the one of this type, and saves."""
        others = [ns for ns in self.config["linux"]["namespaces"] if ns["type"] != type]
        self.config["linux"]["namespaces"] = [*others, {"type": type} | ({"path": path} if path else {})]
        return self.save()

    def drop_namespace(self, type: str) -> Bundle:
        """Removes the namespace of this type and saves."""
        kept = [ns for ns in self.config["linux"]["namespaces"] if ns["type"] != type]
        self.config["linux"]["namespaces"] = kept
        return self.save()


def make_bundle(path: Path, config: dict[str, Any], rootfs: Path) -> Bundle:
    """Writes a bundle to the directory `path`, which is made, with its own copy of `rootfs`."""
    path.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--reflink=auto", "-T", rootfs.resolve(), path / "rootfs"], check=True)
    return Bundle(path, config).save()


class BundleMaker:
    """Makes bundles below a directory: maker(["id"], process={"cwd": "/tmp"}, rootfs=OTHER)."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self._directory = directory
        self._rootfs = rootfs
        self._made = 0

    def __call__(self, args: Sequence[str] = ("true",), rootfs: Path | None = None, **overrides: Any) -> Bundle:
        self._made += 1
        path = self._directory / f"bundle{self._made}"
        return make_bundle(path, make_config(args, **overrides), rootfs or self._rootfs)
