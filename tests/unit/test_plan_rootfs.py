"""The planner of the file system: which steps, in which order, and what it refuses. Nothing here touches the host."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError
from pyrun.oci.model import (
    Device,
    IdMapping,
    Linux,
    Mount,
    Namespace,
)
from pyrun.plan.model.steps import PARENT, STAGE2, MountSetattr, OpenTree
from pyrun.plan.rootfs.mount_options import (
    KNOWN_OPTIONS,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    NOEXEC,
    RDONLY,
)
from pyrun.plan.rootfs.mounts import MAX_CLONES
from pyrun.plan.rootfs.rootfs_plan import NONE, PROC_SUPER_MAGIC, RESOLVE_NO_SYMLINKS, clean_path
from tests.support.executor.plans import (
    ALL,
    MAPS,
    ROOTFS,
    USER,
    at,
    bind,
    bits,
    build,
    facts,
    fails,
    make_spec,
    names,
    of,
)
from tests.support.properties import given

# --- order -----------------------------------------------------------------------------------------------------------


def test_the_order_of_all() -> None:
    spec = make_spec(
        bind(),
        process={"cwd": "/"},
        readonly=True,
        readonly_paths=("/proc/sys",),
        masked_paths=("/proc/kcore",),
        sysctl={"net.ipv4.ip_forward": "1"},
    )
    plan, rp = build(spec)
    stage2 = plan.lanes[STAGE2]
    order = [
        next(i for i, s in enumerate(stage2) if type(s).__name__ == kind and (pointer is None or s.at == pointer))
        for kind, pointer in [
            ("MountSetattr", None),  # propagation, before anything is mounted
            ("MoveMount", "/root/path"),
            ("MoveMount", "/mounts/0"),
            ("Mknodat", None),
            ("Symlinkat", None),
            ("MoveMount", "/linux/readonlyPaths/0"),
            ("MoveMount", "/linux/maskedPaths/0"),
            ("PivotRoot", None),
            ("WriteFile", "/linux/sysctl/net.ipv4.ip_forward"),
            ("MountSetattr", "/root/readonly"),
        ]
    ]
    assert order == sorted(order)
    assert stage2[-1].at == "/root/readonly", "hooks and later mounts write to the root until the end"
    assert stage2[-1].args["mount"] == rp.root


def test_mounts_in_listed_order() -> None:
    mounts = [bind(f"/s{i}", dest=dest) for i, dest in enumerate(("/a/b/c", "/a", "/z", "/a/b"))]
    plan, _ = build(make_spec(*mounts))
    assert [s["path"] for s in of(plan, "MakeTarget")[:4]] == ["/a/b/c", "/a", "/z", "/a/b"]


def test_a_simple_bind_is_four_steps() -> None:
    plan, rp = build(make_spec(bind("/src", "bind", "ro")))
    steps = at(plan, "/mounts/0")
    assert names(steps) == ["OpenTree", "MountSetattr", "MakeTarget", "MoveMount"]
    assert steps[1].args["set"] == RDONLY and steps[1].args["propagation"] == MS_PRIVATE
    assert steps[2].args["like"] == rp.mount and steps[2].args["root"] == rp.root
    assert all(s.on == () for s in steps)


def test_every_step_says_why_or_where() -> None:
    spec = make_spec(bind(), Mount(destination="/proc", type="proc"), masked_paths=("/x",), sysctl={"net.a": "1"})
    for step in build(spec)[0].steps:
        assert step.at or step.why or type(step).__name__ in ("Goto", "Umask", "Symlinkat", "Fsconfig", "Fsmount")


# --- binds -----------------------------------------------------------------------------------------------------------


def test_rbind_keeps_the_flags_of_mounts_below() -> None:
    plan, _ = build(make_spec(bind("/src", "rbind", "ro")))
    flags, propagation = (s.args for s in at(plan, "/mounts/0") if isinstance(s, MountSetattr))
    assert (flags["set"], flags["at_flags"]) == (RDONLY, 0x1000)
    assert (propagation["propagation"], propagation["at_flags"]) == (MS_PRIVATE, 0x9000)


def test_recursive_attributes_reach_below() -> None:
    plan, _ = build(make_spec(bind("/src", "rbind", "rro", "rexec", "rslave")))
    propagation, recursive = (s.args for s in at(plan, "/mounts/0") if isinstance(s, MountSetattr))
    assert propagation["propagation"] == MS_SLAVE
    assert (recursive["set"], recursive["clear"], recursive["at_flags"]) == (RDONLY, NOEXEC, 0x9000)


def test_locked_flags_stay_in_a_user_namespace() -> None:
    """The first call must do what was asked; the one that clears the rest may be refused."""
    plan, _ = build(make_spec(bind("/src", "bind", "ro", "exec"), kinds=(*ALL, "user"), **USER))
    must, may = (s for s in at(plan, "/mounts/0") if isinstance(s, MountSetattr))
    assert (must.args["set"], must.args["clear"], must.on) == (RDONLY, NOEXEC, ())
    assert not bits(may, "clear") & NOEXEC and may.on == ((1, None),)
    plan, _ = build(make_spec(bind("/src", "bind"), kinds=(*ALL, "user"), **USER))
    (only,) = (s for s in at(plan, "/mounts/0") if isinstance(s, MountSetattr))
    assert "clear" not in only.args, "without a flag in the options the source's flags stay"


def test_sources() -> None:
    plan, _ = build(make_spec(bind("/abs"), bind("below/it"), Mount(destination="/x", source="/y", options=("rbind",))))
    assert [s["path"] for s in of(plan, "OpenTree") if s["path"]][:3] == ["/abs", "/b/below/it", "/y"]
    fails(make_spec(Mount(destination="/x", type="bind")), "/mounts/0/source", "needs it")


def test_unknown_option_of_a_bind_is_named() -> None:
    fails(make_spec(bind("/src", "bind", "ro", "nosuit")), "/mounts/0/options/2", "nosuit is not an option")
    for word in ("ro=recursive", "rro=1", "idmap=uids=0-1000-1", "private=yes"):
        fails(make_spec(bind("/src", "bind", word)), "/mounts/0/options/1", f"{word} is not an option")


@pytest.mark.parametrize("option", ["copy", "nocopy"])
def test_podmans_options_of_a_named_volume_mean_nothing(option: str) -> None:
    plans = [build(make_spec(bind("/src", "rbind", *words)))[0] for words in ((), (option,))]
    assert plans[0].encode() == plans[1].encode()


def test_unknown_option_of_a_file_system_is_its_own() -> None:
    plan, _ = build(make_spec(Mount(destination="/t", type="tmpfs", options=("huge=never", "nr_inodes=9", "odd"))))
    data = [((s.at or "")[-1], s.args["key"]) for s in at(plan, "/mounts/0/options")]
    assert data == [
        ("0", "huge"),
        ("1", "nr_inodes"),
        ("2", "odd"),
    ]


# --- what may be mounted where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest", ["/", "/.", "/a/..", "//", "/../.."])
def test_nothing_on_the_root(dest: str) -> None:
    fails(make_spec(bind(dest=dest)), "/mounts/0/destination", "root itself")


@pytest.mark.parametrize("dest", ["/proc", "/proc/", "/x/../proc", "//proc/."])
def test_only_proc_on_proc(dest: str) -> None:
    fails(make_spec(Mount(destination=dest, type="tmpfs")), "/mounts/0/destination", "only a procfs")
    plan, _ = build(make_spec(bind("/proc", "rbind", dest=dest)))
    assert [s["magic"] for s in of(plan, "CheckFs")] == [PROC_SUPER_MAGIC], "a bind must be of a procfs"
    plan, _ = build(make_spec(Mount(destination=dest, type="proc")))
    assert of(plan, "MakeTarget")[0]["resolve"] == RESOLVE_NO_SYMLINKS


@pytest.mark.parametrize("dest", ["/proc/self", "/proc/sys/kernel", "/a/../proc/1/attr", "/proc/cpuinfo/x"])
def test_nothing_inside_proc(dest: str) -> None:
    fails(make_spec(bind(dest=dest)), "/mounts/0/destination", "inside /proc")


def test_lxcfs_files_may_be_inside_proc() -> None:
    plan, _ = build(make_spec(bind("/var/lib/lxcfs/proc/meminfo", dest="/proc/meminfo")))
    target = of(plan, "MakeTarget")[0]
    assert (target["forbid"], target["resolve"]) == (0, RESOLVE_NO_SYMLINKS)


def test_all_other_targets_are_checked_when_it_runs() -> None:
    plan, _ = build(make_spec(bind(), Mount(destination="/sys", type="sysfs"), Mount(destination="/p", type="proc")))
    for target in of(plan, "MakeTarget")[:3]:
        assert (target["forbid"], target["mount"]) == (PROC_SUPER_MAGIC, 1)
    assert [t["resolve"] for t in of(plan, "MakeTarget")[:3]] == [0, RESOLVE_NO_SYMLINKS, RESOLVE_NO_SYMLINKS]


def test_a_type_is_needed() -> None:
    fails(make_spec(Mount(destination="/x", source="/y")), "/mounts/0/type", "missing")


# --- file systems ----------------------------------------------------------------------------------------------------


def test_tmpfs() -> None:
    plan, _ = build(make_spec(Mount(destination="/t", type="tmpfs", source="shm", options=("nosuid", "size=1m"))))
    kinds = ["MakeTarget", "Fsopen", "Fsconfig", "TmpfsMode", "Fsconfig", "Fsconfig", "Fsmount", "MoveMount"]
    assert names(at(plan, "/mounts/0")) == kinds
    plan, _ = build(make_spec(Mount(destination="/t", type="tmpfs", options=("mode=700",))))
    assert "TmpfsMode" not in names(at(plan, "/mounts/0"))


@pytest.mark.parametrize("dest", ["/t", "/dev"])
def test_read_only_tmpfs_is_so_at_the_end(dest: str) -> None:
    plan, rp = build(make_spec(Mount(destination=dest, type="tmpfs", options=("ro", "noexec"))))
    assert of(plan, "Fsmount")[0]["attrs"] == NOEXEC
    last = plan.lanes[STAGE2][-1]
    assert isinstance(last, MountSetattr) and last.args["set"] == RDONLY and last.at == "/mounts/0/options"
    assert last.args["mount"] == of(plan, "Fsmount")[0]["out"] != rp.mount, "nothing else comes into its slot"


def test_read_only_reaches_the_superblock_only_of_real_file_systems() -> None:
    def flags(fstype: str) -> list[Any]:
        plan, _ = build(make_spec(Mount(destination="/t", type=fstype, source="/dev/x", options=("ro", "sync"))))
        assert of(plan, "Fsmount")[0]["attrs"] == RDONLY
        return [s["key"] for s in of(plan, "Fsconfig") if s["cmd"] == 0]

    assert flags("ext4") == ["sync", "ro"]
    assert flags("sysfs") == ["sync"], "it belongs to the network namespace, and so to other containers"


def test_devpts_gid_where_no_such_group_is() -> None:
    """Left out where the maps lack it; where they are those of a user namespace that is joined, the kernel may refuse
    it."""
    mount = Mount(destination="/dev/pts", type="devpts", options=("gid=5",))
    small = (IdMapping(container_id=0, host_id=1000, size=1),)
    for spec, optional in [
        (make_spec(mount), [False]),
        (make_spec(mount, kinds=(*ALL, "user"), **USER), [False]),
        (make_spec(mount, kinds=(*ALL, "user"), uid_mappings=small, gid_mappings=small), []),
        (make_spec(mount, kinds=(*ALL, "user")), [True]),
    ]:
        found = [bool(s.on) for s in build(spec)[0].lanes[STAGE2] if s.args.get("key") == "gid"]
        assert found == optional


def test_tmpcopyup_is_done_before_it_is_attached() -> None:
    plan, rp = build(make_spec(Mount(destination="/etc", type="tmpfs", options=("tmpcopyup", "uid=3"))))
    kinds = names(at(plan, "/mounts/0"))
    assert kinds[-3:] == ["Fsmount", "CopyUp", "MoveMount"]
    assert of(plan, "CopyUp") == [{"hidden": rp.target, "mount": rp.mount, "keep_root": 1}]


LAYERS = [f"/layers/{'x' * 60}{i}" for i in range(6)]


def test_long_overlay_data_goes_layer_by_layer() -> None:
    mount = Mount(
        destination="/o",
        type="overlay",
        source="overlay",
        options=("lowerdir=" + ":".join(LAYERS) + "::/data\\:x", "upperdir=/u"),
    )
    plan, _ = build(make_spec(mount))
    keys = [(s["key"], s["value"]) for s in of(plan, "Fsconfig") if s.get("value")]
    expected = [*(("lowerdir+", layer) for layer in LAYERS), ("datadir+", "/data:x"), ("upperdir", "/u")]
    assert keys == [("source", "overlay"), *expected]


def test_what_fsconfig_does_not_take_goes_by_mount2() -> None:
    data = "lowerdir=" + ":".join(LAYERS)
    mount = Mount(destination="/o", type="overlay", options=(data, "upperdir=/u", "nosuid", "private"))
    plan, rp = build(make_spec(mount), facts(kernel=(6, 1)))
    steps = at(plan, "/mounts/0")
    assert names(steps) == ["MakeTarget", "Mount", "Openat2", "MountSetattr"]
    assert steps[1].args == {
        "onto": rp.target, "fstype": "overlay", "source": "overlay", "data": f"{data},upperdir=/u", "flags": 2,
    }  # fmt: skip
    plan, _ = build(make_spec(Mount(destination="/e", type="ext4", source="/dev/x", options=("iversion",))))
    assert of(plan, "Mount")[0]["flags"] == 1 << 23


def test_mount_label() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    mounts = (Mount(destination="/t", type="tmpfs"), Mount(destination="/sys", type="sysfs"), bind())
    host = facts(lsm=frozenset({"selinux"}))
    plan, _ = build(make_spec(*mounts, mount_label=label), host)
    assert [s.args["value"] for s in plan.steps if s.args.get("key") == "context"] == [label]
    fails(make_spec(mount_label=label), "/linux/mountLabel", "not enabled")


# --- cgroup ----------------------------------------------------------------------------------------------------------

CGROUP = Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("rw", "nosuid"))


def test_cgroup_is_cgroup2_of_its_namespace() -> None:
    plan, _ = build(make_spec(CGROUP))
    steps = at(plan, "/mounts/0")
    assert names(steps)[:5] == ["MakeTarget", "Fsopen", "Fsconfig", "Fsmount", "OpenTree"]
    assert steps[1].args["fstype"] == "cgroup2"
    assert steps[4].args["path"] == "/sys/fs/cgroup/c", "refused, it is the container's own cgroup, bound"


@pytest.mark.parametrize(
    ("user", "host", "readonly"),
    [(False, {}, False), (True, {}, True), (False, {"in_userns": True}, True)],
)
def test_cgroup_without_a_namespace_is_bound(user: bool, host: dict[str, Any], readonly: bool) -> None:
    """CVE-2023-25809: never writable where we are not root."""
    kinds = tuple(k for k in ALL if k != "cgroup") + (("user",) if user else ())
    plan, _ = build(make_spec(CGROUP, kinds=kinds, **(USER if user else {})), facts(cgroup_mount="/cg", **host))
    steps = at(plan, "/mounts/0")
    assert names(steps) == ["MakeTarget", "OpenTree", "MountSetattr", "MoveMount"]
    assert steps[1].args["path"] == "/cg"
    assert bool(bits(steps[2], "set") & RDONLY) is readonly


# --- the root --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "before", "root", "after"),
    [
        (None, MS_SLAVE, MS_PRIVATE, None),
        ("slave", MS_SLAVE, None, None),
        ("rslave", MS_SLAVE, None, None),
        ("private", MS_PRIVATE, MS_PRIVATE, None),
        ("unbindable", MS_PRIVATE, MS_PRIVATE, (MS_UNBINDABLE, 0x1000)),
        ("runbindable", MS_PRIVATE, MS_PRIVATE, (MS_UNBINDABLE, 0x9000)),
    ],
)
def test_propagation(kind: str | None, before: int, root: int | None, after: tuple[int, int] | None) -> None:
    plan, rp = build(make_spec(rootfs_propagation=kind))
    calls = of(plan, "MountSetattr")
    assert (calls[0]["path"], calls[0]["propagation"], calls[0]["at_flags"]) == ("/", before, 0x8000)
    on_root = [(c["propagation"], c["at_flags"]) for c in calls[1:] if c.get("mount") == rp.root]
    assert on_root == [*([(root, 0x9000)] if root else []), *([after] if after else [])]


def test_shared_root_finds_the_mount_that_carries_it() -> None:
    plan, rp = build(make_spec(rootfs_propagation="rshared"))
    calls = of(plan, "MountSetattr")
    assert [c.get("path") for c in calls[:3]] == [ROOTFS, "/b", "/"]
    assert all(c["propagation"] == MS_PRIVATE and "at_flags" not in c for c in calls[:3])
    assert calls[-1] == {"mount": rp.root, "at_flags": 0x9000, "propagation": MS_SHARED}


def test_no_mount_namespace_means_no_mounts() -> None:
    kinds = tuple(k for k in ALL if k != "mount")
    plan, _ = build(make_spec(Mount(destination="/proc", type="proc"), kinds=kinds))
    assert names(plan.lanes[STAGE2]) == ["Openat2", "Chroot"]
    assert plan.lanes[PARENT] == []


def test_what_would_be_missed_without_a_mount_namespace() -> None:
    kinds = tuple(k for k in ALL if k != "mount")
    fails(make_spec(bind(), kinds=kinds), "/mounts/0", "needs a mount namespace")
    fails(make_spec(kinds=kinds, readonly=True), "/root/readonly", "needs a mount namespace")
    fails(make_spec(kinds=kinds, rootfs_propagation="shared"), "/linux/rootfsPropagation", "needs a mount namespace")
    label = make_spec(kinds=kinds, mount_label="system_u:object_r:container_file_t:s0")
    fails(label, "/linux/mountLabel", "needs a mount namespace", facts(lsm={"selinux"}))
    fails(make_spec(kinds=kinds, devices=(Device(type="p", path="/dev/x"),)), "/linux/devices", "a mount namespace")


def test_cwd_is_made_in_the_root() -> None:
    plan, rp = build(make_spec(process={"cwd": "/a/../work/here"}))
    assert of(plan, "MakeTarget")[-1] == {"root": rp.root, "path": "/work/here", "mode": 0o755, "out": rp.target}


# --- user namespaces and idmaps --------------------------------------------------------------------------------------


def test_the_parent_clones_for_a_user_namespace() -> None:
    mounts = [bind(f"/s{i}", "rbind", dest=f"/d{i}") for i in range(MAX_CLONES + 5)]
    plan, rp = build(make_spec(*mounts, kinds=(*ALL, "user"), **USER))
    clones = of(plan, "OpenTree", PARENT)
    assert [c["path"] for c in clones] == [ROOTFS, *(f"/s{i}" for i in range(MAX_CLONES))]
    slaves = of(plan, "MountSetattr", PARENT)
    assert len(slaves) == len(clones) and {s["propagation"] for s in slaves} == {MS_SLAVE}
    assert set(plan.inherit) == {rp.root, *rp.clones.values()}
    tries = [s for s in at(plan, "/mounts/0") if isinstance(s, OpenTree)]
    assert [e for e, _ in tries[0].on] == [13, 22], "what stage 2 may not walk to is the parent's clone"


@pytest.mark.parametrize("host", [{"caps": 0, "euid": 1000, "rootless": True}])
def test_a_rootless_parent_clones_nothing(host: dict[str, Any]) -> None:
    plan, _ = build(make_spec(bind(), kinds=(*ALL, "user"), **USER), facts(**host))
    assert plan.lanes[PARENT] == []


IDMAP: dict[str, Any] = {"uid_mappings": (IdMapping(container_id=7, host_id=8, size=9),), "gid_mappings": MAPS}


def test_idmap_without_a_user_namespace() -> None:
    plan, rp = build(make_spec(bind("/a", "bind", **IDMAP), bind("/b", "rbind", "ridmap", dest="/e", **IDMAP)))
    assert of(plan, "MakeUserns", PARENT)[0]["uid_map"] == "7 8 9\n"
    assert len(rp.idmaps) == 1, "the same maps, one user namespace"
    calls = [c for c in of(plan, "MountSetattr") if c.get("set") == 0x100000]
    assert [c["at_flags"] for c in calls] == [0x1000, 0x9000]
    assert {c["userns"] for c in calls} == set(rp.idmaps.values()) <= set(plan.inherit)


def test_idmap_in_a_user_namespace_is_the_parents() -> None:
    plan, rp = build(make_spec(bind("/a", "bind", "idmap"), kinds=(*ALL, "user"), **USER))
    assert of(plan, "MakeUserns", PARENT)[0]["uid_map"] == "0 100000 65536\n"
    assert [c["set"] for c in of(plan, "MountSetattr", PARENT) if "set" in c] == [0x100000]
    assert "OpenTree" not in names(at(plan, "/mounts/0")), "a second clone would not be mapped"
    joined = make_spec(bind("/a", "bind", "idmap"), kinds=ALL).replace(
        linux=Linux(namespaces=(Namespace(type="mount"), Namespace(type="user", path="/ns/u")))
    )
    assert [s["path"] for s in of(build(joined)[0], "Openat2", PARENT)] == ["/proc", "/ns/u"]


def test_idmap_needs_maps_and_privilege() -> None:
    fails(make_spec(bind("/a", "bind", "idmap")), "/mounts/0", "needs uidMappings")
    spec = make_spec(bind("/a", "bind", "idmap"), kinds=(*ALL, "user"), **USER)
    fails(spec, "/mounts/0", "privilege", facts(caps=0, rootless=True))


# --- whatever comes in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "clean"), [("/a//b/./c/", "/a/b/c"), ("a/b", "/a/b"), ("/../..", "/"), ("/a/../../b", "/b"), ("", "/")]
)
def test_clean_path(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def is_well_formed(encoded: bytes) -> bool:
    """By the executor's own check, where it is built."""
    try:
        from pyrun._native import ffi, lib
    except ImportError:
        return True
    run = lib.px_new(encoded, len(encoded), ffi.new("int *"))
    if run != ffi.NULL:
        lib.px_free(run)
    return bool(run != ffi.NULL)


