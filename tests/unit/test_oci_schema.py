"""The loader, our JSON schema and the official one, held against each other.

The official schema and its examples are those of oci-schema/, or of the directory that $PYRUN_OCI_SCHEMA names. Where
it speaks, the loader refuses the same values at the same places. Where the loader is stricter, STRICTER has the rule,
and where it is looser, LOOSER.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from pyrun.errors import ConfigError
from pyrun.oci import load, names, validate
from tests.support.properties import given

OFFICIAL = Path(os.environ.get("PYRUN_OCI_SCHEMA") or Path(__file__).parent / "oci-schema")
OTHER_PLATFORMS = ("freebsd", "solaris", "vm", "windows", "zos")

# Pointer pattern, text pattern: what the loader refuses although the official schema takes it, and why.
STRICTER = [
    ("/ociVersion", "not a version|not supported", "config.md: MUST be SemVer; compatible within a major version"),
    ("/root", "is missing", "config.md: on all platforms but Windows REQUIRED"),
    (
        "/root/path|.*/destination|.*/names/[0-9]+|.*/priorities/[0-9]+/name",
        "must not be empty",
        "no such path or name",
    ),
    (".*", "NUL byte", "no path and no argument of a system call can hold one"),
    ("/process/args", "is missing|at least 1", "config.md: at least one entry is REQUIRED"),
    (
        ".*/cwd|/hooks/.*/path|/linux/devices/[0-9]+/path",
        "must be an absolute path|not be empty",
        "config.md, config-linux.md",
    ),
    (".*/namespaces/[0-9]+/path", "must be an absolute path", "config-linux.md: MUST be an absolute path"),
    (
        ".*(masked|readonly)Paths/[0-9]+",
        "must be an absolute path|not be empty",
        "config-linux.md: MUST be absolute paths",
    ),
    (".*/(uid|gid)|.*/additionalGids/[0-9]+", "not 4294967295", "setresuid(2), chown(2): -1 is no id"),
    (".*/consoleSize/(height|width)", "from 0 to 65535", "struct winsize has 16 bits"),
    (
        ".*/rlimits/[0-9]+/type",
        "not known|set already",
        "config.md: an error for what the kernel has not, and for duplicates",
    ),
    (".*/rlimits/[0-9]+/soft", "above the hard limit", "setrlimit(2): EINVAL"),
    (".*/capabilities", "must be in (permitted|bounding)", "capset(2): EPERM"),
    (".*/additionalGids", "at most 65536", "setgroups(2): EINVAL"),
    ("/process/oomScoreAdj", "from -1000 to 1000", "proc(5): EINVAL"),
    ("/process/scheduler(/.*)?", "must be from|is for|needs 0 <", "sched_setattr(2)"),
    ("/process/ioPriority/priority", "from 0", "config.md: 0 to 7"),
    (
        ".*/execCPUAffinity/.*|.*/memoryPolicy/nodes",
        "must be a list",
        "config.md: a comma-separated list, dashes for ranges",
    ),
    ("/(host|domain)name", "needs a uts|longer than 64", "they would be the host's; sethostname(2)"),
    (".*/[ug]idMappings", "along with", "config.md: MUST be specified along with the other"),
    ("/mounts/[0-9]+/options/[0-9]+", "needs uidMappings", "config.md: idmap without any mapping is an error"),
    ("/linux/netDevices/", "must not have an empty name", "the key is the device's name on the host; none is empty"),
    ("/hooks/.*/timeout", "must be from 1", "Go's int has 64 bits"),
    ("(.*/unified|.*/sysctl|/annotations)/", "must be a string", "an empty key is a fault whatever its value is"),
    ("/annotations/", "empty name", "config.md: keys MUST NOT be an empty string"),
    (
        "/(freebsd|solaris|vm|windows|zos)",
        "there is no linux section",
        "config.md: MAY be set if that is the target platform",
    ),
    ("/linux/namespaces/[0-9]+/type", "listed already", "config-linux.md: duplicates are an error"),
    ("/linux/namespaces/[0-9]+", "needs .*Mappings", "user_namespaces(7): nobody is mapped"),
    (".*/[ug]idMappings", "needs a user|at most 340", "user_namespaces(7)"),
    (".*/[ug]idMappings/[0-9]+/(size|hostID|containerID)", "at least 1|go beyond|overlaps", "user_namespaces(7)"),
    ("/linux/timeOffsets", "needs a time|joined", "time_namespaces(7)"),
    ("/linux/timeOffsets/.*/nanosecs", "from 0 to 999999999", "time_namespaces(7)"),
    (
        "/linux/devices/[0-9]+/(major|minor)",
        "is missing|must be from 0",
        "config-linux.md: REQUIRED unless a FIFO; mknod(2)",
    ),
    ("/linux/netDevices", "needs a network", "config-linux.md: moved into the container's namespace"),
    ("/linux/netDevices/.*", "can't be the name|is the name", "dev_valid_name of the kernel"),
    ("/linux/cgroupsPath", "must not contain", "config-linux.md: MAY consider values invalid"),
    ("/linux/(masked|readonly)Paths", "needs a mount", "they would be the host's"),
    ("/linux/sysctl/.*", "needs a|is set by|not in a namespace|not the name|empty name", "they would be the host's"),
    (".*/resources/devices/[0-9]+/(type|access)", "must be a, b or c|r, w and m", "config-linux.md"),
    (".*/(major|minor)", "must be from (0|-1)", "device numbers; -1 for all where a rule takes that"),
    (
        ".*/memory/(limit|reservation|swap|kernel|kernelTCP)|.*/pids/limit",
        "must be from -1",
        "config-linux.md: -1 is unlimited",
    ),
    (".*/memory/swappiness", "from 0 to 100", "config-linux.md"),
    (".*/pageSize", "KB, MB or GB", "the official pattern's $ lets a newline follow, in Python"),
    (".*/cpu/(burst|idle)", "above the quota|from 0 to 1", "config-linux.md"),
    (".*/weightDevice/[0-9]+", "weight or leafWeight", "config-linux.md: MUST specify at least one"),
    (".*/throttle[A-Za-z]+/[0-9]+/rate", "is missing", "config-linux.md: REQUIRED"),
    (".*/rdma/[^/]*", "hcaHandles or hcaObjects|empty name", "config-linux.md: MUST specify at least one"),
    (".*/unified/.*", "name of a file|empty name", "a key is a file of the cgroup"),
    ("/linux/seccomp/.*", "takes no errno|from 0 to (4095|65535|5)|default action", "config-linux.md; seccomp(2)"),
    ("/linux/seccomp/.*", "needs /linux/seccomp/listenerPath|without listenerPath", "config-linux.md"),
    ("/linux/intelRdt/.*", "newline|name of a directory|start with MB:", "config-linux.md: MUST NOT contain newlines"),
    (
        "/linux/memoryPolicy/(mode|nodes|flags)",
        "is missing|takes no|exclude|is for",
        "config-linux.md; set_mempolicy(2)",
    ),
    ("/linux/personality/(domain|flags)", "is missing|no flag", "config-linux.md: REQUIRED; no flags so far"),
]
# What the loader takes although the official schema does not: containerd's CRI writes rslave and rshared.
LOOSER = {"/linux/rootfsPropagation": {"rprivate", "rslave", "rshared", "runbindable"}}

# Objects whose members are the user's, so that null is a value at fault and not an absent member.
USERS = "/annotations|/linux/sysctl|/linux/netDevices|/linux/resources/(unified|rdma)"

MAPS = [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 1}]
THROTTLE = [{"major": 8, "minor": 0, "rate": 600}]
HOOK = [{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 5}]
# Every member that the Linux spec has, with a value that all three take.
FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
    "mounts": [{"destination": "/a", "type": "none", "source": "/b", "options": ["bind", "idmap"],
                "uidMappings": MAPS, "gidMappings": MAPS}, {"destination": "/proc", "type": "proc"}],
    "hooks": dict.fromkeys(("prestart", "createRuntime", "createContainer", "startContainer", "poststart",
                                      "poststop"), HOOK),
    "process": {
        "terminal": True, "consoleSize": {"height": 25, "width": 80}, "cwd": "/", "args": ["sh", "-c", "true"],
        "env": ["A=b"], "commandLine": "x", "noNewPrivileges": True, "apparmorProfile": "p", "selinuxLabel": "l",
        "oomScoreAdj": 100, "user": {"uid": 1, "gid": 1, "umask": 63, "additionalGids": [5, 6], "username": "u"},
        "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), ["CAP_KILL"]),
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 2, "soft": 1}, {"type": "RLIMIT_CPU", "hard": 2, "soft": 2}],
        "scheduler": {"policy": "SCHED_DEADLINE", "nice": 0, "priority": 0, "flags": ["SCHED_FLAG_RECLAIM"],
                      "runtime": 1, "deadline": 2, "period": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
        "execCPUAffinity": {"initial": "0-3,7", "final": "1"},
    },
    "linux": {
        "namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}, *({"type": kind} for kind in (
            "network", "ipc", "uts", "mount", "user", "cgroup", "time"))],
        "uidMappings": MAPS, "gidMappings": MAPS,
        "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 2}, "boottime": {"secs": 1, "nanosecs": 2}},
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "netDevices": {"eth0": {"name": "eth1"}, "ens4": {}},
        "cgroupsPath": "/a/b", "rootfsPropagation": "slave", "maskedPaths": ["/proc/kcore"], "mountLabel": "m",
        "readonlyPaths": ["/proc/sys"], "sysctl": {"net.core.somaxconn": "256"},
        "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20",
                     "enableMonitoring": True},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32", "flags": []},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/s", "listenerMetadata": "m",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": [
                {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}],
        },
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": 10, "minor": -1, "access": "rwm"}, {"allow": False}],
            "memory": {"limit": -1, "reservation": 1, "swap": 2, "kernel": -1, "kernelTCP": -1, "swappiness": 5,
                       "disableOOMKiller": False, "useHierarchy": True, "checkBeforeUpdate": True},
            "cpu": {"shares": 2, "quota": 5, "burst": 5, "period": 9, "realtimeRuntime": 1, "realtimePeriod": 2,
                    "cpus": "0-1", "mems": "0", "idle": 1},
            "pids": {"limit": -1}, "unified": {"memory.high": "max"},
            "blockIO": {"weight": 10, "leafWeight": 10, "throttleReadBpsDevice": THROTTLE,
                        "weightDevice": [{"major": 8, "minor": 0, "weight": 5, "leafWeight": 3}],
                        "throttleWriteBpsDevice": THROTTLE, "throttleReadIOPSDevice": THROTTLE,
                        "throttleWriteIOPSDevice": THROTTLE},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854772000}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 4}},
        },
    },
}  # fmt: skip


# --- the official schema ---------------------------------------------------------------------------------------------


@cache
def official() -> Draft4Validator:
    """The official schema of config.json with its references put in place, without other platforms."""
    files = {path.name: json.loads(path.read_text()) for path in OFFICIAL.glob("*.json")}

    def inline(node: Any, file: str) -> Any:
        if isinstance(node, list):
            return [inline(entry, file) for entry in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return {key: inline(entry, file) for key, entry in node.items()}
        name, _, pointer = node["$ref"].partition("#")
        target = files[name or file]
        for token in pointer.split("/")[1:]:
            target = target[token]
        return inline(target, name or file)

    schema = inline(files["config-schema.json"], "config-schema.json")
    for name in OTHER_PLATFORMS:
        del schema["properties"][name]
    return Draft4Validator(schema)


def leaves(error: Any) -> Iterator[Any]:
    """The errors below an anyOf or allOf."""
    if not error.context:
        yield error
    for inner in error.context:
        yield from leaves(inner)


def is_looser(at: str, value: Any) -> bool:
    """Whether the loader takes this on purpose. podman's modes of devices have the bits of the type."""
    if re.fullmatch(r"/linux/devices/\d+/fileMode", at):
        return type(value) is int and value & ~0o777 in (0o10000, 0o20000, 0o60000)
    return isinstance(value, str) and value in LOOSER.get(at, ())


