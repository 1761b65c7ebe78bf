"""No field of a request is passed over: each one changes what comes of the request, is refused by its name, or stands
in a table here with the module that reads it, or with why it means nothing to a Linux runtime.

The fields are those of the messages themselves, so one that a newer CRI brings fails here until somebody decides."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from pyrun import cri_api as v1
from pyrun.cri.server import functions
from pyrun.errors import PyrunError
from pyrun.facts import Facts
from pyrun.oci.model import IdMapping
from pyrun.pod.network.model import PodNet
from pyrun.pod.sandbox.config import plan_request
from pyrun.pod.spec import apparmor, log_path, log_rate, look_up_user, plan_root, stop_signal
from pyrun.pod.spec.layers import ImageMount
from pyrun.pod.spec.node import HostDevice
from tests.support.cri.drafts import LAYERS
from tests.support.cri.requests import Image, Pod, draft, node, sandbox_config

REPO = Path(__file__).resolve().parents[2]
MAP = {"host_id": 100000, "container_id": 0, "length": 65536}
CONTEXT = "linux.security_context."
RESOURCES = "linux.resources."
TEXT = "x"


def leaves(message: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Each field that holds a value, as path and descriptor; of a list's items as of one."""
    for field in message.fields:
        path = above + field.name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            yield path, field
        else:
            yield from leaves(field.message_type, f"{path}.")


# What a field must be to mean something, where that is not "x", 1 or true; and what it can't be without.
VALUES: dict[str, Any] = {
    "envs.key": "A",
    "working_dir": "/srv",
    "mounts.container_path": "/other",
    "mounts.host_path": "/other",
    "mounts.propagation": 1,
    "mounts.mount_options": ["noexec"],
    "mounts.image_sub_path": "sub",
    "devices.container_path": "/dev/other",
    "devices.host_path": "/dev/null",
    "devices.permissions": "r",
    "stop_signal": v1.Signal.Value("SIGNAL_SIGUSR1"),
    "log_path": "web/0.log",
    f"{RESOURCES}cpuset_cpus": "0",
    f"{RESOURCES}cpuset_mems": "0",
    f"{RESOURCES}memory_limit_in_bytes": 1 << 26,
    f"{RESOURCES}memory_swap_limit_in_bytes": 1 << 27,
    f"{RESOURCES}cpu_quota": 2000,
    f"{RESOURCES}cpu_period": 2000,
    f"{RESOURCES}hugepage_limits.page_size": "1GB",
    f"{RESOURCES}unified": {"memory.high": "1000000"},
    f"{CONTEXT}capabilities.add_capabilities": ["NET_ADMIN"],
    f"{CONTEXT}capabilities.drop_capabilities": ["CHOWN"],
    f"{CONTEXT}capabilities.add_ambient_capabilities": ["NET_BIND_SERVICE"],
    f"{CONTEXT}namespace_options.network": v1.NODE,
    f"{CONTEXT}namespace_options.ipc": v1.NODE,
    f"{CONTEXT}namespace_options.pid": v1.NODE,
    f"{CONTEXT}run_as_username": "somebody",
    f"{CONTEXT}supplemental_groups": [7],
    f"{CONTEXT}masked_paths": ["/proc/x"],
    f"{CONTEXT}readonly_paths": ["/proc/x"],
    f"{CONTEXT}seccomp.profile_type": 1,
    f"{CONTEXT}seccomp.localhost_ref": "/p.json",
    f"{CONTEXT}seccomp_profile_path": "runtime/default",
    f"{CONTEXT}apparmor.profile_type": 2,
}
WITH: dict[str, dict[str, Any]] = {
    "mounts.": {"mounts": [{"container_path": "/m", "host_path": "/h"}]},
    "mounts.recursive_read_only": {"mounts": [{"container_path": "/m", "host_path": "/h", "readonly": True}]},
    "mounts.image": {"mounts": [{"container_path": "/m", "readonly": True, "image": {"image": "i"}}]},
    "devices.": {"devices": [{"container_path": "/dev/x", "host_path": "/dev/fuse", "permissions": "rw"}]},
    "envs.": {"envs": [{"key": "B", "value": "Yg=="}]},
    f"{RESOURCES}memory_swap": {"linux": {"resources": {"memory_limit_in_bytes": 1 << 26}}},
    f"{RESOURCES}hugepage_limits": {"linux": {"resources": {"hugepage_limits": [{"page_size": "2MB", "limit": 5}]}}},
    "port_mappings.": {"port_mappings": [{"container_port": 80, "host_port": 8080}]},
    f"{CONTEXT}namespace_options.userns_options.": {
        "linux": {"security_context": {"namespace_options": {"userns_options": {"uids": [MAP], "gids": [MAP]}}}}
    },
    f"{CONTEXT}run_as_group": {"linux": {"security_context": {"run_as_user": {"value": 5}}}},
    f"{CONTEXT}apparmor.": {"linux": {"security_context": {"apparmor": {"localhost_ref": "x"}}}},
    f"{CONTEXT}apparmor.localhost_ref": {
        "linux": {"security_context": {"apparmor": {"profile_type": 2, "localhost_ref": "y"}}}
    },
    f"{CONTEXT}seccomp.": {"linux": {"security_context": {"seccomp": {"profile_type": 2, "localhost_ref": "/q.json"}}}},
}
# Fields of ContainerConfig whose effect is not in its config.json: the module that reads each, by its name.
CONTAINER_ELSEWHERE = {
    "metadata.attempt": "pod/pods.py",
    "image.image": "pod/making.py",
    "image.user_specified_image": "pod/making.py",
    "labels": "cri/statuses.py",
    "annotations": "cri/statuses.py",
    "stdin": "pod/handler/own.py",
    "stdin_once": "pod/handler/own.py",
    "mounts.selinux_relabel": "pod/spec/sources.py",
    "mounts.image.image": "pod/making.py",
    "mounts.image_sub_path": "pod/making.py",
    "CDI_devices": "pod/spec/node.py",
    f"{CONTEXT}namespace_options.target_id": "pod/making.py",
}
# The same of PodSandboxConfig.
POD_ELSEWHERE = {
    "metadata.attempt": "pod/pod.py",
    "log_directory": "pod/making.py",
}
# What a Linux runtime without a process of the pod's own has nothing to do with: a container's request has its own.
THE_KUBELETS = "the pod's cgroup is the kubelet's, who has written this there before it asks"
NO_PROCESS = "a pod has no process of its own; each container says this for itself"
POD_NOTHING = {
    "linux.overhead": THE_KUBELETS,
    "linux.resources": THE_KUBELETS,
    f"{CONTEXT}namespace_options.pid": "each container says whose processes it sees; modes that are none are refused",
    **{
        f"{CONTEXT}{name}": NO_PROCESS
        for name in (
            "run_as_user",
            "run_as_group",
            "selinux_options",
            "readonly_rootfs",
            "supplemental_groups",
            "supplemental_groups_policy",
            "privileged",
            "seccomp",
            "apparmor",
            "seccomp_profile_path",
            "namespace_options.target_id",
        )
    },
}
CONTAINER_NOTHING = {
    **{
        f"{place}image.{name}": "an image is found by its name alone"
        for place in ("", "mounts.")
        for name in ("annotations", "runtime_handler", "image_ref")
    },
    "mounts.image.user_specified_image": "it is told of a container's own image, by a kubelet",
}


