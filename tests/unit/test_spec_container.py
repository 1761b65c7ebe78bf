"""A container's request as config.json: by tables, whole ones against samples, and generated ones through the loader
and the planner. PYRUN_WRITE_SAMPLES=1 writes the samples anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import FailedPrecondition, InvalidArgument
from pyrun.pod.spec import log_path, plan_root, signal_enum, stop_signal
from pyrun.pod.spec.layers import ImageMount
from pyrun.pod.spec.node import HostDevice
from pyrun.pod.spec.propagation import mount_of
from tests.support.cri.drafts import LAYERS, doc, mount, planned, refused
from tests.support.cri.requests import (
    ID,
    POD_ID,
    Image,
    Pod,
    container,
    context,
    draft,
    mapped,
    node,
    sandbox_config,
)

SAMPLES = Path(__file__).parent / "samples" / "cri"


# --- whole ones ------------------------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "command": ["/bin/server"],
    "args": ["--port", "80"],
    "working_dir": "/srv",
    "envs": [{"key": "A", "value": "1"}, {"key": "PATH", "value": "/bin"}],
    "mounts": [
        {"container_path": "/data/deep", "host_path": "/var/data", "readonly": True, "recursive_read_only": True},
        {"container_path": "/etc/hosts", "host_path": "/var/lib/kubelet/hosts"},
        {"container_path": "/data", "host_path": "/srv/data", "propagation": 1},
        {"container_path": "/dev/termination-log", "host_path": "/var/lib/kubelet/log"},
    ],
    "devices": [{"container_path": "/dev/fuse", "host_path": "/dev/fuse", "permissions": "rw"}],
    "labels": {"l": "1"},
    "annotations": {"org.systemd.property.ExecStart": "evil"},
    "linux": {
        "resources": {
            "cpu_period": 100000,
            "cpu_quota": 50000,
            "cpu_shares": 512,
            "memory_limit_in_bytes": 104857600,
            "oom_score_adj": 968,
            "cpuset_cpus": "0-1",
            "hugepage_limits": [{"page_size": "2MB", "limit": 0}, {"page_size": "64KB", "limit": 0}],
            "unified": {"memory.oom.group": "1", "memory.high": "100000000"},
        },
        "security_context": {
            "namespace_options": {"pid": "CONTAINER"},
            "capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["MKNOD", "CAP_NET_RAW"]},
            "run_as_user": {"value": 1000},
            "no_new_privs": True,
            "readonly_rootfs": True,
            "masked_paths": ["/proc/kcore"],
            "readonly_paths": ["/proc/sys"],
            "seccomp": {"profile_type": "RuntimeDefault"},
        },
    },
}
WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "full": (FULL, {"host": {"devices": {"/dev/fuse": [HostDevice("/dev/fuse", "c", 10, 229, 0o666)]}}}),
    "privileged": (
        context(privileged=True, namespace_options={"pid": "NODE"}, seccomp={"profile_type": "RuntimeDefault"}),
        {"host": {"host_devices": [HostDevice("/dev/sda", "b", 8, 0, 0o660, 0, 6)]}},
    ),
    "user-namespace": (context(namespace_options={"pid": "POD"}), {"pod": mapped()}),
    "node": (
        {"tty": True, "stdin": True, **context(namespace_options={"pid": "NODE"})},
        {"pod": Pod(net=None, ipc=None, uts=None, pid=None, shm="/dev/shm", hostname="")},
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_request(name: str) -> None:
    fields, words = WHOLE[name]
    config, host, pod = container(**fields), node(**words.get("host", {})), words.get("pod") or Pod()
    made = draft(config, host=host, pod=pod).doc
    planned(made, config, pod, host)
    text = json.dumps(made, indent=1) + "\n"
    sample = SAMPLES / f"{name}.json"
    if os.environ.get("PYRUN_WRITE_SAMPLES"):
        sample.write_text(text)
    assert text == sample.read_text()
    assert not host.warnings


# --- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "cmd", "wanted"),
    [
        ([], [], (), ("sh",), ["sh"]),
        ([], [], ("init",), ("a", "b"), ["init", "a", "b"]),
        ([], ["x"], ("init",), ("a",), ["init", "x"]),
        (["run"], [], ("init",), ("a",), ["run"]),
        (["run"], ["x"], ("init",), ("a",), ["run", "x"]),
        ([], [], ("",), ("a",), ["a"]),
    ],
)
def test_command_and_arguments(
    command: list[str], args: list[str], entrypoint: tuple[str, ...], cmd: tuple[str, ...], wanted: list[str]
) -> None:
    made = doc(container(command=command, args=args), image=Image(entrypoint=entrypoint, cmd=cmd))
    assert made["process"]["args"] == wanted


def test_no_command_at_all() -> None:
    refused("command", config=container(), image=Image(cmd=()))


def test_the_environment_is_the_images_then_the_requests() -> None:
    image = Image(env=("PATH=/image", "B=image", "C=image", "broken", "=x", "E="))
    config = container(tty=True, envs=[{"key": "B", "value": "a=b\nc"}, {"key": "D", "value": ""}])
    env = doc(config, image=image)["process"]["env"]
    wanted = ["PATH=/image", "HOSTNAME=web-0", "TERM=xterm", "B=a=b\nc", "C=image", "E=", "D=", "HOME=/root"]
    assert env == wanted


@pytest.mark.parametrize("key", ["", "A=B"])
def test_no_such_variable(key: str) -> None:
    refused("envs.1", config=container(envs=[{"key": "A", "value": ""}, {"key": key, "value": "x"}]))


def test_home_of_the_request_wins_and_an_empty_one_does_not() -> None:
    assert "HOME=/here" in doc(container(envs=[{"key": "HOME", "value": "/here"}]))["process"]["env"]
    assert "HOME=/root" in doc(container(envs=[{"key": "HOME", "value": ""}]))["process"]["env"]


@pytest.mark.parametrize(
    ("given", "image", "wanted"), [("", "", "/"), ("", "/srv", "/srv"), ("/here", "/srv", "/here"), ("a", "", "/a")]
)
def test_working_directory(given: str, image: str, wanted: str) -> None:
    assert doc(container(working_dir=given), image=Image(working_dir=image))["process"]["cwd"] == wanted


USUAL = 14


@pytest.mark.parametrize(
    ("fields", "has", "has_not", "count"),
    [
        ({}, "CAP_CHOWN", "CAP_SYS_ADMIN", USUAL),
        ({"add_capabilities": ["sys_admin"]}, "CAP_SYS_ADMIN", "CAP_BPF", USUAL + 1),
        ({"drop_capabilities": ["ALL"]}, "", "CAP_CHOWN", 0),
        ({"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}, "CAP_NET_ADMIN", "CAP_CHOWN", 1),
        ({"add_capabilities": ["ALL"], "drop_capabilities": ["CAP_BPF"]}, "CAP_SYS_ADMIN", "CAP_BPF", 40),
        ({"add_capabilities": ["all"]}, "CAP_BPF", "", 41),
    ],
)
def test_cve_2022_24769_and_27652_capabilities(fields: dict[str, Any], has: str, has_not: str, count: int) -> None:
    caps = doc(container(**context(capabilities=fields)))["process"]["capabilities"]
    assert caps["bounding"] == caps["effective"] == caps["permitted"] and len(caps["bounding"]) == count
    assert (not has or has in caps["bounding"]) and has_not not in caps["bounding"]
    assert "inheritable" not in caps and "ambient" not in caps, "CVE-2022-24769"


def test_ambient_capabilities_are_in_every_set() -> None:
    given = {"drop_capabilities": ["ALL"], "add_ambient_capabilities": ["NET_BIND_SERVICE"]}
    caps = doc(container(**context(capabilities=given)))["process"]["capabilities"]
    assert caps == dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable", "ambient"), ["CAP_NET_BIND_SERVICE"]
    )


def test_no_such_capability() -> None:
    given = {"add_capabilities": ["CHOWN", "FLY"]}
    place = "linux.security_context.capabilities.add_capabilities.1"
    refused(place, "FLY", config=container(**context(capabilities=given)))


def test_a_lower_oom_score_than_ours_takes_a_capability() -> None:
    config = container(linux={"resources": {"oom_score_adj": -998}})
    host = node(facts={"caps": (1 << 41) - 1 & ~(1 << 24)}, oom_score_adj=100)
    assert doc(config, host=host)["process"]["oomScoreAdj"] == 100 and "CAP_SYS_RESOURCE" in host.warnings[0]
    assert doc(config)["process"]["oomScoreAdj"] == -998
    refused("linux.resources.oom_score_adj", config=container(linux={"resources": {"oom_score_adj": 1001}}))


# --- namespaces ------------------------------------------------------------------------------------------------------


def kinds(made: dict[str, Any]) -> dict[str, str | None]:
    return {ns["type"]: ns.get("path") for ns in made["linux"]["namespaces"]}


@pytest.mark.parametrize(
    ("mode", "pod", "wanted"),
    [
        ("POD", Pod(), Pod().pid),
        ("CONTAINER", Pod(), None),
        ("NODE", Pod(), "none"),
        ("TARGET", Pod(), "/proc/7/ns/pid"),
    ],
)
def test_pid_modes(mode: str, pod: Pod, wanted: str | None) -> None:
    options = {"pid": mode, **({"target_id": "t" * 64} if mode == "TARGET" else {})}
    made = doc(container(**context(namespace_options=options)), pod=pod, target="/proc/7/ns/pid")
    assert kinds(made).get("pid", "none") == wanted


def test_a_pod_without_a_pid_namespace() -> None:
    pod, config = Pod(pid=None), container(**context(namespace_options={"pid": "POD"}))
    refused("linux.security_context.namespace_options.pid", config=config, pod=pod, error=FailedPrecondition)
    node_pod = sandbox_config(**context(namespace_options={"pid": "NODE"}))
    assert "pid" not in kinds(doc(config, pod=pod, pod_config=node_pod))


def test_a_user_namespace_is_the_pods_or_refused() -> None:
    """Never passed over: a container that asked for one would run as the node's root."""
    ids = [{"host_id": 100000, "container_id": 0, "length": 65536}]
    others = [{"host_id": 200000, "container_id": 0, "length": 65536}]
    owner = mapped()

    def asks(**users: Any) -> Any:
        return container(**context(namespace_options={"userns_options": users}))

    for config in (asks(uids=ids, gids=ids), asks(mode="POD"), container()):
        assert kinds(doc(config, pod=owner))["user"] == owner.user
    assert "user" not in kinds(doc(asks(mode="NODE")))
    place = "linux.security_context.namespace_options.userns_options"
    for config in (asks(uids=others, gids=ids), asks(uids=ids, gids=others), asks(mode="NODE"), asks(mode="CONTAINER")):
        refused(place, config=config, pod=owner)
    for config in (asks(uids=ids, gids=ids), asks(mode="POD"), asks(mode="TARGET")):
        refused(place, config=config)


