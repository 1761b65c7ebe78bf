"""Each rule of the loader: a config that breaks it and the place named; and good ones at the edge."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pyrun.errors import ConfigError
from pyrun.oci import checks_linux, load

ALL = ["mount", "pid", "network", "uts", "ipc", "cgroup", "time"]
BASE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["sh"]},
    "linux": {"namespaces": [{"type": kind} for kind in ALL]},
}
USER = [{"containerID": 0, "hostID": 1000, "size": 10}]
NOTIFY = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}


def changed(changes: dict[str, Any]) -> bytes:
    """BASE with the values at these pointers set; a value of `...` removes."""
    document = copy.deepcopy(BASE)
    for pointer, value in changes.items():
        *parents, last = [token.replace("~1", "/") for token in pointer.split("/")[1:]]
        target: Any = document
        for token in parents:
            target = target[int(token)] if isinstance(target, list) else target.setdefault(token, {})
        if value is ...:
            del target[last]
        elif isinstance(target, list):
            target.insert(int(last), value)
        else:
            target[last] = value
    return json.dumps(document).encode()


def maps(*rows: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in rows]


def user(**more: Any) -> dict[str, Any]:
    """Changes that add a new user namespace with good maps."""
    namespaces = [{"type": kind} for kind in [*ALL, "user"]]
    made: dict[str, Any] = {"/linux/namespaces": namespaces, "/linux/uidMappings": USER, "/linux/gidMappings": USER}
    return made | more


BAD: list[tuple[dict[str, Any], str, str]] = [
    # config.md
    ({"/root": ...}, "/root", "is missing"),
    ({"/root/path": ""}, "/root/path", "must not be empty"),
    ({"/root/path": "a\0b"}, "/root/path", "contains a NUL byte"),
    ({"/root/readonly": 1}, "/root/readonly", "must be a boolean, not a number"),
    ({"/process/cwd": "tmp"}, "/process/cwd", 'must be an absolute path, not "tmp"'),
    ({"/process/cwd": ...}, "/process/cwd", "is missing"),
    ({"/process/args": []}, "/process/args", "must have at least 1 item"),
    ({"/process/args": ...}, "/process/args", "is missing"),
    ({"/process/args/1": "a\0"}, "/process/args/1", "contains a NUL byte"),
    ({"/process/env": ["A=\0"]}, "/process/env/0", "contains a NUL byte"),
    ({"/process/env": "A=b"}, "/process/env", "must be an array, not a string"),
    ({"/process/env": [None]}, "/process/env/0", "must be a string, not null"),
    ({"/process/user": {"uid": -1}}, "/process/user/uid", "must be from 0 to 4294967294, not -1"),
    ({"/process/user": {"gid": 2**32 - 1}}, "/process/user/gid", "must be from 0 to 4294967294, not 4294967295"),
    ({"/process/user": {"uid": 1.0}}, "/process/user/uid", "must be an integer, not a number with a fraction"),
    ({"/process/user": {"uid": True}}, "/process/user/uid", "must be an integer, not a boolean"),
    ({"/process/user": {"additionalGids": [1, "2"]}}, "/process/user/additionalGids/1", "must be an integer"),
    ({"/process/user": {"umask": 2**32}}, "/process/user/umask", "must be from 0"),
    ({"/process/terminal": True, "/process/consoleSize": {"height": 1, "width": 70000}},
     "/process/consoleSize/width", "must be from 0 to 65535"),
    ({"/process/consoleSize": {"height": 1}}, "/process/consoleSize/width", "is missing"),
    ({"/process/rlimits": [{"type": "RLIMIT_WHAT", "hard": 1, "soft": 1}]}, "/process/rlimits/0/type", "is not known"),
    ({"/process/rlimits": [{"type": "RLIMIT_CPU", "hard": 2**64, "soft": 1}]},
     "/process/rlimits/0/hard", "must be from"),
    ({"/process/rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]}, "/process/rlimits/0/soft", "hard limit 1"),
    ({"/process/rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}] * 2}, "/process/rlimits/1/type", "item 0"),
    ({"/process/oomScoreAdj": 1001}, "/process/oomScoreAdj", "must be from -1000 to 1000, not 1001"),
    ({"/process/oomScoreAdj": 10**100}, "/process/oomScoreAdj", "more than 40 digits"),
    ({"/process/capabilities": {"bounding": "CAP_KILL"}}, "/process/capabilities/bounding", "must be an array"),
    ({"/process/capabilities": []}, "/process/capabilities", "must be an object, not an array"),
    ({"/process/scheduler": {"policy": "SCHED_FAST"}},
     "/process/scheduler/policy", "is not known; known are SCHED_OTHER"),
    ({"/process/scheduler": {}}, "/process/scheduler/policy", "is missing"),
    ({"/process/scheduler": {"policy": "SCHED_OTHER", "nice": 20}}, "/process/scheduler/nice", "from -20 to 19"),
    ({"/process/scheduler": {"policy": "SCHED_OTHER", "priority": 1}}, "/process/scheduler/priority", "SCHED_FIFO"),
    ({"/process/scheduler": {"policy": "SCHED_RR"}},
     "/process/scheduler/priority", "from 1 to 99 with SCHED_RR, not 0"),
    ({"/process/scheduler": {"policy": "SCHED_OTHER", "runtime": 1}},
     "/process/scheduler/runtime", "SCHED_DEADLINE only"),
    ({"/process/scheduler": {"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 4}},
     "/process/scheduler", "not 5, 4"),
    ({"/process/scheduler": {"policy": "SCHED_OTHER", "flags": ["X"]}}, "/process/scheduler/flags/0", "is not known"),
    ({"/process/ioPriority": {"class": "IOPRIO_CLASS_NONE"}}, "/process/ioPriority/class", "is not known"),
    ({"/process/ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}, "/process/ioPriority/priority", "from 0"),
    ({"/process/capabilities": {"effective": ["CAP_KILL"]}},
     "/process/capabilities", "effective has CAP_KILL, which must be in permitted as well"),
    ({"/process/capabilities": {"inheritable": ["CAP_KILL"]}},
     "/process/capabilities", "inheritable has CAP_KILL, which must be in bounding as well"),
    ({"/process/user/additionalGids": list(range(65537))},
     "/process/user/additionalGids", "at most 65536 items, not 65537"),
    ({"/process/execCPUAffinity": {"initial": "3-1"}}, "/process/execCPUAffinity/initial", "must be a list of numbers"),
    ({"/process/execCPUAffinity": {"final": "0-999999999"}}, "/process/execCPUAffinity/final", "must be a list"),
    ({"/process/execCPUAffinity": {"final": "0,,1"}}, "/process/execCPUAffinity/final", "must be a list"),
    ({"/hostname": "h", "/linux": ...}, "/hostname", "needs a uts namespace"),
    ({"/hostname": "h" * 65}, "/hostname", "longer than 64 bytes"),
    ({"/domainname": "h", "/linux/namespaces": []}, "/domainname", "needs a uts namespace"),
    ({"/mounts": [{"destination": ""}]}, "/mounts/0/destination", "must not be empty"),
    ({"/mounts": [{"destination": "/a", "source": "b\0"}]}, "/mounts/0/source", "contains a NUL byte"),
    ({"/mounts": [{"destination": "/a", "uidMappings": USER}]}, "/mounts/0/uidMappings", "along with gidMappings"),
    ({"/mounts": [{"destination": "/a", "gidMappings": USER, "uidMappings": []}]},
     "/mounts/0/gidMappings", "along with"),
    ({"/mounts": [{"destination": "/a", "options": ["bind", "ridmap"]}]}, "/mounts/0/options/1", "ridmap needs"),
    ({"/hooks": {"prestart": [{"path": "x"}]}}, "/hooks/prestart/0/path", "must be an absolute path"),
    ({"/hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "/hooks/poststop/0/timeout", "must be from 1"),
    ({"/hooks": {"poststart": [{}]}}, "/hooks/poststart/0/path", "is missing"),
    ({"/annotations": {"": "x"}}, "/annotations/", "must not have an empty name"),
    ({"/annotations": {"a": 1}}, "/annotations/a", "must be a string"),
    ({"/linux": ..., "/windows": {}}, "/windows", "is for Windows"),
    # config-linux.md: namespaces
    ({"/linux/namespaces/0": {"type": "net"}}, "/linux/namespaces/0/type", '"net" is not known; known are mount'),
    ({"/linux/namespaces/0": {"type": "pid"}}, "/linux/namespaces/2/type", "listed already, as item 0"),
    ({"/linux/namespaces/7": {"type": "user", "path": "ns"}}, "/linux/namespaces/7/path", "must be an absolute path"),
    ({"/linux/namespaces/7": {"type": "user"}}, "/linux/namespaces/7", "needs uidMappings and gidMappings"),
    (user(**{"/linux/gidMappings": []}), "/linux/namespaces/7", "needs gidMappings"),
    ({"/linux/uidMappings": USER}, "/linux/uidMappings", "needs a user namespace"),
    (user(**{"/linux/uidMappings": maps((0, 0, 0))}), "/linux/uidMappings/0/size", "at least 1"),
    (user(**{"/linux/uidMappings": maps((0, 2**32 - 1, 1))}), "/linux/uidMappings/0/hostID", "go beyond"),
    (user(**{"/linux/uidMappings": maps((0, 0, 5), (4, 9, 1))}),
     "/linux/uidMappings/1/containerID", "overlaps with item 0"),
    (user(**{"/linux/gidMappings": maps((0, 5, 9), (20, 0, 6))}),
     "/linux/gidMappings/1/hostID", "overlaps with item 0"),
    (user(**{"/linux/gidMappings": maps((0, 0, 9), (20, 20, 1), (3, 40, 1))}),
     "/linux/gidMappings/2/containerID", "overlaps with item 0"),
    (user(**{"/linux/uidMappings": maps(*((n, n, 1) for n in range(341)))}), "/linux/uidMappings", "at most 340 items"),
    ({"/linux/timeOffsets": {"boottime": {"nanosecs": 10**9}}},
     "/linux/timeOffsets/boottime/nanosecs", "must be from 0"),
    ({"/linux/namespaces": [], "/linux/timeOffsets": {"monotonic": {"secs": 1}}}, "/linux/timeOffsets", "needs a time"),
    ({"/linux/namespaces": [{"type": "time", "path": "/x"}], "/linux/timeOffsets": {"monotonic": {}}},
     "/linux/timeOffsets", "joined by path"),
    # config-linux.md: devices
    ({"/linux/devices": [{"type": "c", "path": "/d", "major": 1}]},
     "/linux/devices/0/minor", "is missing, and a device"),
    ({"/linux/devices": [{"type": "c", "path": "d", "major": 1, "minor": 1}]},
     "/linux/devices/0/path", "absolute path"),
    ({"/linux/devices": [{"type": "b", "path": "/d", "major": -1, "minor": 1}]},
     "/linux/devices/0/major", "from 0 to 4095"),
    ({"/linux/devices": [{"type": "x", "path": "/d"}]}, "/linux/devices/0/type", "known are c, b, u, p"),
    ({"/linux/devices": [{"type": "p", "path": "/d", "fileMode": 512}]}, "/linux/devices/0/fileMode", "from 0 to 511"),
    ({"/linux/namespaces": [], "/linux/netDevices": {"e": {}}}, "/linux/netDevices", "needs a network namespace"),
    ({"/linux/netDevices": {"a/b": {}}}, "/linux/netDevices/a~1b", "can't be the name of a network device"),
    ({"/linux/netDevices": {"e": {"name": "x" * 16}}}, "/linux/netDevices/e/name", "can't be the name"),
    ({"/linux/netDevices": {"a": {}, "b": {"name": "a"}}}, "/linux/netDevices/b/name", 'is the name that "a" gets'),
    # config-linux.md: sysctl, paths
    ({"/linux/sysctl": {"kernel.shmmax": "1"}, "/linux/namespaces": []},
     "/linux/sysctl/kernel.shmmax", "ipc namespace"),
    ({"/linux/sysctl": {"fs.mqueue.msg_max": "1"}, "/linux/namespaces": []}, "/linux/sysctl/fs.mqueue.msg_max", "ipc"),
    ({"/linux/sysctl": {"net/ipv4/x": "1"}, "/linux/namespaces": []},
     "/linux/sysctl/net~1ipv4~1x", "network namespace"),
    ({"/linux/sysctl": {"user.max_mnt_namespaces": "1"}}, "/linux/sysctl/user.max_mnt_namespaces", "user namespace"),
    ({"/linux/sysctl": {"kernel.domainname": "1"}, "/linux/namespaces": []}, "/linux/sysctl/kernel.domainname", "uts"),
    ({"/linux/sysctl": {"kernel.hostname": "1"}}, "/linux/sysctl/kernel.hostname", "is set by /hostname"),
    ({"/linux/sysctl": {"vm.swappiness": "1"}}, "/linux/sysctl/vm.swappiness", "is not in a namespace"),
    ({"/linux/sysctl": {"net/../kernel/core_pattern": "1"}},
     "/linux/sysctl/net~1..~1kernel~1core_pattern", "not the name"),
    ({"/linux/sysctl": {"net.//.kernel.core_pattern": "1"}},
     "/linux/sysctl/net.~1~1.kernel.core_pattern", "not the name"),
    ({"/linux/maskedPaths": ["proc"]}, "/linux/maskedPaths/0", "must be an absolute path"),
    ({"/linux/readonlyPaths": ["/proc"], "/linux/namespaces": []}, "/linux/readonlyPaths", "needs a mount namespace"),
    ({"/linux/cgroupsPath": "/a/../b"}, "/linux/cgroupsPath", "must not contain .."),
    ({"/linux/rootfsPropagation": "public"}, "/linux/rootfsPropagation", "is not known; known are private"),
    # config-linux.md: resources
    ({"/linux/resources/devices": [{"allow": True, "type": "p"}]}, "/linux/resources/devices/0/type", "a, b or c"),
    ({"/linux/resources/devices": [{"allow": True, "access": "x"}]}, "/linux/resources/devices/0/access", "r, w and m"),
    ({"/linux/resources/devices": [{"type": "c"}]}, "/linux/resources/devices/0/allow", "is missing"),
    ({"/linux/resources/devices": [{"allow": True, "major": -2}]}, "/linux/resources/devices/0/major", "from -1"),
    ({"/linux/resources/memory": {"limit": -2}}, "/linux/resources/memory/limit", "must be from -1"),
    ({"/linux/resources/memory": {"swappiness": 101}}, "/linux/resources/memory/swappiness", "from 0 to 100"),
    ({"/linux/resources/cpu": {"burst": 2, "quota": 1}}, "/linux/resources/cpu/burst", "above the quota 1"),
    ({"/linux/resources/cpu": {"idle": 2}}, "/linux/resources/cpu/idle", "from 0 to 1"),
    ({"/linux/resources/pids": {}}, "/linux/resources/pids/limit", "is missing"),
    ({"/linux/resources/blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
     "/linux/resources/blockIO/weightDevice/0", "must have weight or leafWeight"),
    ({"/linux/resources/blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0}]}},
     "/linux/resources/blockIO/throttleReadBpsDevice/0/rate", "is missing"),
    ({"/linux/resources/hugepageLimits": [{"pageSize": "64kB", "limit": 1}]},
     "/linux/resources/hugepageLimits/0/pageSize", "KB, MB or GB"),
    ({"/linux/resources/rdma": {"m": {}}}, "/linux/resources/rdma/m", "hcaHandles or hcaObjects"),
    ({"/linux/resources/unified": {"../x": "1"}}, "/linux/resources/unified/..~1x", "must be the name of a file"),
    ({"/linux/resources/unified": {"..": "1"}}, "/linux/resources/unified/..", "must be the name of a file"),
    ({"/linux/resources/unified": {"a\0": "1"}}, "/linux/resources/unified/a\0", "the name contains a NUL byte"),
    # config-linux.md: seccomp and the rest
    ({"/linux/seccomp": {}}, "/linux/seccomp/defaultAction", "is missing"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_BAN"}}, "/linux/seccomp/defaultAction", "is not known"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "/linux/seccomp/defaultAction", "can't be the default"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}},
     "/linux/seccomp/defaultErrnoRet", "SCMP_ACT_ALLOW takes no errno"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}},
     "/linux/seccomp/defaultErrnoRet", "from 0 to 4095"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [NOTIFY]}},
     "/linux/seccomp/syscalls/0/action", "needs /linux/seccomp/listenerPath"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}},
     "/linux/seccomp/listenerMetadata", "without listenerPath"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]}},
     "/linux/seccomp/architectures/0", "known"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}}, "/linux/seccomp/flags/0", "is not known"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}},
     "/linux/seccomp/syscalls/0/names", "at least 1 item"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}},
     "/linux/seccomp/syscalls/0/args/0/index", "from 0 to 5"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 1, "op": "EQ"}]}]}},
     "/linux/seccomp/syscalls/0/args/0/op", "is not known"),
    ({"/linux/intelRdt": {"closID": "a/b"}}, "/linux/intelRdt/closID", "must be the name of a directory"),
    ({"/linux/intelRdt": {"closID": ".."}}, "/linux/intelRdt/closID", "must be the name of a directory"),
    ({"/linux/intelRdt": {"schemata": ["a\nb"]}}, "/linux/intelRdt/schemata/0", "newline"),
    ({"/linux/intelRdt": {"memBwSchema": "L3:"}}, "/linux/intelRdt/memBwSchema", "must start with MB:"),
    ({"/linux/memoryPolicy": {}}, "/linux/memoryPolicy/mode", "is missing"),
    ({"/linux/memoryPolicy": {"mode": "MPOL_BIND"}}, "/linux/memoryPolicy/nodes", "MPOL_BIND needs at least one node"),
    ({"/linux/memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}}, "/linux/memoryPolicy/nodes", "takes no nodes"),
    ({"/linux/memoryPolicy": {"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}},
     "/linux/memoryPolicy/flags", "no flags"),
    ({"/linux/memoryPolicy": {
        "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}},
     "/linux/memoryPolicy/flags", "exclude each other"),
    ({"/linux/memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}},
     "/linux/memoryPolicy/flags", "is for MPOL_BIND"),
    ({"/linux/personality": {}}, "/linux/personality/domain", "is missing"),
    ({"/linux/personality": {"domain": "BSD"}}, "/linux/personality/domain", "known are LINUX, LINUX32"),
    ({"/linux/personality": {"domain": "LINUX", "flags": ["X"]}}, "/linux/personality/flags", "no flag is supported"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "pointer", "text"), BAD, ids=[f"{n}-{row[1]}" for n, row in enumerate(BAD)])
def test_refused(changes: dict[str, Any], pointer: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.load_bytes(changed(changes))
    assert [place for place, _ in caught.value.faults] == [pointer], caught.value.faults
    assert text in caught.value.faults[0][1]


GOOD: list[dict[str, Any]] = [
    {},
    {"/process": ...},
    {"/linux": ...},
    {"/linux/windows": {}, "/windows": {"layerFolders": []}},
    {"/hostname": "h" * 64, "/domainname": "d"},
    {"/hostname": "", "/linux/namespaces": []},
    {"/process/consoleSize": {"height": 2**40, "width": 1}},
    {"/process/env": ["", "NO_EQUALS", "A=b=c", "=x"]},
    {"/process/args": ["", "\u00e9"]},
    {"/process/user": {"uid": 2**32 - 2, "umask": 0, "additionalGids": [0, 0]}},
    {"/process/scheduler": {"policy": "SCHED_FIFO", "priority": 99, "nice": 0, "runtime": 0}},
    {"/process/scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2}},
    {"/process/execCPUAffinity": {"initial": "", "final": "0, 2-3"}},
    {"/process/rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 2**64 - 1}]},
    {"/mounts": [{"destination": "/a", "options": ["bind", "idmap"], "uidMappings": USER, "gidMappings": USER}]},
    user(**{"/mounts": [{"destination": "/a", "options": ["idmap"]}]}),
    user(**{"/linux/uidMappings": maps((0, 1000, 1), (1, 100000, 2**16), (2**32 - 2, 5, 1))}),
    user(**{"/linux/sysctl": {"user.max_mnt_namespaces": "1"}}),
    {"/linux/namespaces/7": {"type": "user", "path": "/proc/1/ns/user"}},
    {"/linux/namespaces/7": {"type": "user", "path": "/ns"}, "/linux/uidMappings": USER, "/linux/gidMappings": USER},
    {"/linux/timeOffsets": {"monotonic": {"secs": -5}, "boottime": {"nanosecs": 999999999}}},
    {"/linux/timeOffsets": {}, "/linux/namespaces": []},
    {"/linux/devices": [{"type": "p", "path": "/p"}, {"type": "u", "path": "/u", "major": 4095, "minor": 2**20 - 1}]},
    {"/linux/netDevices": {"eth0": {"name": "c%d"}, "eth1": {"name": "c%d"}, "é": {}}},
    {"/linux/sysctl": {"net.ipv4.conf.eno2/100.rp_filter": "1", "kernel.sem": "", "kernel/msgmax": "1"}},
    {"/linux/cgroupsPath": "system.slice:pyrun:x..y"},
    {"/linux/rootfsPropagation": "rslave"},
    {"/linux/resources/memory": {"limit": -1, "swap": 2**63 - 1}},
    {"/linux/resources/cpu": {"quota": -1, "burst": 5}},
    {"/linux/resources/rdma": {"m": {"hcaObjects": 0}}},
    {"/linux/resources/unified": {"memory.high": "max"}},
    {
        "/linux/seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [NOTIFY],
            "listenerPath": "/s",
            "listenerMetadata": "",
        }
    },
    {"/linux/seccomp": {"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65535, "listenerPath": "/unused"}},
    {"/linux/intelRdt": {"closID": "/", "schemata": ["L3:0=f"], "memBwSchema": "MB:0=10"}},
    {"/linux/memoryPolicy": {"mode": "MPOL_PREFERRED"}},
    {"/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_NUMA_BALANCING"]}},
    {"/linux/personality": {"domain": "LINUX32", "flags": []}},
    {"/annotations": {"a": "\0", "b": ""}},
]


@pytest.mark.parametrize("changes", GOOD, ids=range(len(GOOD)))
def test_taken(changes: dict[str, Any]) -> None:
    load.load_bytes(changed(changes))


def test_a_faulty_namespace_entry_brings_no_follow_ups() -> None:
    """With the type misspelt, all that needs the namespace would be reported too."""
    data = changed({"/linux/namespaces": [{"type": "utz"}], "/hostname": "x", "/linux/netDevices": {"e": {}}})
    with pytest.raises(ConfigError) as caught:
        load.load_bytes(data)
    assert [pointer for pointer, _ in caught.value.faults] == ["/linux/namespaces/0/type"]


def test_a_value_that_could_not_be_read_brings_no_follow_ups() -> None:
    data = changed({"/linux/resources/rdma": {"m": {"hcaHandles": "x"}}, "/process/args": 5, "/linux/devices": [
        {"type": "c", "path": "/d", "major": "1", "minor": 1}]})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load.load_bytes(data)
    assert [pointer for pointer, _ in caught.value.faults] == [
        "/process/args",
        "/linux/resources/rdma/m/hcaHandles",
        "/linux/devices/0/major",
    ]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ("x", "x"),
    ],
)
def test_sysctl_path(key: str, path: str) -> None:
    assert checks_linux.sysctl_path(key) == path
