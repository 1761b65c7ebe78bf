"""PodSandboxConfig → SandboxRequest, pure: all that is checked before anything is made.

What is refused here is refused by its name: a mode that there is not, a sysctl of the node's, a host name that is none.
Each value that ends in a file of the container's /etc is looked at first, for a line break in a search domain would
be a line of its own choosing.
"""

from __future__ import annotations

import json

from ...errors import InvalidArgument
from ...facts import Facts
from ...oci.checks_linux import check_sysctl, sysctl_path
from ...oci.model import IdMapping
from ...plan.sandbox import SandboxRequest
from .cgroups import CGROUPFS, PodCgroups, plan_cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

POD, CONTAINER, NODE, TARGET = range(4)  # NamespaceMode
MODES = {POD: "POD", CONTAINER: "CONTAINER", NODE: "NODE", TARGET: "TARGET"}
SHM_BYTES = 64 << 20
HOST_NAME_MAX = 64
MAX_MAPS = 340  # user_namespaces(7)
OPTIONS = "linux.security_context.namespace_options"
LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def plan_request(
    pod: str,
    directory: str,
    config: Any,
    facts: Facts,
    *,
    files: dict[str, str],
    unprivileged: bool = True,
    driver: str = CGROUPFS,
) -> SandboxRequest:
    """What a PodSandboxConfig asks for. InvalidArgument.

    files: the host's resolv.conf, hostname and hosts, as pods of the node's network have them. unprivileged: a pod
    without a user namespace may bind any port and send echo requests without a capability, as with containerd.
    driver: who makes cgroups."""
    if config.HasField("windows"):
        raise InvalidArgument("windows: this is Linux")
    options = config.linux.security_context.namespace_options
    kinds = ["net"] if _own(options.network, "network") else []
    if _own(options.ipc, "ipc"):
        kinds.append("ipc")
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    if options.HasField("userns_options") and _own(options.userns_options.mode, "userns_options.mode"):
        kinds.insert(0, "user")
        uids = _maps(options.userns_options.uids, "uids")
        gids = _maps(options.userns_options.gids, "gids")
    if options.pid == TARGET or options.pid not in MODES:
        raise InvalidArgument(f"{OPTIONS}.pid: a pod can't have mode {MODES.get(options.pid, options.pid)}")
    own_network = "net" in kinds
    if own_network:
        kinds.append("uts")
    hostname = _hostname(config.hostname)
    name = hostname or files.get("hostname", "").strip()
    etc = {"resolv.conf": resolv_conf(config, files.get("resolv.conf", "")), "hostname": name + "\n"}
    etc["hosts"] = LOCAL if own_network else files.get("hosts", LOCAL)
    cgroups = plan_cgroups(pod, config.linux.cgroup_parent, driver, facts)
    sysctls = _sysctls(dict(config.linux.sysctls), kinds)
    if unprivileged and own_network and "user" not in kinds:
        sysctls.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
        sysctls.setdefault("net.ipv4.ping_group_range", "0 2147483647")
    return SandboxRequest(
        id=pod,
        directory=directory,
        namespaces=tuple(kinds),
        uid_mappings=uids,
        gid_mappings=gids,
        hostname=hostname,
        sysctls=sysctls,
        cgroup=None if cgroups.slice else cgroups.own,
        files=etc,
        shm_size=SHM_BYTES if "ipc" in kinds else 0,
        record=record_of(pod, kinds, hostname, cgroups, uids, gids),
    )


def record_of(
    pod: str,
    kinds: list[str],
    hostname: str,
    cgroups: PodCgroups,
    uids: tuple[IdMapping, ...],
    gids: tuple[IdMapping, ...],
) -> bytes:
    """What sandbox.json has: enough to end the sandbox, and to make a Sandbox of it after a restart."""
    maps = [[[m.container_id, m.host_id, m.size] for m in side] for side in (uids, gids)]
    found = {"id": pod, "namespaces": kinds, "hostname": hostname, **cgroups.record(), "maps": maps}
    return json.dumps(found).encode()