def elapsed(count: int) -> tuple[float, int]:
    spec = make_spec(*(bind(f"/s/{i}", "rbind", "ro", "rprivate", dest=f"/m/{i}") for i in range(count)))
    start = time.process_time()
    plan, _ = build(spec)
    plan.encode()
    return time.process_time() - start, len(plan.slots)


def test_ten_thousand_mounts() -> None:
    few, slots = elapsed(10)
    many, more = elapsed(10_000)
    assert more == slots, "the slots of one mount serve all"
    assert many < 3.0, f"{many:.2f} s of CPU"


ODD_PATHS = st.text(min_size=1, max_size=9).map(lambda text: "/" + text.replace("\0", ""))
PATHS = st.sampled_from(["/", "/proc", "/proc/x", "/dev", "/dev/pts", "/a/../b", "x", "/sys"]) | ODD_PATHS
ODD_OPTIONS = st.sampled_from(["size=1", "mode=7", "odd", "lowerdir=" + "/x:" * 200])
OPTIONS = st.lists(st.sampled_from(KNOWN_OPTIONS) | ODD_OPTIONS, max_size=5)
MOUNTS = st.builds(
    Mount,
    destination=PATHS,
    source=st.none() | PATHS,
    type=st.sampled_from([None, "bind", "tmpfs", "proc", "sysfs", "cgroup", "overlay", "devpts", "ext4"]),
    options=OPTIONS.map(tuple),
)
KINDS = st.sampled_from([ALL, (*ALL, "user"), ("mount",), ("pid",)])
ROOTLESS = {"caps": 0, "rootless": True}
HOSTS = st.sampled_from([{}, ROOTLESS, {"in_userns": True}, {"kernel": (5, 14)}, {"cgroup_mount": None}])


