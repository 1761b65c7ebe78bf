"""What create and run are made of: config.json, the host's facts and the caller's words become a plan.

What a later start and delete will do is planned here too, and kept in the record for the launcher to replay.
"""

from __future__ import annotations

import posix
import time

from ..errors import ConfigError, PyrunError, reason
from ..facts import Facts, collect_facts
from ..oci.load import load_bytes, read_file
from ..oci.model import Spec
from ..plan.cgroup.cgroups import cgroup_path, check_no_limits, is_writable
from ..plan.create import plan_create
from ..plan.lifecycle import plan_delete, plan_start
from ..plan.model.request import Request
from ..plan.process.hooks import hooks_of, quote
from . import record as rec
from .descriptors import check_stdio, kept_descriptors, with_listen_fds
from .request import callers_environment
from .store import Store, boot_id, here, is_there


class Config:
    """A config.json: its bytes, which exec and update read later, and its Spec. ConfigError where it can't be read."""

    __slots__ = ("data", "spec")

    def __init__(self, given: bytes | Spec) -> None:
        if isinstance(given, Spec):
            from ..oci.dump import dump_spec

            self.data = dump_spec(given)
        else:
            self.data = given
        self.spec = load_bytes(self.data)


class Prepared:
    """A create that is planned but not begun: spec, facts, request and plan."""

    __slots__ = ("facts", "plan", "request", "spec")

    def __init__(self, spec: Spec, facts: Facts, request: Request) -> None:
        self.spec = spec
        self.facts = facts
        self.request = request
        self.plan = plan_create(spec, facts, request)


def read_config(bundle: str, file: str | None = None) -> Config:
    """The bundle's config.json, or another file in its place. PyrunError."""
    path = _absolute(bundle)
    try:
        posix.stat(path)
    except OSError as e:
        raise PyrunError(
            f"bundle {path}: {reason(e)}",
            hint="--bundle names a directory with config.json; the default is the working directory",
        ) from None
    return Config(read_file(file or path + "/config.json"))


def prepare(
    store: Store,
    container: str,
    bundle: str,
    config: Config | None = None,
    *,
    park: bool = True,
    facts: Facts | None = None,
    rootless: bool | None = None,
    preserve_fds: int = 0,
    listen_fds: int = 0,
    notify: bool = False,
    imagine: bool = False,
    **words: object,
) -> Prepared:
    """Plans a create (park) or a run. PyrunError; nothing has been made then.

    config: else the bundle's own. facts: else they are collected, rootless as collect_facts() has it. notify: the
    container gets a $NOTIFY_SOCKET. imagine: the plan is only to be shown, so rare things of the host are taken to be
    there. words: more attributes of Request."""
    directory = state_directory(store, container)
    config = config or read_config(bundle)
    spec, path = config.spec, _absolute(bundle)
    kept = kept_descriptors(preserve_fds, listen_fds)
    spec = with_listen_fds(spec, listen_fds)
    notify = notify and spec.process is not None
    if notify:
        from ..plan.rootfs.notify import with_notify

        spec = with_notify(spec, directory)
    facts = facts.copy() if facts is not None else collect_facts(rootless)
    linux = spec.linux
    joined = any(namespace.type == "user" and namespace.path for namespace in linux.namespaces) if linux else False
    if linux and (linux.net_devices or linux.intel_rdt or is_writable(spec) or joined):
        from ..facts_rare import collect_rare

        collect_rare(facts, spec, container, imagine=imagine)
    request = Request(
        id=container,
        bundle=path,
        state_dir=directory,
        config=config.data,
        park=park,
        rootfs=_rootfs(spec, path),
        preserve_fds=kept,
        notify=notify,
        **words,
    )
    _check(spec, request)
    check_stdio(request.stdio, spec.process)
    request.cgroup = _cgroup(spec, facts, request, imagine)
    request.record = _record(spec, facts, request).pack()
    if spec.hooks is not None:  # after the record, in which nothing of it must lie
        request.environ = callers_environment(facts.pid)
    return Prepared(spec, facts, request)