def given(tables: tuple[dict[str, Any], ...], path: str) -> Any:
    """The row of the table for this field or for what it is in."""
    for table in tables:
        for name, row in table.items():
            if path == name or path.startswith(f"{name}."):
                return row
    return None


def base_of(path: str, config: Any) -> Any:
    """A request that has what the field needs beside it."""
    with_it = [more for start, more in WITH.items() if path.startswith(start)]
    if with_it:
        json_format.ParseDict(with_it[-1], config)
    return config


def put(config: Any, path: str, field: Any) -> None:
    """Gives the field a value that is not its default."""
    *above, name = path.split(".")
    for part in above:
        config = getattr(config, part)
        if hasattr(config, "add"):
            config = config[0] if config else config.add()
    value = VALUES.get(path)
    if field.message_type is not None:
        getattr(config, name).update(value or {TEXT: TEXT})
    elif field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
        getattr(config, name)[:] = value or ([TEXT] if field.cpp_type == field.CPPTYPE_STRING else [1])
    elif field.cpp_type == field.CPPTYPE_STRING:
        setattr(config, name, value or (b"x" if field.type == field.TYPE_BYTES else TEXT))
    else:
        setattr(config, name, value or True if field.cpp_type == field.CPPTYPE_BOOL else value or 1)


def container_outcome(config: Any, root: str) -> str:
    """All that comes of a ContainerConfig before something is run."""
    image, pod, host = Image(), Pod(), node(facts={"lsm": frozenset(("selinux",))})
    if config.linux.security_context.namespace_options.HasField("userns_options"):
        maps = (IdMapping(container_id=MAP["container_id"], host_id=MAP["host_id"], size=MAP["length"]),)
        pod = Pod(user="/ns/user", uid_mappings=maps, gid_mappings=maps)
    host.apparmor = frozenset(("x", "y", apparmor.NAME))
    paths = ("/dev/fuse", "/dev/null", "/dev/x")
    host.devices = {path: [HostDevice(path, "c", 10, minor)] for minor, path in enumerate(paths)}
    host.profiles = {
        "/p.json": b'{"defaultAction":"SCMP_ACT_LOG"}',
        "/q.json": b'{"defaultAction":"SCMP_ACT_ALLOW"}',
    }
    user = look_up_user((root,), config, image)
    images = {index: ImageMount(("/layer",), "/empty") for index, m in enumerate(config.mounts) if m.image.image}
    directory = sandbox_config(log_directory="/var/log/pods/x")
    made = draft(config, image=image, pod=pod, pod_config=directory, user=user, host=host, images=images).doc
    overlay = plan_root(config, image, LAYERS, "/ctr", pod)
    return json.dumps(
        [
            made,
            [getattr(overlay, name) for name in overlay.__slots__],
            [user.uid, user.gid, user.groups],
            log_path(config, directory),
            log_rate(config, directory),
            stop_signal(config, image),
        ],
        sort_keys=True,
    )