def test_a_target_that_does_not_run() -> None:
    options = {"pid": "TARGET", "target_id": "t" * 64}
    config = container(**context(namespace_options=options))
    refused("linux.security_context.namespace_options.target_id", config=config, error=FailedPrecondition)
    config = container(**context(namespace_options={"pid": "TARGET"}))
    refused("linux.security_context.namespace_options.target_id", config=config, target="/proc/7/ns/pid")


def test_a_privileged_container_sees_the_whole_hierarchy_of_cgroups() -> None:
    made = doc(container(**context(privileged=True)))
    assert "cgroup" not in kinds(made) and "rw" in mount(made, "/sys/fs/cgroup")["options"]
    assert made["linux"]["cgroupsPath"] == f"/kubepods/burstable/pod1/{ID}"


# --- mounts ----------------------------------------------------------------------------------------------------------


def test_a_mount_takes_the_place_of_the_usual_one() -> None:
    mounts = [
        {"container_path": "/dev/shm/", "host_path": "/x"},
        {"container_path": "/etc/../etc/hosts", "host_path": "/y"},
        {"container_path": "/dev", "host_path": "/dev"},
    ]
    made = doc(container(mounts=mounts))
    assert mount(made, "/dev/shm")["source"] == "/x" and mount(made, "/etc/hosts")["source"] == "/y"
    assert not [m for m in made["mounts"] if m["destination"] in ("/dev/pts", "/dev/mqueue")]
    assert [m["destination"] for m in made["mounts"]].index("/dev") < [m["destination"] for m in made["mounts"]].index(
        "/dev/shm"
    )


