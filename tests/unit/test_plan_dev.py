"""The planner of /dev, the console, hidden paths and sysctls."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.errors import ConfigError
from pyrun.facts import CAP_MKNOD
from pyrun.oci.model import ConsoleSize, Device, IdMapping, Spec
from pyrun.plan.model.steps import PARENT, STAGE2, Label, Mknodat, MountSetattr, Openat2, OpenTree, Step
from pyrun.plan.rootfs.mount_options import RDONLY
from pyrun.plan.rootfs.rootfs_plan import IN_ROOT, NONE, PROC_SUPER_MAGIC, RESOLVE_NO_SYMLINKS
from tests.support.executor.plans import at, bind, build, facts, fails, make_spec, names, of

# --- /dev ------------------------------------------------------------------------------------------------------------


def test_default_devices_and_links() -> None:
    plan, rp = build(make_spec())
    nodes = of(plan, "Mknodat")
    assert [(n["name"], n["dev"] >> 32, n["dev"] & 0xFFFF) for n in nodes] == [
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    ]  # fmt: skip
    assert {n["mode"] for n in nodes} == {0o020666}
    assert [s["name"] for s in of(plan, "Symlinkat")] == ["fd", "stdin", "stdout", "stderr", "core", "ptmx"]
    through = {s["dir"] for kind in ("Mknodat", "Symlinkat", "Unlinkat") for s in of(plan, kind)}
    assert through == {rp.dev}, "one way into /dev (CVE-2026-41579)"
    (opened,) = (s for s in of(plan, "MakeTarget") if s["out"] == rp.dev)
    assert opened["resolve"] == RESOLVE_NO_SYMLINKS


def test_devices_of_the_config() -> None:
    devices = (
        Device(type="c", path="/dev/net/tun", major=10, minor=200, file_mode=0o640, uid=3, gid=4),
        Device(type="u", path="/dev/null", major=1, minor=3, file_mode=0o600),
        Device(type="p", path="/var/pipe"),
        Device(type="c", path="/dev/ptmx", major=5, minor=2),
    )
    plan, rp = build(make_spec(devices=devices))
    nodes = {n["name"]: n for n in of(plan, "Mknodat")}
    assert nodes["tun"]["owner"] == 4 << 32 | 3 and nodes["tun"]["mode"] == 0o020640
    assert nodes["null"]["mode"] == 0o020600, "config.json's replaces the default one"
    assert nodes["pipe"]["mode"] == 0o010666
    assert "ptmx" not in nodes
    parents = [(t["root"], t["path"]) for t in of(plan, "MakeTarget")]
    assert (rp.dev, "/net") in parents and (rp.root, "/var") in parents
    fails(make_spec(devices=(Device(type="c", path="/dev", major=1, minor=1),)), "/linux/devices/0/path", "can't be")


def in_a_user_namespace(device: Device, mapping: IdMapping) -> Spec:
    return make_spec(kinds=("mount", "user"), devices=(device,), uid_mappings=(mapping,), gid_mappings=(mapping,))


def test_devices_for_a_user_namespace_are_made_by_the_parent() -> None:
    spec = in_a_user_namespace(
        Device(type="b", path="/dev/x", major=7, minor=1, uid=3, gid=4), IdMapping(container_id=3, host_id=1000, size=2)
    )
    plan, rp = build(spec)
    (node,) = [step for step in plan.lanes[PARENT] if isinstance(step, Mknodat)]
    assert node.args["dir"] == rp.node_mount and node.args["owner"] == 1001 << 32 | 1000
    ((errno, rest),) = node.on
    assert errno == 1 and rest is not None, "a device cgroup may refuse it: the host's is bound then"
    (bound,) = [s for s in of(plan, "CheckType") if s["type"] == 0o060000]
    assert bound["dev"] == 7 << 32 | 1, "and it must be that device"


@pytest.mark.parametrize("host", [{"in_userns": True}, {"caps": ~(1 << CAP_MKNOD)}, {"first": 5}])
def test_devices_for_a_user_namespace_are_the_hosts_where_none_can_be_made(host: dict[str, Any]) -> None:
    """first: the first id that is mapped; the device's owner is not then."""
    host = dict(host)
    mapping = IdMapping(container_id=host.pop("first", 0), host_id=1000, size=10)
    plan, rp = build(in_a_user_namespace(Device(type="b", path="/dev/x", major=7, minor=1), mapping), facts(**host))
    assert not of(plan, "Mknodat") and rp.node_mount == NONE
    assert "/dev/x" in [s.get("path") for s in of(plan, "OpenTree")]


@pytest.mark.parametrize("host", [{"in_userns": True}, {"rootless": True}, {"caps": 0}])
def test_devices_are_bound_where_mknod_is_refused(host: dict[str, Any]) -> None:
    spec = make_spec(devices=(Device(type="b", path="/dev/x", major=7, minor=1), Device(type="p", path="/dev/p")))
    plan, rp = build(spec, facts(**host))
    assert [n["name"] for n in of(plan, "Mknodat")] == ["p"], "a FIFO may always be made"
    assert [(c["major"], c["minor"]) for c in of(plan, "CheckDevice")] == [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
    ]
    assert of(plan, "CheckType")[0]["type"] == 0o060000
    assert of(plan, "CheckType")[0]["dev"] == 7 << 32 | 1
    targets = [t for t in of(plan, "MakeTarget") if t.get("like") == rp.mount]
    assert len(targets) == 7 and {t["root"] for t in targets} == {rp.dev}