def state_directory(store: Store, container: str) -> str:
    """Where the state of a container of this id goes. Who gave the path of a bundle in its place is told so."""
    try:
        return store.directory(container)
    except PyrunError as error:
        path = container.rstrip("/")
        if is_there(path + "/config.json"):
            name = path.rpartition("/")[2]
            error.hint = f"that is a bundle, and an id is a name: did you mean --bundle {path} {name}?"
        raise


def _check(spec: Spec, req: Request) -> None:
    if spec.process is None:
        raise ConfigError(
            [("/process", "needed to create a container")],
            hint="config.json may leave it out only for tools that never start one",
        )
    if spec.process.terminal and req.console is None and req.console_socket is None:
        raise ConfigError([("/process/terminal", "a terminal needs --console-socket, or `run` in the foreground")])
    if req.console_socket is not None and not spec.process.terminal:
        raise PyrunError(
            "--console-socket is given, but the container has no terminal",
            pointer="/process/terminal",
            hint="set process.terminal, or leave the option out",
        )


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        path = posix.getcwd() + "/" + path
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/" + "/".join(parts)


def _rootfs(spec: Spec, bundle: str) -> str:
    path = spec.root.path
    return _absolute(path if path.startswith("/") else f"{bundle}/{path}")


def _cgroup(spec: Spec, facts: Facts, req: Request, imagine: bool = False) -> str | None:
    container = req.id
    if req.no_cgroup:
        check_no_limits(spec, facts)
        return None
    if req.systemd:
        from .systemd import unit_cgroup

        return unit_cgroup(spec, facts, container, imagine=imagine)
    if facts.cgroup_mount is None and facts.rootless:
        return None
    return cgroup_path(spec, facts, container)


def _record(spec: Spec, facts: Facts, req: Request) -> rec.Record:
    kinds = {ns.type: ns.path for ns in spec.linux.namespaces} if spec.linux else {}
    flags = (
        rec.HAS_POSTSTART * bool(hooks_of(spec, "poststart") or hooks_of(spec, "startContainer") or req.notify)
        | rec.HAS_POSTSTOP * bool(hooks_of(spec, "poststop"))
        | rec.SHARED_PIDNS * (kinds.get("pid", "") is not None)
        | rec.SYSTEMD * req.systemd
        | rec.ROOTLESS * facts.rootless
        | rec.NO_KEYRING * (not req.keyring)
        | rec.NOTIFY * req.notify
    )
    created, owner = _now(), _owner(facts.euid)
    pairs = [f"\n    {quote(k)}: {quote(v)}" for k, v in spec.annotations.items()]
    annotations = ",".join(pairs)
    head = f'{{\n  "ociVersion": {quote(spec.oci_version)},\n  "id": {quote(req.id)},\n  "pid": '
    closed = annotations + "\n  " if annotations else ""
    lines = (
        f'",\n  "bundle": {quote(req.bundle)}',
        f'  "rootfs": {quote(req.rootfs)}',
        f'  "created": "{created}"',
        f'  "annotations": {{{closed}}}',
        f'  "owner": {quote(owner)}\n}}\n',
    )
    tail = ",\n".join(lines)
    text = {
        "id": req.id,
        "bundle": req.bundle,
        "rootfs": req.rootfs,
        "created": created,
        "owner": owner,
        "annotations": annotations,
        "cgroup": req.cgroup or "",
        "state_head": head,
        "state_tail": tail,
    }
    blobs: dict[str, object] = {"b_" + name: value.encode("utf-8", "surrogateescape") for name, value in text.items()}
    blobs["b_start"] = plan_start(spec, req).encode()
    blobs["b_delete"] = plan_delete(spec, req, facts.resctrl_mount).encode()
    return rec.Record(flags=flags, place=here(), boot_id=boot_id(), **blobs)


def _now() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


def _owner(uid: int) -> str:
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