def test_what_lies_above_is_mounted_first() -> None:
    paths = ["/a/b/c", "/z", "/a", "/a/b"]
    made = doc(container(mounts=[{"container_path": path, "host_path": "/h"} for path in paths]))
    assert [m["destination"] for m in made["mounts"][-4:]] == ["/z", "/a", "/a/b", "/a/b/c"]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, ["rbind", "rprivate", "rw"]),
        ({"readonly": True}, ["rbind", "rprivate", "ro"]),
        ({"readonly": True, "recursive_read_only": True}, ["rbind", "rprivate", "ro", "rro"]),
        ({"propagation": "PROPAGATION_HOST_TO_CONTAINER"}, ["rbind", "rslave", "rw"]),
        ({"propagation": "PROPAGATION_BIDIRECTIONAL"}, ["rbind", "rshared", "rw"]),
        ({"mount_options": ["noexec", "nosuid"]}, ["rbind", "rprivate", "rw", "noexec", "nosuid"]),
    ],
)
def test_options_of_a_mount(fields: dict[str, Any], options: list[str]) -> None:
    made = doc(container(mounts=[{"container_path": "/m", "host_path": "/h", **fields}]))
    assert mount(made, "/m")["options"] == options


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [([0], None), ([1], "rslave"), ([2], "rshared"), ([2, 1], "rshared"), ([1, 2, 0], "rshared")],
)
def test_the_root_propagates_as_its_mounts_need(kinds: list[int], wanted: str | None) -> None:
    mounts = [{"container_path": f"/m{i}", "host_path": "/h", "propagation": kind} for i, kind in enumerate(kinds)]
    assert doc(container(mounts=mounts))["linux"].get("rootfsPropagation") == wanted


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"container_path": "relative"}, "mounts.0.container_path"),
        ({"container_path": ""}, "mounts.0.container_path"),
        ({"host_path": ""}, "mounts.0.host_path"),
        ({"host_path": "relative"}, "mounts.0.host_path"),
        ({"recursive_read_only": True}, "mounts.0.recursive_read_only"),
        ({"recursive_read_only": True, "readonly": True, "propagation": 1}, "mounts.0.recursive_read_only"),
        ({"image_sub_path": "x"}, "mounts.0.image_sub_path"),
        ({"mount_options": ["noexec", "size=3"]}, "mounts.0.mount_options.1"),
        ({"propagation": 7}, "mounts.0.propagation"),
        ({"host_path": "", "image": {"image": "other"}, "readonly": True}, "mounts.0.image"),
        ({"host_path": "", "image": {"image": "other"}}, "mounts.0.readonly"),
        ({"image": {"image": "other"}}, "mounts.0.host_path"),
    ],
)
def test_mounts_that_can_not_be(fields: dict[str, Any], place: str) -> None:
    refused(place, config=container(mounts=[{"container_path": "/m", "host_path": "/h", **fields}]))