@given(st.lists(MOUNTS, max_size=4), KINDS, HOSTS, max_examples=300)
def test_host_paths_come_only_from_where_they_may(
    mounts: list[Mount], kinds: tuple[str, ...], host: dict[str, Any]
) -> None:
    """In stage 2 a path is the host's only for the root, sources of binds, and a few names of ours. All others lie
    below a descriptor, and are walked with RESOLVE_IN_ROOT or, in MakeTarget, by C code that does nothing else.
    """
    spec = make_spec(*mounts, kinds=kinds, masked_paths=("/m",), **(USER if "user" in kinds else {}))
    try:
        plan, rp = build(spec, facts(**host))
    except ConfigError as e:
        assert all(pointer.startswith("/mounts/") for pointer, _ in e.faults)
        return
    assert is_well_formed(plan.encode())
    sources = {m.source if (m.source or "").startswith("/") else f"/b/{m.source}" for m in mounts}
    ours = {"/", ROOTFS + "/", "/dev/null", "/proc/kcore", "/sys/fs/cgroup", "/sys/fs/cgroup/c", *sources}
    ours |= {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    for step in plan.lanes[STAGE2]:
        path = step.args.get("path")
        folder = step.args.get("dir", step.args.get("root", step.args.get("mount", NONE)))
        if type(step).__name__ in ("Openat2", "OpenTree", "MountSetattr") and folder == NONE:
            assert path in ours, f"{type(step).__name__} {path}"
        if type(step).__name__ == "Openat2" and folder == rp.root:
            assert bits(step, "resolve") & 0x10
