"""The daemon's configuration: a TOML file, in which every key has a meaning; one that has none is an error."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from difflib import get_close_matches

from ..errors import InvalidArgument, reason
from ..pod.sandbox.cgroups import CGROUPFS, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LAYERS = ("dir", "erofs", "auto")
HANDLER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # a DNS label, as RuntimeClass.handler is


DRIVERS = ("", SYSTEMD, CGROUPFS)


@dataclass(frozen=True, slots=True)
class Configuration:
    """strict_limits: a limit whose controller this node has not got is an error, and not left out with a warning.
    layers: what layers of images become, `dir`, `erofs`, or `auto`, which is erofs where this node takes it.
    default_seccomp: who names no seccomp profile gets RuntimeDefault. certs_dir: of HOST/hosts.toml. pinned_images:
    names of images that a kubelet shall not remove to make room. cni_conf_dir: "" for the built-in network whatever is
    there. cni_bin_dirs; pod_cidrs: ranges of the built-in network. stream_address: where exec, attach and port-forward
    are served. cgroup_driver: systemd or cgroupfs; "" for systemd where it runs the node. runtimes: name of a runtime
    handler -> the program of that OCI runtime, from the tables [runtimes.NAME] with their path."""

    strict_limits: bool = False
    layers: str = "dir"
    default_seccomp: bool = False
    certs_dir: str = "/etc/containerd/certs.d"
    pinned_images: tuple[str, ...] = ()
    cni_conf_dir: str = "/etc/cni/net.d"
    cni_bin_dirs: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    cdi_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    pod_cidrs: tuple[str, ...] = ()
    stream_address: str = "127.0.0.1"
    cgroup_driver: str = ""
    runtimes: dict[str, str] = field(default_factory=dict)


# What each key is, for who writes such a file.
HELP = {
    "strict_limits": "a limit whose controller this node has not got is an error, and not left out with a warning",
    "layers": "what layers of images become: dir, erofs, or auto, which is erofs where this node takes it",
    "default_seccomp": "who names no seccomp profile gets RuntimeDefault",
    "certs_dir": "of HOST/hosts.toml, which say how registries are reached",
    "pinned_images": "names of images that nobody removes to make room",
    "cni_conf_dir": "where CNI's configuration is; empty for the built-in network whatever is there",
    "cni_bin_dirs": "where CNI's plug-ins are",
    "cdi_dirs": "where descriptions of devices are (CDI)",
    "pod_cidrs": "ranges of the built-in network's addresses",
    "stream_address": "where exec, attach and port-forward are served",
    "cgroup_driver": "systemd or cgroupfs; empty for systemd where it runs the node",
    "runtimes": "an OCI runtime for each handler that a RuntimeClass may name, such as",
}


def load_configuration(path: str | None) -> Configuration:
    """InvalidArgument names the file and the key."""
    if path is None:
        return Configuration()
    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except OSError as e:
        raise InvalidArgument(f"{path}: {reason(e)}", hint="--config names a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"{path}: {e}") from None
    given.pop("node", None)  # what `pyrun node run` has of its own
    made = Configuration(**{key: _value(path, key, value) for key, value in given.items()})
    if made.layers not in LAYERS:
        raise InvalidArgument(f"{path}: layers must be one of {', '.join(LAYERS)}, not {made.layers!r}")
    if made.cgroup_driver not in DRIVERS:
        raise InvalidArgument(f"{path}: cgroup_driver: {made.cgroup_driver!r} must be 'systemd' or 'cgroupfs'")
    return made


def _value(path: str, key: str, value: Any) -> Any:
    wanted = {item.name: str(item.type) for item in fields(Configuration)}
    if key not in wanted:
        close = get_close_matches(key, wanted, 1)
        hint = f"did you mean {close[0]}?" if close else f"keys are {', '.join(wanted)}; options of the node in [node]"
        raise InvalidArgument(f"{path}: there is no {key}", hint=hint)
    if key == "runtimes":
        return _runtimes(path, value)
    if wanted[key] == "bool" and isinstance(value, bool) or wanted[key] == "str" and isinstance(value, str):
        return value
    if wanted[key].startswith("tuple") and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    kind = {"bool": "true or false", "str": "a string"}.get(wanted[key], "a list of strings")
    raise InvalidArgument(f"{path}: {key} must be {kind}")


def _runtimes(path: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        hint = '[runtimes.runc], and in it path = "/usr/sbin/runc"'
        raise InvalidArgument(f"{path}: runtimes must be tables", hint=hint)
    made = {}
    for name, table in value.items():
        place = f"{path}: runtimes.{name}"
        if not HANDLER.fullmatch(name) or name == "pyrun":
            raise InvalidArgument(
                f"{place}: the name of a handler is made of a-z, 0-9 and -, and pyrun is our own",
                hint="it is what a RuntimeClass has as its handler",
            )
        program = table.get("path") if isinstance(table, dict) else None
        if not isinstance(program, str) or not program.startswith("/") or set(table) != {"path"}:
            raise InvalidArgument(f"{place} has one key, path: the absolute path of an OCI runtime")
        made[name] = program
    return made
