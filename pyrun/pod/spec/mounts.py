"""The mounts: what every container has, then those of the request, a path before what lies below it.

One of the request takes the place of the usual one on the same path, and one on /dev that of all below it.
"""

from __future__ import annotations

from ...plan.rootfs.rootfs_plan import clean_path
from .draft import CONTEXT, Draft, check_path, refuse
from .propagation import BIDIRECTIONAL, HOST_TO_CONTAINER, PRIVATE, check_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .layers import ImageMount
    from .node import Node

QUIET = ("nosuid", "noexec", "nodev")
TMPFS_IDMAP = (6, 3)  # the first kernel in which a tmpfs may be mounted with mappings
# What a bind may be given in Mount.mount_options: flags of the mount, nothing of the file system's.
MOUNT_OPTIONS = frozenset(
    (*QUIET, "suid", "exec", "dev", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow", "symfollow")
)
ETC = ("hostname", "hosts", "resolv.conf")


def plan_mounts(d: Draft, config: Any, sandbox: Any, node: Node, images: dict[int, ImageMount]) -> None:
    wanted = [(i, m, clean_path(check_path(f"mounts.{i}.container_path", m.container_path))) for i, m in _all(config)]
    taken = {dest for _, _, dest in wanted}
    found: list[dict[str, Any]] = []
    for mount, place in _usual(config, sandbox, node):
        dest = mount["destination"]
        if dest in taken or ("/dev" in taken and dest.startswith("/dev/")):
            continue
        d.note(f"/mounts/{len(found)}", place)
        found.append(mount)
    rootfs = ""
    for index, m, dest in sorted(wanted, key=lambda item: item[2].count("/") if item[2] != "/" else 0):
        d.note(f"/mounts/{len(found)}", f"mounts.{index}")
        if m.image.image:
            found.append(_image_mount(index, m, dest, images, sandbox))
            continue
        found.append(_bind(index, m, dest, node))
        if m.propagation == BIDIRECTIONAL:
            rootfs = "rshared"
        elif m.propagation == HOST_TO_CONTAINER:
            rootfs = rootfs or "rslave"
    d.doc["mounts"] = found
    if rootfs:
        d.doc["linux"]["rootfsPropagation"] = rootfs
        d.note("/linux/rootfsPropagation", "mounts")


def _all(config: Any) -> list[tuple[int, Any]]:
    return list(enumerate(config.mounts))


def _usual(config: Any, sandbox: Any, node: Node) -> list[tuple[dict[str, Any], str]]:
    """What Kubernetes' containers have. Those of /etc can't be written where the root can't."""
    context = config.linux.security_context
    kernel = "rw" if context.privileged else "ro"
    privileged = f"{CONTEXT}.privileged"
    made: list[tuple[dict[str, Any], str]] = [
        (_mount("/proc", "proc", "proc", *QUIET), "config"),
        (_mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"), "config"),
        (
            _mount(
                "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
            ),
            "config",
        ),
        (_mount("/dev/mqueue", "mqueue", "mqueue", *QUIET), "config"),
        (_sys(sandbox, kernel), privileged),
        (_mount("/sys/fs/cgroup", "cgroup", "cgroup", *QUIET, "relatime", kernel), privileged),
    ]
    shm = ("rbind", "rprivate", *QUIET, "rw") if sandbox.ipc else ("rbind", "rprivate")
    made.append((_mount("/dev/shm", "bind", sandbox.shm, *shm), "pod.linux.security_context.namespace_options.ipc"))
    readonly = "ro" if context.readonly_rootfs else "rw"
    for name, path in zip(ETC, (sandbox.hostname_file, sandbox.hosts, sandbox.resolv_conf), strict=True):
        mount = _mount(f"/etc/{name}", "bind", path, "rbind", "rprivate", *QUIET, readonly)
        if sandbox.user and node.facts.kernel >= TMPFS_IDMAP:
            mount |= mappings(sandbox)
        made.append((mount, "pod.dns_config" if name == "resolv.conf" else "pod.hostname"))
    return made


def _sys(sandbox: Any, kernel: str) -> dict[str, Any]:
    """sysfs shows a network namespace, and only who owns that may mount it: a container in a user namespace on the
    node's network gets the node's, bound, which it can't write to."""
    if sandbox.user and not sandbox.net:
        return _mount("/sys", "bind", "/sys", "rbind", "rslave", *QUIET, "ro", "rro")
    return _mount("/sys", "sysfs", "sysfs", *QUIET, kernel)


def _mount(destination: str, type: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": type, "source": source, "options": list(options)}


def mappings(sandbox: Any) -> dict[str, list[dict[str, int]]]:
    """Of its user namespace, as config.json has them."""
    return {
        key: [{"containerID": m.container_id, "hostID": m.host_id, "size": m.size} for m in maps]
        for key, maps in (("uidMappings", sandbox.uid_mappings), ("gidMappings", sandbox.gid_mappings))
    }


def _bind(index: int, m: Any, dest: str, node: Node) -> dict[str, Any]:
    place = f"mounts.{index}"
    check_path(f"{place}.host_path", m.host_path)
    if m.image_sub_path:
        refuse(f"{place}.image_sub_path", "is for a mount of an image")
    if m.propagation not in (PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL):
        refuse(f"{place}.propagation", f"{m.propagation} is no propagation")
    check_source(f"{place}.propagation", m.propagation, node.real_paths.get(m.host_path, m.host_path), node.mountinfo)
    options = ["rbind", {PRIVATE: "rprivate", HOST_TO_CONTAINER: "rslave", BIDIRECTIONAL: "rshared"}[m.propagation]]
    options.append("ro" if m.readonly else "rw")
    if m.recursive_read_only:
        if not m.readonly or m.propagation != PRIVATE:
            refuse(f"{place}.recursive_read_only", "needs readonly, and propagation private")
        options.append("rro")
    for number, word in enumerate(m.mount_options):
        if word not in MOUNT_OPTIONS:
            refuse(f"{place}.mount_options.{number}", f"{word!r} is none of {', '.join(sorted(MOUNT_OPTIONS))}")
        options.append(word)
    mount = _mount(dest, "bind", m.host_path, *options)
    if m.uidMappings or m.gidMappings:
        mount["uidMappings"] = _mappings(m.uidMappings)
        mount["gidMappings"] = _mappings(m.gidMappings)
    return mount


def _mappings(given: Any) -> list[dict[str, int]]:
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.length} for m in given]


def _image_mount(index: int, m: Any, dest: str, images: dict[int, ImageMount], sandbox: Any) -> dict[str, Any]:
    place = f"mounts.{index}"
    for name in ("host_path", "mount_options", "uidMappings", "gidMappings"):
        if getattr(m, name):
            refuse(f"{place}.{name}", "is not for a mount of an image")
    if m.propagation != PRIVATE:
        refuse(f"{place}.propagation", "an image is mounted with propagation private")
    if not m.readonly:
        refuse(f"{place}.readonly", "an image is mounted read-only", hint="set readonly")
    if index not in images:
        refuse(f"{place}.image", f"{m.image.image} is not on this node", hint="pull it first")
    mount = images[index].mount(dest)
    if sandbox.user:
        mount |= mappings(sandbox)
    return mount