def _own(mode: int, what: str) -> bool:
    if mode in (POD, NODE):
        return mode == POD
    raise InvalidArgument(f"{OPTIONS}.{what}: a pod has mode POD or NODE, not {MODES.get(mode, mode)}")


def _maps(given: Any, what: str) -> tuple[IdMapping, ...]:
    at = f"{OPTIONS}.userns_options.{what}"
    if not given:
        raise InvalidArgument(f"{at}: a user namespace needs a mapping")
    if len(given) > MAX_MAPS:
        raise InvalidArgument(f"{at}: {len(given)} mappings are more than the kernel takes ({MAX_MAPS})")
    maps = tuple(IdMapping(container_id=m.container_id, host_id=m.host_id, size=m.length) for m in given)
    for m in maps:
        if not m.size or m.container_id + m.size > 1 << 32 or m.host_id + m.size > 1 << 32:
            raise InvalidArgument(f"{at}: {m.container_id} {m.host_id} {m.size} is no range of ids")
    return maps


def _hostname(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > HOST_NAME_MAX:
        raise InvalidArgument(f"hostname: {len(raw)} bytes are more than the {HOST_NAME_MAX} that the kernel takes")
    if not all(c.isalnum() or c in "-._" for c in name) or not name.isascii():
        raise InvalidArgument(f"hostname: {name!r} has other characters than letters, digits, '-', '.' and '_'")
    return name


def _sysctls(given: dict[str, str], kinds: list[str]) -> dict[str, str]:
    """CVE-2022-0532: what belongs to a namespace of the node's is refused, as is what belongs to none."""
    faults: list[tuple[Any, str]] = []
    found = {}
    have = {"network" if kind == "net" else kind for kind in kinds}
    for key, value in sorted(given.items()):
        path = sysctl_path(key)
        if key.isprintable() and key.isascii() and " " not in key:
            check_sysctl(key, have, faults)
        else:
            faults.append((f"/linux/sysctls/{key!r}", "is not the name of a sysctl"))
        if "\0" in value or "\n" in value or len(value) > 4096:
            faults.append((f"/linux/sysctls/{key}", "its value may be one line of 4096 bytes"))
        if path.startswith("user/"):
            faults.append((f"/linux/sysctls/{key}", "is not among those that a pod may set"))
        found[key] = value
    if faults:
        raise InvalidArgument("linux.sysctls: " + "; ".join(f"{at.rpartition('/')[2]} {text}" for at, text in faults))
    return found


def is_of_an_interface(key: str) -> bool:
    """Whether a sysctl may be about the pod's interface: it is set when that is there, as the file of eth0 is not there
    before, and what is written to `all` goes to the interfaces that there are."""
    parts = sysctl_path(key).split("/")
    return len(parts) > 3 and parts[0] == "net" and parts[2] in ("conf", "neigh")


def asks_for_dns(config: Any) -> bool:
    dns = config.dns_config
    return bool(config.HasField("dns_config") and (dns.servers or dns.searches or dns.options))


def resolv_conf(config: Any, hosts: str) -> str:
    """The pod's resolv.conf: what dns_config says, the host's own where it says nothing."""
    dns = config.dns_config
    return resolv_conf_of(dns.servers, dns.searches, dns.options) if asks_for_dns(config) else hosts


def resolv_conf_of(
    servers: Iterable[str], searches: Iterable[str], options: Iterable[str], where: str = "dns_config"
) -> str:
    """InvalidArgument, by the name `where`, where a word would be more than one."""
    for name, words in (("servers", servers), ("searches", searches), ("options", options)):
        for word in words:
            if not word or len(word) > 1024 or not word.isprintable() or any(c.isspace() for c in word):
                raise InvalidArgument(f"{where}.{name}: {word!r} can't be a word of resolv.conf")
    lines = [f"nameserver {server}" for server in servers]
    if searches:
        lines.insert(0, "search " + " ".join(searches))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"
