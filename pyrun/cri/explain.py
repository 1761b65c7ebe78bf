"""`pyrun cri explain`: the plan that a request would lead to, each step with the place in the request that asked for
it.

It makes nothing and needs no root: the daemon's rights are imagined, and so are the pod that a container comes into and
the image's layers. Devices, profiles and CDI specs are this node's, as they decide what is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import os

from pyrun.errors import ConfigError, InvalidArgument, PyrunError
from pyrun.facts import Facts, collect_facts
from pyrun.image.config import ImageConfig, load_config
from pyrun.oci.load import in_document_order, load_bytes, parse, read_file
from pyrun.plan.create import plan_create
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.request import Request
from pyrun.plan.sandbox import plan_sandbox
from pyrun.pod.sandbox import Sandbox
from pyrun.pod.sandbox.cgroups import CGROUPFS, SYSTEMD, is_slice
from pyrun.pod.sandbox.config import is_of_an_interface, plan_request
from pyrun.pod.spec import Draft, User, collect_node, draft_container, plan_root
from pyrun.pod.spec.layers import image_mount
from pyrun.pod.spec.users import needed_name, wanted_user
from pyrun.runtime.systemd import unit_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POD_DIRECTORY, CONTAINER_DIRECTORY = "/run/pyrun-cri/pods/POD", "/var/lib/pyrun/pods/POD/CTR"
LAYERS = ("/var/lib/pyrun/image/layers/TOPMOST/diff", "/var/lib/pyrun/image/layers/LOWEST/diff")
OTHER = ("/var/lib/pyrun/image/layers/OTHER/diff",)
ANY_IMAGE = ImageConfig(cmd=("COMMAND-OF-THE-IMAGE",))


class Explained:
    """what: "the sandbox of a pod" or "a container"; the plan, whose steps have pointers into the request; for a
    container its config.json; warnings."""

    __slots__ = ("config", "plan", "warnings", "what")

    def __init__(self, what: str, plan: Plan, config: dict[str, Any] | None, warnings: list[str]) -> None:
        self.what = what
        self.plan = plan
        self.config = config
        self.warnings = warnings


def explain_request(path: str, pod: str | None = None, image: str | None = None) -> Explained:
    """path: a file with the JSON of a RunPodSandboxRequest, a CreateContainerRequest, or of the config alone, as crictl
    takes it. pod: one with the PodSandboxConfig of a container; image: the image's own config. PyrunError."""
    document = _document(path)
    facts = _as_root(collect_facts())
    if "sandbox_config" in document or "pod_sandbox_id" in document:
        config, inside = _object(document, "config", path), "/config"
        pod_config, pod_place = (
            _message("PodSandboxConfig", document.get("sandbox_config") or {}, path),
            "/sandbox_config",
        )
    elif "config" in document or not ("image" in document or "command" in document):
        config = _object(document, "config", path) if "config" in document else document
        return _sandbox(_message("PodSandboxConfig", config, path), "/config" if "config" in document else "", facts)
    else:
        config, inside, pod_config, pod_place = document, "", None, "/pod"
    if pod is not None:
        pod_config = _message("PodSandboxConfig", _document(pod), pod)
    if pod_config is None:
        pod_config = _message("PodSandboxConfig", {"metadata": {"name": "POD"}}, path)
    loaded = ANY_IMAGE if image is None else load_config(read_file(image)).config
    message = _message("ContainerConfig", _plain_values(config), path)
    return _container(message, pod_config, loaded, facts, inside, pod_place)


def _document(path: str) -> dict[str, Any]:
    document, faults = parse(read_file(path), path)
    if faults:
        raise ConfigError(in_document_order(document, faults), file=path)
    if not isinstance(document, dict):
        raise PyrunError(
            f"{path}: is no JSON object", hint="pod-config.json or container-config.json, as crictl has it"
        )
    return document


