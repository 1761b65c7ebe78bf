"""The daemon's configuration: a TOML file, in which every key has a meaning; one that has none is an error."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields

from ..errors import InvalidArgument, reason
from ..pod.sandbox.cgroups import CGROUPFS, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LAYERS = ("dir", "erofs", "auto")


DRIVERS = ("", SYSTEMD, CGROUPFS)


@dataclass(frozen=True, slots=True)
class Configuration:
    """strict_limits: a limit whose controller this node has not got is an error, and not left out with a warning.
    layers: what layers of images become, `dir`, `erofs`, or `auto`, which is erofs where this node takes it.
    default_seccomp: who names no seccomp profile gets RuntimeDefault. certs_dir: of HOST/hosts.toml. pinned_images:
    names of images that a kubelet shall not remove to make room. cni_conf_dir: "" for the built-in network whatever is
    there. cni_bin_dirs; pod_cidrs: ranges of the built-in network. stream_address: where exec, attach and port-forward
    are served. cgroup_driver: systemd or cgroupfs; "" for systemd where it runs the node."""

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
    made = Configuration(**{key: _value(path, key, value) for key, value in given.items()})
    if made.layers not in LAYERS:
        raise InvalidArgument(f"{path}: layers must be one of {', '.join(LAYERS)}, not {made.layers!r}")
    if made.cgroup_driver not in DRIVERS:
        raise InvalidArgument(f"{path}: cgroup_driver: {made.cgroup_driver!r} must be 'systemd' or 'cgroupfs'")
    return made


def _value(path: str, key: str, value: Any) -> Any:
    wanted = {item.name: str(item.type) for item in fields(Configuration)}
    if key not in wanted:
        raise InvalidArgument(f"{path}: there is no {key}", hint=f"keys are {', '.join(wanted)}")
    if wanted[key] == "bool" and isinstance(value, bool) or wanted[key] == "str" and isinstance(value, str):
        return value
    if wanted[key].startswith("tuple") and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    kind = {"bool": "true or false", "str": "a string"}.get(wanted[key], "a list of strings")
    raise InvalidArgument(f"{path}: {key} must be {kind}")