def test_a_bound_dev_is_left_alone() -> None:
    plan, _ = build(make_spec(bind("/dev", "rbind", dest="/dev")))
    assert not {"Mknodat", "Symlinkat", "Unlinkat"} & set(names(plan.lanes[STAGE2]))


def test_console() -> None:
    spec = make_spec(process={"terminal": True, "console_size": ConsoleSize(height=24, width=80)})
    plan, rp = build(spec, console=True)
    steps = at(plan, "/process/terminal")
    kinds = ["Openat2", "CheckFs", "Openpt", "OpenTree", "MakeTarget", "MoveMount", "SetStdio"]
    assert names(steps) == kinds
    assert (steps[2].args["columns"], steps[2].args["rows"]) == (80, 24)
    assert steps[0].args["dir"] == steps[4].args["root"] == rp.dev
    assert steps[3].args["dir"] == steps[2].args["slave"] and steps[3].args["path"] == ""
    assert steps[4].args["resolve"] == RESOLVE_NO_SYMLINKS
    with pytest.raises(ConfigError, match="mount namespace"):
        build(make_spec(kinds=("pid",)), console=True)


# --- hidden paths and sysctls ----------------------------------------------------------------------------------------


def jump(step: Step, errno: int) -> Label | None:
    return dict(step.on)[errno]


def test_masked_paths() -> None:
    plan, rp = build(make_spec(masked_paths=("/proc/kcore", "/sys/firmware/", "/proc/kcore")))
    steps = at(plan, "/linux/maskedPaths/0")
    assert names(steps) == ["Openat2", "CheckType", "OpenTree", "OpenTree", "MoveMount"]
    assert not at(plan, "/linux/maskedPaths/2"), "the same path twice is one mask"
    assert (steps[0].args["dir"], steps[0].args["resolve"]) == (rp.root, IN_ROOT)
    done = jump(steps[0], 2)
    assert done is not None and done is jump(steps[0], 20)
    assert done.index == plan.index(steps[-1]) + 1, "a missing path is passed over"
    file = jump(steps[1], 20)
    assert file is not None and file.index == plan.index(steps[3])
    mask = steps[3].args["dir"]
    (clone,) = (s for s in at(plan, "/linux/maskedPaths") if isinstance(s, OpenTree) and s.args["out"] == mask)
    null = clone.args["dir"]
    checks = [s for s in plan.lanes[STAGE2] if type(s).__name__ == "CheckDevice" and s.args["fd"] == null]
    assert len(checks) == 1 and plan.index(checks[0]) < plan.index(steps[0])
    (opened,) = (s for s in plan.lanes[STAGE2] if isinstance(s, Openat2) and s.args["out"] == null)
    assert "dir" not in opened.args and opened.args["path"] == "/dev/null", "the host's (CVE-2025-31133)"


@pytest.mark.parametrize(("kernel", "made"), [((6, 15), 1), ((6, 14), 3)])
def test_masks_of_files_are_read_only(kernel: tuple[int, int], made: int) -> None:
    """They are the host's /dev/null, whose mode and owner are not the container's to change."""
    plan, _ = build(make_spec(masked_paths=("/a", "/b", "/c")), facts(kernel=kernel))
    clones = [
        s for s in plan.lanes[STAGE2] if isinstance(s, MountSetattr) and (s.at or "").startswith("/linux/maskedPaths")
    ]
    assert [(s.args["set"], s.args["propagation"]) for s in clones] == [(RDONLY, 1 << 18)] * made


@pytest.mark.parametrize(("kernel", "made"), [((6, 15), 1), ((6, 14), 3)])
def test_one_empty_tmpfs_where_the_kernel_can_clone_it(kernel: tuple[int, int], made: int) -> None:
    plan, _ = build(make_spec(masked_paths=("/a", "/b", "/c")), facts(kernel=kernel))
    assert [f["attrs"] for f in of(plan, "Fsmount")] == [RDONLY] * made


def test_readonly_paths() -> None:
    plan, rp = build(make_spec(readonly_paths=("/proc/sys",)))
    steps = at(plan, "/linux/readonlyPaths/0")
    assert names(steps) == ["Openat2", "OpenTree", "MountSetattr", "MoveMount"]
    assert steps[2].args == {"mount": rp.mount, "at_flags": 0x1000, "set": RDONLY}
    assert [e for e, _ in steps[0].on] == [2, 20]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/rp_filter", "sys/net/ipv4/conf/eth0.1/rp_filter"),
        ("net.ipv4.conf.eth0/1.rp_filter", "sys/net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_sysctls(key: str, path: str) -> None:
    plan, rp = build(make_spec(sysctl={key: " 1\t"}))
    (write,) = of(plan, "WriteFile")
    assert (write["dir"], write["path"], write["data"], write["magic"]) == (rp.proc, path, " 1\t", PROC_SUPER_MAGIC)
    assert write["resolve"] & 0b1111 == 0b1111, "no other mount, no magic link, no symlink, only below (CVE-2025-52881)"
    assert at(plan, "/linux/sysctl/" + key.replace("/", "~1"))
    assert rp.proc in plan.inherit, "the host's stands in when no private one may be made"


def test_a_private_proc_is_made_only_for_what_needs_it() -> None:
    assert build(make_spec())[1].proc == NONE
    assert build(make_spec(process={"apparmor_profile": "x"}))[1].proc != NONE
    assert build(make_spec(process={"selinux_label": "x"}))[1].proc != NONE