def _object(document: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise PyrunError(f"{path}: /{name} must be an object")
    return found


def _message(name: str, document: dict[str, Any], path: str) -> Any:
    from google.protobuf import json_format

    from pyrun import cri_api as v1

    try:
        return json_format.ParseDict(document, getattr(v1, name)())
    except json_format.ParseError as error:
        raise InvalidArgument(f"{path}: {error}", hint=f"it is read as a {name} of the CRI") from None


def _plain_values(config: dict[str, Any]) -> dict[str, Any]:
    """Values of variables are bytes in the CRI, so base64 in its JSON; people write them as they are."""
    envs = config.get("envs")
    if not isinstance(envs, list):
        return config
    return config | {
        "envs": [pair | {"value": _base64(pair.get("value", ""))} for pair in envs if isinstance(pair, dict)]
    }


def _base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        base64.b64decode(value, validate=True).decode()
        return value
    except (binascii.Error, ValueError):
        return base64.b64encode(value.encode()).decode()


def _as_root(facts: Facts) -> Facts:
    facts.euid = facts.egid = 0
    facts.caps = (1 << facts.last_cap + 1) - 1
    facts.in_userns = facts.rootless = False
    facts.setgroups = True
    return facts


def _sandbox(config: Any, inside: str, facts: Facts) -> Explained:
    files = {"resolv.conf": "(the node's)\n", "hostname": os.uname().nodename + "\n", "hosts": "(the node's)\n"}
    request = plan_request("POD", POD_DIRECTORY, config, facts, files=files, driver=_driver(config))
    late = [key for key in request.sysctls if is_of_an_interface(key)]
    request.sysctls = {key: value for key, value in request.sysctls.items() if key not in late}
    plan = plan_sandbox(request, facts)
    for step in plan.steps:
        if step.at:
            step.at = inside + step.at
    told = [f"linux.sysctls.{key} is set when the pod's interface is there" for key in late]
    return Explained("the sandbox of a pod", plan, None, told)


def _container(config: Any, pod: Any, image: ImageConfig, facts: Facts, inside: str, pod_place: str) -> Explained:
    files = {"hostname": os.uname().nodename}
    words = plan_request("POD", POD_DIRECTORY, pod, facts, files=files, driver=_driver(pod))
    sandbox = Sandbox(POD_DIRECTORY, json.loads(words.record), facts.cgroup_mount or "")
    if pod.linux.security_context.namespace_options.pid == 0:  # POD
        sandbox.pid = f"{POD_DIRECTORY}/ns/pid"
    node = collect_node(facts, config, imagine=True)
    user, told = _user(config, image)
    images = {i: image_mount(OTHER, "", "/EMPTY") for i, m in enumerate(config.mounts) if m.image.image}
    target = f"/proc/PID-OF-{config.linux.security_context.namespace_options.target_id[:13]}/ns/pid"
    draft = draft_container(config, pod, image, user, sandbox, node, id="CTR", target=target, images=images)
    spec = load_bytes(json.dumps(draft.doc).encode())
    request = Request(id="CTR", bundle=CONTAINER_DIRECTORY, rootfs=f"{CONTAINER_DIRECTORY}/rootfs", config=b"{}")
    request.state_dir = "/run/pyrun-cri/containers/CTR"
    request.systemd = bool(sandbox.slice)
    if request.systemd:
        request.cgroup = unit_cgroup(spec, facts, "CTR", imagine=True)
    else:
        request.cgroup = f"{(facts.cgroup_mount or '').rstrip('/')}{spec.linux.cgroups_path}" if spec.linux else None
    request.late = True
    request.console_socket = "CONSOLE-SOCKET" if config.tty else None
    request.overlay = plan_root(config, image, LAYERS, CONTAINER_DIRECTORY, sandbox)
    try:
        plan = plan_create(spec, facts, request)
    except ConfigError as error:
        raise _placed(error, draft, inside, pod_place) from None
    for step in plan.steps:
        step.at = place_in_request(draft.origin(step.at), inside, pod_place)
    return Explained("a container", plan, draft.doc, [*told, *node.warnings])


def _driver(pod: Any) -> str:
    """The one that the request is for, whatever there is here."""
    return SYSTEMD if is_slice(pod.linux.cgroup_parent) else CGROUPFS


def _user(config: Any, image: ImageConfig) -> tuple[User, list[str]]:
    """Numbers as they are. Who a name is only the image knows."""
    name = needed_name(config, image)
    if name is None:
        uid, gid, place = wanted_user(config, image)
        return User(uid, gid, (gid, *config.linux.security_context.supplemental_groups), "/", place), []
    return User(0, 0, (0,), "/HOME"), [f"who {name!r} is stands in the image's /etc/passwd: shown as 0"]


def place_in_request(origin: str | None, inside: str, pod: str) -> str | None:
    """A dotted place as a pointer; None for what every container has."""
    if origin in (None, "config"):
        return None
    assert origin is not None
    if origin == "pod" or origin.startswith("pod."):
        return pod + origin[3:].replace(".", "/")
    return f"{inside}/{origin.replace('.', '/')}"


def _placed(error: ConfigError, draft: Draft, inside: str, pod: str) -> PyrunError:
    """The planner's faults with the places of the request."""
    faults = [(place_in_request(draft.origin(at), inside, pod) or at, text) for at, text in error.faults]
    return ConfigError(faults, file="request", hint=error.hint)