def pod_outcome(config: Any, root: str) -> str:
    """All that comes of a PodSandboxConfig before something is made."""
    files = {"resolv.conf": "", "hostname": "node1", "hosts": ""}
    request = plan_request("a" * 64, "/run/p", config, Facts(), files=files)
    net = PodNet.of("a" * 64, config, "/netns")
    ports = [[p.protocol, p.host_port, p.container_port, p.host_ip] for p in net.port_mappings]
    words = [net.name, net.namespace, net.uid, net.dns, net.labels, net.annotations, ports]
    fields = [repr(getattr(request, name)) for name in request.__slots__]
    return json.dumps([fields, words])


def rows(message: Any) -> list[Any]:
    return [pytest.param(path, field, id=path) for path, field in leaves(message.DESCRIPTOR)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("layer")
    (path / "etc").mkdir()
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nsomebody:x:9:9::/:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nmore:x:8:root\n")
    return str(path)


def check(path: str, base: Any, field: Any, outcome: Any, root: str) -> None:
    before = outcome(base, root)
    changed = type(base)()
    changed.CopyFrom(base)
    put(changed, path, field)
    assert changed != base, "the value is the default"
    try:
        after = outcome(changed, root)
    except PyrunError as error:
        place = re.sub(r"\.\d+", "", error.text).partition(":")[0]
        assert f"{path}.".startswith(f"{place}."), f"{path}: {error.text}"
        return
    assert after != before, f"{path} is passed over in silence"


@pytest.mark.parametrize(("path", "field"), rows(v1.ContainerConfig))
def test_of_a_container(path: str, field: Any, root: str) -> None:
    if given((CONTAINER_ELSEWHERE, CONTAINER_NOTHING), path):
        return
    base = json_format.ParseDict({"metadata": {"name": "c"}, "image": {"image": "i"}}, v1.ContainerConfig())
    check(path, base_of(path, base), field, container_outcome, root)


@pytest.mark.parametrize(("path", "field"), rows(v1.PodSandboxConfig))
def test_of_a_pod(path: str, field: Any, root: str) -> None:
    if given((POD_ELSEWHERE, POD_NOTHING), path):
        return
    check(path, base_of(path, v1.PodSandboxConfig()), field, pod_outcome, root)


def requests() -> list[Any]:
    """The fields of all other requests; a part that is a message of its own is taken as one."""
    rpcs = [rpc for service in v1.SERVICES.values() for rpc in service.values()]
    pairs = [(rpc.name, field.name) for rpc in rpcs for field in rpc.request.DESCRIPTOR.fields]
    return [pytest.param(*pair, id=".".join(pair)) for pair in pairs]


# No module reads these: why.
REQUEST_NOTHING = {
    ("UpdateContainerResources", "annotations"): "they are a container's of its making, and have no meaning for pyrun",
    ("Version", "version"): "what a client says of itself; the answer is the same for all",
    ("PortForward", "port"): "the stream's headers name the port of each connection",
    ("PullImage", "sandbox_config"): "an image comes the same way for all pods",
    ("CheckpointContainer", "*"): "Unimplemented",
    ("CheckpointPod", "*"): "Unimplemented",
    ("RestorePod", "*"): "Unimplemented",
}


@pytest.mark.parametrize(("rpc", "name"), requests())
def test_of_the_other_requests(rpc: str, name: str) -> None:
    """A function that answers an RPC reads each field of its request."""
    if REQUEST_NOTHING.keys() & {(rpc, name), (rpc, "*")}:
        return
    function = next(by_name[rpc] for by_name in functions().values() if rpc in by_name)
    source = inspect.getsource(sys.modules[function.__module__])
    assert re.search(rf"request\.(HasField\(\"{name}\"\)|{name}\b)", source), f"{rpc}.{name} is passed over in silence"


@pytest.mark.parametrize(("path", "module"), [*CONTAINER_ELSEWHERE.items(), *POD_ELSEWHERE.items()])
def test_what_is_read_elsewhere_is_read_there(path: str, module: str) -> None:
    name = path.rpartition(".")[2]
    assert re.search(rf"\.{name}\b", (REPO / "pyrun" / module).read_text())