def without_nulls(value: Any, at: str = "") -> Any:
    """The document without members that are null, which the loader takes for absent on purpose."""
    if isinstance(value, list):
        return [without_nulls(entry, f"{at}/{index}") for index, entry in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept = {name: entry for name, entry in value.items() if entry is not None or re.fullmatch(USERS, at)}
    return {name: without_nulls(entry, f"{at}/{name}") for name, entry in kept.items()}


def official_faults(document: Any) -> set[str]:
    """Where the official schema finds fault, as the loader's pointers; without what LOOSER takes."""
    places = set()
    document = without_nulls(document)
    for error in (leaf for outer in official().iter_errors(document) for leaf in leaves(outer)):
        at = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in error.absolute_path)
        if error.validator == "required":
            places |= {f"{at}/{name}" for name in error.validator_value if name not in error.instance}
        elif not is_looser(at, error.instance):
            places.add(at)
    return places


def loader_faults(document: Any) -> list[tuple[str, str]]:
    try:
        load.load_bytes(json.dumps(document).encode())
    except ConfigError as error:
        return error.faults
    return []


def check_agreement(document: Any) -> None:
    """The loader has each of the official faults, at its place, and beyond them only those of STRICTER."""
    theirs = official_faults(document)
    ours = loader_faults(document)
    assert theirs <= {pointer for pointer, _ in ours}
    for pointer, text in ours:
        text = "is missing" if text.endswith(", not null") else text  # required, and null is as good as absent
        stricter = any(re.fullmatch(place, pointer, re.S) and re.search(rule, text) for place, rule, _ in STRICTER)
        assert pointer in theirs or stricter, (pointer, text)


