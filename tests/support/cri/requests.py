"""Requests of the CRI in a line, as JSON has them; an image's config; and what a pod has, without making one."""

from __future__ import annotations

import base64
import copy
from typing import Any

from google.protobuf import json_format

from pyrun import cri_api as v1
from pyrun.facts import Facts
from pyrun.oci.model import IdMapping
from pyrun.pod.spec import Draft, Node, Settings, User, draft_container

CONTROLLERS = frozenset(("cpu", "cpuset", "io", "memory", "hugetlb", "pids"))
MAPS = (IdMapping(container_id=0, host_id=100000, size=65536),)
ID = "c" * 64
POD_ID = "9" * 64


class Image:
    """An image's config, as pyrun.image has it."""

    def __init__(self, **values: Any) -> None:
        self.user = ""
        self.env: tuple[str, ...] = ()
        self.entrypoint: tuple[str, ...] = ()
        self.cmd: tuple[str, ...] = ("sh",)
        self.working_dir = ""
        self.volumes: tuple[str, ...] = ()
        self.labels: dict[str, str] = {}
        self.stop_signal = ""
        for name, value in values.items():
            setattr(self, name, value)


class Pod:
    """What pod.sandbox.Sandbox has, with paths that are nowhere."""

    def __init__(self, **values: Any) -> None:
        self.id = POD_ID
        self.directory = directory = f"/run/pyrun-cri/pods/{POD_ID}"
        self.net: str | None = directory + "/ns/net"
        self.ipc: str | None = directory + "/ns/ipc"
        self.uts: str | None = directory + "/ns/uts"
        self.user: str | None = None
        self.pid: str | None = directory + "/ns/pid"
        self.hostname = "web-0"
        self.resolv_conf = directory + "/resolv.conf"
        self.hostname_file = directory + "/hostname"
        self.hosts = directory + "/hosts"
        self.shm = directory + "/ns/shm"
        self.cgroup_parent = "/kubepods/burstable/pod1"
        self.slice = ""
        self.uid_mappings: tuple[IdMapping, ...] = ()
        self.gid_mappings: tuple[IdMapping, ...] = ()
        for name, value in values.items():
            setattr(self, name, value)


def mapped(**values: Any) -> Pod:
    """The same in a user namespace."""
    pod = Pod(uid_mappings=MAPS, gid_mappings=MAPS, **values)
    pod.user = pod.directory + "/ns/user"
    return pod


def container(**fields: Any) -> Any:
    """A ContainerConfig: container(args=["true"], linux={"security_context": {"privileged": True}})."""
    given = {"metadata": {"name": "web"}, "image": {"image": "busybox:1"}, **copy.deepcopy(fields)}
    for pair in given.get("envs", ()):
        pair["value"] = base64.b64encode(pair["value"].encode("utf-8", "surrogateescape")).decode()
    return json_format.ParseDict(given, v1.ContainerConfig())


def context(**fields: Any) -> dict[str, Any]:
    """The part of a request that most tests are about: container(**context(privileged=True))."""
    return {"linux": {"security_context": fields}}


def sandbox_config(**fields: Any) -> Any:
    metadata = {"name": "web-0", "namespace": "default", "uid": "0123"}
    return json_format.ParseDict({"metadata": metadata, **fields}, v1.PodSandboxConfig())


def node(settings: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **values: Any) -> Node:
    host = Facts(**{"kernel": (6, 12), "controllers": CONTROLLERS, **(facts or {})})
    given = {"hostname": "node1", "page_sizes": frozenset(("2MB", "1GB")), **values}
    return Node(host, Settings(**(settings or {})), **given)


def draft(
    config: Any,
    *,
    image: Image | None = None,
    pod: Pod | None = None,
    pod_config: Any = None,
    user: User | None = None,
    host: Node | None = None,
    **words: Any,
) -> Draft:
    """draft_container() with what a test says nothing about."""
    return draft_container(
        config,
        pod_config or sandbox_config(),
        image or Image(),
        user or User(0, 0, (0,), "/root"),
        pod or Pod(),
        host or node(),
        id=ID,
        **words,
    )
