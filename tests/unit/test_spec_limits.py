"""A container's limits, devices and confinement as config.json has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrun.pod.spec.apparmor import NAME as APPARMOR
from pyrun.pod.spec.node import HostDevice, page_size
from tests.support.cri.drafts import doc, refused
from tests.support.cri.requests import (
    Pod,
    container,
    context,
    draft,
    node,
)

# --- limits and devices ----------------------------------------------------------------------------------------------


def resources(host: Any = None, **fields: Any) -> dict[str, Any]:
    made = doc(container(linux={"resources": fields}), host=host or node())["linux"]["resources"]
    made.pop("devices")
    return dict(made)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {}),
        ({"cpu_shares": 2}, {"cpu": {"shares": 2}}),
        ({"cpu_quota": -1, "cpu_period": 100000}, {"cpu": {"quota": -1, "period": 100000}}),
        ({"cpuset_cpus": "0", "cpuset_mems": "0"}, {"cpu": {"cpus": "0", "mems": "0"}}),
        ({"memory_limit_in_bytes": 1 << 20}, {"memory": {"limit": 1 << 20, "swap": 1 << 20}}),
        (
            {"memory_limit_in_bytes": 1 << 20, "memory_swap_limit_in_bytes": 2 << 20},
            {"memory": {"limit": 1 << 20, "swap": 2 << 20}},
        ),
        (
            {"memory_limit_in_bytes": 1 << 20, "memory_swap_limit_in_bytes": -1},
            {"memory": {"limit": 1 << 20, "swap": -1}},
        ),
        (
            {"hugepage_limits": [{"page_size": "1GB", "limit": 7}, {"page_size": "64KB", "limit": 0}]},
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 7}]},
        ),
        ({"unified": {"memory.high": "1"}}, {"unified": {"memory.high": "1"}}),
    ],
)
def test_limits(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert resources(**fields) == wanted


ALL_LIMITS: dict[str, Any] = {
    "cpu_shares": 5,
    "cpuset_cpus": "0",
    "memory_limit_in_bytes": 1 << 30,
    "hugepage_limits": [{"page_size": "2MB", "limit": 0}],
    "unified": {"memory.high": "1", "cpu.idle": "1"},
}


def test_limits_of_controllers_that_are_not_there_are_left_out_and_told() -> None:
    host = node(facts={"controllers": frozenset()})
    assert resources(host, **ALL_LIMITS) == {}
    assert len(host.warnings) == 6 and all("left out" in text for text in host.warnings)
    config = container(linux={"resources": ALL_LIMITS})
    strict = node({"strict_limits": True}, facts={"controllers": frozenset()})
    refused("linux.resources.cpu_*", "strict_limits", config=config, host=strict)


def test_swap_that_the_kernel_does_not_count() -> None:
    host = node(swap=False)
    assert resources(host, memory_limit_in_bytes=1 << 20) == {"memory": {"limit": 1 << 20}} and not host.warnings
    resources(host, memory_limit_in_bytes=1 << 20, memory_swap_limit_in_bytes=2 << 20)
    assert "memory_swap_limit_in_bytes" in host.warnings[0]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"memory_limit_in_bytes": -5}, "linux.resources.memory_limit_in_bytes"),
        ({"memory_limit_in_bytes": 9, "memory_swap_limit_in_bytes": 8}, "linux.resources.memory_swap_limit_in_bytes"),
        ({"memory_swap_limit_in_bytes": 8}, "linux.resources.memory_swap_limit_in_bytes"),
        ({"unified": {"../memory.max": "1"}}, "linux.resources.unified"),
        ({"unified": {"cgroup.procs": "1"}}, "linux.resources.unified"),
    ],
)
def test_limits_that_are_none(fields: dict[str, Any], place: str) -> None:
    refused(place, config=container(linux={"resources": fields}))


@pytest.mark.parametrize(("size", "text"), [(2 << 20, "2MB"), (1 << 30, "1GB"), (65536, "64KB"), (16 << 30, "16GB")])
def test_page_sizes_as_cgroups_name_them(size: int, text: str) -> None:
    assert page_size(size) == text


def test_devices() -> None:
    fuse, snd = HostDevice("/dev/fuse", "c", 10, 229), HostDevice("/dev/snd/pcm", "c", 116, 3, 0o660, 0, 29)
    given = [
        {"host_path": "/dev/fuse", "container_path": "/dev/f", "permissions": "rwm"},
        {"host_path": "/dev/snd", "container_path": "/dev/snd", "permissions": "r"},
    ]
    made = draft(container(devices=given), host=node(devices={"/dev/fuse": [fuse], "/dev/snd": [snd]}))
    linux = made.doc["linux"]
    assert [d["path"] for d in linux["devices"]] == ["/dev/f", "/dev/snd/pcm"] and linux["devices"][1]["gid"] == 29
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "c", "major": 116, "minor": 3, "access": "r"},
    ]
    assert made.origin("/linux/devices/1/path") == "devices.1"


@pytest.mark.parametrize(
    ("fields", "place"),
    [({"permissions": "x"}, "devices.0.permissions"), ({"host_path": "/dev/gone"}, "devices.0.host_path")],
)
def test_devices_that_are_none(fields: dict[str, Any], place: str) -> None:
    given = {"host_path": "/dev/fuse", "container_path": "/dev/fuse", "permissions": "rw", **fields}
    host = node(devices={"/dev/fuse": [HostDevice("/dev/fuse", "c", 10, 229)]})
    refused(place, config=container(devices=[given]), host=host)


# --- confinement -----------------------------------------------------------------------------------------------------

PROFILE = b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}'
LOCAL = {"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"seccomp": {"profile_type": "Unconfined"}}, None),
        ({"seccomp": {"profile_type": "RuntimeDefault"}}, "SCMP_ACT_ERRNO"),
        ({"seccomp_profile_path": "runtime/default"}, "SCMP_ACT_ERRNO"),
        ({"seccomp_profile_path": "unconfined"}, None),
        ({"seccomp_profile_path": "localhost//p.json"}, "SCMP_ACT_ALLOW"),
        (LOCAL, "SCMP_ACT_ALLOW"),
        ({"privileged": True, "seccomp": {"profile_type": "RuntimeDefault"}}, None),
    ],
)
def test_which_seccomp_profile(fields: dict[str, Any], wanted: str | None) -> None:
    host = node(profiles={"/p.json": PROFILE})
    assert doc(container(**context(**fields)), host=host)["linux"].get("seccomp", {}).get("defaultAction") == wanted


def test_seccomp_by_default() -> None:
    made = doc(host=node({"default_seccomp": True}))
    assert made["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"defaultAction": "SCMP_ACT_ALLOW", "x": 1}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "a", "only": 1}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"includes": {"moon": 1}}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [3]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_LOG"}',
    ],
)
def test_local_profiles_that_are_none(data: bytes) -> None:
    host = node(profiles={"/p.json": data})
    refused("linux.security_context.seccomp.localhost_ref", config=container(**context(**LOCAL)), host=host)


def test_dockers_form_of_a_profile() -> None:
    rules = [
        {"names": ["always"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["cap"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["nocap"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.99"}},
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}, "comment": "c"},
    ]
    arches = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    data = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "archMap": arches, "syscalls": rules}).encode()
    made = doc(container(**context(**LOCAL)), host=node(profiles={"/p.json": data}))["linux"]["seccomp"]
    assert [rule["names"][0] for rule in made["syscalls"]] == ["always", "nocap", "old"]
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert all(set(rule) <= {"names", "action"} for rule in made["syscalls"])


LOADED = frozenset((APPARMOR, "mine"))


@pytest.mark.parametrize(
    ("fields", "loaded", "wanted"),
    [
        ({}, None, None),
        ({}, LOADED, APPARMOR),
        ({}, frozenset(), None),
        ({"privileged": True}, LOADED, None),
        ({"privileged": True, "apparmor": {"profile_type": "Localhost", "localhost_ref": "mine"}}, LOADED, "mine"),
        ({"apparmor": {"profile_type": "RuntimeDefault"}}, None, None),
        ({"apparmor": {"profile_type": "RuntimeDefault"}}, LOADED, APPARMOR),
        ({"apparmor": {"profile_type": "Unconfined"}}, LOADED, None),
        ({"apparmor_profile": "localhost/mine"}, LOADED, "mine"),
        ({"apparmor_profile": "runtime/default"}, LOADED, APPARMOR),
        ({"apparmor_profile": "unconfined"}, LOADED, None),
    ],
)
def test_which_apparmor_profile(fields: dict[str, Any], loaded: frozenset[str] | None, wanted: str | None) -> None:
    made = doc(container(**context(**fields)), host=node(apparmor=loaded))
    assert made["process"].get("apparmorProfile") == wanted


@pytest.mark.parametrize(
    ("fields", "loaded", "place"),
    [
        ({"apparmor": {"profile_type": "Localhost", "localhost_ref": "other"}}, LOADED, "apparmor"),
        ({"apparmor": {"profile_type": "Localhost", "localhost_ref": "mine"}}, None, "apparmor"),
        ({"apparmor": {"profile_type": "RuntimeDefault"}}, frozenset(), "apparmor"),
        ({"apparmor": {"profile_type": "Localhost", "localhost_ref": "a\nb"}}, LOADED, "apparmor.localhost_ref"),
        ({"apparmor_profile": "mine"}, LOADED, "apparmor_profile"),
    ],
)
def test_apparmor_profiles_that_can_not_be(fields: dict[str, Any], loaded: frozenset[str] | None, place: str) -> None:
    refused(f"linux.security_context.{place}", config=container(**context(**fields)), host=node(apparmor=loaded))


def test_selinux() -> None:
    config = container(**context(selinux_options={"type": "spc_t", "level": "s0:c1,c2"}))
    host = node(facts={"lsm": frozenset(("selinux",))})
    made = doc(config, host=host)
    assert made["process"]["selinuxLabel"] == "system_u:system_r:spc_t:s0:c1,c2"
    assert made["linux"]["mountLabel"] == "system_u:object_r:container_file_t:s0:c1,c2"
    assert "selinuxLabel" not in doc(container(**context(privileged=True)), host=host)["process"]
    first, second = (doc(host=host, pod=Pod(id=c * 64))["process"]["selinuxLabel"] for c in "ab")
    assert first != second and ":container_t:s0:c" in first
    host = node()
    assert "selinuxLabel" not in doc(config, host=host)["process"] and "no SELinux" in host.warnings[0]
    bad = container(**context(selinux_options={"level": 's0"'}))
    refused("linux.security_context.selinux_options.level", config=bad)


def test_hidden_paths_are_those_of_the_request() -> None:
    paths = {"masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"]}
    linux = doc(container(**context(**paths)))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (["/proc/kcore"], ["/proc/sys"])
    assert "maskedPaths" not in doc()["linux"], "procMount Unmasked"
    assert "maskedPaths" not in doc(container(**context(privileged=True, **paths)))["linux"]
    refused("linux.security_context.masked_paths.0", config=container(**context(masked_paths=["proc"])))