# --- examples --------------------------------------------------------------------------------------------------------


def test_the_full_config_is_good() -> None:
    assert loader_faults(FULL) == []
    assert validate.validate(json.dumps(FULL).encode()) == []


def test_the_full_config_has_every_official_member() -> None:
    def members(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
        for name, inner in schema.get("properties", {}).items():
            yield (name,)
            yield from ((name, *rest) for rest in members(inner))
        for part in [*schema.get("anyOf", ()), *schema.get("allOf", ())]:
            yield from members(part)
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                yield from (("*", *rest) for rest in members(schema[key]))

    def have(value: Any) -> Iterator[tuple[str, ...]]:
        pairs = [("*", entry) for entry in value] if isinstance(value, list) else list(value.items())
        for key, entry in pairs:
            keys = (key, "*") if not isinstance(value, list) else ("*",)
            yield from ((name,) for name in keys)
            if isinstance(entry, dict | list):
                yield from ((name, *rest) for name in keys for rest in have(entry))

    assert set(members(official().schema)) - set(have(FULL)) == set()
    assert official_faults(FULL) == set()


@pytest.mark.parametrize(
    "path", sorted(OFFICIAL.glob("test/config/*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_official_examples(path: Path) -> None:
    data = path.read_bytes()
    try:
        load.load_bytes(data)
        ours: list[tuple[str, str]] = []
    except ConfigError as error:
        ours = error.faults
    assert bool(validate.validate(data)) == bool(ours)
    if path.parent.name == "bad":
        assert ours
    else:
        check_agreement(json.loads(data))


def test_our_enumerations_are_the_official_ones() -> None:
    """A name that one side lacks would be found by no mutation of FULL."""
    ours = set(re.findall(r'"([A-Z]+_[A-Z0-9_]+)"', Path(validate.SCHEMA).read_text()))
    text = "".join(path.read_text() for path in OFFICIAL.glob("*.json"))
    theirs = set(re.findall(r'"((?:SCMP|SECCOMP|SCHED|MPOL|IOPRIO)_[A-Z0-9_]+)"', text))
    tables = [vars(names)[name] for name in vars(names) if name.isupper()]
    known = {name for table in tables for name in table}
    assert theirs <= ours and theirs <= known
    assert ours <= known


# --- generated configs -----------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, False, 0, 1, 5, 8, -1, -2, 0.0, 1.0, 1.5, 1e300, 100, 101, 512, 4096, 65536, 2**31, 2**32 - 1, 2**32,
    2**63, 2**64, -(2**31) - 1, -(2**63) - 1, 10**50, "", "x", "/x", "..", "a/b", "a\0", "a\n", "é", "x" * 70, "2MB",
    "64kB", "0MB", "2MB\n", "MB:x", "MB:x\ny", "0-3", "3-0", "c", "p", "rwm", "1.0.0", "user", "time", "mount",
    "RLIMIT_CPU", "RLIMIT_X", "CAP_X", "rslave", "SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW", "SCMP_CMP_EQ", "SCHED_FIFO",
    "SCHED_OTHER", "MPOL_LOCAL", "LINUX", "idmap", [], {}, [""], [1], [None], [[]], [{}], ["x", "x"], {"": ""},
    {"": 1}, {"a": 1}, {"a": "b"}, {"a": {}}, {"a/b~c": "d"},
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values below this one."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        yield (*at, key)
        yield from places(entry, (*at, key))


def mutated(random: random.Random, times: int) -> dict[str, Any]:
    """FULL with some members changed, removed or added."""
    document = copy.deepcopy(FULL)
    for _ in range(times):
        paths = list(places(document))
        if not paths:
            break
        *parents, last = random.choice(paths)
        target: Any = document
        for key in parents:
            target = target[key]
        kind = random.randrange(8)
        if kind == 0:
            del target[last]
        elif kind == 1 and isinstance(target, list):
            target.append(copy.deepcopy(random.choice(VALUES + target)))
        elif kind == 1:
            target[random.choice(["", "x", "a/b", "net.x", "windows"])] = copy.deepcopy(random.choice(VALUES))
        else:
            target[last] = copy.deepcopy(random.choice(VALUES))
    return document


def test_each_value_at_each_place() -> None:
    """Every member of FULL gets VALUES, one by one: all with $PYRUN_THOROUGH (80 s), else each member another tenth."""
    share = 1 if os.environ.get("PYRUN_THOROUGH") else 10
    for turn, path in enumerate(places(FULL)):
        for value in [*VALUES, ...][turn % share :: share]:
            document = copy.deepcopy(FULL)
            target: Any = document
            for key in path[:-1]:
                target = target[key]
            if value is ...:
                del target[path[-1]]
            else:
                target[path[-1]] = value
            check_agreement(document)


@given(st.randoms(use_true_random=False), st.integers(1, 6), max_examples=400)
def test_mutated_configs_agree_with_the_official_schema(random: random.Random, times: int) -> None:
    check_agreement(mutated(random, times))


@given(st.randoms(use_true_random=False), max_examples=400)
def test_our_schema_finds_no_fault_that_the_loader_lacks(random: random.Random) -> None:
    document = mutated(random, 1)
    ours = [pointer for pointer, _ in loader_faults(document)]
    for place, text in validate.schema_faults(document):
        assert any(pointer == place or pointer.startswith(place + "/") for pointer in ours), (place, text, ours)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
KEYS = st.sampled_from(sorted({key for path in places(FULL) for key in path if isinstance(key, str)})) | st.text()


ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30)


@given(ANY_JSON, max_examples=300)
def test_any_json_is_refused_without_a_traceback(document: Any) -> None:
    assert loader_faults(document)