MOUNTINFO = """\
22 1 0:20 / / rw shared:1 - ext4 /dev/sda rw
23 22 0:21 / /srv rw - ext4 /dev/sdb rw
24 22 0:22 / /var/lib/a\\040b rw master:3 - ext4 /dev/sdc rw
25 23 0:23 / /srv rw shared:9 - ext4 /dev/sdd rw
26 23 0:24 / /srv/private rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "point"),
    [("/srv/x", "/srv"), ("/srvx", "/"), ("/var/lib/a b/c", "/var/lib/a b"), ("/srv/private", "/srv/private")],
)
def test_the_mount_that_a_path_lies_on(path: str, point: str) -> None:
    assert mount_of(path, MOUNTINFO)[0] == point
    assert mount_of("/srv", MOUNTINFO)[1] == ["shared:9"], "of two on one place the last"


@pytest.mark.parametrize(
    ("source", "propagation", "works"),
    [
        ("/x", 2, True),
        ("/srv", 2, True),
        ("/srv/private/x", 2, False),
        ("/srv/private", 1, False),
        ("/var/lib/a b", 1, True),
        ("/var/lib/a b", 2, False),
        ("/srv/private", 0, True),
    ],
)
def test_a_source_that_does_not_propagate_is_refused(source: str, propagation: int, works: bool) -> None:
    config = container(mounts=[{"container_path": "/m", "host_path": source, "propagation": propagation}])
    if works:
        doc(config, host=node(mountinfo=MOUNTINFO))
    else:
        refused("mounts.0.propagation", config=config, host=node(mountinfo=MOUNTINFO))


def test_files_of_etc_belong_to_the_pods_root_where_the_kernel_can_say_so() -> None:
    assert mount(doc(pod=mapped()), "/etc/hosts")["uidMappings"] == [
        {"containerID": 0, "hostID": 100000, "size": 65536}
    ]
    assert "uidMappings" not in mount(doc(pod=mapped(), host=node(facts={"kernel": (6, 1)})), "/etc/hosts")
    assert "uidMappings" not in mount(doc(), "/etc/hosts")


def test_sysfs_needs_the_network_namespace() -> None:
    made = doc(pod=mapped(net=None, uts=None))
    assert mount(made, "/sys")["type"] == "bind" and "rro" in mount(made, "/sys")["options"]
    assert mount(doc(pod=mapped()), "/sys")["type"] == "sysfs"


def test_an_idmapped_mount() -> None:
    maps = {"uidMappings": [{"container_id": 0, "host_id": 5, "length": 9}]}
    maps["gidMappings"] = maps["uidMappings"]
    made = doc(container(mounts=[{"container_path": "/m", "host_path": "/h", **maps}]), pod=mapped())
    assert mount(made, "/m")["uidMappings"] == [{"containerID": 0, "hostID": 5, "size": 9}]


def test_a_mount_of_an_image() -> None:
    config = container(mounts=[{"container_path": "/m", "image": {"image": "other"}, "readonly": True}])
    made = doc(config, images={0: ImageMount(("/l,1", "/l2"), "/e")})
    options = ["ro", "nosuid", "nodev", "lowerdir=/l\\,1:/l2"]
    assert mount(made, "/m") == {"destination": "/m", "type": "overlay", "source": "overlay", "options": options}
    made = doc(config, images={0: ImageMount(("/l1",), "/e")})
    assert mount(made, "/m")["options"][-1] == "lowerdir=/l1:/e"
    made = doc(config, images={0: ImageMount(("/l1/etc/file",), "/e", is_file=True)})
    assert mount(made, "/m")["source"] == "/l1/etc/file" and "ro" in mount(made, "/m")["options"]


def test_volumes_of_the_image_are_of_its_root_but_for_what_is_mounted() -> None:
    config = container(mounts=[{"container_path": "/data/", "host_path": "/h"}])
    image = Image(volumes=("/data", "/../../etc", "var//log", "/", "/a\0b"))
    assert plan_root(config, image, LAYERS, "/ctr", Pod()).volumes == ("/etc", "/var/log")


# --- what never gets in ----------------------------------------------------------------------------------------------


def test_cve_2026_53488_and_2026_53492_and_2024_3154_words_of_the_image_mean_nothing() -> None:
    """CVE-2026-53488, CVE-2024-3154, CVE-2026-53492."""
    evil = {"org.systemd.property.ExecStart": "x", "cdi.k8s.io/gpu": "vendor.com/gpu=all", "run.oci.hooks.stdout": "/x"}
    image = Image(labels={"io.containerd.log": "binary:///bin/sh", "evil": "1"})
    made = doc(container(annotations=evil, labels=evil), image=image)
    text = json.dumps(made)
    for word in ("ExecStart", "vendor.com", "binary:", "evil", "hooks"):
        assert word not in text
    assert made["annotations"]["io.kubernetes.cri.sandbox-id"] == POD_ID


def test_what_is_not_supported_is_refused_by_name() -> None:
    refused("windows", config=container(windows={"security_context": {"run_as_username": "x"}}))
    refused("stdin_once", config=container(stdin_once=True))


# --- logs and signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/abs", "../x", "a/../../x", "a//b", ".", "a/", "..", "a\0b"], ids=lambda path: repr(path)
)
def test_cve_2025_0750_a_log_never_leads_out(path: str) -> None:
    """CVE-2025-0750."""
    with pytest.raises(InvalidArgument, match="^log_path"):
        log_path(container(log_path=path), sandbox_config(log_directory="/var/log/pods/x"))


def test_where_a_log_is() -> None:
    pod = sandbox_config(log_directory="/var/log/pods/x/")
    assert log_path(container(log_path="web/0.log"), pod) == "/var/log/pods/x/web/0.log"
    assert log_path(container(), pod) == ""
    with pytest.raises(InvalidArgument, match="log_directory"):
        log_path(container(log_path="0.log"), sandbox_config())


@pytest.mark.parametrize(
    ("given", "image", "number"),
    [
        (0, "", 15),
        (0, "SIGQUIT", 3),
        (0, "quit", 3),
        (0, "9", 9),
        (0, "SIGRTMIN+3", 37),
        (0, "RTMAX-1", 63),
        (0, "SIGNONSENSE", 15),
        (0, "0", 15),
        (0, "65", 15),
        ("SIGNAL_SIGTERM", "SIGQUIT", 15),
        ("SIGNAL_SIGUSR1", "", 10),
        ("SIGNAL_SIGSTKFLT", "", 16),
        ("SIGNAL_SIGRTMIN", "", 34),
        ("SIGNAL_SIGRTMINPLUS15", "", 49),
        ("SIGNAL_SIGRTMAXMINUS14", "", 50),
        ("SIGNAL_SIGRTMAX", "", 64),
    ],
)
def test_stop_signals(given: Any, image: str, number: int) -> None:
    assert stop_signal(container(stop_signal=given), Image(stop_signal=image)) == number


def test_signals_in_the_cris_own_numbers() -> None:
    from pyrun import cri_api as v1

    for name, enum in v1.Signal.items():
        number = stop_signal(container(stop_signal=enum), Image())
        if enum and name not in ("SIGNAL_SIGCLD", "SIGNAL_SIGIOT", "SIGNAL_SIGPOLL"):
            assert signal_enum(number) == enum, name
